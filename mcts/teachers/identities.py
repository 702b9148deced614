"""Names and identities of teachers, one model or several.

    members("my-sft + http://gpu:8000")            # ["my-sft", "http://gpu:8000"]
    member_of("a@1 + b@2", seed)                   # the identity of the model whose turn it is

An identity names the weights, so that what was asked of them is never mixed up with another's. That
of several models that are one teacher (`mcts.teachers.ensemble`) is theirs, joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
TOGETHER = " + "
"""Between the names, and between the identities, of several models that are one teacher."""


def members(name: str) -> list[str]:
    """Split the name, or the identity, of a teacher into those of its models: usually one."""
    return [member.strip() for member in name.split(TOGETHER)]


def alone(identity: str) -> str:
    """Return the identity of one model in a form that is never read as that of several."""
    return identity.replace(TOGETHER, "+")


def member_of(identity: str, seed: int) -> str:
    """Return the identity of the model that draws the sample with this seed.

    Args:
        identity: a teacher's; one that is not several models draws it itself.
    """
    return drawn_by(members(identity), seed)


def drawn_by(models: Sequence[T], seed: int) -> T:
    """Return which of several models draws the sample with this seed."""
    return models[seed % len(models)]

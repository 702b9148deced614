"""What a request to a teacher may be."""

from __future__ import annotations

import pytest

from mcts.teachers.base import MAX_SEED, Message, Request, TextPart


def request(**changed: object) -> Request:
    fields = {
        "messages": (Message("user", (TextPart("Where?"),)),), "n": 1, "temperature": 1.0,
        "top_p": 1.0, "max_tokens": 1, "stop": (), "seed": 0,
    }  # fmt: skip
    return Request(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("changed", [{"messages": ()}, {"n": 0}, {"max_tokens": 0}])
def test_a_request_asks_something_for_something(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a message, and n and max_tokens of at least 1"):
        request(**changed)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_fits_into_63_bits(seed: int) -> None:
    assert request(seed=0).seed == 0 and request(seed=MAX_SEED).seed == 2**63 - 1
    with pytest.raises(ValueError, match=r"is outside 0\.\.2\*\*63-1"):
        request(seed=seed)

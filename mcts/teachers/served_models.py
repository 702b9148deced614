"""Which model a server serves, and the identity under which its answers are kept.

identify("qwen", {"qwen": {"root": "/weights"}}, revision="", fields={})     # qwen@/weights
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from mcts.data import content_id
from mcts.teachers.base import TeacherUnavailable
from mcts.teachers.identities import alone

_LISTED = 10
"""Models of a server that are named in a sentence; hosted ones serve hundreds."""


def identify(
    model: str, cards: Mapping[str, Mapping[str, Any]], revision: str, fields: Mapping[str, Any]
) -> str:
    """Return the identity of a served model: its name, its root path, what changes its answers.

    Args:
        cards: the served models by name.
        revision: of the weights, as the user says.
        fields: added to every request.

    Raises:
        LookupError: it is not served; the text says which are.
    """
    # Some list `models/NAME` and take NAME.
    name = next((n for n in (model, f"models/{model}") if n in cards), None)
    if name is None:
        close = difflib.get_close_matches(model, cards, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise LookupError(f"{listed(cards)}, not {model}{hint}")
    # `created` and `permission` change at each start of the server; `root` does not. A name
    # with a hash of the weights is more precise than the folder they were loaded from.
    root = cards[name].get("root") if "@" not in model else None
    added = f"fields-{content_id(dict(fields))[:12]}" if fields else None
    names = [model, root if root != model else None, revision, added]
    return alone("@".join(str(part) for part in names if part))


def listed(names: Iterable[str]) -> str:
    """Return some of the names, and how many more there are."""
    all_names = list(names)
    shown = ", ".join(all_names[:_LISTED]) or "nothing"
    more = len(all_names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def unreachable(url: str, reason: str, permanent: bool) -> TeacherUnavailable:
    """Say that no server is reached."""
    if permanent or "proxy" in reason:
        sentence = f"{url} can't be reached: {reason}."
    else:
        sentence = (
            f"No model server answers at {url} ({reason}): "
            "start it, or name another teacher; answers already given are kept."
        )
    return TeacherUnavailable(sentence, permanent=permanent)


def not_served(url: str, model: str | None, words: str) -> TeacherUnavailable:
    """Say that a server does not know the model, whatever it is asked: it may be loading."""
    return TeacherUnavailable(
        f"{url} does not serve {model} ({words}): name another model, or give the same command "
        "again once it does; answers already given are kept.",
        permanent=True,
    )

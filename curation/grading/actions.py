"""Browser actions as texts, and when two of them are the same.

    parse_action("type [7] [red wine glass]")     # Action("type", ("7", "red wine glass", "1"))
    parse_action("noop")                          # None: the environment has no such action
    same_action(action, gold)                     # every part equal, not only the name

The grammar is VisualWebArena's (browser_env/actions.py, by element numbers): `click [n]`, `hover
[n]`, `clear [n]`, `type [n] [text] [1]` where the last says whether Enter is pressed behind it (it
is when left out), `upload [n] [path]`, `press [keys]`, `scroll [up|down]`, `goto [url]`, `tab_focus
[n]`, `new_tab`, `close_tab`, `go_back`, `go_forward`, `stop [answer]`. Anything else is malformed.

The environment takes the first action that stands in a text. Here a text is one action, in capitals
or not, with nothing around it but code marks, bold type, quotes and end marks: `click [12].`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import regex

from curation.grading.formulas import unwrap
from curation.grading.normalize import bare, fold, normalize_spaces

NO_ARGUMENT = frozenset({"new_tab", "close_tab", "go_back", "go_forward"})
DIRECTIONS = frozenset({"up", "down"})
_ON_ELEMENTS = frozenset({"click", "hover", "clear", "tab_focus"})  # their argument is a number
_OF_TEXTS = frozenset({"press", "goto"})
_TYPING = frozenset({"type", "upload"})

_ACTION = regex.compile(r"(\w+)\s*(.*)", regex.DOTALL)
_TYPED = regex.compile(r"\[\s*(\d+)\s*\]\s*\[(.*?)\](?:\s*\[\s*([01])\s*\])?", regex.DOTALL)
_ONE = regex.compile(r"\[(.*)\]", regex.DOTALL)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a browser."""

    name: str
    """In lower case, such as `click`."""
    arguments: tuple[str, ...] = ()
    """As compared: what `stop` says, the id and the text of `type`, and so on."""


def parse_action(text: str) -> Action | None:
    """Parse the action that a text is; None when it is none, or holds more than one."""
    match = _ACTION.fullmatch(bare(unwrap(bare(fold(text)))))
    if match is None:
        return None
    name, rest = match[1].casefold(), match[2].strip()
    if name in _TYPING:
        return _typed(name, rest)
    if name == "stop":
        return _stop(rest)
    if name in NO_ARGUMENT:
        return Action(name) if rest in ("", "[]") else None
    if name == "scroll":
        direction = _plain(rest.removeprefix("[").removesuffix("]"))
        return Action(name, (direction,)) if direction in DIRECTIONS else None
    one = _ONE.fullmatch(rest)
    if one is None or "[" in one[1] or "]" in one[1]:
        return None
    argument = _plain(one[1])
    known = argument.isdecimal() if name in _ON_ELEMENTS else name in _OF_TEXTS and argument
    return Action(name, (argument,)) if known else None


def same_action(
    action: Action, gold: Action, same_answer: Callable[[str, str], bool] = str.__eq__
) -> bool:
    """Return whether two actions do the same: every part is equal.

    Args:
        same_answer: compares what two `stop`s answer.
    """
    if action.name != gold.name or len(action.arguments) != len(gold.arguments):
        return False
    if action.name == "stop" and action.arguments:
        return same_answer(action.arguments[0], gold.arguments[0])
    return action.arguments == gold.arguments


def _typed(name: str, rest: str) -> Action | None:
    match = _TYPED.fullmatch(rest)
    if match is None or not match[2].strip():
        return None
    return Action(name, (_plain(match[1]), _plain(match[2]), match[3] or "1"))


def _stop(rest: str) -> Action | None:
    if not rest:
        return Action("stop")
    match = _ONE.fullmatch(rest)
    if match is None:
        return None
    answer = match[1].strip()
    return Action("stop", (answer,) if answer else ())


def _plain(text: str) -> str:
    """What is typed into a page as it is compared: without case and width, single spaces."""
    return normalize_spaces(text).casefold()

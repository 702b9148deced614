"""Browser actions as texts, and when two of them are the same.

    parse_action("type [7] [red wine glass]")     # Action("type", ("7", "red wine glass"))
    same_action(action, gold)                     # every part equal, not only the name

The grammar is VisualWebArena's (browser_env/actions.py): `click [id]`, `hover [id]`, `type [id]
[text] [1]` where the last says whether Enter is pressed behind it (it is when left out), `press
[keys]`, `scroll [up|down]`, `goto [url]`, `tab_focus [n]`, `new_tab`, `close_tab`, `go_back`,
`go_forward`, `stop [answer]`. An action of another name is its name and bracketed arguments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

NO_ARGUMENT = frozenset({"new_tab", "close_tab", "go_back", "go_forward"})
DIRECTIONS = frozenset({"up", "down", "left", "right"})
_TARGETS = frozenset({"click", "hover", "tab_focus", "goto", "press"})  # exactly one argument

_ACTION = re.compile(r"^(\w+)\s*(.*)$", re.DOTALL)
_FENCE = re.compile(r"^(`{1,3})\s*(.*?)\s*\1$", re.DOTALL)
_TYPED = re.compile(r"^\[([^\[\]]*)\]\s*\[(.*?)\](?:\s*\[\s*([01])\s*\])?$", re.DOTALL)
_ARGUMENTS = re.compile(r"^(?:\[[^\[\]]*\]\s*)*$")
_ONE = re.compile(r"^\[(.*)\]$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a browser."""

    name: str
    """In lower case, such as `click`."""
    arguments: tuple[str, ...] = ()
    """As compared: what `stop` says, the id and the text of `type`, and so on."""


def parse_action(text: str) -> Action | None:
    """Parse the action that a text is; None when it is none, or holds more than one."""
    text = text.strip()
    if fenced := _FENCE.match(text):
        text = fenced[2]
    match = _ACTION.match(text)
    if match is None:
        return None
    name, rest = match[1].casefold(), match[2].strip()
    if name == "type":
        return _typed(rest)
    if name == "stop":
        return _stop(rest)
    if name in NO_ARGUMENT:
        return Action(name) if rest in ("", "[]") else None
    if name == "scroll":
        direction = _plain(rest.removeprefix("[").removesuffix("]"))
        return Action(name, (direction,)) if direction in DIRECTIONS else None
    if not _ARGUMENTS.match(rest):
        return None
    arguments = tuple(_plain(argument) for argument in re.findall(r"\[([^\[\]]*)\]", rest))
    if name in _TARGETS and (len(arguments) != 1 or not arguments[0]):
        return None
    return Action(name, arguments)


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


def _typed(rest: str) -> Action | None:
    match = _TYPED.match(rest)
    if match is None or not match[1].strip():
        return None
    return Action("type", (_plain(match[1]), _plain(match[2]), match[3] or "1"))


def _stop(rest: str) -> Action | None:
    if not rest:
        return Action("stop")
    match = _ONE.match(rest)
    if match is None:
        return None
    answer = match[1].strip()
    return Action("stop", (answer,) if answer else ())


def _plain(text: str) -> str:
    """NFKC, case folded, single spaces: what is typed into a page is compared like this."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())

"""What a server or its chat template made of an assistant's turn, undone where that is certain.

    turn = AssistantTurn(partial="<think>One (1, 2).</think>\n", stops=("</think>", "</answer>"))
    text, ended = turn.read(" One more (3, 4).", stop_reason="</think>")   # what the model wrote
    turn.begun_anew([text, other])                     # True: these do not continue the turn

Templates open `<think>` in the prompt, or write an empty block first; servers repeat the partial
turn, drop the stop string that ended the text, or go on after it. And some accept a partial turn
but begin the turn again, which only their words tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mcts.teachers.base import Reply, Request, TeacherError

_OPENING = re.compile(r"<(think|answer|tool_call)>")
_THINK = re.compile(r"\s*<think>(.*?)(?:</think>|$)", re.DOTALL)
_WHOLE_THINK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_EMPTY_THINK = re.compile(r"\s*<think>\s*</think>\s*")
WORD = re.compile(r"[^\W\d_]+")
"""Numbers are none."""
_ALIKE_WORDS = 4
"""Thoughts that begin with as many equal words are worth a test."""


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """The turn that a completion belongs to."""

    partial: str
    """What it begins with; empty where nothing was to be continued."""
    stops: tuple[str, ...]
    keeps_stops: bool = True
    """Whether the server was asked to leave the stop string in the text, and did not refuse."""

    def read(self, text: str, *, finished: bool, stop_reason: object = "") -> tuple[str, bool]:
        """Return what the model wrote, and whether a stop string or the end of the turn ended it.

        Args:
            finished: the server says that the text was not cut off.
            stop_reason: what ended it as the server tells: a string, None, or a token's id; empty
                where it tells nothing.
        """
        text = self._without_repetition(text)
        if not _is_open("think", self.partial) and (empty := _EMPTY_THINK.match(text)):
            text = text[empty.end() :]
            if not text:
                return "", finished
        ends = [(at + len(stop), stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if ends:
            text, finished = text[: min(ends)[0]], True
        elif finished:
            text += self._dropped_stop(text, stop_reason)
        if not _is_open("think", self.partial) and _closes_first(text):
            text = f"<think>{text}"
        return text, finished

    def _without_repetition(self, text: str) -> str:
        """Drop the partial turn from the start of a text that repeats it, once."""
        begun, rest = self.partial.strip(), text.lstrip()
        if "</think>" in begun and rest.startswith(begun):
            return rest[len(begun) :]
        opened = _last_tag(self.partial)
        # Where the turn can't be continued, its last tag is opened again.
        return rest[len(opened) :] if opened and rest.startswith(opened) else text

    def _dropped_stop(self, text: str, stop_reason: object) -> str:
        """Return the stop string that ended the turn but is missing from it; empty if none did.

        vLLM and SGLang name it. Elsewhere it is the closing tag whose element is open in the turn
        so far, if there is exactly one.
        """
        if isinstance(stop_reason, str) and stop_reason in self.stops:
            return stop_reason
        if stop_reason != "" and (stop_reason is not None or self.keeps_stops):
            return ""  # the model ended its turn
        turn = self.partial + text
        if _closes_first(text) and not self.partial:
            turn = f"<think>{turn}"
        tags = [stop for stop in self.stops if stop.startswith("</")]
        still_open = [stop for stop in tags if _is_open(stop[2:-1], turn)]
        if len(still_open) == 1:
            return still_open[0]
        return self.stops[0] if len(self.stops) == 1 and not tags else ""

    @property
    def in_answer(self) -> bool:
        """Whether the partial turn has opened its answer."""
        return _is_open("answer", self.partial)

    def begun_anew(self, texts: Sequence[str]) -> bool:
        """Return whether completions begin the turn again instead of going on.

        They do where each of them repeats the turn's first thought, numbers aside, or opens a
        thought inside the answer that the partial turn had opened.
        """
        if self.in_answer:
            return bool(texts) and all(text.lstrip().startswith("<think>") for text in texts)
        first = _words(self.partial)
        return bool(first and texts) and all(_words(text) == first for text in texts)

    def without_restatement(self, text: str) -> str:
        """Drop thoughts at the start of a text that say again, in order, what the turn has said.

        For turns that stand in the question: a model may write them once more before it goes on.
        """
        at = 0
        for begun in _WHOLE_THINK.finditer(self.partial):
            again = _WHOLE_THINK.match(text, at)
            words = WORD.findall(begun[1].lower())
            if again is None or not words or WORD.findall(again[1].lower()) != words:
                break
            at = again.end()
        return text[at:]

    def may_be_begun_anew(self, texts: Iterable[str]) -> bool:
        """Return whether a completion looks like a new beginning, so that a test is worth it."""
        first = _words(self.partial)[:_ALIKE_WORDS]
        return len(first) == _ALIKE_WORDS and any(
            _words(text)[:_ALIKE_WORDS] == first for text in texts
        )


def going_on(request: Request, reply: Reply) -> Reply:
    """Return a reply without what it says again of a turn that stands in the question.

    Raises:
        TeacherError: it says nothing else.
    """
    turn = AssistantTurn(request.messages[-1].text, request.stop)
    texts = [turn.without_restatement(completion.text) for completion in reply.completions]
    if not any(text.strip() for text in texts) and any(c.text for c in reply.completions):
        raise TeacherError(
            "bad_request",
            "the model begins its turn again instead of going on, also where the thoughts so far "
            "stand in the question: --strategy best-of-n asks for whole chains",
        )
    pairs = zip(reply.completions, texts, strict=True)
    return replace(reply, completions=tuple(replace(c, text=text) for c, text in pairs))


def _words(text: str) -> list[str]:
    """Return the words of the first thought of a turn or a text; numbers are none."""
    match = _THINK.match(text)
    return WORD.findall(match[1].lower()) if match else []


def _is_open(tag: str, turn: str) -> bool:
    return turn.count(f"<{tag}>") > turn.count(f"</{tag}>")


def _closes_first(text: str) -> bool:
    """Return whether a text goes on in a `<think>` that the chat template opened in the prompt."""
    closed = text.find("</think>")
    return closed >= 0 and not _OPENING.search(text[:closed])


def _last_tag(partial: str) -> str:
    """Return the opening tag at the end of `partial`, such as `<answer>`, or an empty string."""
    partial = partial.rstrip()
    start = partial.rfind("<")
    is_tag = start >= 0 and partial.endswith(">") and not partial.startswith("</", start)
    return partial[start:] if is_tag else ""

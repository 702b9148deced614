"""Reads a completion for the rewards: strictly, since whatever is read kindly is soon exploited.

    parsed = parse_completion(text, graded, space, ResponseStyle.GROUNDED)      # one answer
    parsed = parse_dialogue(turns, graded, space, zoom)                         # one that zooms
    parsed.answer, parsed.thoughts, parsed.whole

A completion is read in the student's own coordinates. Its answer counts only where it ends the
text, and is the only one; its thoughts only where the whole text is as the style demands. The
observations of a dialogue are what the calls show (`mcts.zoom.observe`), never what a text says
they showed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import ResponseStyle, Step
from mcts.parsing import parse
from mcts.zoom.config import ZoomConfig
from mcts.zoom.observe import ZoomProblem
from mcts.zoom.turns import read_turn
from training.rewards.question_column import GradedQuestion

MOST_STEPS = 16
LONGEST = 64_000
"""Characters of a completion; a longer one isn't read and earns nothing."""

_OPEN, _CLOSE = "<answer>", "</answer>"
# What looks like a tag, or like a token that ends a turn; `a < b` does not.
_TAG = re.compile(r"<[/\w|!]")
_WORDS = r"(?:[^<]|<(?![/\w|!]))*"
_BLOCK = re.compile(rf"\s*<think>({_WORDS})</think>")
_CALL = re.compile(rf"\s*<tool_call>{_WORDS}</tool_call>\s*")


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """A completion as the parts see it."""

    graded: GradedQuestion
    frame: Frame
    response_style: ResponseStyle
    min_thoughts: int
    answer: str | None
    """In original pixels; None where the text does not end in its one answer."""
    thoughts: tuple[str, ...]
    """One a think block, as written; empty unless `whole`."""
    steps: tuple[Step, ...]
    """The same in original pixels: each block as one step; of a dialogue, the steps of its turns
    with their calls and observations, whether it is whole or not."""
    cited: tuple[int, ...]
    """How many places each block tells, those in no image included; empty for a dialogue."""
    whole: bool
    """Whether the text is think blocks, not too many, then one answer, and nothing else; in a
    dialogue each turn before the last ends in a call instead, of a place in an image."""
    turns: tuple[str, ...] = ()
    """The thoughts of each turn of a dialogue, as one text; empty unless `whole`."""
    evidence: float | None = None
    """What the cited regions are worth to the answer, -1 to 1 (`training.batches.evidence`); None
    where that was not measured."""


def parse_completion(
    text: str, graded: GradedQuestion, space: CoordinateSpace, response_style: ResponseStyle,
    min_thoughts: int = 1,
) -> ParsedCompletion:  # fmt: skip
    """Parse one completion; any text is valid input."""
    frame = Frame.of(space, graded.question)
    thoughts: list[str] = []
    whole = False
    before, answer = _split(text, frame)
    if answer is not None:
        thoughts, rest = _blocks(before)
        whole = not rest and len(thoughts) <= MOST_STEPS
    written = tuple(thoughts) if whole else ()
    read = [_read(thought, frame) for thought in written]
    return ParsedCompletion(
        graded, frame, response_style, min_thoughts, answer, written,
        tuple(step for step, _ in read), tuple(cited for _, cited in read), whole,
    )  # fmt: skip


def parse_dialogue(
    turns: Sequence[str], graded: GradedQuestion, space: CoordinateSpace, zoom: ZoomConfig,
    min_thoughts: int = 1,
) -> ParsedCompletion:  # fmt: skip
    """Parse the model's turns of a dialogue that zooms; any texts are valid input.

    What its calls showed is worked out anew, turn by turn. A turn that called before the dialogue
    ended has no answer, whatever it wrote behind the call, and neither has a dialogue that goes on
    behind a turn without a call.
    """
    frame = Frame.of(space, graded.question)
    readable = sum(map(len, turns)) <= LONGEST
    steps: tuple[Step, ...] = ()
    thoughts: list[str] = []
    of_turns: list[str] = []
    whole, answer = readable and bool(turns), None
    for number, text in enumerate(turns if readable else (), 1):
        last = number == len(turns)
        before, said = _split(text, frame)
        turn = read_turn(text, frame, zoom, steps)
        steps = (*steps, *turn.steps)
        blocks, rest = _blocks(text if turn.called else before)
        thoughts += blocks
        of_turns.append("\n".join(blocks))
        whole = whole and bool(blocks)
        if turn.called:
            whole = whole and not last and _CALL.fullmatch(rest) is not None and _shows(steps[-1])
        else:
            whole = whole and last and said is not None and not rest
            if "<tool_call" not in text.casefold():
                answer = said if last else None
            if not last:
                break
    whole = whole and answer is not None and len(thoughts) <= MOST_STEPS
    return ParsedCompletion(
        graded, frame, ResponseStyle.ZOOM, min_thoughts, answer, tuple(thoughts) if whole else (),
        steps, (), whole, tuple(of_turns) if whole else (),
    )  # fmt: skip


def _split(text: str, frame: Frame) -> tuple[str, str | None]:
    """Return what stands before the answer, and the answer; None unless one ends the text."""
    text = text.strip()
    before, opened, rest = text.partition(_OPEN)
    content = rest.removesuffix(_CLOSE)
    if not opened or content == rest or len(text) > LONGEST or _TAG.search(content):
        return text, None
    return before, parse(f"{_OPEN}{content}{_CLOSE}", frame).answer


def _blocks(text: str) -> tuple[list[str], str]:
    """Return the thoughts that a text begins with, and what follows them."""
    thoughts: list[str] = []
    at = 0
    while block := _BLOCK.match(text, at):
        thoughts.append(block[1].strip())
        at = block.end()
    return thoughts, text[at:].strip()


def _read(thought: str, frame: Frame) -> tuple[Step, int]:
    """Return a thought as one step, and how many places it tells; one in no image is no point."""
    parsed = parse(f"<think>{thought}</think>", frame)
    points = tuple(point for step in parsed.steps for point in step.points)
    missing = sum(problem.kind == "no_such_image" for problem in parsed.problems)
    words = "\n".join(step.thought for step in parsed.steps)
    return Step(words, points), len(points) + missing


def _shows(step: Step) -> bool:
    """Return whether a call is of a place in an image; one that was shown already is, too."""
    assert step.observation is not None
    return step.observation.problem in ("", ZoomProblem.SHOWN_ALREADY)


def text_of(completion: Any) -> str:
    """Return what the model wrote, from a text or a list of chat messages."""
    return "\n".join(turns_of(completion))


def turns_of(completion: Any) -> tuple[str, ...]:
    """Return the model's turns, from a text or a list of chat messages."""
    if isinstance(completion, str):
        return (completion,)
    return tuple(_written(m) for m in completion or () if m.get("role") == "assistant")


def _written(message: Mapping[str, Any]) -> str:
    """Return a message as the model wrote it, also where TRL's environments took it apart."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text") or "" for part in content)
    if thought := message.get("reasoning_content"):
        content = f"<think>{thought}</think>\n{content}"
    for call in message.get("tool_calls") or ():
        content += f"<tool_call>{json.dumps(call['function'], ensure_ascii=False)}</tool_call>"
    return content

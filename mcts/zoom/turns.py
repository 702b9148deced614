"""One turn of a model that may zoom: a thought, then a call or an answer.

    turn = read_turn(text, frame, zoom, steps)
    turn.steps[-1].observation        # what the call of this turn showed
    turn.answer                       # or the answer

A call ends the turn: whatever is written behind it was written without seeing what it shows, and is
dropped. So does an observation that the model makes up. Nothing here raises; what was wrong is in
`problems` and, where it concerned a call, in the observation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcts.coordinates import Frame
from mcts.data import Step
from mcts.parsing import Block, blocks, fold_remark, parse
from mcts.tool_calls.calls import read_call
from mcts.tool_calls.views import Views
from mcts.zoom.config import ZoomConfig
from mcts.zoom.observe import observe

STOPS = ("</tool_call>", "</answer>")
"""What ends a turn."""

_ENDED = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)
_END_MARK = re.compile(r"<\|(?:im_end|endoftext|eot_id|end|eom_id)\|>|</s>|<eos>")
_TURN_END = re.compile(rf"(?:\s|{_END_MARK.pattern})*")


@dataclass(frozen=True, slots=True)
class ZoomTurn:
    """What a model wrote in one turn."""

    steps: tuple[Step, ...]
    """The last has the call and its observation, where one was made."""
    answer: str | None
    problems: tuple[str, ...] = ()
    """Kinds of what was wrong, as `mcts.parsing.ParseProblem.kind`."""

    @property
    def called(self) -> bool:
        """Whether an observation follows."""
        return bool(self.steps) and self.steps[-1].observation is not None


def read_turn(
    text: str,
    frame: Frame,
    zoom: ZoomConfig,
    before: Sequence[Step] = (),
    *,
    finish_reason: str = "stop",
    answer_opened: bool = False,
) -> ZoomTurn:
    """Read a turn that follows the steps `before`.

    Args:
        text: as the model wrote it, with coordinates in `frame`.
        finish_reason: `length` where the token limit cut it off: then a thought without a call or
            an answer is left out, since its end is missing.
        answer_opened: the request ended in an opened answer tag, so that only an answer can follow.
    """
    if answer_opened:
        whole = _ENDED.search(text) or finish_reason != "stop"  # else its closing tag stopped it
        parsed = parse(text if whole else f"{text}</answer>", frame, inside="answer")
        return ZoomTurn((), parsed.answer, tuple(p.kind for p in parsed.problems))
    first: dict[str | None, Block] = {}
    for part in blocks(text):
        first.setdefault(part.tag, part)
    call, opened, ended = first.get("tool_call"), first.get("answer"), _ENDED.search(text)
    made_up = first.get("observation")
    if made_up and all(made_up.begin < part.begin for part in (call, opened) if part):
        turn = read_turn(text[: made_up.begin], frame, zoom, before)
        return replace(turn, problems=(*turn.problems, "observation_written"))
    if call is None or (opened and opened.begin < call.begin):
        late = call is not None
        return _without_call(
            text[: ended.end()] if ended else text, frame, before, finish_reason, late
        )
    content = text[call.start : call.end]
    if not call.closed:
        content = _END_MARK.split(content, maxsplit=1)[0]
    content = content.strip()
    thought, problems = _thought(text[: call.begin], frame, before)
    if not call.closed and not _is_whole(content, frame, before):
        problems.append("unclosed_tool_call")
    if not _TURN_END.fullmatch(text, call.behind):
        problems.append("text_after_call")
    if not thought:
        problems.append("call_without_thought")
        thought = (Step(""),)
    if before and _asked_for_answer(before):
        problems.append("call_after_limit")
        return ZoomTurn(tuple(s for s in thought if s.thought), None, tuple(problems))
    made = read_call(content, Views.of(frame, before), problems)
    observation = observe(frame, before, made, zoom)
    if observation.problem:
        problems.append(f"call_{observation.problem}")
    last = replace(thought[-1], call=made, observation=observation)
    return ZoomTurn((*thought[:-1], last), None, tuple(problems))


def _without_call(
    text: str, frame: Frame, before: Sequence[Step], finish_reason: str, late: bool
) -> ZoomTurn:
    """Read a turn that ends in an answer, or in nothing."""
    parsed = parse(text, frame, behind_crop=_behind_crop(before))
    if parsed.answer is None and finish_reason == "stop" and not _ENDED.search(text):
        closed = parse(f"{text}</answer>", frame)  # the turn ended right behind its answer
        parsed = replace(parsed, answer=closed.answer)
    kinds = {p.kind for p in parsed.problems}
    # A call that was not read as this turn's end is none: nothing answers it.
    steps = tuple(replace(step, call=None) if step.call else step for step in parsed.steps)
    if parsed.answer is None and finish_reason == "length" and "unclosed_answer" not in kinds:
        steps = steps[:-1]
    problems = _kinds(parsed.problems, before)
    if late:
        problems.append("call_after_answer")
    return ZoomTurn(fold_remark(steps), parsed.answer, tuple(problems))


def _thought(text: str, frame: Frame, before: Sequence[Step]) -> tuple[tuple[Step, ...], list[str]]:
    parsed = parse(text, frame, behind_crop=_behind_crop(before))
    return fold_remark(parsed.steps), _kinds(parsed.problems, before)


def _behind_crop(before: Sequence[Step]) -> bool:
    return bool(before) and before[-1].observation is not None


def _kinds(problems: Sequence[object], before: Sequence[Step]) -> list[str]:
    """Return kinds of problems; behind a crop a thought may do without a point."""
    kinds = [str(getattr(problem, "kind", problem)) for problem in problems]
    seen = _behind_crop(before)
    return [kind for kind in kinds if not (seen and kind == "thought_without_point")]


def _is_whole(content: str, frame: Frame, before: Sequence[Step]) -> bool:
    """Return whether a call that isn't closed is complete: some servers leave the stop out."""
    return read_call(content, Views.of(frame, before)).point is not None


def _asked_for_answer(before: Sequence[Step]) -> bool:
    return any(step.observation is not None and step.observation.last for step in before)

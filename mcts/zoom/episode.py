"""A line of reasoning played turn by turn, from its first response to its answer.

    episode = await play(policy, frame, zoom, node="0.2", before=steps, first=sample, number=0,
                         limit=5)

The search's rollouts, the baselines' chains and an evaluation's answers are such episodes. Each
turn is a request of its own, named by the episode's number and the turn's, and sees every crop
before it. Where no further call is answered, or no further step allowed, the answer is requested
alone: it is *forced*, which is a problem of the line, since nobody should learn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcts.coordinates import Frame
from mcts.data import Step
from mcts.policy import Continuation, Policy
from mcts.teachers.base import TeacherError
from mcts.zoom.config import ZoomConfig
from mcts.zoom.turns import ZoomTurn, read_turn

MOST_TURNS = 64
"""Turns that an episode's numbers leave room for: turn t of episode e is sample 64 e + t."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A line of reasoning beyond the steps it was begun with."""

    steps: tuple[Step, ...]
    answer: str | None
    problems: tuple[str, ...]
    responses: tuple[Continuation, ...]
    """One a turn, in order; then the one that forced the answer, if one did."""
    forced: bool = False
    """Whether the answer was requested alone."""
    failure: TeacherError | None = None
    """The request that failed for good, and ended it."""
    turn_steps: tuple[int, ...] = ()
    """How many of the steps each response has, where the answer is in the last of them."""


async def play(
    policy: Policy,
    frame: Frame,
    zoom: ZoomConfig,
    *,
    node: str,
    before: Sequence[Step],
    first: Continuation,
    number: int,
    limit: int,
) -> Episode:
    """Play on from the first turn's response to an answer.

    Args:
        node: the tree node at which the episode began; with `number` it names its requests.
        before: the steps up to that node.
        first: the response to the request for the first turn.
        limit: steps beyond `before`, at most.
    """
    responses, problems = [first], list[str]()
    steps: tuple[Step, ...] = ()
    turn_steps: list[int] = []
    for turn_number in range(1, MOST_TURNS):
        turn = _read(responses[-1], frame, zoom, (*before, *steps))
        problems += turn.problems
        reached = (*steps, *turn.steps)
        turn_steps.append(len(turn.steps))
        if turn.answer is not None and len(reached) <= limit:
            return Episode(
                reached, turn.answer, tuple(problems), tuple(responses),
                turn_steps=tuple(turn_steps),
            )  # fmt: skip
        steps = reached[:limit]
        if not turn.called or len(steps) >= limit:
            if len(reached) < limit and _fell_silent(responses[-1], turn):
                problems.append("turn_without_call")
            break
        try:
            (sample,) = await policy.sample(
                node, "turn", (*before, *steps), 1, number * MOST_TURNS + turn_number
            )
        except TeacherError as error:
            return Episode(steps, None, tuple(problems), tuple(responses), failure=error)
        responses.append(sample)
    return await _forced(policy, frame, zoom, node, before, number, steps, problems, responses)


def _fell_silent(sample: Continuation, turn: ZoomTurn) -> bool:
    """Whether a turn ended by itself with neither call nor answer, where it might have called."""
    ended = not turn.called and turn.answer is None and sample.finish_reason != "length"
    return ended and not {"call_after_limit", "observation_written"} & set(turn.problems)


async def _forced(
    policy: Policy, frame: Frame, zoom: ZoomConfig, node: str, before: Sequence[Step], number: int,
    steps: tuple[Step, ...], problems: list[str], responses: list[Continuation],
) -> Episode:  # fmt: skip
    """Request nothing but the answer."""
    try:
        (sample,) = await policy.sample(node, "finish", (*before, *steps), 1, number)
    except TeacherError as error:
        return Episode(steps, None, tuple(problems), tuple(responses), failure=error)
    turn = read_turn(
        sample.text, frame, zoom, (*before, *steps), finish_reason=sample.finish_reason,
        answer_opened=True,
    )  # fmt: skip
    kinds = (*problems, "answer_forced", *turn.problems)
    return Episode(steps, turn.answer, kinds, (*responses, sample), forced=True)


def replay(
    texts: Sequence[tuple[str, str]], frame: Frame, zoom: ZoomConfig, before: Sequence[Step]
) -> tuple[Step, ...]:
    """Return the steps of an episode's turns again, from what was written in them.

    Args:
        texts: text and finish reason of each turn, in order, without a forced answer.
    """
    steps: tuple[Step, ...] = ()
    for text, finish_reason in texts:
        turn = read_turn(text, frame, zoom, (*before, *steps), finish_reason=finish_reason)
        steps = (*steps, *turn.steps)
    return steps


def _read(sample: Continuation, frame: Frame, zoom: ZoomConfig, before: Sequence[Step]) -> ZoomTurn:
    return read_turn(sample.text, frame, zoom, before, finish_reason=sample.finish_reason)

"""What a policy hands to a search, and how a search reads it.

    samples = await policy.sample("0.2", "expand", steps, n=3)
    parsed = said(samples[0], frame, opened=False)      # steps, answer, problems

A policy is whoever proposes: a teacher behind a prompt and a journal (`mcts.policy`), or a script
in a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mcts.budget import Cost
from mcts.coordinates import Frame
from mcts.data import Step
from mcts.parsing import Parsed, parse


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, as the search sees it."""

    text: str
    finish_reason: str
    """`stop`, or `length` when it was cut off by the token limit."""
    response_id: str
    costs: tuple[Cost, ...] = ()
    """What was asked for it; of several samples that share a request, on the first one only."""


class Policy(Protocol):
    """Who proposes."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Sample]:
        """`n` continuations of `steps` at tree position `node`.

        `purpose` is `expand` (the next step), `rollout` (on to an answer), `chain` (from the
        question all the way to an answer), `step` (one step of a rollout taken step by step), or
        nothing but the answer: `answer` for children, `finish` for rollouts. Samples are numbered
        from `first`; node, purpose and number name a sample for ever. Raises TeacherError when the
        request failed for good.
        """
        ...


def said(sample: Sample, frame: Frame, opened: bool) -> Parsed:
    """What a response says; a turn that ends right after its answer has ended the answer too.

    Args:
        opened: the request ended in an opened answer tag.
    """
    inside = "answer" if opened else None
    parsed = parse(sample.text, frame, inside=inside)
    if parsed.answer is None and sample.finish_reason == "stop" and "</answer>" not in sample.text:
        ended = parse(f"{sample.text}</answer>", frame, inside=inside)
        return Parsed(parsed.steps, ended.answer, parsed.problems)
    return parsed


def whole_thoughts(sample: Sample, parsed: Parsed) -> tuple[Step, ...]:
    """The steps of a response, but for a last one that the token limit cut off in mid-thought."""
    kinds = {problem.kind for problem in parsed.problems}
    cut = parsed.answer is None and sample.finish_reason == "length"
    return parsed.steps[:-1] if cut and "unclosed_answer" not in kinds else parsed.steps


T = TypeVar("T")


async def together(awaitables: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of `awaitables`, run side by side; the first failure cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(awaitable) for awaitable in awaitables]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]

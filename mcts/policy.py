"""A policy proposes continuations of a line of reasoning; the search asks nothing else.

    samples = await policy.sample("0.2", "expand", steps, n=3)
    parsed = parse_response(samples[0], frame)          # steps, answer, problems

`mcts.teacher_policy` is the policy that asks a model through the journal; tests use scripts.
`MeteredPolicy` counts what another policy's answers cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mcts.budget import Cost, Usage
from mcts.coordinates import Frame
from mcts.data import Step
from mcts.parsing import ParsedResponse, parse
from mcts.teachers.base import TeacherError

RequestKey = tuple[str, str, int]
"""Node path, purpose and number of the first sample: the name of a request within a search."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One completion, as the search sees it."""

    text: str
    finish_reason: str
    """`stop`, or `length` when the token limit cut it off."""
    response_id: str
    costs: tuple[Cost, ...] = ()
    """Costs of its request; of several samples that share one, on the first sample only."""
    mean_logprob: float | None = None
    """Of its tokens, in nats; None where it was not asked for."""


class Policy(Protocol):
    """Proposes continuations of a reasoning prefix."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Continuation]:
        """Return `n` continuations of `steps` at the tree node with path `node`.

        `purpose` is `expand` (the next step), `rollout` (on to an answer), `chain` (from the
        question all the way to an answer), `step` (one step of a rollout taken step by step),
        `turn` (a later turn of a rollout or chain that zooms), or nothing but the answer: `answer`
        for children, `finish` for rollouts. Samples are numbered from `first`; node, purpose and
        number identify a sample for ever.

        Raises:
            TeacherError: the request failed for good.
        """
        ...


class MeteredPolicy:
    """A policy that counts what another policy's answers cost."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.usage = Usage()
        self.request_keys: set[RequestKey] = set()
        """Every request made."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Continuation]:
        """Return the other policy's samples; without costs they count as one request."""
        self.request_keys.add((node, purpose, first))
        try:
            samples = await self._policy.sample(node, purpose, steps, n, first)
        except TeacherError as error:
            self.usage.requests += 1  # a failed request was sent too
            self.usage.add(Cost(started_at=error.started_at, seconds=error.seconds))
            raise
        costs = [cost for sample in samples for cost in sample.costs]
        self.usage.requests += max(1, len(costs))
        for cost in costs:
            self.usage.add(cost)
        return samples


def parse_response(
    sample: Continuation, frame: Frame, *, answer_opened: bool = False
) -> ParsedResponse:
    """Parse a response; a turn that ends right after its answer closes the answer as well.

    Args:
        answer_opened: the request ended in an opened answer tag.
    """
    inside = "answer" if answer_opened else None
    parsed = parse(sample.text, frame, inside=inside)
    if parsed.answer is None and sample.finish_reason == "stop" and "</answer>" not in sample.text:
        closed = parse(f"{sample.text}</answer>", frame, inside=inside)
        return ParsedResponse(parsed.steps, closed.answer, parsed.problems)
    return parsed


def complete_steps(sample: Continuation, parsed: ParsedResponse) -> tuple[Step, ...]:
    """Return a response's steps without a last one that the token limit cut off."""
    kinds = {problem.kind for problem in parsed.problems}
    cut_off = parsed.answer is None and sample.finish_reason == "length"
    return parsed.steps[:-1] if cut_off and "unclosed_answer" not in kinds else parsed.steps

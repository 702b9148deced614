"""The call order of ViGoRL's released code, for honest comparisons of speed; nothing else uses it.

    policy = ReferenceOrder(TeacherPolicy(...), question, config)
    tree = await search(question, config, policy, grade, tree_id)

The paper's own implementation asks one thing at a time within a tree: every child of an expansion
is a request of its own, and every rollout is walked step by step, one request a step, the last
allowed one being forced to answer: 3 + 3 x 2 x 5 = 33 requests a simulation with its settings.
Wrapped in this policy, the search asks in just that order: the children of a leaf one after the
other, then the rollouts of the first child, of the second, and so on. Keep `config.wave` at 1, as
there; many trees still run side by side, as they do there in processes.

What it does not reproduce, because these are choices of the search and not the order of its calls:
simulations spent on revisiting an answer, and requests repeated because a shared one would do. So
a simulation costs here at most what it costs there, and a speed-up measured against it is a lower
bound.

A rollout's steps come back joined into one text under the last response's name: the tree is right
in memory, but its rows could not be rebuilt from single responses, so do not store it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mcts.budget import Cost
from mcts.config import SearchConfig
from mcts.coordinates import Frame
from mcts.data import Question, Step
from mcts.policy import Policy, Sample, complete_steps, parse_response

# The requests of one rollout get numbers of their own, apart from every other's.
_STEPS_APART = 1000


class ReferenceOrder:
    """A policy that asks another one for the same things, in the reference's small steps."""

    def __init__(self, policy: Policy, question: Question, config: SearchConfig) -> None:
        self._policy, self._config = policy, config
        self._frame = Frame.of(config.space, question)
        self._turn = asyncio.Lock()  # fair: who comes first is served first

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> list[Sample]:
        """`n` samples, one after the other, while nothing else of this tree is asked."""
        async with self._turn:
            if purpose == "rollout":
                return [await self._walk(node, steps, first + i) for i in range(n)]
            return [
                sample
                for i in range(n)
                for sample in await self._policy.sample(node, purpose, steps, 1, first + i)
            ]

    async def _walk(self, node: str, steps: Sequence[Step], number: int) -> Sample:
        """One rollout, a request a step, the last of them for the answer alone."""
        limit = min(self._config.rollout_steps, self._config.max_depth - len(steps))
        path, texts = tuple(steps), []
        costs: tuple[Cost, ...] = ()
        number = (number + 1) * _STEPS_APART
        for i in range(limit - 1):
            (sample,) = await self._policy.sample(node, "step", path, 1, number + i)
            costs += sample.costs
            texts.append(sample.text)
            parsed = parse_response(sample, self._frame)
            if parsed.answer is not None:
                text = "\n".join(texts)
                return Sample(text, sample.finish_reason, sample.response_id, costs)
            path += complete_steps(sample, parsed)
        (forced,) = await self._policy.sample(node, "finish", path, 1, number)
        text = "\n".join([*texts, f"<answer>{forced.text}"])
        return Sample(text, forced.finish_reason, forced.response_id, costs + forced.costs)

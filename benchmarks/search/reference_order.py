"""The request order of ViGoRL's released code, for fair comparisons of speed.

    policy = ReferenceOrder(TeacherPolicy(...), question, config)
    tree = await search(question, config, policy, grade, tree_id)

The paper's implementation makes one request at a time within a tree: every child of an expansion is
a request of its own, and every rollout proceeds step by step, one request per step, the last of
which forces the answer: 3 + 3 x 2 x 5 = 33 requests per simulation with its settings. With this
policy the search follows the same order: the children of a leaf one after the other, then the
rollouts of the first child, of the second, and so on. Keep `config.wave` at 1, as there; many trees
still run concurrently, as they do there in processes.

It does not reproduce choices of the search itself: simulations spent on revisiting an answer, and
requests repeated where a shared one would do. So a simulation costs here at most as much as there,
and a speed-up measured against it is a lower bound.

A rollout's steps are joined into one text under the last response's id: the tree is right in
memory, but its rows could not be rebuilt from single responses, so do not store it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mcts.budget import Cost
from mcts.config import SearchConfig
from mcts.coordinates import Frame
from mcts.data import Question, Step
from mcts.policy import Continuation, Policy, complete_steps, parse_response

_NUMBERS_PER_ROLLOUT = 1000
"""The requests of each rollout have numbers of their own."""


class ReferenceOrder:
    """A policy that splits another policy's requests as the reference does."""

    def __init__(self, policy: Policy, question: Question, config: SearchConfig) -> None:
        self._policy, self._config = policy, config
        self._frame = Frame.of(config.space, question)
        self._turn = asyncio.Lock()  # fair: first come, first served

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> list[Continuation]:
        """Return `n` samples, requested one by one; a tree has one request in flight."""
        async with self._turn:
            if purpose == "rollout":
                return [await self._rollout(node, steps, first + i) for i in range(n)]
            return [
                sample
                for i in range(n)
                for sample in await self._policy.sample(node, purpose, steps, 1, first + i)
            ]

    async def _rollout(self, node: str, steps: Sequence[Step], number: int) -> Continuation:
        """Sample one rollout, one request per step, the last of them for the answer alone."""
        limit = min(self._config.rollout_steps, self._config.max_depth - len(steps))
        path, texts = tuple(steps), []
        costs: tuple[Cost, ...] = ()
        number = (number + 1) * _NUMBERS_PER_ROLLOUT
        for i in range(limit - 1):
            (sample,) = await self._policy.sample(node, "step", path, 1, number + i)
            costs += sample.costs
            texts.append(sample.text)
            parsed = parse_response(sample, self._frame)
            if parsed.answer is not None:
                text = "\n".join(texts)
                return Continuation(text, sample.finish_reason, sample.response_id, costs)
            path += complete_steps(sample, parsed)
        (forced,) = await self._policy.sample(node, "finish", path, 1, number)
        text = "\n".join([*texts, f"<answer>{forced.text}"])
        return Continuation(text, forced.finish_reason, forced.response_id, costs + forced.costs)

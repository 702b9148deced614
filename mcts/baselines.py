"""Baselines without a tree policy, run by the same engine: best-of-n and linear sampling.

    more = await best_of_n(run)             # one wave; False when the teacher gives nothing

Best-of-n samples whole chains from the question, several per request. Linear sampling (also called
distillation sampling) takes one step per request from the question to an answer, then starts
again. Neither uses the rewards of earlier chains. Each function is one wave of its strategy, as
`mcts.search.simulate` is of the tree search. Where the model may zoom, their chains look closer
under the rules of the tree search. The strategy `auto` begins with the waves of best-of-n.

Both produce an ordinary tree, which the same code stores, linearizes and displays: best-of-n chains
are rollouts of the root, linear chains are its children. The most frequent answer
(self-consistency) is `majority_answer` of the table `trees`. Nothing is discarded: repeated points
and copies belong to what such sampling gives, and filters decide on them later. To compare at
equal tokens, give both strategies one `Budget(tokens=...)` and ample simulations or samples.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcts.concurrency import gather
from mcts.engine import SearchRun
from mcts.policy import Continuation
from mcts.teachers.base import TeacherError
from mcts.tree import EXPANSION_ATTEMPTS, Node, Rollout

# About as many answers as one expansion with its rollouts, so that a wave, the granularity of
# budgets, has one size in every strategy.
CHAINS_PER_REQUEST = 8


async def best_of_n(run: SearchRun) -> bool:
    """Sample whole chains from the question: one request, or `wave` of them concurrently."""
    tree, config = run.tree, run.config
    requests: list[tuple[int, int]] = []  # first sample, number of samples
    first = tree.simulations
    while first < config.samples and len(requests) < config.wave:
        requests.append((first, min(CHAINS_PER_REQUEST, config.samples - first)))
        first += requests[-1][1]
    for rollouts in await gather(_sample_chains(run, *request) for request in requests):
        tree.root.attempts += 1
        run.record_rollouts(tree.root, rollouts)
    tree.simulations = first
    return _is_productive(tree.root, EXPANSION_ATTEMPTS)


async def sample_first(run: SearchRun) -> bool:
    """Sample whole chains before a search; the root is still to be expanded after them."""
    await best_of_n(run)
    run.tree.root.attempts = 0
    return True


async def _sample_chains(run: SearchRun, first: int, n: int) -> list[Rollout] | TeacherError:
    """Sample `n` chains in one request; a chain that is too long is cut and its answer forced."""
    root, limit = run.tree.root, run.config.max_depth
    try:
        samples = await run.policy.sample(root.path, "chain", (), n, first)
    except TeacherError as error:
        return error
    return await gather(
        run.finish_rollout(root, sample, first + i, limit) for i, sample in enumerate(samples)
    )


async def linear(run: SearchRun) -> bool:
    """Sample one chain step by step to its answer, or `wave` of them concurrently."""
    tree, config = run.tree, run.config
    first = tree.simulations
    numbers = range(first, min(first + config.wave, config.samples))
    tips = dict.fromkeys(numbers, tree.root)
    ends: dict[int, Node] = {}
    silent: dict[int, Node] = {}

    async def step(
        number: int, tip: Node
    ) -> tuple[int, Node, int, Sequence[Continuation] | TeacherError]:
        # A chain's first step is the root's sample with the chain's number; every later step has a
        # node to itself.
        sample = 0 if tip.parent else number
        return number, tip, sample, await run.propose(tip, 1, sample)

    while tips:
        # All chains step together and are added in order: node numbers are fixed.
        for number, tip, sample, proposed in await gather(step(*one) for one in tips.items()):
            del tips[number]
            tip.attempts += 1
            if isinstance(proposed, TeacherError):
                run.record_error(tip, proposed)
                continue
            node = run.add_response(tip, proposed[0], sample, reject_repeats=False)
            if node.terminal:
                ends[number] = node
            elif not node.discarded:
                tips[number] = node
            elif node.step is None:  # it said nothing, broke off, or called behind a limit
                silent[number] = tip
    asked = await gather(
        run.request_answer(tip, 0 if tip.parent else number) for number, tip in silent.items()
    )
    forced = dict(zip(silent, asked, strict=True))
    for number in sorted((*ends, *silent)):
        if number in ends:
            run.record_rollouts(ends[number], [])
        else:
            run.record_rollouts(silent[number], forced[number])
    tree.simulations += len(numbers)
    # A chain that was begun says more of the teacher than a request that gave nothing.
    return _is_productive(
        tree.root, EXPANSION_ATTEMPTS * (CHAINS_PER_REQUEST if tree.root.children else 1)
    )


def _is_productive(root: Node, attempts: int) -> bool:
    """Return whether any reward arrived, or too little was tried to give the teacher up."""
    return root.visits > 0 or root.attempts < attempts

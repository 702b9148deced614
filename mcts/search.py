"""Monte Carlo tree search over reasoning steps that each cite a point in an image.

    tree = await search(question, config, policy, grade, tree_id)

Select a promising leaf, expand it into a few next steps, roll each of them out to an answer, and
backpropagate the answers' rewards (ViGoRL, section 3.2 and Table A4). Reading order: `mcts.data`
(the values), `mcts.tree` (nodes), `mcts.selection.uct` (selection, backpropagation), `mcts.engine`
(requests and responses of one node), then this file (the loop).

A search is a pure function of question, configuration, seed and the policy's answers: no disk, no
clock, no torch. Simulations run in waves of a fixed width. Within a wave requests overlap and
virtual loss keeps the simulations apart; rewards are backpropagated in a fixed order, so the same
responses always make the same tree. Width 1 is the textbook search. Budgets and `enough` are
checked between waves only. `strategy` replaces the tree search by a baseline (`mcts.baselines`), or
with `auto` samples chains first and grows the tree only where none of them is right.
With `config.zoom` a step may end in a call for a closer look: a node holds the crop that it showed,
its children see it, and rollouts go turn by turn (`mcts.zoom.episode`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mcts.baselines import best_of_n, linear, sample_first
from mcts.budget import Usage
from mcts.concurrency import gather
from mcts.config import Grader, SearchConfig
from mcts.data import Question
from mcts.engine import SearchRun
from mcts.policy import Policy
from mcts.prefetch import Prefetcher
from mcts.selection.uct import mark_pending
from mcts.selection.value_model import Valuer
from mcts.tree import Tree


async def search(
    question: Question,
    config: SearchConfig,
    policy: Policy,
    grade: Grader,
    tree_id: str,
    before_wave: Callable[[Usage], None] = lambda usage: None,
    prefetch: Callable[[], int] = lambda: 0,
    valuer: Valuer | None = None,
) -> Tree:
    """Search one question and return the tree.

    A request that fails for good costs its own branch, never the tree; the failure is listed in
    `tree.errors`. The search ends after `config.simulations`, or earlier for the reason given in
    `tree.stopped_by`: everything is explored, enough is found, sampling did, the budget is spent.

    Args:
        before_wave: called with the usage so far before every wave, when no request is in flight;
            an exception it raises ends the search.
        prefetch: how many further leaves may be requested before their turn (`mcts.prefetch`) at
            this moment; the tree does not depend on it.
        valuer: what values new nodes, with `config.value_model`.
    """
    prefetcher = Prefetcher(policy)
    run = SearchRun(question, config, prefetcher, grade, tree_id, valuer)
    tree, unfinished = run.tree, True
    try:
        while tree.simulations < run.limit:
            run_wave = next_wave(run)
            tree.stopped_by = run.stop_reason() if unfinished else "explored"
            if tree.stopped_by:
                break
            before_wave(tree.usage)
            if run_wave is simulate and (more_leaves := prefetch()):
                prefetcher.prefetch(run, 1 + more_leaves)
            unfinished = await run_wave(run)
    finally:
        tree.unused_prefetch = await prefetcher.close()
    return tree


def next_wave(run: SearchRun) -> Wave:
    """Return the function that runs the next wave of a search."""
    config = run.config
    if config.strategy == "auto":
        return sample_first if run.tree.simulations < config.samples else simulate
    return STRATEGIES[config.strategy]


async def simulate(run: SearchRun) -> bool:
    """Run one wave of simulations; return whether anything is left to explore."""
    tree, root, config = run.tree, run.tree.root, run.config
    leaves = run.select_leaves()
    n = config.children
    proposals = await gather(run.propose(leaf, n, leaf.attempts * n) for leaf in leaves)
    new = await run.value([run.expand(*pair) for pair in zip(leaves, proposals, strict=True)])
    rollouts = await gather(run.rollout(node) for node in new)
    for leaf in leaves:
        mark_pending(leaf, -1)
    for node, sampled in zip(new, rollouts, strict=True):
        run.record_rollouts(node, sampled)
    tree.simulations += len(leaves)
    if config.stay:
        run.start = run.promising(leaves)
    return root.open or (config.widening > 0 and run.explored_node() is not None)


Wave = Callable[[SearchRun], Awaitable[bool]]
STRATEGIES: dict[str, Wave] = {
    "mcts": simulate,
    "best-of-n": best_of_n,
    "linear": linear,
}

"""Monte Carlo tree search over reasoning steps that each cite a point.

    tree = await search(question, config, policy, grade, tree_id)

Select a promising leaf, expand it into a few next steps, roll each of them out to an answer, back
the answers' rewards up (ViGoRL, section 3.2 and Table A4). The search is a pure function of the
question, the configuration, the seed and what the policy answers: no disk, no clock, no torch.
Simulations run in waves of a fixed width; inside a wave requests overlap and virtual loss keeps
the simulations apart, and rewards are backed up in a fixed order, so the same responses always
make the same tree. Width 1 is the textbook search. What a search may spend, and when it has found
enough, is looked at between waves only. `strategy` puts a plain baseline (`mcts.baselines`) in the
place of the tree search, with everything else as it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

from mcts.baselines import best_of_n, linear
from mcts.budget import Budget, Spent
from mcts.coordinates import CoordinateSpace
from mcts.data import Grade, Question, content_id
from mcts.engine import RunningSearch
from mcts.prefetch import Lookahead
from mcts.samples import Policy, together
from mcts.tree import Tree, mark_pending, select_wave


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """What decides a search, apart from its question, seed and teacher. Part of its identity."""

    space: CoordinateSpace
    """The frame the teacher speaks."""
    prompt: str = "points"
    """Which file of `mcts/prompts` asks the question."""
    prompt_digest: str = ""
    """Content hash of that file."""
    simulations: int = 8
    children: int = 3
    """Steps sampled when a node is expanded."""
    rollouts: int = 2
    """Answers sampled from each new child."""
    max_depth: int = 10
    """Steps after which only an answer may follow."""
    rollout_steps: int = 5
    """Steps a rollout may think before its answer is forced."""
    exploration: float = 2.0
    """The constant c of UCT."""
    wave: int = 1
    """Simulations that run at once within a tree."""
    temperature: float = 1.0
    top_p: float = 1.0
    step_tokens: int = 512
    """Most tokens of one step; a rollout may use `rollout_steps + 1` times as many."""
    min_thoughts: tuple[int, int] = (3, 7)
    """The prompt demands at least k thoughts, k drawn from this range, ends included."""
    repeat_radius: float = 0.01
    """Two points closer than this share of the image's longer side are the same place."""
    strategy: str = "mcts"
    """`mcts`, or the baselines `best-of-n` and `linear`."""
    samples: int = 16
    """Whole chains the baselines sample; `mcts` counts simulations instead."""
    enough: int | None = None
    """Stop at this many distinct right lines of reasoning (`Tree.right_lines`)."""
    budget: Budget = field(default_factory=Budget)
    """Stop when this is spent."""
    bounded: bool = False
    """Ask the teacher itself to end a rollout with its last allowed step, if it can count steps;
    else what it says beyond is cut here, after it was paid for."""


# Younger fields name a search only where they are set, so that older searches keep their names.
_YOUNGER = ("strategy", "samples", "enough", "budget", "bounded")

Grader = Callable[[Question, str | None], Grade]


def search_id(question: Question, config: SearchConfig, seed: int, teacher: str) -> str:
    """The name of a search: equal exactly when everything that decides it is equal."""
    decisive = asdict(config)
    standard = asdict(SearchConfig(config.space))
    for name in _YOUNGER:
        if decisive[name] == standard[name]:
            del decisive[name]
    return content_id(question.question_id, decisive, seed, teacher)


def thoughts_demanded(tree_id: str, config: SearchConfig) -> int:
    """The k of "at least k steps", the same for a whole tree and drawn anew for each."""
    return random.Random(tree_id).randint(*config.min_thoughts)


async def search(
    question: Question,
    config: SearchConfig,
    policy: Policy,
    grade: Grader,
    tree_id: str,
    between: Callable[[Spent], None] = lambda spent: None,
    ahead: Callable[[], int] = lambda: 0,
) -> Tree:
    """Search one question and return the tree.

    A request that fails for good costs its own branch, never the tree: what was found stands, and
    the failure is listed in `tree.errors`. The search ends after `config.simulations`, or sooner
    for a reason that is then `tree.stopped_by`: everything is explored, enough is found, the
    budget is spent.

    Args:
        between: told before every wave what was spent so far; what it raises ends the search
            while nothing is under way that it waits for.
        ahead: how many leaves may be asked for before their turn (`mcts.prefetch`) at this
            moment; the tree is the same with any number.
    """
    looking = Lookahead(policy)
    running = RunningSearch(question, config, looking, grade, tree_id)
    tree, wave, more = running.tree, STRATEGIES[config.strategy], True
    try:
        while tree.simulations < (config.simulations if wave is simulate else config.samples):
            tree.stopped_by = running.reason_to_stop() if more else "explored"
            if tree.stopped_by:
                break
            between(tree.spent)
            if wave is simulate and (most := ahead()):
                looking.look(running, 1 + most)
            more = await wave(running)
    finally:
        tree.vain = await looking.close()
    return tree


async def simulate(search: RunningSearch) -> bool:
    """One wave of simulations: select, expand, roll out, back up; whether anything is left."""
    tree, root, config = search.tree, search.tree.root, search.config
    width = min(config.wave, config.simulations - tree.simulations)
    leaves = select_wave(root, config.exploration, width)
    n = config.children
    offers = await together(search.propose(leaf, n, leaf.attempts * n) for leaf in leaves)
    new = [
        node
        for leaf, offer in zip(leaves, offers, strict=True)
        for node in search.expand(leaf, offer)
    ]
    rollouts = await together(search.roll_out(node) for node in new)
    for leaf in leaves:
        mark_pending(leaf, -1)
    for node, sampled in zip(new, rollouts, strict=True):
        search.settle(node, sampled)
    tree.simulations += len(leaves)
    return root.open


STRATEGIES: dict[str, Callable[[RunningSearch], Awaitable[bool]]] = {
    "mcts": simulate,
    "best-of-n": best_of_n,
    "linear": linear,
}

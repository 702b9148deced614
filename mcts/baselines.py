"""What a tree search is measured against, grown by the same engine: sampling without a tree.

Best-of-n samples whole chains from the question, several to a request. Linear sampling, which
people also call distillation sampling, thinks one step a request from the question to an answer,
and then begins anew. Both know nothing of what earlier chains earned. Each function here is one
wave of its strategy, as `mcts.search.simulate` is of the tree search:

    more = await best_of_n(search)          # False: the teacher gives nothing to go on with

What they make is a tree like any other, so that it is stored, linearized and shown by the same
code: the chains of best-of-n are rollouts of the root, those of linear sampling are its children.
The answer most of them gave, self-consistency, is `majority_answer` of the table `trees`. Neither
drops anything: a repeated point or a copy is part of what such sampling gives, and filters judge
it later as they judge every trace. To compare at equal tokens, give both strategies one
`Budget(tokens=...)` and simulations or samples in plenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcts.samples import Sample, together
from mcts.teachers.base import TeacherError
from mcts.tree import EXPANSION_ATTEMPTS, Node, Rollout

if TYPE_CHECKING:
    from mcts.engine import RunningSearch

# About as many answers as one expansion with its rollouts samples, so that a wave of either
# strategy, the grain in which budgets are kept, is of one size.
CHAINS_A_REQUEST = 8


async def best_of_n(search: RunningSearch) -> bool:
    """Sample whole chains from the question alone: one request, or `wave` of them side by side."""
    tree, config = search.tree, search.config
    requests: list[tuple[int, int]] = []  # first sample, number of samples
    first = tree.simulations
    while first < config.samples and len(requests) < config.wave:
        requests.append((first, min(CHAINS_A_REQUEST, config.samples - first)))
        first += requests[-1][1]
    for drawn in await together(_chains(search, *request) for request in requests):
        tree.root.attempts += 1
        search.settle(tree.root, drawn)
    tree.simulations = first
    return _worth_going_on(tree.root)


async def _chains(search: RunningSearch, first: int, n: int) -> list[Rollout] | TeacherError:
    """`n` chains from one request; what is too long is cut and made to answer."""
    root = search.tree.root
    try:
        samples = await search.policy.sample(root.path, "chain", (), n, first)
    except TeacherError as error:
        return error
    limit = search.config.max_depth
    return await together(
        search.finish(root, (), sample, first + i, limit) for i, sample in enumerate(samples)
    )


async def linear(search: RunningSearch) -> bool:
    """Think one chain step by step to its answer, or `wave` of them side by side."""
    tree, config = search.tree, search.config
    first = tree.simulations
    numbers = range(first, min(first + config.wave, config.samples))
    tips = dict.fromkeys(numbers, tree.root)
    ends: dict[int, Node] = {}
    while tips:
        # A chain's first step is a sample of the root of its own number; later steps have a node
        # to themselves. All step together and are hung in order, so that node numbers are fixed.
        asked = [(number, tip, 0 if tip.parent else number) for number, tip in tips.items()]
        offers = await together(search.propose(tip, 1, sample) for _, tip, sample in asked)
        for (number, tip, sample), offer in zip(asked, offers, strict=True):
            end = _hang(search, tip, offer, sample)
            if end is not None and not end.terminal:
                tips[number] = end
                continue
            del tips[number]
            if end is not None:
                ends[number] = end
    for number in sorted(ends):
        search.settle(ends[number], [])
    tree.simulations += len(numbers)
    return _worth_going_on(tree.root)


def _hang(
    search: RunningSearch, tip: Node, offer: Sequence[Sample] | TeacherError, number: int
) -> Node | None:
    """Hang the next step under `tip`; the node to go on from, or None where the chain breaks."""
    tip.attempts += 1
    if isinstance(offer, TeacherError):
        search.note(tip, offer)
        return None
    node = search.graft(tip, offer[0], number, choosy=False)
    return None if node.discarded else node


def _worth_going_on(root: Node) -> bool:
    """Whether anything was earned yet, or too little asked to say; a dead teacher is given up."""
    return root.visits > 0 or root.attempts < EXPANSION_ATTEMPTS

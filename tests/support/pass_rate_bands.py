"""Which questions are worth asking in GRPO: how often they are answered right, as a band.

    row = grpo_prompt(trees)      # of one question and one teacher; None if nothing was graded
    learnable = row.band in ("hard", "medium", "easy")

A group of samples that are all right or all wrong has no advantage to learn from, so a question
should be one that is sometimes answered right. A tree's answers are no plain samples: the search
goes where it was right before. So the pass rate counts every first step of a tree the same,
however often the search followed it; below the first step the search's choice remains, and the rate
is a little too high. Of chains that were sampled plainly (best-of-n, linear) it is the plain share.

The view `grpo_prompts` of the warehouse holds the same rows, one for each question and model, and a
test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from curation.traces.step_values import rewards_below
from mcts.tree import Tree

BANDS = ("unsolved", "hard", "medium", "easy", "solved")
"""From never right to never wrong."""


@dataclass(frozen=True, slots=True)
class GrpoPrompt:
    """One question, and how often one teacher gets it right."""

    question_id: str
    trees: int
    """Trees with graded answers."""
    outcomes: int
    """Graded answers in them."""
    right_outcomes: int
    """Of these, those that earned a full reward."""
    first_steps: int
    """First steps, and chains sampled whole: each a plain sample of the teacher."""
    pass_rate: float
    """Mean over the first steps of the share of right answers behind them, 0 to 1."""
    band: str
    """One of `BANDS`."""


def grpo_prompt(trees: Iterable[Tree]) -> GrpoPrompt | None:
    """Make the row of the question that `trees` are about; None if nothing was graded."""
    question_ids: set[str] = set()
    rewards: list[float] = []
    shares: list[float] = []
    counted = 0
    for tree in trees:
        question_ids.add(tree.question.question_id)
        behind = [rewards_below(child) for child in tree.root.children if not child.discarded]
        behind += [[reward] for reward in tree.root.rewards]
        behind = [earned for earned in behind if earned]
        shares += [sum(r >= 1.0 for r in earned) / len(earned) for earned in behind]
        rewards += [reward for earned in behind for reward in earned]
        counted += bool(behind)
    if len(question_ids) > 1:
        raise ValueError(f"trees of {len(question_ids)} questions can't make one prompt")
    if not shares:
        return None
    right = sum(reward >= 1.0 for reward in rewards)
    # Rounded, so that the order of summing never decides on which side of a band it falls.
    rate = round(sum(shares) / len(shares), 9)
    made = band_of(right, len(rewards), rate)
    return GrpoPrompt(question_ids.pop(), counted, len(rewards), right, len(shares), rate, made)


def band_of(right: int, outcomes: int, pass_rate: float) -> str:
    """Name the band: `unsolved` if nothing was right, `solved` if all was; else by pass rate."""
    if right == 0:
        return "unsolved"
    if right == outcomes:
        return "solved"
    return "hard" if pass_rate < 0.25 else "medium" if pass_rate < 0.75 else "easy"

"""Trees scored anew by the grader as it is now, their topology kept: what would change.

    regraded = await regrade(BuildSettings(task="sat2", teacher=url, space="qwen3-vl"))
    print(regraded.sentence())       # 6 trees scored anew: 0 scores in 0 trees are others; ...

    changes = list(regrade_tree(tree))     # one tree, in place

No server is asked and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from curation.grading.grade import grade
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.stages.build import find_questions
from flows.stages.replay import recorded_searches
from flows.stages.search import search_config
from flows.teachers.resolve import resolve
from mcts.config import Grader
from mcts.engine import FAILURE_PREFIX
from mcts.journal.journal import Journal
from mcts.selection.uct import backpropagate
from mcts.tree import Tree
from warehouse.query.read_back import read_trees
from warehouse.storage.home import Warehouse


@dataclass(frozen=True, slots=True)
class Regraded:
    """Changes that scoring trees anew would make."""

    trees: int
    changed: tuple[str, ...]
    """Trees of which at least one score is another."""
    outcomes: int
    """Scores that are others."""
    now_right: int
    """Trees that had no right answer and now have one."""
    now_wrong: int

    def sentence(self) -> str:
        """Sum up the outcome."""
        return (
            f"{self.trees} trees scored anew: {self.outcomes} scores in {len(self.changed)} trees "
            f"are others; {self.now_right} trees gain a right answer, {self.now_wrong} lose theirs"
        )


def regrade_tree(tree: Tree, grader: Grader = grade) -> Iterator[tuple[float | None, float | None]]:
    """Score `tree` anew in place, its topology kept; yields each score that changes, old and new.

    What could not be sampled stays unscored.
    """
    nodes = tree.nodes
    for node in nodes:
        node.visits, node.total = 0, 0.0
        for scored in ([node] if node.terminal else []) + node.rollouts:
            if scored.reason.startswith(FAILURE_PREFIX):
                continue
            graded = grader(tree.question, scored.answer)
            if graded.score != scored.reward:
                yield scored.reward, graded.score
            scored.reward, scored.reason = graded.score, graded.reason
    for node in nodes:
        for reward in node.rewards:
            backpropagate(node, reward)


async def regrade(settings: BuildSettings, *, progress: Progress | None = None) -> Regraded:
    """Score the warehouse's trees of these settings anew; nothing is written."""
    warehouse = Warehouse.at(settings.home)
    config = search_config(settings, resolve(settings, recorded=True))
    questions = await find_questions(warehouse, settings, progress or Progress())
    with Journal(warehouse.journal_dir, store=warehouse.journal_store) as journal:
        _, searches = recorded_searches(warehouse, journal, settings, config, questions)
    trees = outcomes = now_right = now_wrong = 0
    changed = []
    for start in range(0, len(searches), settings.shard):
        ids = [s.tree_id for s in searches[start : start + settings.shard]]
        for tree, _ in read_trees(warehouse, ids):
            right = any(score >= 1.0 for _, score in tree.outcomes())
            others = len(list(regrade_tree(tree)))
            now = any(score >= 1.0 for _, score in tree.outcomes())
            trees, outcomes = trees + 1, outcomes + others
            now_right, now_wrong = now_right + (now > right), now_wrong + (right > now)
            changed += [tree.tree_id] if others else []
    return Regraded(trees, tuple(changed), outcomes, now_right, now_wrong)

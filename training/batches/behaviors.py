"""Says which behaviors of a student die in reinforcement learning.

    shares = behavior_shares(answers)           # of a batch: {"behaviors/verification": 0.7, …}
    lost_behaviors(read_metrics(file))          # "verification: 71% of answers … 3% in its last 5"

Searches teach second looks and turns back, and a reward for answers alone unlearns them where they
cost tokens and correct nothing. Neither reward nor accuracy shows that, so how many answers have
one is logged at every step, by the rules that count them in traces (`curation.scores.behaviors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from curation.scores.behaviors import count_behaviors
from mcts.data import Trace, TraceKind
from training.rewards.completions import ParsedCompletion
from warehouse.tables.schema import Row

WATCHED = ("verification", "backtracking")
FEW = 5
"""Steps at either end of a training that are compared."""
HAD = 0.05
"""Share of answers from which on a student has a behavior."""
DIED = 0.5
"""Share of what it was, below which a behavior has died."""


def behavior_shares(
    answers: Sequence[ParsedCompletion], begun: Sequence[int] = ()
) -> dict[str, float]:
    """Return which share of the well-formed answers shows each behavior; empty without any.

    Args:
        begun: how many steps of each answer are of its prefix, and so not the student's.
    """
    counts = [
        count_behaviors(
            Trace(answer.graded.question.question_id, answer.steps[first:], answer.answer, None,
                  TraceKind.DIRECT),
            answer.graded.question,
        )
        for answer, first in zip(answers, begun or [0] * len(answers), strict=True) if answer.whole
    ]  # fmt: skip
    if not counts:
        return {}
    return {f"behaviors/{name}": fmean(c[name] > 0 for c in counts) for name in WATCHED}


def lost_behaviors(metrics: Sequence[Row]) -> str:
    """Say which behaviors the student had in its first steps and has no more in its last; empty
    where there are none, and of a training that is too short to tell.

    Args:
        metrics: the lines of a training's metrics.jsonl.
    """
    lost = []
    for name in WATCHED:
        shares = [row[f"behaviors/{name}"] for row in metrics if f"behaviors/{name}" in row]
        if len(shares) < 2 * FEW:
            continue
        first, last = fmean(shares[:FEW]), fmean(shares[-FEW:])
        if first >= HAD and last < DIED * first:
            lost.append(f"{name} died: {first:.0%} of answers had it in the first {FEW} steps, "
                        f"{last:.0%} in the last {FEW}")  # fmt: skip
    return "; ".join(lost)

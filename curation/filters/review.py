"""What people say of a trace, as the verdict of a filter: dropped where more find it wrong.

    review_verdict([Review("t1", "ada", "wrong", "points at the other ball")])     # keep is False

Reviews are asked for by `vigorl review` and change afterwards, so these verdicts are a stage of
their own, which no run of the other filters replaces. Only traces that were reviewed have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mcts.data import Verdict

REVIEW = "review"
"""The filter, and the stage of its verdicts."""
METHOD = "review/1"

ReviewVerdict = Literal["right", "wrong", "unsure"]
REVIEW_VERDICTS: tuple[ReviewVerdict, ...] = get_args(ReviewVerdict)


@dataclass(frozen=True, slots=True)
class Review:
    """What one person says of a trace, or of one of its steps."""

    trace_id: str
    reviewer: str
    verdict: ReviewVerdict
    comment: str = ""
    step: int | None = None
    """The step, from 0; None for the whole trace."""


def review_verdict(reviews: Sequence[Review]) -> Verdict:
    """Return the verdict that follows from people's newest reviews of one whole trace.

    The score is the share of right among those that say right or wrong; None where nobody does.
    """
    right, wrong = ([r for r in reviews if r.verdict == said] for said in ("right", "wrong"))
    keep = len(wrong) <= len(right)
    said = [f"{r.reviewer}: {r.comment}" if r.comment else r.reviewer for r in wrong]
    reason = f"wrong, says {'; '.join(said)}" if said else ""
    if said and right:
        reason += f"; right, says {', '.join(r.reviewer for r in right)}"
    decided = len(right) + len(wrong)
    return Verdict(REVIEW, keep, reason, len(right) / decided if decided else None)

"""What a line of reasoning does, counted by rule: places, returns, goals, checks, retreats.

    counts = count_behaviors(trace, question)
    counts["regions"], counts["backtracking"]           # 4, 1; every behavior is there, also with 0

The rules read what is on the page, so that anyone can check a count by eye. They are the six rows
that a trace has in the table `behaviors` under the method `rule/2`; judge models count regions,
subgoals, verification and backtracking (ViGoRL, Table 5) in rows of their own
(`curation.scores.judge_prompts`). A count is of steps:

- `regions`: places looked at. A step's point opens a new one unless it is within `REGION_RADIUS` of
  one that an earlier step opened, in the same image.
- `revisits`: steps whose point lies in a region that an earlier step opened.
- `subgoals`: steps that say what is to be found out next ("First, I need to find the lamp").
- `verification`: steps that check something said before, *and* cite the place where they look.
- `backtracking`: steps that give up what was just said ("Wait, that does not fit"), and the step
  with which a corrected chain turns back, whatever its words. Such a step is no verification.
- `grounded_subgoals`: subgoals that cite a point which boxes do not show to be elsewhere.

Change what a rule counts and raise `VERSION`: old counts stay beside the new ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Point, Question, Trace

VERSION = 2
METHOD = f"rule/{VERSION}"

RULE_BEHAVIORS = (
    "regions", "revisits", "subgoals", "verification", "backtracking", "grounded_subgoals",
)  # fmt: skip

# Two points closer than this share of the image's longer side look at one region. Wider than the
# filters' `REPEAT_RADIUS`, which asks for the same spot: two looks at one thing seldom hit that.
REGION_RADIUS = 0.05

_DO = r"(?:find|locate|identify|look\s+(?:at|for)|check|determine|compare|examine|see|count|read)"
_SOON = r"(?:first|next|now|then|also)"
_BEGINS = r"(?:^|[.!?\u2026]\s+)"
_INTERJECTED = rf"(?:{_BEGINS}|[,;\u2013\u2014-]\s*|\b(?:but|oh|no|hmm|so|wait)\s+)"
_SUBGOAL = re.compile(
    # "I can see the lamp" tells what is there, "I can now look for it" what comes next.
    rf"\b(?:I|we)(?:\s+(?:will|must|should|have\s+to|need\s+to|want\s+to)|'ll|\s+can(?=\s+{_SOON}))"
    rf"(?:\s+{_SOON})?\s+{_DO}\b"
    rf"|\b(?:let\s+me|let's|let\s+us)(?:\s+{_SOON})?\s+{_DO}\b"
    rf"|\b(?:next|first|now|then)\s*,?\s+(?:I|we)\s+(?!see\b){_DO}\b"
    rf"|\b(?:to\s+(?:start|begin|answer)|the\s+(?:next|first)\s+(?:step|thing)\s+is\s+to)\b",
    re.IGNORECASE,
)
_CHECKING = re.compile(
    # No "check shirt", no "the check", no "check-in".
    r"\b(?:double-?\s?check\w*|verif\w+|confirm\w*|make\s+sure|"
    r"(?<!\ba )(?<!\bthe )check(?:ing)?(?!-|\s+(?:shirt|pattern|dress|skirt|trousers|jacket|coat|"
    r"scarf|fabric|cloth|tablecloth|mark|box|in)\b)|"
    r"look(?:ing)?\s+(?:\w+\s+)?(?:again|closer|more\s+closely)|re-?examin\w+)\b",
    re.IGNORECASE,
)
_RETREAT = re.compile(
    # Of words that also tell what is seen ("people wait", "it is actually behind the table", "the
    # lamp seems off") those that interrupt, or that are about what was said.
    rf"{_INTERJECTED}(?:wait\b(?!\s+(?:for|at|in|on|until|to)\b)|hold\s+on\b(?!\s+to\b)|actually\b)"
    r"|\bactually\s*,|\bon\s+second\s+thought\b"
    r"|\b(?:this|that|it|something)\s+seems?\s+(?:off|wrong)\b|\bis\s+off\s+here\b"
    r"|\b(?:that|this)\s+(?:is|was|does)\s*(?:n't|not)\s+(?:(?:right|correct)\b"
    r"(?!\s+(?:of|next|in|at|on|behind|above|below)\b)|fit\b)"
    r"|\b(?:my|(?:is|was|made)\s+a)\s+mistake\b|\bI\s+was\s+(?:wrong|mistaken)\b"
    r"|\b(?:let\s+me|let's|let\s+us|(?:I|we)(?:'ll|\s+\w+(?:\s+to)?)?)\s+(?:\w+\s+)?go(?:ing)?\s+back\b",
    re.IGNORECASE,
)


def count_behaviors(
    trace: Trace, question: Question, grounded: Sequence[bool | None] = ()
) -> dict[str, int]:
    """Count how often `trace` shows each of `RULE_BEHAVIORS`, by the rules above.

    Args:
        grounded: for each step whether its point is on what it names, where that was checked.
    """
    counts = dict.fromkeys(RULE_BEHAVIORS, 0)
    frame = Frame.of(CoordinateSpace.original(), question)
    regions: list[Point] = []
    for i, step in enumerate(trace.steps):
        point = step.point
        if point is not None and any(frame.same_place(point, r, REGION_RADIUS) for r in regions):
            counts["revisits"] += 1
        elif point is not None:
            regions.append(point)
        retreats = i == trace.turns_back_at or _RETREAT.search(step.thought) is not None
        counts["backtracking"] += retreats
        if not retreats and point is not None and _CHECKING.search(step.thought):
            counts["verification"] += 1
        if not retreats and _SUBGOAL.search(step.thought):
            counts["subgoals"] += 1
            elsewhere = bool(grounded) and grounded[i] is False
            counts["grounded_subgoals"] += point is not None and not elsewhere
    counts["regions"] = len(regions)
    return counts

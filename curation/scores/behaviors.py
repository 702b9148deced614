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
# "I can see" and "now I see" tell what is seen.
_SUBGOAL = re.compile(
    rf"\b(?:I|we)(?:\s+(?:will|must|should|have\s+to|need\s+to|want\s+to)|['’]ll)"
    rf"(?:\s+(?:first|next|now|then|also))?\s+{_DO}\b"
    rf"|\b(?:let\s+me|let['’]s|let\s+us)(?:\s+(?:first|next|now|then|also))?\s+{_DO}\b"
    rf"|\b(?:next|first|now|then)\s*,?\s+(?:I|we)\s+(?!(?:see|read|count)\b){_DO}\b"
    rf"|\b(?:to\s+(?:start|begin|answer)|the\s+(?:next|first)\s+(?:step|thing)\s+is\s+to)\b",
    re.IGNORECASE,
)
_OPENS = r"(?:^|[.!?,;:…—–]\s*|\b(?:but|and|so|no|oh|hmm+|then|now|well)\s+)"
"""Where a clause begins: before a word that is no part of what is seen, as in "people wait"."""
_WE = (
    r"(?:\b(?:I|we|let\s+me|let\s+us|let['’]s)"
    r"(?:\s+(?:will|must|should|can|could|need\s+to|have\s+to|want\s+to|am|are|now|also|then))*"
    r"|['’]ll|\b(?:worth|by|before|after|to))\s+(?:\w+ly\s+|first\s+|now\s+|just\s+)?"
)
_NO_THING = (  # what is checked or confirmed, and no name of a thing: a check shirt
    r"(?!\s*-|\s+(?:shirt|pattern|fabric|cloth|dress|tablecloth|tie|jacket|suit|flag|mark|box|"
    r"button|icon|tab|link|code|order|purchase|payment|booking|password|account|in|out)\b)"
)
_CHECKING = re.compile(
    rf"\b(?:double-?\s?check(?:ing|ed|s)?|re-?check(?:ing|ed|s)?|make\s+sure|re-?examin\w+|"
    rf"look(?:ing)?\s+(?:\w+\s+)?(?:again|closer(?!\s+(?:to|together|than)\b)|more\s+closely))\b"
    rf"|(?:{_WE}|{_OPENS})(?:check|verif|confirm)(?:y|s|ies|ed|ied|ing|ying)?\b{_NO_THING}"
    rf"|\b(?:this|that|which|it)\s+(?:confirms|verifies)\b",
    re.IGNORECASE | re.MULTILINE,
)
_NOT_A_SIDE = r"(?!\s+(?:of|next|behind|in|under|above|below|beside|at|on|by|near|there|here)\b)"
_RETREAT = re.compile(
    rf"{_OPENS}wait(?=\s*[,.!?…:;—–-]|\s*$|\s+(?:a\s+(?:minute|second|moment)|no|I|that|this)\b)"
    rf"|{_OPENS}hold\s+on\b(?!\s+to\b)"
    rf"|{_OPENS}actually\b"
    rf"|{_OPENS}(?:wait\s+)?(?:that|this|it)\s*(?:is|was|does|did|['’]s)\s*(?:n['’]t|not)\s+"
    rf"(?:right|correct|fit)\b{_NOT_A_SIDE}"
    rf"|\bsomething\s+(?:is|was|seems|looks)\s+(?:off|wrong)\b"
    rf"|{_OPENS}(?:that|this|it)\s+(?:seems|looks|is|was)\s+wrong\b"
    rf"|{_OPENS}(?:that|this)\s+(?:seems|looks)\s+off\b"
    rf"|\bon\s+second\s+thought\b|\b(?:I|we)\s+(?:made|was|were)\s+(?:a\s+mistake|wrong|mistaken)\b"
    rf"|\b(?:my|that\s+(?:is|was)\s+a)\s+mistake\b"
    rf"|\b(?:I|we|let\s+me|let\s+us|let['’]s)(?:\s+(?:will|must|should|need\s+to|have\s+to))?"
    rf"\s+go\s+back\b|{_OPENS}going\s+back\b",
    re.IGNORECASE | re.MULTILINE,
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

"""ICAL: recorded steps of people and agents in VisualWebArena's shops, forums and classifieds.

Schema (github.com/Gabesarch/ICAL, VisualWebArena/learned_examples/*/planning_examples.json): one
object with `examples`, each a list of five: what the agent was shown as text (`OBJECTIVE: …`,
`OBSERVATION: …`, `PREVIOUS ACTIONS: …`, `ABSTRACTION COMMENTS: …`), what it thought, with the
action between ``` at its end, the name of the screenshot with numbered elements (such as
`./data/…/images/classifieds_1/0.png`), the comments again, and a number.

The question keeps the objective and the previous actions. The page's text is left out, since it is
in the image, and so are the comments, which tell how to go on. A step's trajectory is the
image's folder; `questions.part_of` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from curation.grading.actions import parse_action
from mcts.data import AnswerKind
from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable

_PART = re.compile(
    r"(OBJECTIVE|OBSERVATION|URL|PREVIOUS ACTIONS|ABSTRACTION COMMENTS):(.*?)"
    r"(?=\n\n(?:OBSERVATION|URL|PREVIOUS ACTIONS|ABSTRACTION COMMENTS):|\Z)",
    re.DOTALL,
)
_FENCED = re.compile(r"```(.+?)```", re.DOTALL)


def _drafts(row: Row) -> Iterator[Draft | Unusable]:
    for number, example in enumerate(row.items("examples"), start=1):
        at = f"examples[{number}]"
        try:
            yield replace(_draft(row, example), row=number)
        except Unusable as problem:
            yield Unusable(f"{at}.{problem.field}", problem.reason)


def _draft(row: Row, example: Any) -> Draft:
    texts = example[:3] if isinstance(example, list) else []
    if len(texts) < 3 or not all(isinstance(text, str) for text in texts):
        raise Unusable("example", "it should be a list of what is shown, thought, and an image")
    shown, thought, name = texts
    parts = {key: value.strip() for key, value in _PART.findall(shown)}
    if not parts.get("OBJECTIVE"):
        raise Unusable("shown", "there is no OBJECTIVE")
    fenced = _FENCED.findall(thought)
    action = fenced[-1].strip() if fenced else ""
    parsed = parse_action(action)
    if parsed is None:
        raise Unusable("thought", f"it ends with no action between ```, but {thought[-40:]!r}")
    previous = parts.get("PREVIOUS ACTIONS") or "None"
    return row.draft(
        f"OBJECTIVE: {parts['OBJECTIVE']}\nPREVIOUS ACTIONS: {previous}",
        [DraftImage(_screenshot(row, name))],
        answer_kind=AnswerKind.ACTION,
        answers=(action,),
        family=parsed.name,
        part_of=PurePosixPath(name).parent.name,
    )


def _screenshot(row: Row, name: str) -> bytes:
    """The image, below the image root as it is named, or without the folders before `images`."""
    path = PurePosixPath(name)
    parts = path.parts
    if "images" not in parts:
        return row.files.get(str(path), "image")
    try:
        return row.files.get(str(path), "image")
    except Unusable:
        short = PurePosixPath(*parts[parts.index("images") + 1 :])
        return row.files.get(str(short), "image")


FORMATS = published("ICAL", _drafts, ("examples",), folders=("images",), suffixes=(".json",))

"""The report of a cycle of retraining: one page that needs nothing beside itself, and a short text.

    report = CycleReport("sat2", 7, outcome="refused", reason="+1.2 points could be luck", …)
    html = render_page(report);  markdown = render_summary(report)

The page says in its first sentence what was decided, then shows why. It is made from what it is
given alone; `flows.stages.retrain.report` reads that from the warehouse. What a cycle did not come
to is left out of its page. Every text comes from outside, and the template escapes it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curation.render.charts import Axis, Curve
from curation.render.markdown import render_markdown
from curation.render.marks import in_whole_pixels, marks_of, regions_of, shown_answer
from curation.render.trace_card import draw_marks
from curation.scores.bootstrap import Estimate, PairedDifference
from curation.scores.collapse import CollapseCheck
from curation.scores.gate import ROUNDING
from mcts.data import Question, Trace
from mcts.image_io import UnreadableImage, decode

VERDICTS = {
    "promoted": "Promoted",
    "refused": "Refused",
    "waiting": "Waits for a person",
    "too_few": "Too few new traces",
    "collapsed": "Stopped: the traces collapse",
    "abandoned": "Abandoned",
    "paused": "Paused",
    "unfinished": "Not finished",
}
"""How a cycle may have ended, in words; others are shown as they are named."""
_SIDE = 400  # pixels of an example's image
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage of a cycle."""

    name: str
    done: bool
    seconds: float | None = None
    """From the stage before to its end; None where that isn't known."""
    tokens: int | None = None
    """Tokens written or trained on; None where they are not counted."""
    words: str = ""
    """What it came to."""


@dataclass(frozen=True, slots=True)
class FamilyCount:
    """What came in of one family of questions."""

    family: str
    questions: int
    searched: int
    """Questions of these that were searched."""
    solved: int
    """Questions whose search found a right answer."""
    kept: int
    """Traces that every filter keeps."""


@dataclass(frozen=True, slots=True)
class FamilyChange:
    """How much of one family a dataset has more or less than the one before."""

    family: str
    questions_gained: int
    questions_lost: int
    traces_gained: int
    traces_lost: int
    traces: int
    """Traces it has now."""


@dataclass(frozen=True, slots=True)
class TrainingCurves:
    """One training with its curves."""

    stage: str
    model: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Both models on one family, or on all questions."""

    family: str
    champion: Estimate
    challenger: Estimate
    gain: PairedDifference


@dataclass(frozen=True, slots=True)
class Control:
    """A figure that may not fall, or of blank images, not rise."""

    name: str
    champion: float
    challenger: float
    margin: float

    @property
    def harmed(self) -> bool:
        """Whether it went the wrong way by more than the margin, as the gate counts it."""
        change = self.challenger - self.champion
        return (change if self.name == "blank" else -change) > self.margin + ROUNDING


@dataclass(frozen=True, slots=True)
class Gate:
    """The numbers that decided."""

    p: float
    allowed: float
    attempt: int
    alpha: float
    minimum: float
    family_margin: float
    enough: int | None
    """Questions that would have decided; None where it was promoted, or nothing says."""
    controls: tuple[Control, ...] = ()
    costs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """`tokens` and `seconds` of an answer, the champion's and the challenger's."""


@dataclass(frozen=True, slots=True)
class DrawnAnswer:
    """One model's answer to an example's question."""

    answer: str
    """In whole pixels where it is a place; empty if none was given."""
    right: bool
    thoughts: tuple[str, ...]
    images: tuple[str, ...]
    """Its question's images with its points, as data URIs."""


@dataclass(frozen=True, slots=True)
class ComparedExample:
    """A question that only one of the models has right."""

    question: Question
    champion: DrawnAnswer
    challenger: DrawnAnswer


@dataclass(frozen=True, slots=True)
class CycleReport:
    """Everything that a cycle's page shows."""

    task: str
    number: int
    outcome: str
    """How it ended, a key of `VERDICTS` or another name."""
    reason: str
    began: str = ""
    """A time in words, as the other times."""
    ended: str = ""
    champion: str = ""
    """Identity of the model that was there before."""
    challenger: str = ""
    first: bool = False
    """Whether there was no champion yet: it was compared with the model it was trained from."""
    since: tuple[str, ...] = ()
    """What was decided about the challenger afterwards."""
    stages: tuple[StageLine, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)
    """From questions to traces in the dataset, each with its count."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """New questions by the file they came from."""
    rejects: tuple[str, ...] = ()
    arrived: tuple[FamilyCount, ...] = ()
    teachers: Mapping[str, int] = field(default_factory=dict)
    """Trees by the model that searched."""
    funnel: tuple[Mapping[str, Any], ...] = ()
    """Of the new traces, rows like the view `verdict_funnel`."""
    dataset: str = ""
    before: str = ""
    """The dataset of the last cycle that came to a decision."""
    changes: tuple[FamilyChange, ...] = ()
    collapse: tuple[CollapseCheck, ...] = ()
    trainings: tuple[TrainingCurves, ...] = ()
    gate: Gate | None = None
    compared: tuple[Compared, ...] = ()
    """All questions first, then by family."""
    gained: tuple[ComparedExample, ...] = ()
    lost: tuple[ComparedExample, ...] = ()
    behaviors: tuple[tuple[str, float, float], ...] = ()
    """By name, the mean count an answer of champion and challenger."""
    commands: tuple[tuple[str, str], ...] = ()
    """What leads further, and the command to type."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    """What could not be read, and why."""

    @property
    def name(self) -> str:
        """`sat2, cycle 7`."""
        return f"{self.task}, cycle {self.number}"

    @property
    def verdict(self) -> str:
        """How it ended, in a word or two."""
        return VERDICTS.get(self.outcome, self.outcome.replace("_", " ").capitalize())

    @property
    def other(self) -> str:
        """What the challenger was compared with."""
        return "base" if self.first else "champion"

    @property
    def sentence(self) -> str:
        """Why it ended so, as a sentence; one that begins with a name begins as it is written."""
        first = self.reason.partition(" ")[0]
        begin = self.reason[:1].upper() if first.isalpha() else self.reason[:1]
        return f"{begin}{self.reason[1:].rstrip('.')}."

    @property
    def enough(self) -> str:
        """How many questions would have decided; empty where that isn't known."""
        if self.gate is None or not self.gate.enough or not self.compared:
            return ""
        gain = self.compared[0].gain
        size = "a gain of this size"
        if gain.value < self.gate.minimum:
            size = f"a gain of {points(self.gate.minimum)} points, the least that counts,"
        return (
            f"With {self.gate.enough:,} questions {size} would have been found in 8 of 10 cases; "
            f"the gate has {gain.n:,}."
        )

    @property
    def axis(self) -> Axis:
        """Of the gains, in shares."""
        ends = [end for row in self.compared for end in (row.gain.low, row.gain.high)]
        return Axis.around(ends, also=[0.0])


def answered(trace: Trace, right: bool, question: Question, images: Sequence[bytes]) -> DrawnAnswer:
    """Draw a model's answer: its points on the question's images."""
    marks, regions = marks_of(trace, question), regions_of(trace)
    drawn = []
    for i, data in enumerate(images):
        try:
            image = decode(data)
        except UnreadableImage:
            continue
        here = [mark for mark in marks if mark.point.image == i]
        shown = draw_marks(image, here, [r for r in regions if r.box.image == i], side=_SIDE)
        drawn.append(_data_uri(shown))
    thoughts = tuple(in_whole_pixels(step.thought, step.points) for step in trace.steps)
    return DrawnAnswer(shown_answer(trace.answer, question), right, thoughts, tuple(drawn))


def _data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def render_page(report: CycleReport) -> str:
    """Render the page; it fetches nothing, and runs no script."""
    pages = Environment(
        loader=PackageLoader("curation.render"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"points": points, "duration": duration, "spoken": spoken}
    return pages.get_template("cycle.html").render(report=report)


def render_summary(report: CycleReport) -> str:
    """Render the short text, in Markdown."""
    return render_markdown(
        "curation.render", "cycle.md.jinja", report=report, points=points, duration=duration
    )


def points(share: float, sign: str = "") -> str:
    """Format a share in per cent, a difference with `sign="+"` in points."""
    return f"{100 * share:{sign}.1f}"


def duration(seconds: float | None) -> str:
    """Format a time in its largest two units; a dash where there is none."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def spoken(name: str) -> str:
    """Return a stored name as it is read."""
    return name.replace("_", " ") or "none"

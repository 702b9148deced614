"""The report of an evaluation: shares with their intervals, over all questions and by family.

report.accuracy, report.figures["left_right"]["format"]
report.rows(), report.plain()                    # a table for people; values for JSON
report.ledger_rows()                             # how a model that zooms looked closer
compare(report, other)                           # paired, on the questions of both
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from curation.grading.grade import votes_of
from curation.scores.benchmark_metrics import published_metrics
from curation.scores.bootstrap import Estimate, PairedDifference, clusters, difference, mean_of
from curation.scores.prediction import Prediction
from mcts.data import Question
from mcts.places.decide import is_unread
from mcts.prompts import load_prompt
from mcts.zoom.observe import ZoomProblem
from training.evaluation import ledger
from warehouse.sources import task_of

TITLES = {
    "accuracy": "right",
    "pass@k": "right once of k",
    "majority": "right by majority",
    "format": "well formed",
    "pointed": "points in every step",
    "grounded": "steps on what they name",
}
"""Shares by name, with their titles in tables."""
COSTS = ("tokens", "seconds")
"""Of an answer, on average: what was written, and the time of its requests with their waiting."""
_NO_MATTER_OF_FORMAT = frozenset(
    {
        "thought_without_point", "point_outside_image", "answer_forced", "call_after_limit",
        *(f"call_{problem}" for problem in ZoomProblem if problem is not ZoomProblem.MALFORMED),
    }
)  # fmt: skip
"""The parser's problems that say where a model looked, or what it was not let do."""
_HALF_LEARNED = 0.2
"""Share of answers that are cut off or malformed, above which a report says so."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One model on one set of questions."""

    evaluation_id: str
    model_id: str
    benchmark: str
    settings: Mapping[str, Any]
    """Prompt, coordinates and sampling."""
    figures: dict[str, dict[str, Estimate]]
    """By family, and `all`: each share of `TITLES` that applies, the costs of an answer, and of a
    zoom its tool ledger."""
    metrics: dict[str, float]
    """The benchmark's own figures."""
    questions: Sequence[Question]
    predictions: Mapping[str, Sequence[Prediction]]
    """By question id, in order of samples."""
    run_id: str = ""
    requests: int = 0
    """Requests to the model."""
    replayed: int = 0
    """Requests answered from the journal."""
    seconds: float = 0.0
    unanswered: Mapping[str, str] = field(default_factory=dict)
    """By id of those questions whose request failed for good, why; no figure counts them."""
    outcomes: dict[str, float] = field(default_factory=dict)
    """Share of the answers by outcome, from the view `error_taxonomy`; filled when stored."""

    @property
    def scores(self) -> dict[str, float]:
        """Each question's mean score; without those whose answers can't be graded."""
        graded = {q: graded_scores(drawn) for q, drawn in self.predictions.items()}
        return {q: fmean(scores) for q, scores in graded.items() if scores}

    @property
    def accuracy(self) -> Estimate | None:
        """The share of right answers; None where no answer can be graded."""
        return self.figures["all"].get("accuracy")

    @property
    def failed(self) -> int:
        """Questions whose request failed for good."""
        return len(self.unanswered)

    @property
    def remark(self) -> str:
        """Say what is wrong with the form of many answers; empty where nothing is."""
        return self._ungraded() or self._without_thoughts() or self._half_learned()

    def _ungraded(self) -> str:
        if self.accuracy is not None:
            return ""
        return "no answer can be graded: no question's gold answer is one that an answer can equal"

    def _half_learned(self) -> str:
        drawn = [p for drawn in self.predictions.values() for p in drawn if p.error is None]
        cut = sum(p.finish_reason == "length" for p in drawn)
        broken = sum(p.finish_reason != "length" and _malformed(p.problems) for p in drawn)
        if cut + broken <= _HALF_LEARNED * len(drawn):
            return ""
        return (
            f"of {len(drawn)} answers {cut} are cut off and {broken} malformed: a student that was "
            "just trained has half learned the form of its traces (docs/training.md#half-learned)"
        )

    def _without_thoughts(self) -> str:
        given = [p for drawn in self.predictions.values() for p in drawn if p.answer is not None]
        bare = sum(not p.steps for p in given)
        name = str(self.settings.get("prompt", ""))
        if not name or 2 * bare <= len(given) or "<think>" not in load_prompt(name).system:
            return ""
        return (
            f"{bare} of {len(given)} answers have no thoughts, which the prompt asks for: a server "
            "with a reasoning parser takes them out of the text (docs/servers.md)"
        )

    def plain(self) -> dict[str, Any]:
        """Return values for JSON: shares, not per cent."""
        return {
            "evaluation_id": self.evaluation_id,
            "model": self.model_id,
            "benchmark": self.benchmark,
            "settings": dict(self.settings),
            "figures": {
                f: {k: asdict(v) for k, v in row.items()} for f, row in self.figures.items()
            },
            "metrics": dict(self.metrics),
            "outcomes": self.outcomes,
            "remark": self.remark,
            "requests": self.requests,
            "replayed": self.replayed,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
        }

    def rows(self) -> list[dict[str, str]]:
        """Return the table, a row a family, in per cent with intervals."""
        names = [name for name in TITLES if name in self.figures["all"]]
        return [
            {
                "family": family,
                "questions": str(row["format"].n),
                **{TITLES[name]: cell(row[name]) if name in row else "" for name in names},
            }
            for family, row in self.figures.items()
        ]

    def ledger_rows(self) -> list[dict[str, str]]:
        """Return the tool ledger, a row a family; counts as they are, shares in per cent."""
        overall = self.figures["all"]
        counts = {name: title for name, title in ledger.COUNTS.items() if name in overall}
        shares = {name: title for name, title in ledger.SHARES.items() if name in overall}
        if not counts:
            return []
        return [
            {
                "family": family,
                **{title: count(row[name]) for name, title in counts.items()},
                **{t: cell(row[name]) if name in row else "" for name, t in shares.items()},
            }
            for family, row in self.figures.items()
        ]


def count(figure: Estimate) -> str:
    """Format a figure that is a count: `2.31 [2.10, 2.52]`."""
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def cell(figure: Estimate, sign: str = "") -> str:
    """Format a figure in per cent: `61.2 [58.0, 64.4]`; a difference with `sign="+"`."""
    value, low, high = (100 * v for v in (figure.value, figure.low, figure.high))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def make_report(
    evaluation_id: str,
    model_id: str,
    benchmark: str,
    settings: Mapping[str, Any],
    questions: Sequence[Question],
    predictions: Mapping[str, Sequence[Prediction]],
    **about: Any,
) -> EvaluationReport:
    """Compute all figures of an evaluation's predictions."""
    families: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        families[question.family].append(question)
    groups = {"all": list(questions)}
    if len(families) > 1:
        groups |= {family or "(none)": some for family, some in sorted(families.items())}
    whole = settings.get("control") != "prefixes"  # else questions differ in their answers' number
    metrics = _published(questions, predictions) if whole else {}
    zooms = bool(settings.get("zoom"))
    figures = {family: _figures(some, predictions, zooms) for family, some in groups.items()}
    return EvaluationReport(
        evaluation_id, model_id, benchmark, settings, figures, metrics, questions, predictions,
        **about,
    )  # fmt: skip


def _published(
    questions: Sequence[Question], predictions: Mapping[str, Sequence[Prediction]]
) -> dict[str, float]:
    """Return the figures that the benchmark's authors publish, each averaged over the samples."""
    names = task_of(questions[0].task).metrics
    if not names:
        return {}
    drawn: dict[str, list[float]] = defaultdict(list)
    for sample in range(max(len(predictions[question.question_id]) for question in questions)):
        some = [q for q in questions if len(predictions[q.question_id]) > sample]
        answers = [predictions[question.question_id][sample].answer for question in some]
        for name, value in published_metrics(names, some, answers).items():
            if value is not None:
                drawn[name].append(value)
    return {name: sum(values) / len(values) for name, values in drawn.items()}


def _figures(
    questions: Sequence[Question], predictions: Mapping[str, Sequence[Prediction]], zooms: bool
) -> dict[str, Estimate]:
    scenes = clusters([[image.image_id for image in q.images] for q in questions])
    pointing = any(
        step.points for q in questions for p in predictions[q.question_id] for step in p.own_steps
    )
    values: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for question, scene in zip(questions, scenes, strict=True):
        drawn = predictions[question.question_id]
        found = _shares(question, drawn) | (ledger.figures(drawn) if zooms else {})
        for name, value in found.items():
            values[name].append((value, scene))
    return {
        name: mean_of([v for v, _ in values[name]], [s for _, s in values[name]])
        for name in (*TITLES, *COSTS, *ledger.COUNTS, *ledger.SHARES)
        if values[name] and (name != "pointed" or pointing)
    }


def _malformed(problems: Sequence[str]) -> bool:
    """Whether any of the parser's problems is one of the format."""
    return any(not is_unread(p) and p not in _NO_MATTER_OF_FORMAT for p in problems)


def _points(prediction: Prediction) -> bool:
    """Whether every step of the model's points, or goes on from what it was just shown."""
    places = {"point_outside_image", "thought_without_point"}
    shown = [False, *(step.observation is not None for step in prediction.steps)]
    own, before = prediction.own_steps, shown[prediction.given :]
    return (
        bool(own)
        and all(s.points or s.call or seen for s, seen in zip(own, before, strict=False))
        and not places & set(prediction.problems)
    )


def _shares(question: Question, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return one question's part of every figure that applies to it."""
    n = len(predictions)
    behind: dict[tuple[str, int] | None, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        behind[prediction.prefix].append(prediction)
    scores = graded_scores(predictions)
    well_formed = [p.valid and not _malformed(p.problems) for p in predictions]
    found = {"format": sum(well_formed) / n}
    if scores:
        found["accuracy"] = fmean(scores)
    if scores and n > len(behind):  # k answers behind each prefix
        found["pass@k"] = fmean(max(graded_scores(some)) for some in behind.values())
        found["majority"] = fmean(majority(question, some) for some in behind.values())
    if thought := [p for p in predictions if p.own_steps or not p.given]:
        found["pointed"] = sum(map(_points, thought)) / len(thought)
    found |= {name: sum(getattr(p, name) for p in predictions) / n for name in COSTS}
    known = [hit for p in predictions for hit in p.grounded if hit is not None]
    if known:
        found["grounded"] = sum(known) / len(known)
    return found


def graded_scores(predictions: Sequence[Prediction]) -> list[float]:
    """Return the scores of a question's samples; none where its answers can't be graded: its gold
    answer is no choice of it, or no action."""
    scores = [p.score for p in predictions if p.score is not None]
    return scores if len(scores) == len(predictions) else []


def majority(question: Question, predictions: Sequence[Prediction]) -> float:
    """Return the score of the most frequent answer; of several equally frequent ones, the mean."""
    given = [(p.answer, p.score or 0.0) for p in predictions if p.answer is not None]
    cast = votes_of(question, [answer for answer, _ in given])
    votes = Counter(vote for vote, _ in cast)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {answer for answer, count in votes.items() if count == most}
    scores = {vote: given[speaker][1] for vote, speaker in cast}
    return sum(scores[answer] for answer in winners) / len(winners)


def compare(first: EvaluationReport, second: EvaluationReport) -> dict[str, PairedDifference]:
    """Return how much better `first` is than `second`, over all and by family of common questions.

    Questions whose answers can't be graded are left out; empty where no other is in both.
    """
    a, b = first.scores, second.scores
    families: dict[str, list[Question]] = {"all": []}
    for question in first.questions:
        if question.question_id in a and question.question_id in b:
            families["all"].append(question)
            families.setdefault(question.family or "(none)", []).append(question)
    if not families["all"]:
        return {}
    if len(families) == 2:
        families = {"all": families["all"]}
    return {
        family: difference(
            [a[q.question_id] for q in some],
            [b[q.question_id] for q in some],
            clusters([[image.image_id for image in q.images] for q in some]),
        )
        for family, some in families.items()
    }

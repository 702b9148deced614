"""Best-of-n: a process reward model chooses among a question's samples, beside voting and pass@1.

    found = rerank(report, scorer, read_image)
    found.rows()                # a row a rule: how often it is right, how much more often

A response is as good as its `last` value, the answer's own; as its worst (`min`, Lightman et al.,
arXiv 2305.20050); as all of them together (`product`); or as their mean (VisualPRM, arXiv
2503.10291). `weighted vote` adds the last values of equal answers up (Li et al., arXiv 2206.02336).
Differences are paired, question by question, with intervals that resample images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from curation.grading.grade import votes_of
from curation.scores.bootstrap import Estimate, PairedDifference, clusters, difference, mean_of
from curation.scores.prediction import Prediction
from mcts.data import Question
from training.evaluation.report import EvaluationReport, cell, graded_scores, majority
from training.values.lines import Scorer, line_values

RULES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "product": math.prod,
    "mean": fmean,
}
"""What makes one number of a response's values, those of its steps and last its answer's."""
CHOSEN = "last"
"""The rule that the sentence is about."""
WEIGHTED = "weighted vote"
Values = Sequence[float] | None
"""Of a response's steps and its answer; None for one without an answer, which is never chosen."""


@dataclass(frozen=True, slots=True)
class Reranking:
    """What choosing among samples comes to."""

    model_id: str
    """The process reward model's."""
    samples: int
    pass_at_1: Estimate
    majority: Estimate
    pass_at_k: Estimate
    """Where the right one is always chosen."""
    chosen: dict[str, Estimate]
    """By rule."""
    over_majority: dict[str, PairedDifference]
    over_pass_at_1: dict[str, PairedDifference]

    def sentence(self) -> str:
        """Sum up."""
        gap = self.over_majority[CHOSEN]
        return (
            f"best of {self.samples} by {self.model_id} minus voting: {100 * gap.value:+.1f} "
            f"points, 95% interval [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
            f"{gap.doubt}"
        )

    def rows(self) -> list[dict[str, str]]:
        """Return the table, in per cent with intervals."""
        titles = ("minus voting", "minus pass@1")
        plain = (
            ("pass@1", self.pass_at_1),
            ("voting", self.majority),
            (f"pass@{self.samples}", self.pass_at_k),
        )
        rows = [{"chosen by": name, "right": cell(found)} for name, found in plain]
        for name, found in self.chosen.items():
            gaps = (self.over_majority[name], self.over_pass_at_1[name])
            told = {title: _gap(gap) for title, gap in zip(titles, gaps, strict=True)}
            rows.append({"chosen by": name, "right": cell(found), **told})
        return [{**dict.fromkeys(titles, ""), **row} for row in rows]

    def plain(self) -> dict[str, Any]:
        """Return values for JSON."""
        return asdict(self)


def _gap(gap: PairedDifference) -> str:
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def rerank(
    report: EvaluationReport,
    scorer: Scorer,
    read_image: Callable[[str], bytes],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Reranking:
    """Value every sample of an evaluation, and choose.

    Args:
        progress: called after each question.

    Raises:
        TrainingError: the value model can't read an answer.
    """
    questions = report.questions
    values = {}
    for done, question in enumerate(questions, 1):
        drawn = report.predictions[question.question_id]
        values[question.question_id] = [_values(question, one, scorer, read_image) for one in drawn]
        progress(done, len(questions))
    return choose(report, scorer.student.model_id, values)


def _values(
    question: Question, one: Prediction, scorer: Scorer, read_image: Callable[[str], bytes]
) -> Values:
    if one.answer is None:
        return None
    return line_values(scorer, question, one.steps, one.answer, read_image)


def choose(
    report: EvaluationReport, model_id: str, values: Mapping[str, Sequence[Values]]
) -> Reranking:
    """Choose by every rule from the values of each question's samples."""
    scores: dict[str, list[float]] = defaultdict(list)
    questions = [q for q in report.questions if graded_scores(report.predictions[q.question_id])]
    for question in questions:
        drawn = report.predictions[question.question_id]
        graded = graded_scores(drawn)
        scores["pass@1"].append(fmean(graded))
        scores["voting"].append(majority(question, drawn))
        scores["pass@k"].append(max(graded))
        own = values[question.question_id]
        for name, rule in RULES.items():
            scores[name].append(_best(graded, [v if v is None else rule(v) for v in own]))
        scores[WEIGHTED].append(_weighted(question, drawn, own))
    scenes = clusters([[image.image_id for image in q.images] for q in questions])
    names = [*RULES, WEIGHTED]
    return Reranking(
        model_id=model_id,
        samples=max(map(len, values.values())),
        pass_at_1=mean_of(scores["pass@1"], scenes),
        majority=mean_of(scores["voting"], scenes),
        pass_at_k=mean_of(scores["pass@k"], scenes),
        chosen={name: mean_of(scores[name], scenes) for name in names},
        over_majority={n: difference(scores[n], scores["voting"], scenes) for n in names},
        over_pass_at_1={n: difference(scores[n], scores["pass@1"], scenes) for n in names},
    )


def _best(graded: Sequence[float], worth: Sequence[float | None]) -> float:
    """Return the grade of the sample of the highest worth, of equal ones the first."""
    there = [(value, -i) for i, value in enumerate(worth) if value is not None]
    return graded[-max(there)[1]] if there else 0.0


def _weighted(question: Question, drawn: Sequence[Prediction], values: Sequence[Values]) -> float:
    """Return the grade of the answer whose samples' last values add up to most."""
    votes: dict[Any, float] = defaultdict(float)
    graded: dict[Any, float] = {}
    given = [
        (one.answer, one.score or 0.0, own[-1])
        for one, own in zip(drawn, values, strict=True)
        if own is not None and one.answer is not None
    ]
    cast = votes_of(question, [answer for answer, _, _ in given])
    for (vote, speaker), (_, _, value) in zip(cast, given, strict=True):
        votes[vote] += value
        graded.setdefault(vote, given[speaker][1])
    return graded[max(votes, key=lambda vote: votes[vote])] if votes else 0.0

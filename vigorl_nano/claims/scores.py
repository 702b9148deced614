"""Reads what evaluations of an experiment's arms came to, with intervals, and saves its report.

    scores = scores_of(experiment, {"base": [evaluation], "vigorl": [one, another]})
    interval(scores.scores["vigorl"] - scores.scores["base"], scores.scenes)

Intervals resample both images, with all questions about them, and the seeds of the trainings.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.scores.bootstrap import Estimate, clusters
from flows.progress import short_time
from training.evaluation.report import cell
from vigorl_nano.claims.stages import Experiment, Stage
from vigorl_nano.evaluate import table
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

DRAWS = 2000

Evaluations = Mapping[str, Sequence[Mapping[str, Any]]]
"""Evaluations by an arm, or `arm+control`: a model each."""
Scores = np.ndarray
"""(seeds, questions): each question's score by each seed's model, the questions in one order."""


def interval(scores: Scores, scenes: Sequence[int], seed: int = 0) -> Estimate:
    """Take the mean over questions and seeds, both resampled, a scene's questions together."""
    number = np.unique(np.asarray(scenes), return_inverse=True)[1]
    counts = np.bincount(number).astype(float)
    sums = np.stack([np.bincount(number, weights=row) for row in scores])
    rng = np.random.default_rng(seed)
    seeds, parts = len(sums), len(counts)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        rows = rng.integers(seeds, size=seeds)
        weights = rng.multinomial(parts, np.full(parts, 1 / parts))
        drawn[i] = (sums[rows].mean(axis=0) @ weights) / (counts @ weights)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(scores.mean()), float(low), float(high), scores.shape[1], parts)


@dataclass(frozen=True, slots=True)
class ArmScores:
    """The scores of every arm whose stages of one kind are all finished."""

    questions: tuple[str, ...]
    scenes: tuple[int, ...]
    scores: dict[str, Scores]
    families: tuple[str, ...] = ()
    """Of each question."""
    left_out: int = 0
    """Questions that some model gave no answer to, or one without a grade."""


def scores_of(experiment: Experiment, ids: Evaluations) -> ArmScores | None:
    """Read the scores of arms by their evaluations, a model each; None if there are none."""
    if not ids:
        return None
    rows = rows_about(
        experiment,
        [evaluation for some in ids.values() for evaluation in some],
        "SELECT evaluation_id, question_id, any_value(image_ids) AS images, "
        "any_value(family) AS family, "
        "avg(score) AS score, bool_or(score IS NULL) AS ungraded "
        "FROM predictions JOIN questions USING (question_id) "
        "WHERE evaluation_id IN ({}) GROUP BY ALL ORDER BY question_id, evaluation_id",
    )
    by: dict[str, dict[str, float]] = defaultdict(dict)
    images: dict[str, tuple[str, ...]] = {}
    families: dict[str, str] = {}
    for row in rows:
        by[row["evaluation_id"]][row["question_id"]] = row["score"]
        images[row["question_id"]] = tuple(row["images"])
        families[row["question_id"]] = row["family"]
    ungraded = {row["question_id"] for row in rows if row["ungraded"]}
    answered = (found.keys() for found in by.values())
    order = sorted(set(images).intersection(*answered) - ungraded)
    scores = {
        name: np.array([[by[e["evaluation_id"]][q] for q in order] for e in some])
        for name, some in ids.items()
    }
    return ArmScores(
        tuple(order),
        tuple(clusters([images[q] for q in order])),
        scores,
        tuple(families[q] for q in order),
        len(images) - len(order),
    )


def rows_about(
    experiment: Experiment, outcomes: Sequence[Mapping[str, Any]], sql: str
) -> list[Row]:
    """Ask each warehouse of some evaluations or trainings about those that it has.

    Args:
        outcomes: each with its `home`, and the id of an evaluation or else of a model.
        sql: a SELECT with `{}` where a list of ids goes.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        named = outcome.get("evaluation_id") or outcome["model_id"]
        ids[outcome.get("home") or experiment.home].append(named)
    return [
        row
        for home, some in ids.items()
        for row in query(Warehouse.at(home), sql.format(", ".join(map(quoted, some)))).to_pylist()
    ]


def restrict(found: ArmScores, families: Collection[str]) -> ArmScores:
    """Keep only some kinds of questions."""
    mine = [i for i, family in enumerate(found.families) if family in families]
    return ArmScores(
        tuple(found.questions[i] for i in mine),
        tuple(found.scenes[i] for i in mine),
        {name: scores[:, mine] for name, scores in found.scores.items()},
        tuple(found.families[i] for i in mine),
    )


def save_report(experiment: Experiment, lines: Sequence[str], kept: Mapping[str, Any]) -> None:
    """Print a claim's tables, and write them and the figures in them beside the experiment."""
    text = "\n".join(lines).strip() + "\n"
    print(text, end="")
    (experiment.folder / "claim.md").write_text(text, "utf-8")
    (experiment.folder / "claim.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One arm that should beat another, written down before either is trained."""

    arm: str
    than: str
    least: float = 0.0
    """By how much at least, as a share of the questions."""
    families: tuple[str, ...] = ()
    """Kinds of questions that it is about; all when empty."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What an expectation came to."""

    expected: Expectation
    gap: Estimate
    """Of the same questions and seeds, paired."""

    @property
    def held(self) -> bool:
        """Whether it is as large as expected, and its interval above 0."""
        return self.gap.low > 0 and self.gap.value >= self.expected.least

    def sentence(self, titles: Mapping[str, str]) -> str:
        """Say whether the expectation holds, as a line of a list."""
        expected = self.expected
        kinds = " and ".join(name.replace("_", " ") for name in expected.families)
        about = f", on {kinds} alone" if kinds else ""
        least = f", at least {100 * expected.least:.0f} expected" if expected.least else ""
        return (
            f"- {titles[expected.arm]}, minus {titles[expected.than]}{about}: "
            f"{cell(self.gap, '+')} points{least}; {'holds' if self.held else 'does not hold'}."
        )

    def row(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {**asdict(self.expected), "gap": asdict(self.gap), "held": self.held}


def differences(found: ArmScores, expected: Sequence[Expectation]) -> list[Difference]:
    """Compute what is expected of arms that are finished, question by question, seed by seed."""
    differing = []
    for one in expected:
        if one.arm in found.scores and one.than in found.scores:
            part = restrict(found, one.families) if one.families else found
            gap = interval(part.scores[one.arm] - part.scores[one.than], part.scenes)
            differing.append(Difference(one, gap))
    return differing


def family_table(found: ArmScores, titles: Mapping[str, str]) -> list[str]:
    """Render a row an arm, a column a kind of question; in per cent, over the seeds."""
    of = np.array(found.families)
    names = sorted(set(found.families))
    rows = [
        [titles[arm], *(f"{100 * scores[:, of == name].mean():.1f}" for name in names)]
        for arm, scores in found.scores.items()
    ]
    return table(["trained as", *(name.replace("_", " ") for name in names)], rows)


def mean_behaviors(experiment: Experiment, evaluations: Evaluations) -> dict[str, dict[str, float]]:
    """Return the mean count an answer of each behavior, by rule, of each arm that has any."""
    arms = {e["evaluation_id"]: arm for arm, some in evaluations.items() for e in some}
    rows = rows_about(
        experiment,
        [evaluation for some in evaluations.values() for evaluation in some],
        "SELECT evaluation_id, behavior, mean_count FROM behaviors_by_evaluation "
        "WHERE evaluation_id IN ({}) AND method LIKE 'rule%' ORDER BY ALL",
    )
    counts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        counts[arms[row["evaluation_id"]]][row["behavior"]].append(row["mean_count"])
    return {
        arm: {name: float(np.mean(each)) for name, each in counts[arm].items()}
        for arm in evaluations
        if arm in counts
    }


def behavior_table(
    experiment: Experiment, evaluations: Evaluations, titles: Mapping[str, str]
) -> list[str]:
    """Render mean counts an answer, by rule (the paper's Table 5), a row an arm."""
    found = mean_behaviors(experiment, evaluations)
    names = list(dict.fromkeys(name for means in found.values() for name in means))
    lines = [
        [titles[arm], *(f"{means[name]:.2f}" if name in means else "-" for name in names)]
        for arm, means in found.items()
    ]
    return table(["trained as", *(name.replace("_", " ") for name in names)], lines)


def time_spent(experiment: Experiment, plan: Sequence[Stage]) -> str:
    """Say how long the finished stages took."""
    outcomes = [o for s in plan if (o := experiment.outcome(s.name)) is not None]
    seconds = sum(o["seconds"] for o in outcomes)
    longest = max((o["seconds"] for o in outcomes), default=0)
    return (
        f"{len(outcomes)} of {len(plan)} stages, {short_time(seconds)} in all one after another, "
        f"the longest {short_time(longest)}."
    )

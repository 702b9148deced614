"""Reports the claim's evaluations: tables, the expected differences, a plot.

    write_report(experiment)        # prints the tables, writes claim.md, claim.json and claim.svg

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
from vigorl_nano.claim.interval_plot import Row, draw_intervals
from vigorl_nano.claim.plan import ARMS, EXPECTED, PLACES, TEMPERATURE, stages
from vigorl_nano.claim.stages import Experiment, Stage
from vigorl_nano.evaluate import table
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse

DRAWS = 2000
POINTED = "steps that point at what they name"

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


def read_scores(experiment: Experiment, kind: str, sampling: str) -> ArmScores | None:
    """Read the scores of the arms from the warehouse; None before any arm is finished.

    Args:
        kind: `validate`, `test` or `sampled`.
        sampling: which of a stage's evaluations: `greedy`, `blank` or `sampled`.
    """
    found = {name: evaluations(experiment, kind, name, sampling) for name in ARMS}
    return scores_of(experiment, {name: some for name, some in found.items() if some})


def scores_of(
    experiment: Experiment, ids: Mapping[str, Sequence[Mapping[str, Any]]]
) -> ArmScores | None:
    """Read the scores of arms by their evaluations, a model each; None if there are none."""
    if not ids:
        return None
    warehouse = Warehouse.at(experiment.home)
    listed = ", ".join(quoted(e["evaluation_id"]) for some in ids.values() for e in some)
    rows = query(
        warehouse,
        "SELECT evaluation_id, question_id, any_value(image_ids) AS images, "
        "any_value(family) AS family, "
        "avg(score) AS score, bool_or(score IS NULL) AS ungraded "
        "FROM predictions JOIN questions USING (question_id) "
        f"WHERE evaluation_id IN ({listed}) GROUP BY ALL ORDER BY question_id, evaluation_id",
    ).to_pylist()
    by: dict[str, dict[str, float]] = defaultdict(dict)
    images: dict[str, tuple[str, ...]] = {}
    families: dict[str, str] = {}
    for row in rows:
        by[row["evaluation_id"]][row["question_id"]] = row["score"]
        images[row["question_id"]] = tuple(row["images"])
        families[row["question_id"]] = row["family"]
    ungraded = {row["question_id"] for row in rows if row["ungraded"]}
    order = sorted(images.keys() - ungraded)
    scores = {
        name: np.array([[by[e["evaluation_id"]][q] for q in order] for e in some])
        for name, some in ids.items()
    }
    return ArmScores(
        tuple(order),
        tuple(clusters([images[q] for q in order])),
        scores,
        tuple(families[q] for q in order),
    )


def differences(found: ArmScores) -> list[dict[str, Any]]:
    """Compute ViGoRL minus each arm it should beat, question by question and seed by seed."""
    ours = found.scores.get("vigorl")
    rows = []
    for name, least in EXPECTED.items():
        theirs = found.scores.get(name)
        if ours is None or theirs is None:
            continue
        gap = interval(ours - theirs, found.scenes)
        held = gap.low > 0 and gap.value >= least
        rows.append({"than": name, "least": least, "gap": gap, "held": held})
    return rows


def differences_by_sampling(
    experiment: Experiment, greedy: ArmScores
) -> dict[str, list[dict[str, Any]]]:
    """Compute `differences` for greedy and for sampled answers, where they are there."""
    ways = {
        "greedy": greedy,
        f"at T = {TEMPERATURE}": read_scores(experiment, "sampled", "sampled"),
    }
    found = {how: differences(scores) for how, scores in ways.items() if scores is not None}
    return {how: rows for how, rows in found.items() if rows}


def restrict(found: ArmScores, families: Collection[str]) -> ArmScores:
    """Keep only some kinds of questions."""
    mine = [i for i, family in enumerate(found.families) if family in families]
    return ArmScores(
        tuple(found.questions[i] for i in mine),
        tuple(found.scenes[i] for i in mine),
        {name: scores[:, mine] for name, scores in found.scores.items()},
        tuple(found.families[i] for i in mine),
    )


def by_places(found: ArmScores) -> list[str]:
    """Render the differences where the answer depends on places, and elsewhere: a row an arm."""
    parts = [restrict(found, PLACES), restrict(found, set(found.families) - set(PLACES))]
    gaps = [{row["than"]: row["gap"] for row in differences(part)} for part in parts]
    named = zip(("where places decide", "elsewhere"), parts, strict=True)
    heads = [f"{where} ({len(part.questions)} questions)" for where, part in named]
    rows = [[ARMS[name].title, *(cell(of[name], "+") for of in gaps)] for name in gaps[0]]
    return table(["ViGoRL minus", *heads], rows)


def write_report(experiment: Experiment) -> None:
    """Print the tables of what is finished, and write them beside the experiment."""
    lines: list[str] = []
    kept: dict[str, Any] = {}
    for kind, title in (("test", "held-out test"), ("validate", "validation")):
        found = read_scores(experiment, kind, "greedy")
        if found is None:
            continue
        kept[kind] = {name: asdict(interval(s, found.scenes)) for name, s in found.scores.items()}
        lines += ["", *arm_table(experiment, kind, title, found)]
        if kind == "test":
            for how, rows in differences_by_sampling(experiment, found).items():
                kept[f"differences, {how}"] = [{**row, "gap": asdict(row["gap"])} for row in rows]
                lines += ["", f"{how[0].upper()}{how[1:]}:", "", *map(expectation_sentence, rows)]
            lines += ["", *by_places(found), "", *by_family(found), "", *behaviors(experiment)]
            plot_rows = [
                Row(ARMS[name].title, interval(s, found.scenes), name == "vigorl")
                for name, s in found.scores.items()
            ]
            svg = draw_intervals(
                plot_rows, f"right answers in %, {len(found.questions)} held-out questions"
            )
            (experiment.folder / "claim.svg").write_text(svg, "utf-8")
            break  # the validation split has done its part
    lines += ["", time_spent(experiment, stages(experiment.size))]
    save_report(experiment, lines, kept)


def save_report(experiment: Experiment, lines: Sequence[str], kept: Mapping[str, Any]) -> None:
    """Print a claim's tables, and write them and the figures in them beside the experiment."""
    text = "\n".join(lines).strip() + "\n"
    print(text, end="")
    (experiment.folder / "claim.md").write_text(text, "utf-8")
    (experiment.folder / "claim.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def arm_table(experiment: Experiment, kind: str, title: str, found: ArmScores) -> list[str]:
    """Render a row an arm; in per cent, with intervals."""
    n, scenes = len(found.questions), len(set(found.scenes))
    columns = {"right, greedy": found}
    if kind == "test" and (sampled := read_scores(experiment, "sampled", "sampled")):
        columns[f"right at T = {TEMPERATURE}"] = sampled
    if blank := read_scores(experiment, kind, "blank"):
        columns["blank images"] = blank
    rows = []
    for name, arm in ARMS.items():
        if name not in found.scores:
            continue
        steps = experiment.size.all_steps if arm.recipes else 0
        cells = [
            cell(interval(f.scores[name], f.scenes)) if name in f.scores else "-"
            for f in columns.values()
        ]
        single = found.scores[name].mean(axis=1)
        spread = ", ".join(f"{100 * v:.1f}" for v in single) if arm.recipes else "-"
        greedy = evaluations(experiment, kind, name, "greedy")
        pointed = [e["grounded"] for e in greedy if "grounded" in e]
        share = f"{100 * np.mean(pointed):.1f}" if pointed else "-"
        rows.append([arm.title, str(steps), *cells, spread, share])
    heads = ["trained as", "steps", *columns, "by seed", POINTED]
    seeds = list(experiment.size.seeds)
    return [f"{n} {title} questions about {scenes} scenes, seeds {seeds}:", "", *table(heads, rows)]


def by_family(found: ArmScores) -> list[str]:
    """Render a row an arm, a column a kind of question; in per cent, over the seeds."""
    of = np.array(found.families)
    names = sorted(set(found.families))
    rows = [
        [ARMS[arm].title, *(f"{100 * scores[:, of == name].mean():.1f}" for name in names)]
        for arm, scores in found.scores.items()
    ]
    heads = ["trained as", *(name.replace("_", " ") for name in names)]
    return ["By kind of question:", "", *table(heads, rows)]


def evaluations(experiment: Experiment, kind: str, arm: str, sampling: str) -> list[dict[str, Any]]:
    """Return an arm's evaluations, a model each; empty until all of them are finished."""
    mine = [s for s in stages(experiment.size) if s.kind == kind and s.arm == arm]
    outcomes = [experiment.outcome(s.name) for s in mine]
    found = [o["evaluations"].get(sampling) for o in outcomes if o is not None]
    return found if len(found) == len(mine) and all(found) else []


def expectation_sentence(row: dict[str, Any]) -> str:
    """Say whether an expectation holds."""
    at_least = f", at least {100 * row['least']:.0f} expected" if row["least"] else ""
    verdict = "holds" if row["held"] else "does not hold"
    return (
        f"- ViGoRL minus {ARMS[row['than']].title}: {cell(row['gap'], '+')} points{at_least}; "
        f"the claim {verdict}."
    )


def behaviors(experiment: Experiment) -> list[str]:
    """Render mean counts an answer, by rule (the paper's Table 5), from the greedy test answers."""
    ids = {
        outcome["evaluations"]["greedy"]["evaluation_id"]: stage.arm
        for stage in stages(experiment.size)
        if stage.kind == "test" and (outcome := experiment.outcome(stage.name)) is not None
    }
    rows = query(
        Warehouse.at(experiment.home),
        "SELECT evaluation_id, behavior, mean_count FROM behaviors_by_evaluation "
        f"WHERE evaluation_id IN ({', '.join(map(quoted, ids))}) AND method LIKE 'rule%' "
        "ORDER BY ALL",
    ).to_pylist()
    counts: dict[tuple[str, str], list[float]] = defaultdict(list)
    names: dict[str, None] = {}
    for row in rows:
        counts[ids[row["evaluation_id"]], row["behavior"]].append(row["mean_count"])
        names[row["behavior"]] = None
    lines = []
    for arm in ARMS:
        cells = [
            f"{np.mean(counts[arm, name]):.2f}" if counts[arm, name] else "-" for name in names
        ]
        if set(cells) != {"-"}:
            lines.append([ARMS[arm].title, *cells])
    heads = ["trained as", *(name.replace("_", " ") for name in names)]
    return ["Behaviors of an answer, mean counts by rule:", "", *table(heads, lines)]


def time_spent(experiment: Experiment, plan: Sequence[Stage]) -> str:
    """Say how long the finished stages took."""
    outcomes = [o for s in plan if (o := experiment.outcome(s.name)) is not None]
    seconds = sum(o["seconds"] for o in outcomes)
    longest = max((o["seconds"] for o in outcomes), default=0)
    return (
        f"{len(outcomes)} of {len(plan)} stages, {short_time(seconds)} in all one after another, "
        f"the longest {short_time(longest)}."
    )

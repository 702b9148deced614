"""What the claim's evaluations say: a table, the differences that were to be expected, a picture.

    tell(experiment)        # prints the tables, writes claim.md, claim.json and claim.svg

Intervals resample pictures with all questions about them, and the seeds of the trainings, both:
another search or training would have come out otherwise, and so would other questions.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.scores.bootstrap import clusters
from flows.progress import short_time
from vigorl_nano.claim.interval_plot import Row, draw
from vigorl_nano.claim.plan import ARMS, EXPECTED, PLACES, TEMPERATURE, stages
from vigorl_nano.claim.work import Experiment
from warehouse.query.catalog import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse

DRAWS = 2000
POINTED = "steps that point at what they name"

Scores = np.ndarray
"""(seeds, questions): each question's score by each seed's model, the questions in one order."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a difference of two, with its 95% interval."""

    value: float
    low: float
    high: float

    def text(self, sign: str = "") -> str:
        """`61.2 [58.0, 64.4]`, in points."""
        value, low, high = (100 * v for v in (self.value, self.low, self.high))
        return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def interval(scores: Scores, scenes: Sequence[int], seed: int = 0) -> Interval:
    """The mean over questions and seeds, both resampled, the questions of a scene together."""
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
    return Interval(float(scores.mean()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Found:
    """The scores of every arm whose stages of one kind are all finished."""

    questions: tuple[str, ...]
    scenes: tuple[int, ...]
    scores: dict[str, Scores]
    families: tuple[str, ...] = ()
    """Of each question."""


def read(experiment: Experiment, kind: str, asked: str) -> Found | None:
    """Scores of the arms from the warehouse; None before any arm is finished.

    Args:
        kind: `validate`, `test` or `sampled`.
        asked: which of a stage's evaluations: `greedy`, `blank` or `sampled`.
    """
    warehouse = Warehouse.at(experiment.home)
    ids: dict[str, list[dict[str, Any]]] = {}
    for name in ARMS:
        found = evaluations(experiment, kind, name, asked)
        if found:
            ids[name] = found
    if not ids:
        return None
    listed = ", ".join(quoted(e["evaluation_id"]) for some in ids.values() for e in some)
    rows = query(
        warehouse,
        "SELECT evaluation_id, question_id, any_value(image_ids) AS images, "
        "any_value(family) AS family, "
        "avg(coalesce(score, 0)) AS score "
        "FROM predictions JOIN questions USING (question_id) "
        f"WHERE evaluation_id IN ({listed}) GROUP BY ALL ORDER BY question_id, evaluation_id",
    ).to_pylist()
    by: dict[str, dict[str, float]] = defaultdict(dict)
    pictures: dict[str, tuple[str, ...]] = {}
    families: dict[str, str] = {}
    for row in rows:
        by[row["evaluation_id"]][row["question_id"]] = row["score"]
        pictures[row["question_id"]] = tuple(row["images"])
        families[row["question_id"]] = row["family"]
    order = sorted(pictures)
    scores = {
        name: np.array([[by[e["evaluation_id"]][q] for q in order] for e in some])
        for name, some in ids.items()
    }
    return Found(
        tuple(order),
        tuple(clusters([pictures[q] for q in order])),
        scores,
        tuple(families[q] for q in order),
    )


def differences(found: Found) -> list[dict[str, Any]]:
    """ViGoRL minus each arm it was to beat, question by question and seed by seed."""
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


def both_ways(experiment: Experiment, greedy: Found) -> dict[str, list[dict[str, Any]]]:
    """`differences` by how the answers were found, those that are there."""
    ways = {"greedy": greedy, f"at T = {TEMPERATURE}": read(experiment, "sampled", "sampled")}
    told = {how: differences(found) for how, found in ways.items() if found is not None}
    return {how: rows for how, rows in told.items() if rows}


def among(found: Found, families: Collection[str]) -> Found:
    """The same of some kinds of questions only."""
    mine = [i for i, family in enumerate(found.families) if family in families]
    return Found(
        tuple(found.questions[i] for i in mine),
        tuple(found.scenes[i] for i in mine),
        {name: scores[:, mine] for name, scores in found.scores.items()},
        tuple(found.families[i] for i in mine),
    )


def by_places(found: Found) -> list[str]:
    """The differences where the answer hangs on places, and elsewhere: a row an arm."""
    parts = [among(found, PLACES), among(found, set(found.families) - set(PLACES))]
    gaps = [{row["than"]: row["gap"] for row in differences(part)} for part in parts]
    named = zip(("where places decide", "elsewhere"), parts, strict=True)
    told = [f"{where} ({len(part.questions)} questions)" for where, part in named]
    lines = heading(told, "ViGoRL minus")
    for name in gaps[0]:
        cells = [of[name].text("+") for of in gaps]
        lines.append(f"| {ARMS[name].told} | {' | '.join(cells)} |")
    return lines


def tell(experiment: Experiment) -> None:
    """Print what is finished, and write it beside the experiment."""
    lines: list[str] = []
    kept: dict[str, Any] = {}
    for kind, title in (("test", "held-out test"), ("validate", "validation")):
        found = read(experiment, kind, "greedy")
        if found is None:
            continue
        kept[kind] = {name: asdict(interval(s, found.scenes)) for name, s in found.scores.items()}
        lines += ["", *table(experiment, kind, title, found)]
        if kind == "test":
            for how, rows in both_ways(experiment, found).items():
                kept[f"differences, {how}"] = [{**row, "gap": asdict(row["gap"])} for row in rows]
                lines += ["", f"{how[0].upper()}{how[1:]}:", "", *map(sentence, rows)]
            lines += ["", *by_places(found), "", *by_family(found), "", *behaviors(experiment)]
            drawn = [
                Row(ARMS[name].told, interval(s, found.scenes), name == "vigorl")
                for name, s in found.scores.items()
            ]
            svg = draw(drawn, f"right answers in %, {len(found.questions)} held-out questions")
            (experiment.folder / "claim.svg").write_text(svg, "utf-8")
            break  # the validation split has done its part
    lines += ["", spent(experiment)]
    text = "\n".join(lines).strip() + "\n"
    print(text, end="")
    (experiment.folder / "claim.md").write_text(text, "utf-8")
    (experiment.folder / "claim.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def table(experiment: Experiment, kind: str, title: str, found: Found) -> list[str]:
    """A row an arm; in per cent, with intervals."""
    n, scenes = len(found.questions), len(set(found.scenes))
    columns = {"right, greedy": found}
    if kind == "test" and (sampled := read(experiment, "sampled", "sampled")):
        columns[f"right at T = {TEMPERATURE}"] = sampled
    if blank := read(experiment, kind, "blank"):
        columns["blank pictures"] = blank
    lines = [
        f"{n} {title} questions about {scenes} scenes, seeds {list(experiment.size.seeds)}:",
        "",
        *heading(["steps", *columns, "by seed", POINTED]),
    ]
    for name, arm in ARMS.items():
        if name not in found.scores:
            continue
        steps = experiment.size.all_steps if arm.recipes else 0
        cells = [
            interval(f.scores[name], f.scenes).text() if name in f.scores else "-"
            for f in columns.values()
        ]
        single = found.scores[name].mean(axis=1)
        spread = ", ".join(f"{100 * v:.1f}" for v in single) if arm.recipes else "-"
        greedy = evaluations(experiment, kind, name, "greedy")
        pointed = [e["grounded"] for e in greedy if "grounded" in e]
        share = f"{100 * np.mean(pointed):.1f}" if pointed else "-"
        lines.append("| " + " | ".join([arm.told, str(steps), *cells, spread, share]) + " |")
    return lines


def heading(columns: Iterable[str], first: str = "trained as") -> list[str]:
    """The head of a table with a row an arm."""
    names = [first, *(name.replace("_", " ") for name in columns)]
    return [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]


def by_family(found: Found) -> list[str]:
    """A row an arm, a column a kind of question; in per cent, over the seeds."""
    of = np.array(found.families)
    names = sorted(set(found.families))
    lines = ["By kind of question:", "", *heading(names)]
    for arm, scores in found.scores.items():
        cells = [f"{100 * scores[:, of == name].mean():.1f}" for name in names]
        lines.append("| " + " | ".join([ARMS[arm].told, *cells]) + " |")
    return lines


def evaluations(experiment: Experiment, kind: str, arm: str, asked: str) -> list[dict[str, Any]]:
    """What an arm's evaluations came to, a model each; empty until all of them are finished."""
    mine = [s for s in stages(experiment.size) if s.what == kind and s.arm == arm]
    outcomes = [experiment.outcome(s.name) for s in mine]
    found = [o["evaluations"].get(asked) for o in outcomes if o is not None]
    return found if len(found) == len(mine) and all(found) else []


def sentence(row: dict[str, Any]) -> str:
    """Whether an expectation holds."""
    at_least = f", at least {100 * row['least']:.0f} expected" if row["least"] else ""
    verdict = "holds" if row["held"] else "does not hold"
    return (
        f"- ViGoRL minus {ARMS[row['than']].told}: {row['gap'].text('+')} points{at_least}; "
        f"the claim {verdict}."
    )


def behaviors(experiment: Experiment) -> list[str]:
    """Mean counts an answer, by rule (the paper's Table 5), from the greedy test answers."""
    ids = {
        outcome["evaluations"]["greedy"]["evaluation_id"]: stage.arm
        for stage in stages(experiment.size)
        if stage.what == "test" and (outcome := experiment.outcome(stage.name)) is not None
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
    lines = ["What an answer does, mean counts by rule:", "", *heading(names)]
    for arm in ARMS:
        cells = [
            f"{np.mean(counts[arm, name]):.2f}" if counts[arm, name] else "-" for name in names
        ]
        if set(cells) != {"-"}:
            lines.append("| " + " | ".join([ARMS[arm].told, *cells]) + " |")
    return lines


def spent(experiment: Experiment) -> str:
    """How long the finished stages took."""
    plan = stages(experiment.size)
    outcomes = [o for s in plan if (o := experiment.outcome(s.name)) is not None]
    seconds = sum(o["seconds"] for o in outcomes)
    longest = max((o["seconds"] for o in outcomes), default=0)
    return (
        f"{len(outcomes)} of {len(plan)} stages, {short_time(seconds)} in all one after another, "
        f"the longest {short_time(longest)}."
    )

"""Reports the claim's evaluations: tables, the expected differences, a plot.

    write_report(experiment)        # prints the tables, writes claim.md, claim.json and claim.svg

Intervals resample both images, with all questions about them, and the seeds of the trainings.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from training.evaluation.report import cell
from vigorl_nano.claims.interval_plot import Row, draw_intervals
from vigorl_nano.claims.points.plan import ARMS, EXPECTED, PLACES, TEMPERATURE, stages
from vigorl_nano.claims.scores import (
    ArmScores,
    Difference,
    behavior_table,
    differences,
    family_table,
    interval,
    restrict,
    save_report,
    scores_of,
    time_spent,
)
from vigorl_nano.claims.stages import Experiment
from vigorl_nano.evaluate import table

POINTED = "steps that point at what they name"
TITLES = {name: arm.title for name, arm in ARMS.items()}


def read_scores(experiment: Experiment, kind: str, sampling: str) -> ArmScores | None:
    """Read the scores of the arms from the warehouse; None before any arm is finished.

    Args:
        kind: `validate`, `test` or `sampled`.
        sampling: which of a stage's evaluations: `greedy`, `blank` or `sampled`.
    """
    found = {name: evaluations(experiment, kind, name, sampling) for name in ARMS}
    return scores_of(experiment, {name: some for name, some in found.items() if some})


def differences_by_sampling(
    experiment: Experiment, greedy: ArmScores
) -> dict[str, list[Difference]]:
    """Compute what is expected for greedy and for sampled answers, where they are there."""
    ways = {
        "greedy": greedy,
        f"at T = {TEMPERATURE}": read_scores(experiment, "sampled", "sampled"),
    }
    found = {how: differences(s, EXPECTED) for how, s in ways.items() if s is not None}
    return {how: rows for how, rows in found.items() if rows}


def by_places(found: ArmScores) -> list[str]:
    """Render the differences where the answer depends on places, and elsewhere: a row an arm."""
    parts = [restrict(found, PLACES), restrict(found, set(found.families) - set(PLACES))]
    gaps = [{d.expected.than: d.gap for d in differences(part, EXPECTED)} for part in parts]
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
                kept[f"differences, {how}"] = [difference.row() for difference in rows]
                said = [difference.sentence(TITLES) for difference in rows]
                lines += ["", f"{how[0].upper()}{how[1:]}:", "", *said]
            lines += ["", *by_places(found)]
            lines += ["", "By kind of question:", "", *family_table(found, TITLES)]
            answers = {name: evaluations(experiment, kind, name, "greedy") for name in found.scores}
            lines += ["", "Behaviors of an answer, mean counts by rule:", ""]
            lines += behavior_table(experiment, answers, TITLES)
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


def evaluations(experiment: Experiment, kind: str, arm: str, sampling: str) -> list[dict[str, Any]]:
    """Return an arm's evaluations, a model each; empty until all of them are finished."""
    mine = [s for s in stages(experiment.size) if s.kind == kind and s.arm == arm]
    outcomes = [experiment.outcome(s.name) for s in mine]
    found = [o["evaluations"].get(sampling) for o in outcomes if o is not None]
    return found if len(found) == len(mine) and all(found) else []

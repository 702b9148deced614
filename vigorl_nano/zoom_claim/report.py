"""Reports the zoom claim's evaluations: a row an arm, the expected differences, the tool's ledger.

    write_report(experiment)        # prints the tables, writes claim.md and claim.json

Intervals resample both images, with all questions about them, and the seeds of the trainings.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from training.evaluation.ledger import COUNTS, SHARES
from training.evaluation.report import cell
from vigorl_nano.claim.report import ArmScores, interval, save_report, scores_of, time_spent
from vigorl_nano.claim.stages import Experiment
from vigorl_nano.evaluate import table
from vigorl_nano.zoom_claim.plan import ARMS, CONTROLS, EXPECTED, QUICK, stages

LEDGER = {**COUNTS, **SHARES}
"""Figures of an evaluation about its zoom calls, with their titles."""
TOO_SMALL = "A check that every stage runs: too small to tell what any is worth."
CONTROL_TITLES = {
    "noise": "crops are noise",
    "elsewhere": "crops of elsewhere",
    "gold": "crops of the asked sign",
    "blank": "blank images",
}


def write_report(experiment: Experiment) -> None:
    """Print the tables of what is finished, and write them beside the experiment."""
    found = read_evaluations(experiment)
    scores = scores_of(experiment, found)
    lines: list[str] = []
    kept: dict[str, Any] = {}
    if scores is not None:
        kept["right"] = {n: asdict(interval(s, scores.scenes)) for n, s in scores.scores.items()}
        gaps = differences(scores)
        kept["differences"] = [{**row, "gap": asdict(row["gap"])} for row in gaps]
        seeds = list(experiment.size.seeds)
        lines = [
            *([TOO_SMALL, ""] if experiment.size.name == QUICK.name else ()),
            f"{len(scores.questions)} held-out questions about {len(set(scores.scenes))} pictures, "
            f"seeds {seeds}, in %, greedy:",
            "",
            *arm_table(experiment, scores),
            "",
            *map(sentence, gaps),
            "",
            "What the tool was used for, means of an answer:",
            "",
            *ledger_table(found),
        ]
    lines += ["", time_spent(experiment, stages(experiment.size))]
    save_report(experiment, lines, kept)


def read_evaluations(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Return the evaluations of every arm that has all of them, controls as `arm+control`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in ("test", *CONTROLS):
        for arm in ARMS:
            mine = [s for s in stages(experiment.size) if s.kind == kind and s.arm == arm]
            outcomes = [experiment.outcome(stage.name) for stage in mine]
            done = [o["evaluations"][kind] for o in outcomes if o is not None]
            if mine and len(done) == len(mine):
                found[arm if kind == "test" else f"{arm}+{kind}"] = done
    return found


def title(name: str) -> str:
    """Return a row's title, of an arm or of one under a control."""
    arm, _, control = name.partition("+")
    return f"{ARMS[arm].title}; {CONTROL_TITLES[control]}" if control else ARMS[arm].title


def arm_table(experiment: Experiment, scores: ArmScores) -> list[str]:
    """Render a row an arm and a control, a column a kind of question."""
    of = np.array(scores.families)
    kinds = sorted(set(scores.families))
    rows = []
    for name, each in scores.scores.items():
        arm = ARMS[name.partition("+")[0]]
        single = ", ".join(f"{100 * value:.1f}" for value in each.mean(axis=1))
        rows.append(
            [
                title(name),
                str(experiment.size.all_steps if arm.trained else 0),
                cell(interval(each, scores.scenes)),
                single if arm.trained else "-",
                *(f"{100 * each[:, of == kind].mean():.1f}" for kind in kinds),
            ]
        )
    heads = ["trained as", "steps", "right", "by seed", *(k.replace("_", " ") for k in kinds)]
    return table(heads, rows)


def differences(scores: ArmScores) -> list[dict[str, Any]]:
    """Compute each expected difference, question by question and seed by seed."""
    rows = []
    for name, than, least in EXPECTED:
        ours, theirs = scores.scores.get(name), scores.scores.get(than)
        if ours is None or theirs is None:
            continue
        gap = interval(ours - theirs, scores.scenes)
        held = gap.low > 0 and gap.value >= least
        rows.append({"arm": name, "than": than, "least": least, "gap": gap, "held": held})
    return rows


def sentence(row: dict[str, Any]) -> str:
    """Say whether an expectation holds."""
    verdict = "holds" if row["held"] else "does not hold"
    return (
        f"- {title(row['arm'])}, minus {title(row['than'])}: {cell(row['gap'], '+')} points, at "
        f"least {100 * row['least']:.0f} expected; the claim {verdict}."
    )


def ledger_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Render how often an arm's answers looked closer, where, and what that showed."""
    rows = []
    for name, evaluations in found.items():
        values = {c: [e[c] for e in evaluations if c in e] for c in LEDGER}
        if values["calls"]:
            cells = [f"{np.mean(values[c]):.2f}" if values[c] else "-" for c in LEDGER]
            rows.append([title(name), *cells])
    return table(["trained as", *LEDGER.values()], rows)

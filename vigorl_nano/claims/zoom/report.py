"""Reports the claim's evaluations: a row an arm, the expected differences, what arms learned to do.

    write_report(experiment)        # prints the tables, writes claim.md, claim.json and claim.svg

Intervals resample both images, with all questions about them, and the seeds of the trainings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from curation.scores.bootstrap import clusters
from training.evaluation.ledger import COUNTS, SHARES
from training.evaluation.report import cell
from vigorl_nano.claims.half_budget import ratio
from vigorl_nano.claims.interval_plot import Row, draw_intervals
from vigorl_nano.claims.scores import (
    ArmScores,
    behavior_table,
    differences,
    interval,
    rows_about,
    save_report,
    scores_of,
    time_spent,
)
from vigorl_nano.claims.stages import Experiment
from vigorl_nano.claims.zoom.checks import besides
from vigorl_nano.claims.zoom.plan import ARMS, CONTROLS, EXPECTED, QUICK, TITLES, stages
from vigorl_nano.evaluate import table

LEDGER = {**COUNTS, **SHARES}
"""Figures of an evaluation about its zoom calls, with their titles."""
TOO_SMALL = "A check that every stage runs: too small to tell what any is worth."
CONTROL_TITLES = {
    "noise": "crops are noise",
    "elsewhere": "crops of elsewhere",
    "gold": "crops of the asked sign",
    "blank": "blank images",
}
GROUPS = {
    "groups/dead_first": "dead groups, as sampled",
    "groups/dead": "dead groups, replaced",
    "groups/extra_share": "tokens to replace them, of a batch's",
}
"""Means over a training's steps, with their titles."""


def write_report(experiment: Experiment, part: str | None = None) -> None:
    """Print the tables of what is finished, and write them beside the experiment.

    Args:
        part: of the claim; all when left out.
    """
    found = read_evaluations(experiment)
    scores = scores_of(experiment, found)
    lines: list[str] = []
    kept: dict[str, Any] = {}
    if scores is not None:
        titles = {name: title(name) for name in scores.scores}
        right = {name: interval(each, scores.scenes) for name, each in scores.scores.items()}
        kept["right"] = {name: asdict(figure) for name, figure in right.items()}
        svg = draw_intervals(
            [Row(titles[name], figure, name == "whole") for name, figure in right.items()],
            f"right answers in %, {len(scores.questions)} held-out questions",
        )
        (experiment.folder / "claim.svg").write_text(svg, "utf-8")
        gaps = differences(scores, EXPECTED)
        kept["differences"] = [gap.row() for gap in gaps]
        seeds = list(experiment.size.seeds)
        lines = [
            *([TOO_SMALL, ""] if experiment.size.name == QUICK.name else ()),
            f"{len(scores.questions)} held-out questions about {len(set(scores.scenes))} pictures, "
            f"seeds {seeds}, in %, greedy:",
            *([f"({scores.left_out} had no answer or grade of some arm.)"] * (scores.left_out > 0)),
            "",
            *arm_table(experiment, scores),
            "",
            *(gap.sentence(titles) for gap in gaps),
            "",
            "What the tool was used for, means of an answer:",
            "",
            *ledger_table(found),
            "",
            "Behaviors of an answer, mean counts by rule:",
            "",
            *behavior_table(
                experiment, {n: some for n, some in found.items() if n in ARMS}, TITLES
            ),
        ]
    metrics = training_metrics(experiment)
    lines += [*solved_lines(experiment), *token_line(experiment), *group_lines(metrics)]
    lines += besides(experiment, found, metrics)
    lines += ["", time_spent(experiment, stages(experiment.size, part))]
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


def ledger_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Render how often an arm's answers looked closer, where, and what that showed."""
    rows = []
    for name, evaluations in found.items():
        values = {c: [e[c] for e in evaluations if c in e] for c in LEDGER}
        if values["calls"]:
            cells = [f"{np.mean(values[c]):.2f}" if values[c] else "-" for c in LEDGER]
            rows.append([title(name), *cells])
    return table(["trained as", *LEDGER.values()], rows)


def solved_lines(experiment: Experiment) -> list[str]:
    """Say what a search solves of the questions that best-of-n fails; empty before it was run."""
    names = [s.name for s in stages(experiment.size) if s.kind == "solve"]
    outcomes = [found for name in names if (found := experiment.outcome(name)) is not None]
    pairs = [pair for outcome in outcomes for pair in outcome["pairs"]]
    if not pairs:
        return []
    ours, theirs = ([float(pair[who]["right"]) for pair in pairs] for who in ("ours", "theirs"))
    spent = [sum(pair[who]["tokens"] for pair in pairs) for who in ("ours", "theirs")]
    value, low, high = ratio(ours, theirs, clusters([pair["images"] for pair in pairs]))
    verdict = "holds" if value >= 1.3 and low > 1 else "does not hold"
    return [
        "",
        f"Of {len({pair['question'] for pair in pairs})} questions that best-of-n fails with half "
        f"of its chains ({len(pairs)} times in all), seeds "
        f"{list(range(len(outcomes)))}, a search solves {sum(ours):.0f} and best-of-n "
        f"{sum(theirs):.0f} with the other half: {value:.2f} times as many [{low:.2f}, "
        f"{high:.2f}], for {spent[0] / max(1, spent[1]):.2f} times its tokens; at least 1.3 "
        f"expected; {verdict}.",
    ]


def token_line(experiment: Experiment) -> list[str]:
    """Say how many tokens each kind of data cost; empty before both were made."""
    sums = {}
    for kind in ("mcts", "linear"):
        made = [experiment.outcome(f"search/{kind}@{seed}") for seed in experiment.size.seeds]
        sums[kind] = sum(outcome["tokens"] for outcome in made if outcome is not None)
    if not all(sums.values()):
        return []
    times = sums["linear"] / sums["mcts"]
    return [
        "",
        f"Searches wrote {sums['mcts']:,} tokens, sampling {sums['linear']:,} ({times:.3f} times "
        "as many: a question's last dialogue goes over its budget).",
    ]


def training_metrics(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """Read the metrics of each arm's GRPO, a model each."""
    models, trained = {}, []
    for stage in stages(experiment.size):
        outcome = experiment.outcome(stage.name) if stage.kind == "train" else None
        if outcome is not None and ARMS[stage.arm].reward:
            models[outcome["model_id"]] = stage.arm
            trained.append(outcome)
    sql = "SELECT model_id, metrics FROM models WHERE model_id IN ({}) ORDER BY ALL"
    metrics: dict[str, list[Any]] = {name: [] for name in ARMS if name in models.values()}
    for row in rows_about(experiment, trained, sql):
        metrics[models[row["model_id"]]].append(json.loads(row["metrics"]))
    return metrics


def group_lines(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Render what the groups of each arm's GRPO were like; empty before one was trained."""
    if not metrics:
        return []
    lines = []
    for arm, each in metrics.items():
        found = [[m[name] for m in each if name in m] for name in GROUPS]
        lines.append([title(arm), *(f"{np.mean(some):.1%}" if some else "-" for some in found)])
    heads = ["trained as", *GROUPS.values()]
    return [
        "",
        "Groups of answers that all earn the same, means of steps:",
        "",
        *table(heads, lines),
    ]

"""The report of a cycle: one page that says what was decided and why, made from what is stored.

    place = write_report(cycle)            # …/retrain/sat2/000007/report.html
    report = read_report(cycle)            # what the page shows; `render_summary(report)` is short

A page is made when a cycle ends, or pauses, and can be made again at any time: it shows the tables
as they were when the cycle published. What can't be read any more is named on it, and the rest is
shown. `curation.render.cycle_report` draws.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from curation.render.charts import Curve
from curation.render.cycle_report import (
    Compared,
    ComparedExample,
    Control,
    CycleReport,
    Gate,
    StageLine,
    TrainingCurves,
    answered,
    render_page,
)
from curation.scores.bootstrap import difference, mean_of
from curation.scores.collapse import CollapseCheck
from curation.scores.gate import Paired
from flows.stages.retrain.came_in import (
    CameIn,
    dataset_changes,
    published_by,
    read_came_in,
)
from flows.stages.retrain.cycle import STAGES, Cycle, cycles, decided_before
from flows.stages.retrain.gate import CONTROLS, decided_in, read_paired
from training.evaluation.report import COSTS
from training.runs import read_metrics, runs_folder
from warehouse.models import find_model
from warehouse.query.read_back import read_traces
from warehouse.query.run_query import connect_trusted
from warehouse.registry import history, takes_back
from warehouse.storage.home import Warehouse, first_line
from warehouse.tables.rows import read_image, read_questions
from warehouse.tables.schema import Row

EXAMPLES = 3
"""Questions shown of those gained, and of those lost."""
ROLES = ("champion", "challenger")
_CURVES = (
    *("loss", "eval_loss", "mean_token_accuracy", "reward", "reward_std", "kl"),
    *("completions/mean_length", "entropy", "grad_norm"),
)
"""What is drawn of a training, the first few that it logged."""
_MOST_CURVES = 4
_EXAMPLES = """
WITH differ AS (
    SELECT question_id, family, a.trace_id AS champion, b.trace_id AS challenger,
           b.score >= 1 AS gained,
           row_number() OVER (PARTITION BY gained, family ORDER BY question_id) AS nth
    FROM predictions a JOIN predictions b USING (question_id, sample)
    JOIN questions USING (question_id)
    WHERE a.evaluation_id = $1 AND b.evaluation_id = $2 AND sample = 0
    AND (a.score >= 1) <> (b.score >= 1)
)
FROM differ QUALIFY row_number() OVER (PARTITION BY gained ORDER BY nth, family) <= $3
ORDER BY family, question_id
"""
"""One of each family before a second of any; ids are hashes, so the first are a fair sample."""
_BEHAVIORS = """
SELECT behavior, max(mean_count) FILTER (evaluation_id = $1) AS champion,
       max(mean_count) FILTER (evaluation_id = $2) AS challenger
FROM behaviors_by_evaluation
WHERE evaluation_id IN ($1, $2) AND starts_with(method, 'rule/')
GROUP BY behavior HAVING champion IS NOT NULL AND challenger IS NOT NULL ORDER BY behavior
"""
_Examples = tuple[tuple[ComparedExample, ...], tuple[ComparedExample, ...]]
"""Questions that only the challenger has right, and those that only the other has."""
_T = TypeVar("_T")


def write_last_report(warehouse: Warehouse, task: str) -> None:
    """Make the page of the last cycle if it has none: it was killed between its end and that."""
    last = next(reversed(cycles(warehouse, task)), None)
    if last is not None and last.done and not warehouse.objects.exists(_key(last)):
        write_report(last)


def write_report(cycle: Cycle) -> str:
    """Make the page of a cycle and store it, in place of one that is there; return where it is."""
    page = render_page(read_report(cycle))
    key = _key(cycle)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(page, encoding="utf-8", errors="replace")
        cycle.warehouse.objects.put_file(key, path, replace=True)
    return f"{cycle.warehouse.root}/{key}"


def _key(cycle: Cycle) -> str:
    return f"{cycle.folder}/report.html"


def read_report(cycle: Cycle) -> CycleReport:
    """Read what the page of a cycle shows."""
    unread: list[str] = []

    def tried(what: str, read: Callable[[Cycle], _T], otherwise: _T) -> _T:
        try:
            return read(cycle)
        except Exception as error:  # whatever is lost, the rest is shown
            unread.append(f"{what}: {first_line(error)}")
            return otherwise

    look = cycle.outcome("look") or {}
    outcome, reason = _ending(cycle)
    began, ended = look.get("at"), (cycle.done or {}).get("at")
    found = tried("what came in", read_came_in, None)
    nothing: _Examples = ((), ())
    gained, lost = tried("examples", _examples, nothing)
    evaluated = cycle.outcome("evaluate") or {}
    champion, challenger = (evaluated.get(role, {}).get("model_id", "") for role in ROLES)
    report = CycleReport(
        cycle.task, cycle.number, outcome, reason, _time(began), _time(ended),
        champion, challenger,
        stages=_stages(cycle, found),
        collapse=_collapse_checks(cycle),
        trainings=tried("trainings", _trainings, ()),
        gate=_gate(cycle),
        compared=tried("the evaluation", _compared, ()),
        gained=gained, lost=lost,
        behaviors=tried("behaviors", _behaviors, ()),
        commands=_commands(cycle),
        settings={k: v for k, v in look.get("settings", {}).items() if v not in (None, "", [])},
    )  # fmt: skip
    if found is not None:
        report = replace(
            report, steps=found.steps, sources=found.sources, rejects=found.rejects,
            arrived=found.families, teachers=found.teachers, funnel=found.funnel,
        )  # fmt: skip
    report = tried("the dataset", lambda cycle: _with_dataset(cycle, report), report)
    report = tried("decisions", lambda cycle: _with_decisions(cycle, report), report)
    return replace(report, unread=tuple(unread))


def _ending(cycle: Cycle) -> tuple[str, str]:
    """Return how a cycle ended and why, as far as it has."""
    if done := cycle.done:
        said = cycle.outcome("gate") or done  # without the model's name before it
        return str(done["outcome"]), str(said["reason"])
    if paused := cycle.paused:
        return "paused", f"it goes on when it is run again: {paused}"
    reached = [stage for stage in STAGES if cycle.outcome(stage)]
    return "unfinished", f"it came to {reached[-1]}, and goes on when it is run again"


def _stages(cycle: Cycle, found: CameIn | None) -> tuple[StageLine, ...]:
    lines: list[StageLine] = []
    before: float | None = None
    for stage in STAGES[:-1]:
        outcome = cycle.outcome(stage)
        if outcome is None and stage == "measure" and cycle.outcome("grpo"):
            continue  # a cycle of before this stage was
        if outcome is None:
            lines.append(StageLine(stage, done=False))
            continue
        at = float(outcome["at"])
        seconds = None if before is None else at - before
        before, tokens = at, None
        if stage == "build" and found is not None:
            tokens = found.tokens if outcome["trees"] else 0
        elif stage in ("sft", "grpo"):
            tokens = _trained_tokens(cycle, stage)
        elif stage == "measure":
            tokens = outcome.get("tokens")
        elif stage == "evaluate":
            tokens = _answered_tokens(outcome)
        lines.append(StageLine(stage, True, seconds, tokens, _words(stage, outcome)))
    return tuple(lines)


def _words(stage: str, outcome: Row) -> str:
    """Say what a stage came to."""
    if stage == "look":
        return (
            f"{outcome['questions']} questions without a search, "
            f"{outcome['traces']} traces not trained on"
        )
    if stage == "build":
        searched = f"{outcome['trees']} questions searched, {outcome.get('kept', 0)} traces kept"
        return "; ".join(filter(None, (searched, outcome.get("cost", ""))))
    if stage == "publish" and "dataset" not in outcome:
        return "nothing"
    if stage == "publish":
        return f"{outcome['dataset']}, {outcome['traces']} traces"
    if stage in ("sft", "grpo"):
        return str(outcome["model"] or "none was trained")
    if stage == "measure":
        if not outcome.get("evaluation_id"):
            return "not asked for"
        if outcome["accuracy"] is None:
            return f"no answer to {outcome['questions']} questions can be graded"
        return f"{100 * outcome['accuracy']:.1f}% right on {outcome['questions']} questions"
    if stage == "evaluate":
        if not all("accuracy" in outcome[role] for role in ROLES):
            return "no answer can be graded"
        shares = (f"{role} {100 * outcome[role]['accuracy']:.1f}%" for role in ROLES)
        return f"right: {', '.join(shares)}"
    return str(outcome.get("reason") or outcome.get("outcome") or "")


def _trained(cycle: Cycle, stage: str) -> Row | None:
    """Return the row of the model that a stage trained; None where it trained none."""
    name = f"{cycle.name}-{stage}"
    row = find_model(cycle.warehouse, name)
    return row if row is not None and row["name"] == name else None


def _trained_tokens(cycle: Cycle, stage: str) -> int | None:
    row = _trained(cycle, stage)
    tokens = json.loads(row["metrics"] or "{}").get("num_tokens") if row else None
    return int(tokens) if tokens is not None else None


def _answered_tokens(evaluated: Row) -> int | None:
    rows = [row for row in evaluated.values() if isinstance(row, dict)]
    if any("tokens" not in row for row in rows):
        return None  # a cycle of old, which did not count them
    return round(sum(row["tokens"] * row["questions"] for row in rows))


def _trainings(cycle: Cycle) -> tuple[TrainingCurves, ...]:
    found = []
    for stage in ("sft", "grpo"):
        if (row := _trained(cycle, stage)) is None:
            continue
        folders = sorted(runs_folder(cycle.warehouse).glob(f"{row['name']}-*"))
        rows = [row for folder in folders for row in read_metrics(folder / "metrics.jsonl")]
        found.append(TrainingCurves(stage, row["model_id"], _curves(rows)))
    return tuple(found)


def _curves(rows: Sequence[Row]) -> tuple[Curve, ...]:
    series = {
        name: [(row["step"], row[name]) for row in rows if "step" in row and name in row]
        for name in _CURVES
    }
    drawn = [Curve.of(name, points) for name, points in series.items() if len(points) > 1]
    return tuple(drawn[:_MOST_CURVES])


def _gate(cycle: Cycle) -> Gate | None:
    decided, found = cycle.outcome("gate"), cycle.outcome("evaluate")
    if decided is None or found is None:
        return None
    policy = decided["policy"]
    figures = {
        name: [found[role].get(name) for role in ROLES] for name in CONTROLS
    } | {"blank": [found[f"{role}_blank"]["accuracy"] for role in ROLES]}  # fmt: skip
    return Gate(
        decided["p"], decided["allowed"], decided["attempt"], policy["alpha"], policy["minimum"],
        policy["family_margin"], decided["enough"],
        tuple(
            Control(name, a, b, policy["blank_margin" if name == "blank" else "control_margin"])
            for name, (a, b) in figures.items() if a is not None and b is not None
        ),
        {name: [found[r][name] for r in ROLES] for name in COSTS if name in found[ROLES[0]]},
    )  # fmt: skip


def _evaluations(cycle: Cycle) -> list[str]:
    """Return the ids of the evaluations of both models; none before they were made."""
    found = cycle.outcome("evaluate")
    return [found[role]["evaluation_id"] for role in ROLES] if found else []


def _compared(cycle: Cycle) -> tuple[Compared, ...]:
    if not (ids := _evaluations(cycle)):
        return ()
    paired = read_paired(cycle.warehouse, *ids)
    groups: dict[str, list[Paired]] = {"all": paired}
    for pair in sorted(paired, key=lambda pair: pair.family):
        groups.setdefault(pair.family, []).append(pair)
    if len(groups) == 2:
        groups = {"all": paired}
    return tuple(_comparison(family, some) for family, some in groups.items() if some)


def _comparison(family: str, some: Sequence[Paired]) -> Compared:
    champion, challenger = [p.champion for p in some], [p.challenger for p in some]
    scenes = [p.scene for p in some]
    gain = difference(challenger, champion, scenes)
    return Compared(family, mean_of(champion, scenes), mean_of(challenger, scenes), gain)


def _examples(cycle: Cycle) -> _Examples:
    """Return some questions that only the challenger has right, and some only the other."""
    if not (ids := _evaluations(cycle)):
        return (), ()
    warehouse = cycle.warehouse
    with connect_trusted(warehouse, ["predictions", "questions"]) as con:
        rows = con.sql(_EXAMPLES, params=[*ids, EXAMPLES]).to_arrow_table().to_pylist()
    if not rows:
        return (), ()
    names = [row[role] for row in rows for role in ROLES]
    traces = {trace.trace_id: trace for trace, _ in read_traces(warehouse, names)}
    asked = [row["question_id"] for row in rows]
    questions = {q.question_id: q for q in read_questions(warehouse, question_ids=asked)}
    found: tuple[list[ComparedExample], list[ComparedExample]] = ([], [])
    for row in rows:
        question = questions[row["question_id"]]
        images = [_image(warehouse, image.image_id) for image in question.images]
        both = [
            answered(traces[row[role]], row["gained"] == (role == "challenger"), question, images)
            for role in ROLES
        ]  # fmt: skip
        found[0 if row["gained"] else 1].append(ComparedExample(question, *both))
    return tuple(found[0]), tuple(found[1])


def _image(warehouse: Warehouse, image_id: str) -> bytes:
    """Return an image's bytes; none where it is lost, which the page then leaves out."""
    try:
        return read_image(warehouse, image_id)
    except KeyError:
        return b""


def _behaviors(cycle: Cycle) -> tuple[tuple[str, float, float], ...]:
    if not (ids := _evaluations(cycle)):
        return ()
    with connect_trusted(cycle.warehouse, ["behaviors_by_evaluation"]) as con:
        return tuple(con.execute(_BEHAVIORS, ids).fetchall())


def _collapse_checks(cycle: Cycle) -> tuple[CollapseCheck, ...]:
    found = cycle.outcome("collapse") or {}
    return tuple(CollapseCheck(**check) for check in found.get("checks", ()))


def _with_dataset(cycle: Cycle, report: CycleReport) -> CycleReport:
    """Add what the cycle's dataset has that the last one had not, and the other way round."""
    now, before = published_by(cycle), published_by(decided_before(cycle))
    if now is None:
        return report
    return replace(
        report, dataset=now.ref, before=before.ref if before else "",
        changes=tuple(dataset_changes(cycle.warehouse, before, now)),
        steps={**report.steps, "in the dataset, old ones too": now.n_rows},
    )  # fmt: skip


def _with_decisions(cycle: Cycle, report: CycleReport) -> CycleReport:
    """Add whether there was a champion before, and what was decided about this model since."""
    rows = history(cycle.warehouse, cycle.task)[::-1]
    mine = next((i for i, row in enumerate(rows) if decided_in(row) == cycle.number), None)
    if mine is None:
        return report
    model = rows[mine]["model_id"]
    since = tuple(
        f"{said} by {row['decided_by']}, {row['reason']}"
        for row in rows[mine + 1 :]
        if (said := _said_of(row, model))
    )
    return replace(report, first=rows[mine]["previous_id"] is None, since=since)


def _said_of(decision: Row, model_id: str) -> str | None:
    """Return what a decision says of a model, in words; None where it is about others."""
    if takes_back(decision, model_id):
        return "rolled back"
    if decision["model_id"] != model_id:
        return None
    back = decision["outcome"] == "rolled_back"
    return "champion again" if back else str(decision["outcome"]).replace("_", " ")


def _commands(cycle: Cycle) -> tuple[tuple[str, str], ...]:
    """Return what leads further from here, and the command to type for it."""
    found = []
    before = decided_before(cycle)
    published = cycle.outcome("publish")
    if published and (dataset := published.get("dataset")):
        found += [("The dataset", f"vigorl dataset show {dataset}")]
        if before is not None and (old := before.outcome("publish")):
            found += [("Why it differs", f"vigorl dataset diff {old['dataset']} {dataset}")]
        found += [("What it was made from", f"vigorl lineage {dataset}")]
    if evaluated := cycle.outcome("evaluate"):
        for role in ROLES:
            row = evaluated[role]
            found += [(f"The {role}", f"vigorl lineage {row['model_id']}")]
            found += [(f"Its evaluation ({role})", f"vigorl lineage {row['evaluation_id']}")]
    found += [("All decisions", f"vigorl models history {cycle.task}")]
    found += [("This page again", f"vigorl models report {cycle.task} {cycle.number}")]
    return tuple(found)


def _time(at: float | None) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%-d %B %Y, %H:%M} UTC" if at is not None else ""

"""The stages in which a cycle's models are evaluated, compared, and one of them is decided for.

    found = await evaluate_both(cycle, settings, tools)
    decision = compare(warehouse, found, settings.policy(), attempt=3)

What is decided by, and how, is in `curation.scores.gate`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial

from curation.scores.bootstrap import clusters
from curation.scores.gate import GateDecision, GateOutcome, GatePolicy, Paired, decide
from flows.retrain_settings import RetrainSettings
from flows.settings import EvaluateSettings
from flows.settings_base import Problem
from flows.stages.evaluate import evaluate
from flows.stages.retrain.cycle import Cycle, Tables
from flows.stages.retrain.tools import Tools
from training.recipes import load_recipe
from warehouse.query.run_query import connect_trusted
from warehouse.registry import Decision, What, attempts, champion_id, history
from warehouse.registry import decide as record_decision
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

CONTROLS = ("format", "grounded", "pointed")
"""Figures of an evaluation that may not fall, beside accuracy."""


async def evaluate_both(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Ask the champion, or the base, and the challenger the questions of the gate."""
    champion = champion_id(cycle.warehouse, cycle.task)
    champion_model = champion or _base_model(settings)
    models = {"champion": champion_model, "challenger": cycle.required("grpo")["model"]}
    found: Row = {"met": champion}
    asked = await asyncio.to_thread(cycle.as_published, partial(_gate_questions, cycle, settings))
    if not asked:
        raise Problem(f"no question of the split {settings.gate_split} was there by then")
    for role, model in models.items():
        for control in (None, "blank"):
            chosen = EvaluateSettings.checked(
                model=model, benchmark=cycle.task, split=settings.gate_split, control=control,
                home=settings.home,
            )  # fmt: skip
            outcome = await evaluate(
                chosen, report=tools.report, beside_no_zoom=False, question_ids=asked
            )
            report = outcome.report
            figures = {name: each.value for name, each in report.figures["all"].items()}
            named = {"evaluation_id": report.evaluation_id, "model_id": report.model_id}
            row = {**named, "questions": len(report.questions), **figures}
            if report.failed:
                row["unanswered"] = report.failed
            found[f"{role}_{control}" if control else role] = row
    return found


def _gate_questions(
    cycle: Cycle, settings: RetrainSettings, versions: Tables | None, until: float | None
) -> frozenset[str]:
    """Return the ids of the gate's questions that were there when the cycle published.

    The dataset was kept apart from these. One that came later may be about images that the
    challenger has learned from; it counts from the next cycle on.
    """
    with connect_trusted(cycle.warehouse, ["questions"], versions) as con:
        rows = con.sql(
            "SELECT question_id FROM questions WHERE task = $1 AND split = $2 "
            "AND ($3 IS NULL OR created_at <= to_timestamp($3))",
            params=[cycle.task, settings.gate_split, until],
        )
        return frozenset(rows.to_arrow_table()["question_id"].to_pylist())


async def decide_gate(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> Row:
    """Compare what is stored of both models' answers, and record the decision."""
    found = cycle.required("evaluate")
    rows = history(cycle.warehouse, cycle.task)
    mine = next((row for row in rows if decided_in(row) == cycle.number), None)
    if mine is None:
        champion = champion_id(cycle.warehouse, cycle.task)
        if found.get("met", champion) != champion:  # decided by a person since it was evaluated
            found = await evaluate_both(cycle, settings, tools)
            cycle.store_again("evaluate", found)
        attempt = attempts(rows) + 1
        decision = compare(cycle.warehouse, found, settings.policy(), attempt)
        mine = record_decision(
            cycle.warehouse,
            Decision(
                cycle.task, found["challenger"]["model_id"], _WHAT[decision.outcome],
                decision.reason, "gate",
                {"cycle": cycle.number, "gate": _numbers(decision, settings.policy(), attempt)},
                [found[role]["evaluation_id"] for role in ("champion", "challenger")],
                cycle.dataset,
            ),
            after=len(rows),
        )  # fmt: skip
    numbers = json.loads(mine["numbers"])["gate"]
    return {
        "outcome": mine["outcome"],
        "reason": mine["reason"],
        "model": mine["model_id"],
        **numbers,
    }


_WHAT: dict[GateOutcome, What] = {
    GateOutcome.PROMOTE: "promoted",
    GateOutcome.REFUSE: "refused",
    GateOutcome.WAIT: "waiting",
}


def compare(
    warehouse: Warehouse, found: Mapping[str, Row], policy: GatePolicy, attempt: int
) -> GateDecision:
    """Decide from stored predictions; the same ones give the same decision.

    What the champion shows and the challenger never does (grounding, of one that cites no place)
    counts as 0 of it.
    """
    controls = {
        name: (found["champion"][name], found["challenger"].get(name, 0.0))
        for name in CONTROLS
        if name in found["champion"]
    }
    paired = read_paired(
        warehouse, *(found[r]["evaluation_id"] for r in ("champion", "challenger"))
    )
    if not paired:
        raise Problem("no answer of the champion can be graded: nothing can be compared")
    blank = [found[f"{role}_blank"]["accuracy"] for role in ("champion", "challenger")]
    controls["blank"] = (blank[0], blank[1])
    decision = decide(policy, paired, attempt, controls)
    if silent := found["challenger"].get("unanswered", 0):
        said = f"{decision.reason}; {silent} questions that it left unanswered count as wrong"
        return replace(decision, reason=said)
    return decision


def read_paired(warehouse: Warehouse, champion: str, challenger: str) -> list[Paired]:
    """Read the scores of two evaluations for each question that the champion answered.

    Those whose answers can't be graded are left out, as of the evaluations' own figures. What the
    challenger did not answer, for whatever reason, is wrong: it would win by silence otherwise.
    """
    with connect_trusted(warehouse, ["predictions", "questions"]) as con:
        rows = con.sql(
            "SELECT question_id, any_value(image_ids) AS images, any_value(family) AS family, "
            "avg(score) FILTER (evaluation_id = $1) AS champion, "
            "coalesce(avg(score) FILTER (evaluation_id = $2), 0.0) AS challenger "
            "FROM predictions JOIN questions USING (question_id) "
            "WHERE evaluation_id IN ($1, $2) GROUP BY question_id "
            "HAVING bool_and(score IS NOT NULL) AND champion IS NOT NULL ORDER BY question_id",
            params=[champion, challenger],
        ).to_arrow_table()
    found = rows.to_pylist()
    scenes = clusters([row["images"] for row in found])
    return [
        Paired(row["champion"], row["challenger"], scene, row["family"] or "")
        for row, scene in zip(found, scenes, strict=True)
    ]


def _numbers(decision: GateDecision, policy: GatePolicy, attempt: int) -> Row:
    return {
        "policy": asdict(policy),
        "attempt": attempt,
        "p": decision.p,
        "allowed": decision.spent,
        "gain": asdict(decision.gain),
        "families": dict(decision.families),
        "enough": decision.enough,
    }


def decided_in(decision: Row) -> int | None:
    """Return the number of the cycle that came to a decision; None where no cycle did."""
    number: int | None = json.loads(decision["numbers"] or "{}").get("cycle")
    return number


def _base_model(settings: RetrainSettings) -> str:
    """Return the model that the first training starts from."""
    if settings.sft_recipe:
        return str(load_recipe(settings.sft_recipe, settings.sft_override).model)
    return str(load_recipe(settings.grpo_recipe, settings.grpo_override).model)

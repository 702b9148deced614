"""Which model is current for a task, since when and why: the champion, and the challengers.

    champion_id(warehouse, "sat2")                     # a model's id; None before the first
    decide(warehouse, Decision("sat2", model_id, "promoted", "better by 5.2 points (p = 0.0004)"))
    rollback(warehouse, "sat2", by="anna")             # the champion before is current again
    history(warehouse, "sat2")                         # every decision, the newest first

A decision is one row of `promotions`, refusals too, and nothing is ever changed: who was champion
on a day is the last model promoted before it, unless it was taken back since. A task's decisions
are numbered, and a number is given once, so of two decisions made at the same time one is refused
and must look again.

`champion:sat2` and `challenger:sat2` name models wherever a model is named; what is done with one
records the id that the name meant.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any, Literal

from warehouse.query.run_query import connect_trusted
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import insert_new
from warehouse.tables.schema import Row

ALIASES = ("champion", "challenger")
What = Literal["promoted", "refused", "waiting", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision to be recorded."""

    task: str
    model_id: str
    outcome: What
    reason: str
    decided_by: str = ""
    """The gate, or a person; by default whoever runs the command."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    evaluation_ids: Sequence[str] = ()
    dataset: str | None = None


def decide(
    warehouse: Warehouse, decision: Decision, *, after: int | None = None, run_id: str = ""
) -> Row:
    """Record a decision, and return its row.

    Args:
        after: the number of decisions it was made in view of; what is there now, if left out.

    Raises:
        WarehouseError: another decision about the task was made meanwhile.
    """
    before = history(warehouse, decision.task)
    number = (len(before) if after is None else after) + 1
    current = _champion_id(before)
    back = decision.outcome == "rolled_back" and decision.model_id != current
    row: Row = {
        "promotion_id": f"{decision.task}/{number}",
        "model_id": decision.model_id,
        "task": decision.task,
        "promoted": back or decision.outcome == "promoted",
        "reason": decision.reason,
        "outcome": decision.outcome,
        "previous_id": current,
        "decided_by": decision.decided_by or getpass.getuser(),
        "numbers": json.dumps(dict(decision.numbers), sort_keys=True),
        "evaluation_ids": list(decision.evaluation_ids),
        "dataset": decision.dataset,
        "run_id": run_id or None,
    }
    if not insert_new(warehouse, "promotions", [row], whole=True):
        raise WarehouseError(
            f"another decision about {decision.task} was made meanwhile: "
            f"see `vigorl models history {decision.task}` and decide again"
        )
    return row


def history(
    warehouse: Warehouse, task: str | None = None, as_of: datetime | None = None
) -> list[Row]:
    """Return the decisions about a task, or about all, the newest first.

    Those about one task come by their numbers: the machines that wrote them may have other clocks.

    Args:
        as_of: those made until then.
    """
    with connect_trusted(warehouse, ["promotions"]) as con:
        rows = con.sql(
            """
            SELECT * EXCLUDE (number)
            FROM (
                SELECT *, try_cast(split_part(promotion_id, '/', -1) AS INT) AS number
                FROM promotions
            )
            WHERE ($1 IS NULL OR task = $1) AND ($2 IS NULL OR created_at <= $2)
            ORDER BY max(created_at) OVER (PARTITION BY task ORDER BY number) DESC, number DESC
            """,
            params=[task, as_of],
        )
        return [dict(row) for row in rows.to_arrow_table().to_pylist()]


def _champion_id(newest_first: Sequence[Row]) -> str | None:
    row = next(filter(_changes_champion, newest_first), None)
    return row["model_id"] if row is not None and row["promoted"] else None


def _changes_champion(row: Row) -> bool:
    """Whether the task has another champion, or none, since that decision."""
    return bool(row["promoted"]) or row["outcome"] == "rolled_back"


def takes_back(row: Row, model_id: str) -> bool:
    """Return whether a decision is the rollback of this model, whichever came back for it."""
    return bool(row["outcome"] == "rolled_back" and row["previous_id"] == model_id)


def champions(warehouse: Warehouse) -> dict[str, str]:
    """Return the id of every task's champion."""
    rows = history(warehouse)
    tasks = {row["task"]: [r for r in rows if r["task"] == row["task"]] for row in rows}
    found = {task: _champion_id(some) for task, some in tasks.items()}
    return {task: model_id for task, model_id in found.items() if model_id is not None}


def champion_id(warehouse: Warehouse, task: str, as_of: datetime | None = None) -> str | None:
    """Return the id of the task's champion, now or at that time; None before the first."""
    return _champion_id(history(warehouse, task, as_of))


def challenger_id(warehouse: Warehouse, task: str) -> str | None:
    """Return the model that waits for a person's decision, else the last that was refused since
    the champion was promoted; None if there is none."""
    since: dict[str, str] = {}  # the newest decision about each model, the newest model first
    for row in takewhile(lambda row: not _changes_champion(row), history(warehouse, task)):
        since.setdefault(row["model_id"], row["outcome"])
    waiting = (model_id for model_id, outcome in since.items() if outcome == "waiting")
    return next(waiting, next(iter(since), None))


def resolve_alias(warehouse: Warehouse, name: str) -> str:
    """Return the model id that `champion:TASK` or `challenger:TASK` means; other names as they are.

    Raises:
        WarehouseError: the task has no such model.
    """
    alias, colon, task = name.partition(":")
    if not colon or alias not in ALIASES:
        return name
    find = champion_id if alias == "champion" else challenger_id
    found = find(warehouse, task)
    if found is None:
        raise WarehouseError(
            f"{task} has no {alias}: `vigorl models promote {task} MODEL` makes one"
        )
    return found


def attempts(newest_first: Sequence[Row]) -> int:
    """Return how many challengers were judged by the gate since the champion was promoted."""
    since = takewhile(lambda row: not _changes_champion(row), newest_first)
    return sum(bool(json.loads(row["numbers"] or "{}").get("gate")) for row in since)


def rollback(warehouse: Warehouse, task: str, by: str = "", reason: str = "") -> Row:
    """Make the champion before this one current again, and return the decision.

    Behind the first there is none: the task has no champion then, as before it was promoted.

    Raises:
        WarehouseError: there is no champion.
    """
    rows = history(warehouse, task)
    now = _champion_id(rows)
    if now is None:
        raise WarehouseError(f"{task} has no champion to go back from")
    made: list[str] = []  # champions that were not taken back, the newest last
    for row in reversed(rows):
        if row["outcome"] == "rolled_back":
            del made[-1:]  # rollbacks of earlier releases went round in circles, past the first
        elif row["promoted"]:
            made.append(row["model_id"])
    before = made[-2] if len(made) > 1 else None
    why = reason or (f"back from {now}" if before else "back to no champion")
    return decide(warehouse, Decision(task, before or now, "rolled_back", why, by), after=len(rows))

"""What a cycle of retraining left in its warehouse, compared with what it should have.

look(home, to=folder / "found.json")
differences(found, whole)            # sentences; none where they are the same
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from tests.chaos.contents import compare, read
from tests.chaos.retrain_faults import TASK

COUNTED = (
    "questions", "trees", "nodes", "rollouts", "responses", "traces", "steps", "verdicts",
    "behaviors", "dataset_versions", "models", "evaluations", "predictions", "promotions",
)  # fmt: skip


def look(home: str, to: Path) -> None:
    """Write what a cycle left to a file: what must be as in one without faults."""
    from flows.cli import app as cli
    from flows.stages.doctor.stored import check_retraining
    from flows.stages.retrain.cycle import STAGES, Cycle, cycles
    from warehouse.models import list_models
    from warehouse.query.run_query import connect
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse(home)
    one = Cycle(warehouse, TASK, 1)
    gate = one.outcome("gate") or {}
    with connect(warehouse, names=COUNTED) as con:
        counts = {
            name: con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in COUNTED
        }
    printed = StringIO()
    sys.argv = ["vigorl", "retrain", TASK, "--sft-recipe", "nano-sft", "--decide-again", "1"]
    with redirect_stdout(printed), suppress(SystemExit):
        cli.main()
    found = {
        "cycles": len(cycles(warehouse, TASK)),
        "stages": [stage for stage in STAGES if one.outcome(stage) is not None],
        "dataset": (one.outcome("publish") or {}).get("hash"),
        "steps": {
            row["name"]: json.loads(row["metrics"])["steps"] for row in list_models(warehouse)
        },
        "decision": {name: gate.get(name) for name in ("outcome", "reason", "model", "p", "gain")},
        "decided again": "the same" if "(the same)" in printed.getvalue() else printed.getvalue(),
        "rows": counts,
        "trees": read(home),
        "retraining": [d.sentence for d in check_retraining(warehouse) if d.state == "problem"],
    }
    to.write_text(json.dumps(found))


def differences(found: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that is not as in a cycle without faults."""
    lost, differing = compare(found["trees"], whole["trees"])
    problems = [f"{lost} trees lost, {differing} differ"] if lost or differing else []
    for name in whole:
        if name != "trees" and found[name] != whole[name]:
            problems.append(f"{name}: {found[name]}, not {whole[name]}")
    return problems

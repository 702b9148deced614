"""`vigorl doctor`: what is wrong here, and what to type."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.escape import escape_controls
from flows.parameters import takes
from flows.settings import DoctorSettings, TeacherSettings

LIMIT_S = 30.0
"""Seconds after which a check that is not done is given up."""
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}

Json = Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")]


@takes(DoctorSettings)
def doctor(settings: DoctorSettings, json_: Json = False) -> None:
    """Look at the warehouse, Prefect, this machine and the teacher; say what to type about each
    problem. Status 1 if there is one. Nothing is written, and a teacher is asked for no tokens.

        vigorl doctor --teacher http://gpu:8000
    """
    from flows.stages.doctor.checkup import Diagnosis, examine

    begun = time.monotonic()
    found = []
    show: Callable[[Diagnosis], None] = (lambda diagnosis: None) if json_ else _printer()
    for diagnosis in examine(_checks(settings), LIMIT_S):
        found.append(diagnosis)
        show(diagnosis)
    counts = Counter(diagnosis.state for diagnosis in found)
    if json_:
        checks = [asdict(diagnosis) for diagnosis in found]
        print(json.dumps({"problems": counts["problem"], "checks": checks}, ensure_ascii=False))
    else:
        told = [_counted(counts[state], state) for state in ("problem", "note") if counts[state]]
        seconds = time.monotonic() - begun
        print(f"\n{', '.join(told) or 'all is well'}: {len(found)} checks in {seconds:.1f} s")
    if counts["problem"]:
        sys.exit(1)


def _checks(settings: DoctorSettings) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return every check, by its subject."""
    from flows.orchestration.server_health import check_prefect
    from flows.stages.doctor import machine, stored
    from flows.stages.doctor.teacher import check_teacher
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse.at(settings.home)
    named = bool(settings.home or os.environ.get("VIGORL_HOME"))
    return {
        "warehouse": lambda: stored.check_tables(warehouse, named),
        "commits": lambda: stored.check_commits(warehouse),
        "journal": lambda: stored.check_journal(warehouse),
        "leftovers": lambda: stored.check_leftovers(warehouse),
        "retraining": lambda: stored.check_retraining(warehouse),
        "inbox": lambda: stored.check_inbox(warehouse),
        "Prefect": lambda: check_prefect(settings.home),
        "teacher": lambda: check_teacher(TeacherSettings.of(settings)),
        "GPU": machine.check_gpu,
        "disk": lambda: machine.check_disk(warehouse),
        "clock": lambda: machine.check_clock(warehouse),
        "dependencies": machine.check_dependencies,
    }


def _printer() -> Callable[[Any], None]:
    """Return what prints a diagnosis: a line, and below a problem what to type."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)

    def show(diagnosis: Any) -> None:
        if not sys.stdout.isatty():  # a line that is piped is not folded
            print(
                f"{diagnosis.state:<7}  {diagnosis.subject:<12}  {diagnosis.sentence}", flush=True
            )
            if diagnosis.remedy:
                print(f"{'':<7}  {'type':<12}  {diagnosis.remedy}", flush=True)
            return
        line = Table.grid(padding=(0, 2))
        line.add_column(width=7)
        line.add_column(width=12)
        line.add_column(overflow="fold")
        sentence = Text(escape_controls(diagnosis.sentence))
        line.add_row(Text(diagnosis.state, _STYLES[diagnosis.state]), diagnosis.subject, sentence)
        if diagnosis.remedy:
            line.add_row("", Text("type", "dim"), Text(escape_controls(diagnosis.remedy), "cyan"))
        console.print(line)

    return show


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

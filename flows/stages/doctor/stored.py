"""What is stored: tables that open, what was begun and not ended, cycles of retraining.

    for diagnosis in check_tables(warehouse, named=False): ...

Cheap looks only; `vigorl warehouse check` reads every byte.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flows.stages.doctor.checkup import Diagnosis
from flows.stages.retrain.cycle import STAGES, Cycle, lease_name, retrained_tasks, unfinished
from flows.stages.retrain.inbox import REJECTED, inbox_of
from mcts.journal.records import is_intact, search_of
from warehouse.maintenance.check import unfinished_commits
from warehouse.query.run_query import connect, table_versions
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import TERM_S, current
from warehouse.tables.delta import open_table, scan
from warehouse.tables.migrations import MIGRATIONS
from warehouse.tables.schema import TABLES


def check_tables(warehouse: Warehouse, named: bool) -> Iterator[Diagnosis]:
    """Open every table, compare its columns with ours, and read a row of it.

    Args:
        named: whether a person said where it is: then nothing there is a mistyped path.
    """
    there = [name for name, version in table_versions(warehouse).items() if version is not None]
    if not there:
        sentence = f"nothing is stored at {warehouse.root} yet"
        yield Diagnosis("warehouse", "problem" if named else "note", sentence, "vigorl demo")
        return
    yield from _permissions(warehouse)
    broken = []
    for name in there:
        table = open_table(warehouse, name)
        assert table is not None
        known = {*TABLES[name].schema.names, *(m.was for m in MIGRATIONS if m.table == name)}
        if unknown := {field.name for field in table.schema().fields} - known:
            yield Diagnosis(
                "warehouse", "problem",
                f"{name} has columns of a newer vigorl: {', '.join(sorted(unknown))}",
                "git pull && make setup",
            )  # fmt: skip
        try:
            with connect(warehouse, names=[name]) as con:
                con.execute(f"SELECT * FROM {name} LIMIT 1").fetchall()
        except Exception as error:
            broken.append(f"{name} can't be read ({str(error).splitlines()[0]})")
    for sentence in broken:
        yield Diagnosis("warehouse", "problem", sentence, f"vigorl warehouse check{at(warehouse)}")
    if not broken:
        counts = ", ".join(
            f"{table.count():,} {name}"
            for name in ("questions", "trees", "traces", "models")
            if (table := open_table(warehouse, name)) is not None
        )
        yield Diagnosis("warehouse", "ok", f"{warehouse.root}: {counts}")


def _permissions(warehouse: Warehouse) -> Iterator[Diagnosis]:
    if not warehouse.is_s3 and not os.access(warehouse.root, os.R_OK | os.W_OK | os.X_OK):
        yield Diagnosis(
            "warehouse", "problem", f"{warehouse.root} can't be written by this user",
            f"sudo chown -R $USER {shlex.quote(warehouse.root)}",
        )  # fmt: skip


def at(warehouse: Warehouse) -> str:
    """Return ` --home HOME` for a command about a warehouse that is not the usual one."""
    return "" if warehouse == Warehouse() else f" --home {shlex.quote(warehouse.root)}"


def check_commits(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look for rows whose commit never finished: hidden, and finished by the same command."""
    found = [finding.sentence for finding in unfinished_commits(warehouse)]
    if not found:
        yield Diagnosis("commits", "ok", "all are finished")
        return
    yield Diagnosis(
        "commits", "note", "; ".join(found),
        f"vigorl build TASK{at(warehouse)}  # or what else was killed, as before: it finishes them",
    )  # fmt: skip


def check_journal(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look for answers of searches that no tree was made of, and for damage."""
    counts: dict[str, int] = {}
    damaged, segments = 0, sorted(warehouse.journal_dir.glob("*.jsonl"))
    for path in segments:
        whole = True
        with path.open("rb") as file:
            for line in file:
                damaged += not whole  # a line follows, so no crash explains the one before
                if whole := is_intact(line):
                    counts[search_of(line)] = counts.get(search_of(line), 0) + 1
    if damaged:
        yield Diagnosis(
            "journal", "problem",
            f"{damaged} lines in {warehouse.journal_dir} are damaged, and will be asked again",
            f"vigorl warehouse check{at(warehouse)}",
        )  # fmt: skip
    known = set(scan(warehouse, "trees", ["tree_id"])["tree_id"].to_pylist()) if counts else set()
    waiting = {search: n for search, n in counts.items() if search not in known}
    if waiting:
        yield Diagnosis(
            "journal", "note",
            f"{sum(waiting.values()):,} answers of {len(waiting):,} searches that no tree was made "
            "of wait to be used",
            f"vigorl build TASK{at(warehouse)}  # as before: it asks for none of them again",
        )  # fmt: skip
    elif not damaged:
        held = (
            f"{sum(counts.values()):,} answers, all of them in trees" if counts else "it is empty"
        )
        yield Diagnosis("journal", "ok", held)


def check_leftovers(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look for what processes that were killed left half-written; nothing reads it."""
    folder = Path(warehouse.root) / ".partial"
    if warehouse.is_s3 or not folder.is_dir():
        return
    old = time.time() - 3600  # a writer may be at it
    sizes = [found.st_size for path in folder.iterdir() if (found := path.stat()).st_mtime < old]
    if sizes:
        yield Diagnosis(
            "leftovers", "note",
            f"{len(sizes)} half-written files of killed processes, {sum(sizes) / 2**20:.1f} MiB",
            f"find {shlex.quote(str(folder))} -type f -mmin +60 -delete",
        )  # fmt: skip


def check_inbox(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look for files that were dropped into the watched folder and could not be used."""
    root = inbox_of(warehouse)
    refused = [key for key in Warehouse(root).objects.keys("") if key.endswith(REJECTED)]
    if refused:
        reason = Warehouse(root).objects.get(refused[0]).decode(errors="replace").strip()
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        yield Diagnosis(
            "inbox", "note", f"not imported: {refused[0].removesuffix(REJECTED)} ({reason}){more}",
            f"vigorl inbox  # once it is replaced, and {root}/{refused[0]} deleted",
        )  # fmt: skip


def check_retraining(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look at each task's cycle and at who holds its lease."""
    tasks = retrained_tasks(warehouse)
    for task in tasks:
        yield _cycle(warehouse, task)
    if not tasks:
        yield Diagnosis("retraining", "ok", "no cycle has run yet")


def _cycle(warehouse: Warehouse, task: str) -> Diagnosis:
    """Say how a task's retraining stands."""
    _, term = current(warehouse, lease_name(task))
    cycle = unfinished(warehouse, task)
    if term is not None and not term.over:
        stage = f"{cycle.name}, stage {_next_stage(cycle)}" if cycle else "a look for what is new"
        who = f"process {term.pid} of {term.host}"
        if (ahead := term.ends - time.time() - TERM_S) > 10:
            return Diagnosis(
                "retraining", "problem", f"{task}: the clock of {term.host} is {ahead:.0f} s ahead",
                f"on {term.host}: sudo timedatectl set-ntp true",
            )  # fmt: skip
        return Diagnosis("retraining", "ok", f"{stage} is at work in {who}")
    left = (
        f"; its lease was left by process {term.pid} of {term.host}" if term and term.ends else ""
    )
    if cycle is not None:
        look = cycle.outcome("look") or {}
        remedy = f"vigorl retrain {task}{_recipe(look)}{at(warehouse)}"
        if paused := cycle.paused:
            sentence = f"{cycle.name} goes on with the next run: {paused}"
            return Diagnosis("retraining", "note", sentence, remedy)
        since = datetime.fromtimestamp(look.get("at", 0), UTC)
        return Diagnosis(
            "retraining", "problem",
            f"{cycle.name}, begun {since:%Y-%m-%d %H:%M} UTC, stands before "
            f"{_next_stage(cycle)}{left}",
            remedy,
        )  # fmt: skip
    if left:
        return Diagnosis(
            "retraining", "ok", f"{task}: no cycle is open{left}, and is taken by the next"
        )
    return Diagnosis("retraining", "ok", f"{task}: no cycle is open")


def _next_stage(cycle: Cycle) -> str:
    return next((stage for stage in STAGES if cycle.outcome(stage) is None), "its end")


def _recipe(look: dict[str, object]) -> str:
    settings = look.get("settings")
    for field in ("sft_recipe", "grpo_recipe"):
        if isinstance(settings, dict) and settings.get(field):
            return f" --{field.replace('_', '-')} {shlex.quote(str(settings[field]))}"
    return ""

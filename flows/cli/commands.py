"""What the commands do once their arguments are read: call a plain function, print its outcome.

Results go to stdout, everything about how it went to stderr, so that a pipe gets only results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flows.cli.interrupts import run
from flows.settings import BuildSettings, CurateSettings, Problem
from warehouse.storage.home import Warehouse


def build(values: dict[str, Any]) -> None:
    settings = BuildSettings.checked(**values)
    from flows.stages.progress import TerminalProgress

    if settings.dry_run:
        from flows.stages.forecast import pilot

        print(run(pilot(settings, progress=TerminalProgress())).text())
        return
    if settings.regrade:
        from flows.stages import regrade as regrading

        print(run(regrading.regrade(settings)).sentence())
        return
    if settings.replay:
        from flows.stages import replay as replaying

        replayed = run(replaying.replay(settings, progress=TerminalProgress()))
        print(replayed.sentence())
        if replayed.differing or replayed.missing:
            sys.exit(1)
        return
    from flows.stages import build as stages
    from flows.stages.prometheus import served

    progress = TerminalProgress()
    with served(settings.metrics, progress):
        summary = run(stages.build(settings, progress=progress))
    print(summary.sentence())
    for told in summary.extra.values():
        print(told)
    print(
        f"{summary.asked} requests to the teacher, {summary.replayed} answered from the journal "
        f"(run {summary.run_id})",
        file=sys.stderr,
    )


def curate(values: dict[str, Any]) -> None:
    settings = CurateSettings.checked(**values)
    from flows.stages import curate as curating

    summary = run(curating.curate(settings))
    print(summary.sentence())
    if dataset := summary.extra.get("dataset"):
        print(f"dataset {dataset}")
        _say_revoked(dataset, settings.home)


def sql(statement: str, format_: str, home: str | None) -> None:
    if format_ not in ("table", "json", "csv"):
        raise Problem(f"--format: it is table, json or csv, not {format_!r}")
    from warehouse.query.catalog import query

    table = query(Warehouse.at(home), statement)
    if format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(table), sys.stdout.buffer)
    elif format_ == "json":
        for row in table.to_pylist():
            print(json.dumps(row, ensure_ascii=False, default=str))
    else:
        show_table(table)


_LEAST_WIDTH = 12  # characters in which a column can still be read


def show_table(table: Any, most: int = 200) -> None:
    """Print an Arrow table with aligned columns, or line by line where there are too many to
    read."""
    from rich.console import Console
    from rich.table import Table

    # Piped output is not squeezed to some terminal's width.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    if table.num_columns * _LEAST_WIDTH > console.width:
        _show_records(table.slice(0, most))
        _say_more(table.num_rows - most)
        return
    shown = Table(show_edge=False, header_style="bold", pad_edge=False)
    for field in table.schema:
        right = str(field.type).startswith(("int", "uint", "double", "float", "decimal", "hugeint"))
        shown.add_column(field.name, justify="right" if right else "left", overflow="fold")
    for row in table.slice(0, most).to_pylist():
        shown.add_row(*(_cell(value) for value in row.values()))
    console.print(shown)
    _say_more(table.num_rows - most)


def _show_records(table: Any) -> None:
    """Each row as lines of `column  value`."""
    width = max(map(len, table.column_names))
    for number, row in enumerate(table.to_pylist(), 1):
        print(f"--- {number}")
        for column, value in row.items():
            told = _cell(value).replace("\n", f"\n{' ' * (width + 2)}")
            print(f"{column:<{width}}  {told}".rstrip())


def _say_more(left: int) -> None:
    if left > 0:
        print(f"... {left} more rows; --format csv or json gives all", file=sys.stderr)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    return str(value)


def _flat(table: Any) -> Any:
    """Lists and structs as JSON text, which is all that CSV can hold."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [
                None if v is None else json.dumps(v, ensure_ascii=False, default=str)
                for v in table.column(i).to_pylist()
            ]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def gallery(
    out: Path, sql: str | None, dropped_by: str | None, limit: int, home: str | None
) -> None:
    from flows.stages import gallery as showing
    from warehouse.query.catalog import query

    if sql and dropped_by:
        raise Problem("--sql and --dropped-by: give one of them")
    warehouse = Warehouse.at(home)
    if dropped_by:
        sql = showing.dropped_by(warehouse, dropped_by, limit)
    index, count = showing.gallery(warehouse, out, sql=sql, limit=limit)
    total = None if sql else query(warehouse, "SELECT count(*) AS n FROM traces")["n"][0].as_py()
    told = f"{count} traces"
    if total and total > count:
        told = f"{count} of {total} traces, some of every tree"
    print(f"{told}: open {index} in a browser")


def publish(name: str, statement: str, variant: str | None, home: str | None) -> None:
    from warehouse.versions import versions

    version = versions.publish(Warehouse.at(home), name, statement, variant=variant)
    print(f"{version.ref}: {version.n_rows} traces, content {version.content_hash[:16]}")
    _say_revoked(version.ref, home)


def _say_revoked(ref: str, home: str | None) -> None:
    """Say what a version's statement chose and a revocation took out again."""
    from warehouse.versions.revocations import told_revoked
    from warehouse.versions.versions import resolve

    for row in resolve(Warehouse.at(home), ref).card.get("revoked", ()):
        print(f"left out, because revoked: {told_revoked(row)}")


def list_datasets(home: str | None) -> None:
    from warehouse.versions import versions

    found = versions.list_versions(Warehouse.at(home))
    if not found:
        print("nothing has been published yet; `vigorl dataset publish NAME --sql ...` does")
    for version in found:
        print(f"{version.ref:<24} {version.n_rows:>8} traces  {version.content_hash[:16]}")


def show_dataset(ref: str, home: str | None) -> None:
    from warehouse.versions import versions

    print(versions.show(Warehouse.at(home), ref))

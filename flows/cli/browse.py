"""`vigorl sql` and `vigorl gallery`: what the warehouse holds, printed or as pages.

Results go to stdout, everything about how it went to stderr, so that a pipe gets only results.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer

from flows.cli.interrupts import personal_limits
from flows.cli.printing import (
    Home,
    check_format,
    existing_warehouse,
    interval_text,
    is_interval,
    rows_of,
    show_table,
)
from flows.parameters import takes
from flows.settings import GallerySettings


def sql(
    statement: Annotated[
        str, typer.Argument(help="One SELECT over the warehouse's tables; - reads it.")
    ],
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds the query may take.")] = 600.0,
    home: Home = None,
) -> None:
    """Query the warehouse; `SELECT * FROM duckdb_columns()` describes every column.

    vigorl sql "SELECT kind, count(*), avg(reward) FROM traces GROUP BY kind"

    cat question.sql | vigorl sql -
    """
    check_format(format_, "table", "json", "csv")
    from warehouse.query.run_query import query

    said = statement
    if statement == "-":
        said = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    table = query(existing_warehouse(home), said, personal_limits(timeout))
    if format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(table), sys.stdout.buffer)
    elif format_ == "json":
        names = _distinct(table.column_names)
        for batch in table.to_batches(max_chunksize=1000):
            for row in rows_of(batch):
                print(_json(dict(zip(names, row, strict=True))))
    else:
        show_table(table)


@takes(GallerySettings)
def gallery(settings: GallerySettings) -> None:
    """Write traces and search trees as pages that open in any browser.

    vigorl gallery --sql "SELECT trace_id FROM kept_traces WHERE kind = 'corrected'"
    """
    from flows.stages import gallery as stage
    from warehouse.query.run_query import query

    warehouse, sql = existing_warehouse(settings.home), settings.sql
    if settings.dropped_by:
        sql = stage.dropped_by(warehouse, settings.dropped_by, settings.limit)
    limits = personal_limits(settings.timeout)
    index, count = stage.gallery(
        warehouse, settings.out, sql=sql, limit=settings.limit, limits=limits
    )
    total = None if sql else query(warehouse, "SELECT count(*) AS n FROM traces")["n"][0].as_py()
    shown = f"{count} of {total} traces, of the newest trees"
    print(f"{shown if total and total > count else f'{count} traces'}: open {index} in a browser")


def _distinct(names: Sequence[str]) -> list[str]:
    """Number names that come twice, as DuckDB does in tables: `a`, `a_1`."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        found.append(name if name not in found else next(n for n in numbered if n not in names))
    return found


def _json(value: Any) -> str:
    """Write a value as JSON, which has no NaN; what it has no form for is a text."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if is_interval(value):
        return interval_text(value)
    if isinstance(value, list | tuple):  # a map is a list of pairs
        return [_plain(part) for part in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _flat(table: Any) -> Any:
    """What CSV has no form for as text: lists and structs as JSON, bytes as digits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, field in enumerate(table.schema):
        kind = field.type
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if pa.types.is_nested(kind) or pa.types.is_interval(kind) or binary:
            texts = [
                None if v is None
                else _json(v) if pa.types.is_nested(kind)
                else str(_plain(v))
                for v in table.column(i).to_pylist()
            ]  # fmt: skip
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
        elif pa.types.is_temporal(kind):
            try:
                pc.min_max(table.column(i)).as_py()
            except (OverflowError, ValueError):
                from warehouse.query.run_query import duckdb_texts

                texts = duckdb_texts(table.column(i))
                table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table

"""`vigorl sql` and `vigorl gallery`: what the warehouse holds, printed or as pages.

Results go to stdout, everything about how it went to stderr, so that a pipe gets only results.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from flows.cli.interrupts import personal_limits
from flows.cli.printing import Home, check_format, show_table
from flows.parameters import takes
from flows.settings import GallerySettings


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the warehouse's tables.")],
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds the query may take.")] = 600.0,
    home: Home = None,
) -> None:
    """Query the warehouse; `SELECT * FROM duckdb_columns()` describes every column.

    vigorl sql "SELECT kind, count(*), avg(reward) FROM traces GROUP BY kind"
    """
    check_format(format_, "table", "json", "csv")
    from warehouse.query.run_query import query
    from warehouse.storage.home import Warehouse

    table = query(Warehouse.at(home), statement, personal_limits(timeout))
    if format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(table), sys.stdout.buffer)
    elif format_ == "json":
        for batch in table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                print(json.dumps(row, ensure_ascii=False, default=str))
    else:
        show_table(table)


@takes(GallerySettings)
def gallery(settings: GallerySettings) -> None:
    """Write traces and search trees as pages that open in any browser.

    vigorl gallery --sql "SELECT trace_id FROM kept_traces WHERE kind = 'corrected'"
    """
    from flows.stages import gallery as stage
    from warehouse.query.run_query import query
    from warehouse.storage.home import Warehouse

    warehouse, sql = Warehouse.at(settings.home), settings.sql
    if settings.dropped_by:
        sql = stage.dropped_by(warehouse, settings.dropped_by, settings.limit)
    limits = personal_limits(settings.timeout)
    index, count = stage.gallery(
        warehouse, settings.out, sql=sql, limit=settings.limit, limits=limits
    )
    total = None if sql else query(warehouse, "SELECT count(*) AS n FROM traces")["n"][0].as_py()
    shown = f"{count} of {total} traces, some of every tree"
    print(f"{shown if total and total > count else f'{count} traces'}: open {index} in a browser")


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

"""What the warehouse holds, printed or drawn: `vigorl sql`, `vigorl gallery`.

Results go to stdout, everything about how it went to stderr, so that a pipe gets only results.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from flows.parameters import takes
from flows.settings import GallerySettings, Problem

Home = Annotated[
    str | None,
    typer.Option("--home", help="Warehouse: a folder or s3:// URL; $VIGORL_HOME when left out."),
]


def check_format(given: str, *known: str) -> None:
    """Check the value of a flag `--format`.

    Raises:
        Problem: it is none of the known ones.
    """
    if given not in known:
        raise Problem(f"--format: it is {', '.join(known[:-1])} or {known[-1]}, not {given!r}")


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the warehouse's tables.")],
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    home: Home = None,
) -> None:
    """Query the warehouse; `SELECT * FROM duckdb_columns()` describes every column.

    vigorl sql "SELECT kind, count(*), avg(reward) FROM traces GROUP BY kind"
    """
    check_format(format_, "table", "json", "csv")
    from warehouse.query.catalog import query
    from warehouse.storage.home import Warehouse

    table = query(Warehouse.at(home), statement)
    if format_ == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_flat(table), sys.stdout.buffer)
    elif format_ == "json":
        for row in table.to_pylist():
            print(json.dumps(row, ensure_ascii=False, default=str))
    else:
        show_table(table)


@takes(GallerySettings)
def gallery(settings: GallerySettings) -> None:
    """Write traces and search trees as pages that open in any browser.

    vigorl gallery --sql "SELECT trace_id FROM kept_traces WHERE kind = 'corrected'"
    """
    from flows.stages import gallery as stage
    from warehouse.query.catalog import query
    from warehouse.storage.home import Warehouse

    warehouse, sql = Warehouse.at(settings.home), settings.sql
    if settings.dropped_by:
        sql = stage.dropped_by(warehouse, settings.dropped_by, settings.limit)
    index, count = stage.gallery(warehouse, settings.out, sql=sql, limit=settings.limit)
    total = None if sql else query(warehouse, "SELECT count(*) AS n FROM traces")["n"][0].as_py()
    shown = f"{count} of {total} traces, some of every tree"
    print(f"{shown if total and total > count else f'{count} traces'}: open {index} in a browser")


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
        _print_remaining(table.num_rows - most)
        return
    shown = Table(show_edge=False, header_style="bold", pad_edge=False)
    for field in table.schema:
        right = str(field.type).startswith(("int", "uint", "double", "float", "decimal", "hugeint"))
        shown.add_column(field.name, justify="right" if right else "left", overflow="fold")
    for row in table.slice(0, most).to_pylist():
        shown.add_row(*(format_cell(value) for value in row.values()))
    console.print(shown)
    _print_remaining(table.num_rows - most)


def _show_records(table: Any) -> None:
    """Print each row as lines of `column  value`."""
    width = max(map(len, table.column_names))
    for number, row in enumerate(table.to_pylist(), 1):
        print(f"--- {number}")
        for column, value in row.items():
            text = format_cell(value).replace("\n", f"\n{' ' * (width + 2)}")
            print(f"{column:<{width}}  {text}".rstrip())


def _print_remaining(left: int) -> None:
    if left > 0:
        print(f"... {left} more rows; --format csv or json gives all", file=sys.stderr)


def format_cell(value: Any) -> str:
    """Format a value of a table for a terminal."""
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

"""What several commands share: the flag `--home`, the check of `--format`, tables in a terminal.

Texts, names and messages of data and servers are printed too, and may hold what a terminal takes
for commands. While a command runs, both streams are `Escaping`, so no print has to think of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Annotated, Any, TextIO, cast

import typer

from flows.escape import escape_controls
from flows.settings_base import Problem


class Escaping:
    """A text stream that escapes control characters; all else is the stream's that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """What rich writes to: its commands to the terminal are meant."""

    def write(self, text: str) -> int:
        again = "\r" if text.startswith("\r") else ""  # a line that is written over itself
        self.rich_proxied_file.write(again + escape_controls(text[len(again) :]))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def escaping() -> Iterator[None]:
    """Escape control characters in all that is printed meanwhile."""
    out, err = (cast(TextIO, Escaping(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


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
        name = escape_controls(field.name)
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows_of(table.slice(0, most)):
        shown.add_row(*map(format_cell, row))
    console.print(shown)
    _print_remaining(table.num_rows - most)


def is_interval(value: Any) -> bool:
    """Return whether a value of a table is an interval of time, as Arrow has them."""
    return hasattr(value, "months") and hasattr(value, "nanoseconds")


def interval_text(value: Any) -> str:
    """Write an interval of time as DuckDB does: `1 month 2 days 03:04:05.6`."""
    seconds, rest = divmod(abs(value.nanoseconds), 10**9)
    parts = [
        f"{count} {name}{'s' * (abs(count) != 1)}"
        for count, name in ((value.months, "month"), (value.days, "day"))
        if count
    ]
    if value.nanoseconds or not parts:
        minutes = seconds // 60
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        parts.append(f"{'-' * (value.nanoseconds < 0)}{clock}{fraction}")
    return " ".join(parts)


def rows_of(table: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each row; two columns may have one name."""
    return zip(*map(_values, table.columns), strict=True)


def _values(column: Any) -> list[Any]:
    """Return a column's values; as DuckDB's texts where Python has no such time (`infinity`)."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        from warehouse.query.run_query import duckdb_texts

        return list(duckdb_texts(column))


def _show_records(table: Any) -> None:
    """Print each row as lines of `column  value`."""
    width = max(map(len, table.column_names))
    for number, row in enumerate(rows_of(table), 1):
        print(f"--- {number}")
        for column, value in zip(table.column_names, row, strict=True):
            text = format_cell(value).replace("\n", f"\n{' ' * (width + 2)}")
            print(f"{column:<{width}}  {text}".rstrip())


def _print_remaining(left: int) -> None:
    if left > 0:
        print(f"... {left} more rows; --format csv or json gives all", file=sys.stderr)


def format_cell(value: Any) -> str:
    """Format a value of a table for a terminal."""
    if value is None:
        return ""
    if is_interval(value):
        return interval_text(value)
    if isinstance(value, float):
        if abs(value) < 1e3:
            return f"{value:.4g}"
        return f"{value:.0f}" if abs(value) >= 1e6 else f"{value:.1f}".removesuffix(".0")
    return escape_controls(str(value))


def existing_warehouse(home: str | None) -> Any:
    """Open the warehouse at `home`, which must exist: a mistyped path would pass every check.

    Raises:
        Problem: nothing was ever stored there.
    """
    from flows.settings_base import Problem
    from warehouse.storage.home import Warehouse
    from warehouse.tables.delta import has_tables

    found = Warehouse.at(home)
    if not has_tables(found):
        raise Problem(f"there is no warehouse at {found.root}: it has no table")
    return found

"""Writes the answers in docs/sql.md anew, as a demo's warehouse gives them.

    vigorl demo --home /tmp/demo && python -m tests.support.sql_answers /tmp/demo

A row's columns stand two spaces apart; of more than eight rows the first eight are shown, of a long
cell its beginning, and of a row what fits a page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from benchmarks.warehouse.sql_questions import sql_questions
from flows.cli.printing import format_cell
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
MOST_ROWS, MOST_CELL, MOST_LINE = 8, 48, 120


def answer(warehouse: Warehouse, sql: str) -> str:
    """The answer to one statement as the document shows it."""
    table = query(warehouse, sql)
    rows = [[_cut(format_cell(v)) for v in row.values()] for row in table.to_pylist()[:MOST_ROWS]]
    columns = list(zip(table.column_names, *rows, strict=True))
    right = [str(f.type).startswith(("int", "double", "decimal", "float")) for f in table.schema]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in [table.column_names, *rows]:
        cells = zip(row, widths, right, strict=True)
        line = "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip()
        lines.append(line if len(line) <= MOST_LINE else f"{line[: MOST_LINE - 4].rstrip()} ...")
    if table.num_rows > MOST_ROWS:
        lines.append(f"… {table.num_rows - MOST_ROWS} more")
    return "\n".join(lines)


def _cut(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= MOST_CELL else f"{cell[: MOST_CELL - 3]}..."


def main(home: str) -> None:
    """Replace every answer in the document."""
    warehouse = Warehouse(home)
    text = DOCUMENT.read_text(encoding="utf-8")
    for entry in sql_questions():
        shown = answer(warehouse, entry.sql)
        block = re.compile(re.escape(entry.sql) + r"\n```\n\n```text\n.*?```", re.DOTALL)
        new = f"{entry.sql}\n```\n\n```text\n{shown}\n```"
        text, n = block.subn(lambda _, new=new: new, text)
        if n != 1:
            raise SystemExit(f"question {entry.number} has no answer to replace")
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

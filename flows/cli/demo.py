"""`make demo`: the whole way once, small, and where to look next.

The embedded sample is imported, the embedded model searches some of it, what is good is kept and
published, and one trace is drawn. Everything is the real thing; only the sizes are small.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

from flows.cli.printing import show_table
from flows.progress import TerminalProgress
from flows.settings import BuildSettings
from flows.stages import build as stages
from flows.stages import gallery as showing
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.versions.selection import kept_statement
from warehouse.versions.versions import publish

DATASET = "sat2-sft"
FIRST_QUESTION = """\
SELECT family, kind, count(*) AS traces, avg(reward) AS reward, avg(n_points) AS points
FROM traces JOIN questions USING (question_id)
GROUP BY ALL ORDER BY ALL"""


def run_demo(limit: int, home: str | None) -> None:
    """Run the demo and print what came of it."""
    warehouse = Warehouse.at(home)
    settings = BuildSettings.checked(task="sat2", limit=limit, home=warehouse.root)
    print(f"Searching {limit} questions with the embedded model; this takes a minute or two.")
    summary = asyncio.run(stages.build(settings, progress=TerminalProgress()))
    version = publish(warehouse, DATASET, kept_statement("sat2"))
    folder = Path() if warehouse.is_s3 else Path(warehouse.root)
    drawing = folder / "demo-trace.png"
    png = showing.draw_example(warehouse, "sat2")
    if png is not None:
        drawing.write_bytes(png)
    index, _ = showing.gallery(warehouse, folder / "gallery", limit=10_000)

    print(f"\n{summary.sentence()}, dataset {version.ref} ({version.n_rows} traces)\n")
    if png is not None:
        print(f"One of them, drawn:   {_near(drawing)}")
    print(f"All of them, browsed: {_near(index)}\n")
    print("A question in SQL, and its answer:\n")
    command = Path(sys.argv[0]) if sys.argv else Path("vigorl")
    print(f"$ {_near(command)} sql {shlex.quote(' '.join(FIRST_QUESTION.split()))}\n")
    show_table(query(warehouse, FIRST_QUESTION))
    print(f"\nNext: {_near(command)} dataset show {version.ref}, or `make up` for Prefect.")


def _near(path: Path) -> str:
    """Shorten a path to what can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)

"""Other engines see what the warehouse's views show, with the lines of docs/warehouse.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from warehouse.storage.home import Warehouse
from warehouse.tables.delta import append, commit_traces, insert_new

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "warehouse.md"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished trace, judged once more later, beside rows of a commit that never finished."""
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    verdict = {"trace_id": "t", "filter": "f", "version": 1, "keep": True}
    steps = [{"trace_id": "t", "step": 0, "thought": "A cup (3, 4)."}]
    commit_traces(
        warehouse,
        [{"trace_id": "t", "question_id": "q"}],
        steps=steps,
        verdicts=[verdict],
        run_id="r",
    )
    insert_new(warehouse, "verdicts", [{**verdict, "version": 2}])
    half = {"trace_id": "ghost", "commit_id": "never-committed"}
    append(warehouse, "steps", [{**half, "step": 0, "thought": "half"}], "killed steps")
    append(warehouse, "verdicts", [{**verdict, **half}], "killed verdicts")
    return warehouse.root


def _run(engine: str, home: str) -> dict[str, Any]:
    """Run the document's lines for an engine; return the names they define."""
    blocks = re.findall(r"^```python\n(.*?)^```", _DOCUMENT.read_text("utf-8"), re.M | re.S)
    (lines,) = (block for block in blocks if f"import {engine}" in block)
    names: dict[str, Any] = {"home": home}
    exec(lines, names)
    return names


def test_polars_sees_finished_commits_only(home: str) -> None:
    pytest.importorskip("polars")
    found = _run("polars", home)
    assert found["steps"].collect()["trace_id"].to_list() == ["t"]
    verdicts = found["verdicts"].collect()
    assert sorted(zip(verdicts["trace_id"], verdicts["version"], strict=True)) == [
        ("t", 1),
        ("t", 2),
    ]


def test_daft_sees_finished_commits_only(home: str) -> None:
    pytest.importorskip("daft")
    assert _run("daft", home)["steps"].to_pydict()["trace_id"] == ["t"]

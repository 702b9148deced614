"""docs/tasks.md lists every task as the code has it."""

from __future__ import annotations

import re

from mcts.data import AnswerKind
from tests.support.benchmark_files import EXAMPLES
from tests.support.project_files import ROOT
from warehouse.sources import tasks

TEXT = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", TEXT, re.MULTILINE)
ROWS = [(name, [cell.strip() for cell in rest.split("|")]) for name, rest in TABLES]
SAID = {AnswerKind.BOX: "point in box", AnswerKind.ACTION: "action"}


def listed() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for name, cells in ROWS:
        if len(cells) > 3:  # the others say what a task is worth to the embedded model
            found.setdefault(name, []).append(cells)
    return found


def test_every_task_is_listed_and_nothing_else() -> None:
    assert set(listed()) == {name for name, task in tasks().items() if task.formats}


def test_what_the_table_says_of_a_task_is_so() -> None:
    for name, rows in listed().items():
        task = tasks()[name]
        for _, split, answer, figures, *_ in rows:
            assert split == (task.split or split), name
            assert [part for part in figures.split(", ") if part] == list(task.metrics), name
            if task.kind in SAID:
                assert answer == SAID[task.kind], name
        kinds = {SAID.get(task.kind, "")} | {
            "point in box" for one in EXAMPLES if one.task == name and one.boxes
        }
        assert all(any(kind in row[2] for row in rows) for kind in kinds), name


def test_every_figure_is_explained() -> None:
    from curation.scores.benchmark_metrics import METRICS

    explained = set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \|$", TEXT, re.MULTILINE))
    assert explained == set(METRICS)

"""Tables and cells as a terminal shows them."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from flows.cli.printing import Escaping, check_format, format_cell, show_table
from flows.settings_base import Problem


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (0.123456, "0.1235"), (2.0, "2"), (999_999.0, "999999"),
        (12_345.678, "12345.7"), (999.96, "1000"),
        (1_000_000.0, "1000000"), (-2_000_000.4, "-2000000"), (7, "7"), (True, "True"),
        ("a\x1b[2J", "a\\u001b[2J"), ([1, 2], "[1, 2]"),
    ],
)  # fmt: skip
def test_a_cell_is_short_and_obeys_nothing(value: object, shown: str) -> None:
    assert format_cell(value) == shown


def test_a_table_has_its_columns_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(pa.table({"name": ["a", "bb"], "n": [1, 22], "share": [0.5, None]}))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [word for word in lines[0].split() if word.isalpha()] == ["name", "n", "share"]
    assert lines[2].split("│")[1].strip() == "1" and lines[2].index("1") == lines[3].index("22") + 1
    assert len(lines) == 4


def test_names_and_texts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(pa.table({"[red]n[/red]": ["[bold]a[/bold]"], "wide": ["x" * 300]}))
    said = capsys.readouterr().out
    assert "[red]n[/red]" in said and "[bold]a[/bold]" in said
    assert said.count("x") == 300, "folded over lines, and nothing of it cut off"


def test_what_is_printed_obeys_nothing_and_a_line_may_be_written_over() -> None:
    shown = io.StringIO()
    stream = Escaping(shown)
    assert stream.write("\ra\x1b[2Jb\rc") == 9
    assert shown.getvalue() == "\ra\\u001b[2Jb\\u000dc"
    assert stream.getvalue() == shown.getvalue(), "all else is the stream's"


def test_what_is_left_out_of_a_table_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"n": list(range(5))})
    show_table(table, most=5)
    assert capsys.readouterr().err == ""
    show_table(table, most=3)
    said = capsys.readouterr()
    assert said.err == "... 2 more rows; --format csv or json gives all\n"
    assert len(said.out.splitlines()) == 2 + 3


def test_more_columns_than_can_be_read_are_shown_row_by_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [f"c{i}" for i in range(17)]  # 17 times 12 characters are more than 200
    table = pa.table({name: ["x\ny", None, "z"] for name in names})
    show_table(table, most=2)
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[:3] == ["--- 1", "c0   x", "     y"]
    assert "--- 2" in lines and "--- 3" not in lines and "c16" in lines
    assert said.err.startswith("... 1 more rows")
    show_table(table.select(names[:16]))
    assert "--- 1" not in capsys.readouterr().out


def test_a_format_is_one_of_those_there_are() -> None:
    check_format("json", "table", "json", "csv")
    with pytest.raises(Problem, match="--format: it is table, json or csv, not 'xml'"):
        check_format("xml", "table", "json", "csv")

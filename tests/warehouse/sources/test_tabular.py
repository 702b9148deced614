"""Tables as they come: what is wrong in one is told, and nothing is lost in silence."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from warehouse.sources.benchmarks import vstar_bench
from warehouse.sources.reading.boxes import BoxFormat, gold_box
from warehouse.sources.reading.columns import parse_boxes
from warehouse.sources.reading.drafts import ImportProblem, Unusable
from warehouse.sources.reading.literals import read_float, read_literal
from warehouse.sources.reading.options import read_options
from warehouse.sources.reading.tabular import read_rows


def written(tmp_path: Path, *lines: str, suffix: str = ".csv") -> Path:
    file = tmp_path / f"rows{suffix}"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path: Path) -> None:
    rows = [f"{i},Is it red?,yes" for i in range(1, 1001)]
    rows[499] = '500,"Is it red?,yes'
    file = written(tmp_path, "id,question,answer", *rows)
    with pytest.raises(ImportProblem, match="line 501: a quote is opened in this row and never"):
        list(read_rows(file, None))


def test_text_behind_a_closing_quote_is_that_rows_fault(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        *("index\tquestion", "1\tfirst", '2\t"Left" or right?', '3\t"two', 'lines" long\tC'),
        *('4\t"a ""word"" in quotes"', '5\t6" wide'),
        suffix=".tsv",
    )
    one, two, three, four, five = (row for _, row in read_rows(file, None))
    assert (one["question"], four["question"]) == ("first", 'a "word" in quotes')
    assert five["question"] == '6" wide', "a quote within a cell is a character"
    said = "text follows a closing quote; quotes in a cell are written twice"
    assert (two, three) == (f"line 3: {said}", f"lines 4 to 5: {said}")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("columns", [None, ["question"]])
def test_a_column_that_is_there_twice_is_told(
    tmp_path: Path, suffix: str, columns: list[str] | None
) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["question", "question"])
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    with pytest.raises(ImportProblem, match="has the column question more than once"):
        list(read_rows(file, columns))


def test_a_value_that_python_has_no_word_for_is_a_sentence(tmp_path: Path) -> None:
    far = pa.array([10_000_000], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"question": ["a"], "when": far}), tmp_path / "rows.parquet")
    with pytest.raises(ImportProblem, match="can't be read: date value out of range"):
        list(read_rows(tmp_path / "rows.parquet", None))


@pytest.mark.parametrize("text", ["{{1}, {2}}", "{[1]: 2}", '{"a": {[1]}}', "[" * 9999, "1 +"])
def test_what_is_no_literal_is_unusable(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever Python says of it
        read_literal(text)
    if text.startswith("{"):
        with pytest.raises(Unusable):
            read_options(text)


@pytest.mark.parametrize("value", [10**400, "x", None, True, [1], {}])
def test_what_is_no_number_is_none(value: object) -> None:
    assert math.isnan(read_float(value))


@pytest.mark.parametrize("values", [None, 5, "1234", {"x": 1}, [10**400, 1, 2, 3]])
def test_what_is_no_box_is_unusable(values: object) -> None:
    with pytest.raises(Unusable, match="bbox"):
        gold_box(values, BoxFormat.XYWH, (100, 100))  # type: ignore[arg-type]
    if not isinstance(values, str):
        with pytest.raises(Unusable, match="box"):
            parse_boxes(values, "xyxy")


@pytest.mark.parametrize("beside", ["[]", "1", "null", '"x"'])
def test_a_json_beside_an_image_that_is_no_object_is_that_rows_fault(beside: str) -> None:
    class Row(dict):  # type: ignore[type-arg]
        spool = None

        class files:  # noqa: N801
            @staticmethod
            def read_named(name: str) -> str:
                assert name == "a/b.json"
                return beside

    with pytest.raises(Unusable, match=r"the JSON beside a/b.jpg is not an object"):
        vstar_bench._targets(Row(image="a/b.jpg"), b"")  # type: ignore[arg-type]

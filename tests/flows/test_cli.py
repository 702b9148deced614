"""Each command on a small real warehouse: what it prints, where, and with which status."""

import csv
import functools
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from flows.cli import app as cli
from tests.conftest import SHARED
from tests.support.benchmark_files import vstar_parquet
from tests.support.fixtures import picture, sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.storage.home import Warehouse
from warehouse.versions.response_styles import response_style_of
from warehouse.versions.versions import resolve

COUNT = "SELECT kind, count(*) AS n FROM traces GROUP BY kind ORDER BY kind"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Four questions, searched and curated."""
    return searched(tmp_path_factory.mktemp("cli"), 4, simulations=3)


def run(*arguments, home):
    """Run a command in this process; its status."""
    given, sys.argv = sys.argv, ["vigorl", *map(str, arguments), "--home", str(home)]
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
    finally:
        sys.argv = given
    return 0


def searched(folder, questions, simulations):
    """The home of a warehouse with so many questions of SAT-2 searched, asking the stub server."""
    return shutil.copytree(searched_once(questions, simulations), folder / "home")


@functools.cache
def searched_once(questions, simulations):
    """The home that all copies of this process are made from."""
    folder = Path(tempfile.mkdtemp(prefix="searched-", dir=SHARED))
    sample, home = write_sat(folder / "SAT_train.parquet", sat_rows(questions)), folder / "home"
    with StubServer() as server:
        assert run("import", "sat2", sample, home=home) == 0
        options = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", simulations)
        assert run("build", "sat2", *options, home=home) == 0
    return home


def test_sql_prints_each_column_whatever_its_name_and_kind(home, capsys):
    statement = (
        "SELECT 1 AS a, 2 AS a, 'x' AS b, 1021::HUGEINT AS s, 1.25::DECIMAL(5, 2) AS d, "
        "'nan'::DOUBLE AS n, ['nan'::DOUBLE, 0.5] AS l, MAP {'k': 'nan'::DOUBLE} AS m, "
        "'x'::BLOB AS bytes, "
        "INTERVAL '26 hours 3.5 seconds' AS i"
    )
    for form, printed in (
        ("json", '{"a": 1, "a_1": 2, "b": "x", "s": 1021, "d": 1.25, "n": null, '
                 '"l": [null, 0.5], "m": [["k", null]], "bytes": "78", "i": "26:00:03.5"}\n'),
        ("csv", '"a","a","b","s","d","n","l","m","bytes","i"\n'
                '1,2,"x",1021,1.25,nan,"[null, 0.5]","[[""k"", null]]","78","26:00:03.5"\n'),
    ):  # fmt: skip
        assert run("sql", statement, "--format", form, home=home) == 0
        assert capsys.readouterr().out == printed
    assert run("sql", "SELECT 1 AS a, 2 AS a, 3 AS b", home=home) == 0
    assert capsys.readouterr().out.splitlines()[-1].split("│") == ["1 ", " 2 ", " 3"]


def test_sql_prints_only_the_answer_and_in_the_form_asked_for(home, capsys):
    assert run("sql", COUNT, home=home) == 0
    table = capsys.readouterr().out
    assert run("sql", COUNT, "--format", "json", home=home) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == ["corrected", "direct"]
    assert all(str(row["n"]) in table for row in rows)
    nested = "SELECT problems, n_steps FROM traces WHERE len(problems) = 0 LIMIT 2"
    assert run("sql", nested, "--format", "csv", home=home) == 0
    printed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["problems"] for row in printed] == ["[]", "[]"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sql", "DROP TABLE traces"), "only queries are allowed"),
        (("sql", "SELECT nope FROM traces"), "nope"),
        (("sql", "SELECT '\udcff'"), "the statement is no text in UTF-8"),
        (("sql", "SELECT 1", "--format", "xml"), "--format: it is table, json or csv"),
        (("gallery", "--sql", "SELECT 1 AS one"), "must yield a column trace_id"),
        (("dataset", "publish", "a b", "--sql", "SELECT trace_id FROM traces"), "a b"),
        (("dataset", "show", "none@v1"), "there is no dataset none@v1"),
        (("import", "sat2"), "import needs a TASK and a PATH"),
        (("import", "sat2", "nowhere.parquet"), "nowhere.parquet does not exist"),
        (("curate", "vstar"), "there are no trees of task 'vstar'"),
        (("build", "blink"), "there are no questions of task 'blink'"),
    ],
)
def test_bad_input_is_one_sentence_on_stderr_and_status_2(arguments, sentence, home, capsys):
    capsys.readouterr()
    if arguments[0] == "build":
        arguments = (*arguments, "--teacher", "http://127.0.0.1:9", "--space", "qwen3-vl")
    assert run(*arguments, home=home) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("vigorl: ") and said.err.count("\n") == 1
    assert sentence in said.err


def test_a_warehouse_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    sample = write_sat(tmp_path / "SAT_train.parquet", sat_rows(2))
    (tmp_path / "file").write_text("in the way")
    assert run("import", "sat2", sample, home=tmp_path / "file") == 1
    said = capsys.readouterr().err
    assert said.startswith("vigorl: ") and said.count("\n") == 1


def test_bad_rows_are_told_and_good_ones_go_in(tmp_path, capsys):
    rows = sat_rows(5)
    rows[1]["images"][0]["bytes"] = picture(3)[:100]
    rows[2]["correct_answer"] = "behind"
    sample = write_sat(tmp_path / "SAT_train.parquet", rows)
    assert run("import", "sat2", sample, home=tmp_path / "home") == 0
    said = capsys.readouterr()
    assert "5 rows read: 3 questions added, 0 already there, 2 rejected" in said.out
    report = said.err.strip().rpartition(": ")[2]
    reasons = list(csv.DictReader(io.StringIO(Path(report).read_text(encoding="utf-8"))))
    assert [(row["row"], row["field"]) for row in reasons] == [
        ("2", "images"),
        ("3", "answer"),
    ]
    assert run("import", "sat2", sample, home=tmp_path / "home") == 0
    assert "0 questions added, 3 already there, 2 rejected" in capsys.readouterr().out


def test_a_version_is_published_listed_shown_and_exported(home, capsys, tmp_path):
    import datasets

    statement = "SELECT trace_id FROM kept_traces WHERE kind = 'direct'"
    assert run("dataset", "publish", "pointing", "--sql", statement, home=home) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("pointing@v1: ")
    assert run("dataset", "publish", "pointing", "--sql", statement, home=home) == 0
    assert capsys.readouterr().out == printed, "equal content is not a new version"
    assert run("dataset", "list", home=home) == 0
    assert capsys.readouterr().out.startswith("pointing@v1 ")
    assert run("dataset", "show", "pointing", home=home) == 0
    assert "stub-teacher" in capsys.readouterr().out
    out = tmp_path / "out"
    options = ("--to", "trl", "--space", "qwen2.5-vl", "--prompt", "nano", "--out", out)
    assert run("dataset", "export", "pointing@v1", *options, home=home) == 0
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["messages"][-1]["content"].startswith("<think>")
    assert "Think in at least" in rows[0]["messages"][0]["content"]
    assert rows[0]["images"][0].size == (56, 56)


def test_an_export_stands_where_the_warehouse_cannot_be_written(home, capsys, tmp_path):
    statement = "SELECT trace_id FROM kept_traces WHERE kind = 'direct'"
    assert run("dataset", "publish", "sealed", "--sql", statement, home=home) == 0
    shutil.copytree(home, tmp_path / "home")
    runs = tmp_path / "home" / "tables" / "runs"
    shutil.rmtree(runs)
    runs.write_text("in the way")
    capsys.readouterr()
    options = ("--to", "trl", "--space", "qwen2.5-vl", "--out", tmp_path / "out")
    assert run("dataset", "export", "sealed@v1", *options, home=tmp_path / "home") == 0
    said = capsys.readouterr()
    assert said.out.startswith("sealed@v1 as trl: ")
    assert "the export is whole, and is not noted in the warehouse: " in said.err


def test_a_version_is_published_in_the_response_style_asked_for(home, capsys):
    statement = "SELECT trace_id FROM kept_traces WHERE kind = 'direct'"
    styled = ("--sql", statement, "--response-style", "ungrounded")
    assert run("dataset", "publish", "plain", *styled, home=home) == 0
    version = resolve(Warehouse.at(str(home)), "plain")
    assert response_style_of(version.card) == "ungrounded"
    endless = "SELECT trace_id FROM kept_traces, range(1000000000000) GROUP BY trace_id"
    assert run("dataset", "publish", "slow", "--sql", endless, "--timeout", "0.2", home=home) == 2
    assert "took longer than 0.2 s" in capsys.readouterr().err


def test_curating_again_changes_nothing_and_publishes(home, capsys):
    assert run("sql", COUNT, "--format", "json", home=home) == 0
    before = capsys.readouterr().out
    assert run("curate", "sat2", "--publish", "all", home=home) == 0
    assert "dataset all@v1" in capsys.readouterr().out
    assert run("sql", COUNT, "--format", "json", home=home) == 0
    assert capsys.readouterr().out == before


def test_the_gallery_has_a_page_for_every_tree(home, capsys, tmp_path, monkeypatch):
    # Trees come with their questions, which are not read once more for the traces.
    monkeypatch.setattr("flows.stages.gallery.read_questions", lambda *_, **__: 1 / 0)
    assert run("gallery", "--out", tmp_path / "pages", home=home) == 0
    assert str(tmp_path / "pages" / "index.html") in capsys.readouterr().out
    assert len(list((tmp_path / "pages" / "trees").glob("*.html"))) >= 4


def test_a_gallery_goes_without_what_is_lost_or_unknown(home, capsys, tmp_path):
    copy = shutil.copytree(home, tmp_path / "copy")
    next((copy / "images").rglob("*/*")).unlink()
    assert run("gallery", "--out", tmp_path / "pages", home=copy) == 0
    stale = tmp_path / "pages" / "trees"
    assert any(stale.iterdir())
    (tmp_path / "pages" / "data" / "index.js").unlink()  # as where a gallery was interrupted
    unknown = ("--sql", "SELECT 'nope' AS trace_id")
    capsys.readouterr()
    assert run("gallery", *unknown, "--out", tmp_path / "pages", home=copy) == 0
    assert capsys.readouterr().out.startswith("0 traces: ")
    assert not any(stale.iterdir()), "nothing of another choice stays"


def test_a_build_of_a_split_that_is_not_there_says_which_are(tmp_path, capsys):
    """Those of an evaluation set are never `train`, which a build asks for by itself."""
    assert run("import", "vstar-bench", vstar_parquet(tmp_path / "hub"), home=tmp_path) == 0
    capsys.readouterr()
    teacher = ("--teacher", "http://127.0.0.1:9", "--space", "qwen3-vl")
    assert run("build", "vstar-bench", *teacher, home=tmp_path) == 2
    said = capsys.readouterr().err
    assert said.endswith("there are those of test (--split)\n") and said.count("\n") == 1


@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_times_that_python_has_none_for_are_written_as_duckdb_does(home, capsys, format_):
    sql = (
        "SELECT 'infinity'::TIMESTAMP AS never, DATE '290000-01-01' AS late, DATE '2026-01-02' AS d"
    )
    assert run("sql", sql, "--format", format_, home=home) == 0
    said = capsys.readouterr().out
    assert "infinity" in said and "290000-01-01" in said and "2026-01-02" in said

"""From a model down to the pixels and back, and what a revocation reaches on the way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from flows.stages.lineage_view import escape_label, load_lineage
from tests.flows.test_cli import run, searched
from warehouse.lineage import lineage
from warehouse.lineage.lineage import Entity, Walker
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import insert_new
from warehouse.versions.revocations import revoke
from warehouse.versions.versions import list_versions, publish, show

KEPT = "SELECT trace_id FROM kept_traces"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions searched, two versions, a student of the first and its evaluation."""
    home = searched(tmp_path_factory.mktemp("made"), 4, simulations=3)
    warehouse = Warehouse(str(home))
    publish(warehouse, "all", KEPT)
    publish(warehouse, "direct", f"{KEPT} WHERE kind = 'direct'")
    student = {"model_id": "student@1", "name": "student", "dataset": "all@v1", "base": "base@0"}
    insert_new(warehouse, "models", [student])
    insert_new(
        warehouse,
        "evaluations",
        [{"evaluation_id": "e1", "model_id": "student@1", "benchmark": "sat2/val"}],
    )
    return home


@pytest.fixture
def warehouse(made: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(made, tmp_path / "home")))


def one(warehouse: Warehouse, sql: str) -> str:
    return str(query(warehouse, sql).column(0)[0].as_py())


def kinds(things: list[Entity]) -> set[str]:
    return {thing.kind for thing in things}


def test_a_model_leads_down_to_the_pixels_and_to_its_evaluation(made: Path) -> None:
    warehouse = Warehouse(str(made))
    with Walker(warehouse) as walker:
        focus, _ = walker.find("student")
        found = walker.lineage(focus, most=2)
    assert focus == Entity("model", ("student@1",))
    assert kinds(found.ancestors) >= {
        "dataset",
        "trace",
        "tree",
        "question",
        "image",
        "source",
        "model",
    }
    assert [t.id for t in found.descendants] == ["e1"]
    held = query(warehouse, "SELECT sum(n_rows) n FROM dataset_versions WHERE name = 'all'")
    assert found.total("trace", up=True) == held["n"][0].as_py()
    assert found.total("image", up=True) == query(warehouse, "FROM images").num_rows
    assert {t.id for t in found.ancestors if t.kind == "model"} == {"stub-teacher", "base@0"}


def test_an_image_leads_up_to_every_version_and_model_even_behind_a_group(made: Path) -> None:
    """With one thing shown at a time, what only the rest leads to is still reached."""
    warehouse = Warehouse(str(made))
    image = one(
        warehouse,
        "SELECT image_id FROM (SELECT question_id, unnest(image_ids) AS image_id FROM questions) "
        "JOIN kept_traces USING (question_id) ORDER BY 1 LIMIT 1",
    )
    with Walker(warehouse) as walker:
        found = walker.lineage(walker.find(image[:10])[0], most=1)
    below = query(
        warehouse,
        "SELECT DISTINCT trace_id FROM traces JOIN questions USING (question_id) "
        f"WHERE list_contains(image_ids, '{image}')",
    )
    assert found.total("trace") == below.num_rows > 2
    ids = {i for t in found.descendants for i in t.ids}
    assert {"all@v1", "direct@v1", "student@1", "e1"} <= ids


def test_every_step_of_a_trace_leads_to_its_node_or_response(made: Path) -> None:
    warehouse = Warehouse(str(made))
    trace = one(warehouse, "SELECT min(trace_id) FROM kept_traces WHERE kind = 'corrected'")
    data = load_lineage(warehouse, trace[:8]).data()
    things = [(t["kind"], i) for t in data["things"] if t["up"] for i in t["ids"]]
    steps = query(
        warehouse,
        f"SELECT * FROM steps JOIN traces USING (trace_id) WHERE trace_id = '{trace}'",
    ).to_pylist()
    assert len(data["steps"]) == len(steps) > 2
    for step in steps:
        assert ("node", f"{step['tree_id']}/{step['node_id']}") in things
        assert ("response", step["response_id"]) in things
    assert "image" in {kind for kind, _ in things}


def test_a_row_is_a_trace_in_one_version(made: Path) -> None:
    warehouse = Warehouse(str(made))
    trace = one(warehouse, "SELECT min(trace_id) FROM kept_traces WHERE kind = 'direct'")
    whole, row = load_lineage(warehouse, trace), load_lineage(warehouse, f"direct@v1/{trace[:9]}")
    assert {t.id for t in whole.lineage.descendants if t.kind == "dataset"} == {
        "all@v1",
        "direct@v1",
    }
    assert {t.id for t in row.lineage.descendants if t.kind == "dataset"} == {"direct@v1"}
    assert "a row of direct@v1" in row.text()
    with pytest.raises(WarehouseError, match="direct@v1 has no row whose trace_id begins"):
        load_lineage(warehouse, "direct@v1/zzz")


@pytest.mark.parametrize("kind", ["tree", "question", "response", "node", "run", "source"])
def test_everything_else_has_a_lineage_too(made: Path, kind: str) -> None:
    warehouse = Warehouse(str(made))
    ids = {
        "tree": "SELECT min(tree_id) FROM trees",
        "question": "SELECT min(question_id) FROM questions",
        "response": "SELECT min(response_id) FROM nodes",
        "node": "SELECT min(tree_id || '/' || node_id) FROM nodes WHERE node_id > 0",
        "run": "SELECT run_id FROM runs WHERE kind = 'build'",
        "source": "SELECT min(source) FROM images",
    }
    view = load_lineage(warehouse, f"{kind}:{one(warehouse, ids[kind])}")
    assert view.lineage.focus.kind == kind
    if kind not in ("run", "source"):
        assert {"image", "source"} <= kinds(view.lineage.ancestors)
    if kind not in ("response", "node"):  # these may have led to no kept trace
        assert {"trace", "dataset", "model"} <= kinds(view.lineage.descendants)


def test_markdown_shows_the_graph_and_the_points_on_the_image(made: Path, tmp_path: Path) -> None:
    warehouse = Warehouse(str(made))
    trace = one(warehouse, "SELECT min(trace_id) FROM kept_traces WHERE kind = 'direct'")
    view = load_lineage(warehouse, trace)
    files = view.write(tmp_path / "of a trace.md")
    text = files[0].read_text()
    assert [f.name for f in files[1:]] == ["of a trace-1.png"]
    assert "![image 1](of%20a%20trace-1.png)" in text
    graph = text.split("```mermaid\n")[1].split("```")[0]
    assert graph == view.mermaid()
    lines = graph.splitlines()
    assert lines[0] == "flowchart LR" and f'n0["trace {trace[:12]}' in lines[1]
    assert sum("-->" in line for line in lines) == len(view.lineage.edges)
    colours = {colour for _, colour in Image.open(files[1]).getcolors(1 << 20) or ()}
    assert (255, 0, 0) in colours  # the red box of the scene
    assert (0x12, 0x59, 0xC3) in colours  # the blue of a mark
    version = load_lineage(warehouse, "all@v1")
    assert version.write(tmp_path / "b.mmd") == [tmp_path / "b.mmd"]
    assert (tmp_path / "b.mmd").read_text() == version.mermaid()
    (written,) = version.write(tmp_path / "b.json")
    assert json.loads(written.read_text()) == version.data()
    assert version.write(tmp_path / "b.md") == [tmp_path / "b.md"]  # no image of its own


@pytest.mark.parametrize(
    "text",
    [
        'say "hi"] --> x["y',
        "`code` ```\n# heading",
        "line one\r\nline two\tend",
        "<script>alert(1)</script> & #quot; %%{init: {}}%%",
        "style a fill:#f00; *bold* _it_ $$x$$ fa:fa-car | {} () \\",
        "1. list\u202e \x1b[31m \ud800",
        "Größe 図形 😀",
    ],
)
def test_no_text_can_break_out_of_a_label(text: str) -> None:
    label = escape_label(text)
    assert re.fullmatch(r"(?:[\w .,-]|#\d+;)*", label) and "_" not in label
    assert label.encode().decode() == label
    shown = re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label)
    assert shown == "".join(c for c in " ".join(text.split()) if c.isprintable())


def test_hostile_names_stay_inside_their_labels(warehouse: Warehouse, tmp_path: Path) -> None:
    """A question's text and a model's name are whatever somebody else wrote."""
    name = 'evil"]\n```\n<b>`x`</b> --> n0'
    row = {"model_id": f"{name}@1", "name": name, "dataset": "all@v1"}
    insert_new(warehouse, "models", [row])
    view = load_lineage(warehouse, name)
    view.write(tmp_path / "evil.md")
    text = (tmp_path / "evil.md").read_text()
    assert text.count("```") == 2 and "<b>" not in text
    node = re.compile(r'    n\d+\["(?:[\w .,-]|#\d+;|<br/>)*"\](?::::\w+)?')
    edge = re.compile(r"    n\d+ --> n\d+")
    lines = view.mermaid().splitlines()[1:-2]
    assert len(lines) == len(view.lineage.entities) + len(view.lineage.edges)
    assert all(node.fullmatch(line) or edge.fullmatch(line) for line in lines)


def test_what_names_nothing_or_too_much_is_one_sentence(made: Path, capsys) -> None:
    warehouse = Warehouse(str(made))
    for text, sentence in (
        ("nope", "nothing in .* is called 'nope'"),
        ("all@v9", "is called 'all@v9'"),
        ("all@v9/abc", "there is no dataset all@v9; there are: all@v1, direct@v1"),
        ("", "could be .*: write more of it"),
        (f"{one(warehouse, 'SELECT min(tree_id) FROM trees')}/999", "has no node 999"),
    ):
        with pytest.raises(WarehouseError, match=sentence):
            load_lineage(warehouse, text)
    capsys.readouterr()
    assert run("lineage", "nope", home=made) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert run("lineage", "all@v1", "--out", "x.gif", home=made) == 2
    assert "x.gif should end in .md, .mmd, .json" in capsys.readouterr().err
    assert run("lineage", "all@v1", "--out", "x.png", home=made) == 2
    refused = capsys.readouterr().err
    assert "write --out x.md" in refused and refused.count("\n") == 1


def test_a_revocation_lists_what_came_of_it_and_the_next_version_goes_without(
    warehouse: Warehouse, capsys
) -> None:
    question = one(warehouse, "SELECT min(question_id) FROM kept_traces")
    rows = query(
        warehouse, f"SELECT trace_id FROM kept_traces WHERE question_id = '{question}'"
    ).num_rows
    capsys.readouterr()
    revoking = ("revoke", "question", question[:12], "--reason", "two lamps")
    assert run(*revoking, home=warehouse.root) == 0
    printed = capsys.readouterr().out
    assert f"question {question} is revoked" in printed
    assert {"dataset all@v1", "dataset direct@v1", "model student@1"} <= set(printed.splitlines())
    assert run(*revoking[:-1], "again", home=warehouse.root) == 0
    assert "was revoked before (two lamps)" in capsys.readouterr().out
    assert query(warehouse, "FROM revocations").num_rows == 1

    assert f"Revoked since: question {question} (two lamps), {rows} rows" in show(warehouse, "all")
    assert run("curate", "sat2", "--publish", "all", home=warehouse.root) == 0
    left_out = f"left out, because revoked: question {question} (two lamps), {rows} rows"
    assert left_out in capsys.readouterr().out
    first, second = list_versions(warehouse, "all")
    assert second.n_rows == first.n_rows - rows
    assert second.card["revoked"] == [
        {"subject": "question", "value": question, "reason": "two lamps", "rows": rows}
    ]
    card_text = show(warehouse, "all")
    assert "Revoked since" not in card_text
    assert f"| question {question} | two lamps | {rows} |" in card_text

    assert run("dataset", "diff", "all@v1", "all@v2", "--format", "json", home=warehouse.root) == 0
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert len(differences) == rows
    assert {(d["change"], d["reason"], d["detail"]) for d in differences} == {
        ("removed", "revoked", "two lamps")
    }
    assert run("dataset", "diff", "all@v1", "all@v2", home=warehouse.root) == 0
    table = capsys.readouterr().out
    assert f"{rows} removed, 0 added, 0 changed" in table and "two lamps" in table


@pytest.mark.parametrize("subject", ["source", "run", "image", "trace"])
def test_whatever_is_revoked_reaches_its_traces_and_no_others(
    warehouse: Warehouse, subject: str
) -> None:
    before = publish(warehouse, "all", KEPT)
    value, rest = {
        "source": ("SELECT min(source) FROM images", "SELECT 0"),
        "run": ("SELECT run_id FROM runs WHERE kind = 'build'", "SELECT 0"),
        "image": (
            "SELECT min(i) FROM (SELECT unnest(image_ids) AS i FROM questions "
            "JOIN kept_traces USING (question_id))",
            "SELECT count(*) FROM kept_traces JOIN questions USING (question_id) "
            "WHERE NOT list_contains(image_ids, '{value}')",
        ),
        "trace": ("SELECT min(trace_id) FROM kept_traces", "SELECT count(*) - 1 FROM kept_traces"),
    }[subject]
    named = one(warehouse, value)
    left = int(one(warehouse, rest.format(value=named)))
    revoke(warehouse, subject, named, "bad")
    if not left:
        with pytest.raises(WarehouseError, match=f"every trace .* is revoked.*{named}"):
            publish(warehouse, "all", KEPT)
        return
    after = publish(warehouse, "all", KEPT)
    assert after.n_rows == left < before.n_rows


def test_what_cannot_be_revoked_is_one_sentence(warehouse: Warehouse, capsys) -> None:
    question = one(warehouse, "SELECT min(question_id) FROM kept_traces")
    for arguments, sentence in (
        (("model", "student@1", "--reason", "x"), "'model' can't be revoked; what can: source,"),
        (("source", "nowhere", "--reason", "x"), "no source in "),
        (("source", "sat2", "--reason", " "), "a revocation needs a reason"),
        (("source", "sat", "--reason", "x"), "no source is called 'sat'; sat2 is: write its whole"),
        (("source", f"question:{question}", "--reason", "x"), "no source in "),
        (("question", question[:5], "--reason", "x"), "write its whole name"),
    ):
        capsys.readouterr()
        assert run("revoke", *arguments, home=warehouse.root) == 2
        printed = capsys.readouterr()
        assert sentence in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert query(warehouse, "FROM revocations").num_rows == 0


@pytest.mark.parametrize("name", ["crawl/2024", "model:gpt", "a@v1/2"])
def test_a_source_is_found_by_its_name_whatever_that_looks_like(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    queries = [("source", f"SELECT '{name}' AS id"), ("model", "SELECT 'gpt' AS id")]
    monkeypatch.setattr(lineage, "_ID_QUERIES", queries)
    with lineage.Walker(warehouse) as walker:
        for kinds in (("source",), ()):
            found, _ = walker.find(name, kinds)
            assert (found.kind, found.id) == ("source", name)


def test_a_revoked_thing_is_marked_in_every_lineage(warehouse: Warehouse) -> None:
    image = one(warehouse, "SELECT min(image_id) FROM images")
    revoke(warehouse, "image", image, "a face")
    assert "REVOKED: a face" in load_lineage(warehouse, image).text()

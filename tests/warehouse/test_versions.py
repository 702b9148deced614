"""Data set versions: cut with SQL, whole, unchanging, the same hash for the same content."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jinja2 import Environment, PackageLoader
from PIL import Image as PILImage

from flows.cli.printing import show_table
from flows.stages import gallery as showing
from mcts.coordinates import CoordinateSpace, Frame, SpaceKind
from mcts.data import Image, Origin, Point, Question, Step, Trace, Verdict
from mcts.parsing import parse
from tests.support.sat_files import picture, row, sat2
from warehouse.exports.export import export
from warehouse.query.read_back import read_traces
from warehouse.query.run_query import QueryError, query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import append, commit_traces, commit_trees
from warehouse.tables.rows import read_questions, trace_rows, verdict_row
from warehouse.tables.tree_rows import SearchRows
from warehouse.versions import bundle
from warehouse.versions.versions import list_versions, open_version, publish, resolve, show

KEPT = "SELECT trace_id FROM kept_traces"
SIZES = ((112, 84), (168, 140), (84, 112))


def traces_of(question: Question) -> list[Trace]:
    """A right and a wrong trace; the right one points into the last image."""
    at = Point(20.5, 30, len(question.images) - 1)
    where = " in image 2" if at.image else ""
    thought = f"The cup {{new}} is here (20.5, 30){where}, by the lamp."
    return [
        Trace(
            question.question_id, (Step(thought, (at,)), Step("So it is left.")), answer, reward,
            "direct", tree_id=f"tree-{question.question_id}",
            origins=(Origin(1, None, "r1"), Origin(1, i, "r2")),
        )
        for i, (answer, reward) in enumerate((("left", 1.0), ("right", 0.0)))
    ]  # fmt: skip


def fill(
    warehouse: Warehouse, folder: Path, order: Sequence[int] = (0, 1, 2), run_id: str = "r"
) -> Warehouse:
    """Three questions, one of two images, one tree and two traces each, half of them kept."""
    folder.mkdir(exist_ok=True)
    for i in order:
        images = [picture(i, size=SIZES[i]), picture(9, "JPEG")][: 2 if i == 1 else 1]
        file = sat2(folder / f"train-{i}.parquet", [row(i, *images)])
        import_questions(warehouse, "sat2", file, licence="MIT", run_id=f"{run_id}-{i}")
    for question in sorted(read_questions(warehouse), key=lambda q: q.text, reverse=order[0] > 0):
        tree = {
            "tree_id": f"tree-{question.question_id}", "question_id": question.question_id,
            "task": "sat2", "model": "teacher@1", "space": "absolute_resized", "factor": 28,
            "min_pixels": 3136, "max_pixels": 9800, "prompt_hash": "p",
        }  # fmt: skip
        commit_trees(warehouse, SearchRows([tree]), run_id=run_id)
        rows, steps, verdicts = [], [], []
        for trace in traces_of(question):
            stored_row, its_steps = trace_rows(trace, task="sat2", text="…", model="teacher@1")
            rows.append(stored_row)
            steps += its_steps
            verdict = Verdict("right_answer", trace.reward == 1.0, "")
            verdicts.append(verdict_row(trace.trace_id, verdict, 1))
        commit_traces(warehouse, rows, steps=steps, verdicts=verdicts, run_id=run_id)
    return warehouse


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(Warehouse(str(folder / "home")), folder / "in")
    return folder / "home"


@pytest.fixture
def warehouse(filled: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(filled, tmp_path / "home")))


def test_a_version_holds_all_that_training_needs(warehouse: Warehouse) -> None:
    version = publish(warehouse, "sat2-sft", KEPT, run_id="p1")
    assert (version.ref, version.n_rows) == ("sat2-sft@v1", 3)
    with open_version(warehouse, version) as folder:
        rows = pq.read_table(folder / "rows.parquet").to_pylist()
        images = pq.read_table(folder / "images.parquet").to_pylist()
    assert [r["trace_id"] for r in rows] == sorted(r["trace_id"] for r in rows)
    (two,) = [r for r in rows if len(r["image_ids"]) == 2]
    assert two["image_sizes"] == [{"width": 168, "height": 140}, {"width": 56, "height": 42}]
    assert two["steps"][0]["points"] == [{"x": 20.5, "y": 30.0, "image": 1}]
    assert (two["answer"], two["gold_answers"], two["choices"]) == (
        "left",
        ["left"],
        ["left", "right"],
    )
    assert (two["space"], two["max_pixels"], two["factor"]) == ("absolute_resized", 9800, 28)
    assert len(images) == 4
    assert all(hashlib.sha256(i["bytes"]).hexdigest() == i["image_id"] for i in images)


def test_a_card_is_shown_without_what_only_programs_read_and_its_images_can_be_opened(
    warehouse: Warehouse,
) -> None:
    version = publish(warehouse, "sat2-sft", KEPT)
    stored_row = show(warehouse, "sat2-sft")
    assert stored_row.startswith("# sat2-sft@v1\n")
    (first, *_) = [line for line in stored_row.splitlines() if line.startswith("![trace ")]
    assert Path(first.partition("](")[2].rstrip(")")).is_file()
    with open_version(warehouse, version) as folder:
        assert (folder / "README.md").read_text().startswith('---\nlicense: "mit"\n')


def test_a_step_of_which_it_is_unknown_where_it_points_is_published(warehouse: Warehouse) -> None:
    (known, *_) = query(warehouse, "FROM traces").to_pylist()
    trace = {"trace_id": "bare", "question_id": known["question_id"], "task": "sat2"}
    step = {"trace_id": "bare", "step": 0, "thought": "A."}  # no list of points, not an empty one
    commit_traces(warehouse, [trace], steps=[step], verdicts=[], run_id="r")
    assert publish(warehouse, "a", "SELECT trace_id FROM traces WHERE trace_id = 'bare'").n_rows


def test_a_gallery_without_a_statement_shows_some_of_every_tree(warehouse: Warehouse) -> None:
    chosen = showing._newest_traces(warehouse, 3)["trace_id"].to_pylist()
    trees = query(warehouse, "SELECT trace_id, tree_id FROM traces").to_pylist()
    assert len({row["tree_id"] for row in trees if row["trace_id"] in chosen}) == len(chosen) == 3


def test_a_gallery_without_a_statement_is_of_the_newest_commits(warehouse: Warehouse) -> None:
    known = query(warehouse, "FROM traces").to_pylist()
    for name in ("new1", "new2"):
        rows = [{"trace_id": name, "question_id": known[0]["question_id"], "task": "sat2"}]
        commit_traces(warehouse, rows, steps=[], verdicts=[], run_id=name)
    chosen = [showing._newest_traces(warehouse, n)["trace_id"].to_pylist() for n in (1, 2, 99)]
    assert chosen[:2] == [["new2"], ["new1", "new2"]] and len(chosen[2]) == len(known) + 2
    append(warehouse, "traces", [{**rows[0], "trace_id": "of no commit"}], "by hand")
    assert showing._newest_traces(warehouse, 1)["trace_id"].to_pylist() == ["of no commit"]
    read = read_traces(warehouse, [known[0]["trace_id"], "of no commit"])
    assert len(read) == 2, "beside one of a commit"


def test_traces_are_shown_in_the_order_of_the_statement_with_their_questions(
    warehouse: Warehouse,
) -> None:
    sql = "SELECT trace_id, question_id FROM traces ORDER BY trace_id DESC"
    rows = query(warehouse, sql).to_pylist()
    chosen = [row["trace_id"] for row in showing.chosen_traces(warehouse, sql, None)]
    assert chosen == [row["trace_id"] for row in rows]
    shown = list(showing.gallery_traces(warehouse, chosen, {}))
    assert [one.question.question_id for one in shown] == [row["question_id"] for row in rows]
    assert len({row["question_id"] for row in rows}) == 3


def test_a_gallerys_funnel_counts_what_was_judged_and_kept(warehouse: Warehouse) -> None:
    funnel = showing.read_funnel(warehouse)
    assert funnel is not None
    counts = "SELECT count(DISTINCT trace_id) AS n FROM latest_verdicts"
    assert funnel.judged == query(warehouse, counts)["n"].to_pylist()[0] == 6
    assert funnel.kept == query(warehouse, KEPT).num_rows == 3
    assert showing.read_funnel(Warehouse(f"{warehouse.root}-empty")) is None


def test_an_answer_with_very_many_columns_is_stored_row_by_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_table(pa.table({f"column {i}": [i, None] for i in range(30)}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["--- 1", "column 0   0"] and lines[31:33] == ["--- 2", "column 0"]
    show_table(pa.table({"a": [1], "b": [2]}))
    assert capsys.readouterr().out.splitlines()[0].split() == ["a", "┃", "b"]


def test_its_card_tells_counts_funnel_teacher_space_and_licences(warehouse: Warehouse) -> None:
    card = publish(warehouse, "sat2-sft", KEPT).card
    assert (card["rows"], card["images"], card["questions"]) == (3, 4, 3)
    assert card["by_kind"] == {"direct": 3}
    assert card["by_family"] == {"left_right": 3}
    assert (card["licences"], card["image_licences"]) == ({"MIT": 3}, {"MIT": 4})
    assert card["funnel"] == [
        {"filter": "right_answer", "how": "version 1", "kept": 3, "dropped": 3}
    ]
    (teacher,) = card["teachers"]
    assert (teacher["model"], teacher["space"], teacher["traces"]) == (
        "teacher@1", "absolute_resized", 3
    )  # fmt: skip
    assert card["sql"] == KEPT
    assert card["table_versions"]["traces"] >= 1
    text = show(warehouse, "sat2-sft")
    assert "# sat2-sft@v1" in text
    assert "absolute_resized, 3136 to 9800 pixels" in text
    (listed,) = query(warehouse, "FROM dataset_versions").to_pylist()
    assert (listed["name"], listed["version"], listed["n_rows"]) == ("sat2-sft", 1, 3)
    assert listed["content_hash"] == card["content_hash"]


def test_equal_content_is_never_published_twice(warehouse: Warehouse) -> None:
    first = publish(warehouse, "a", KEPT)
    same = publish(warehouse, "a", "SELECT trace_id, reward FROM traces WHERE reward = 1 -- so\n;")
    assert same == first
    assert publish(warehouse, "b", KEPT).content_hash == first.content_hash
    other = publish(warehouse, "a", "SELECT trace_id FROM traces")
    assert (other.ref, other.n_rows) == ("a@v2", 6)
    assert [v.ref for v in list_versions(warehouse)] == ["a@v1", "a@v2", "b@v1"]
    assert [v.ref for v in list_versions(warehouse, "a")] == ["a@v1", "a@v2"]
    assert resolve(warehouse, "a") == other
    assert resolve(warehouse, "a@v1") == first


def test_the_hash_is_of_the_content_not_of_who_wrote_it_when_or_where(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    elsewhere = Warehouse(str(tmp_path / "elsewhere"))
    fill(elsewhere, tmp_path / "other-in", order=(2, 0, 1), run_id="another")
    here, there = (publish(w, "a", KEPT) for w in (warehouse, elsewhere))
    assert here.content_hash == there.content_hash
    assert here.card["table_versions"] is not None


_PUBLISH = """
import sys
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish
version = publish(Warehouse(sys.argv[1]), "a", sys.argv[2])
print(version.ref, version.content_hash, *sorted(version.card["samples"][0].values()))
"""


def test_read_in_rounds_and_parts_the_rows_are_the_same(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = "SELECT trace_id FROM traces"
    at_once = publish(warehouse, "rounds", every)
    assert at_once.n_rows == 6
    for of_round, of_part in ((4, 3), (3, 1), (6, 2), (2, 5)):
        monkeypatch.setattr(bundle, "_ROUND_TRACES", of_round)
        monkeypatch.setattr(bundle, "_PART_TRACES", of_part)
        assert publish(warehouse, "rounds", every) == at_once


def test_another_machine_gives_the_same_hash(warehouse: Warehouse, tmp_path: Path) -> None:
    """The same tables in another folder, in another place of the world, by another process."""
    sql = "SELECT trace_id FROM kept_traces ORDER BY upper(question_id), trace_id LIMIT 2"
    stored_row = set()
    for i, (zone, locale, seed) in enumerate(
        (("Pacific/Kiritimati", "tr_TR.UTF-8", "1"), ("America/Lima", "C", "7"))
    ):
        home = shutil.copytree(warehouse.root, tmp_path / f"machine {i}" / "elsewhere")
        shown = {"TZ": zone, "LC_ALL": locale, "LANG": locale, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _PUBLISH, str(home), sql],
            env={**os.environ, **shown, "VIGORL_REVISION": f"r{i}", "HOSTNAME": f"host{i}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        stored_row.add(done.stdout)
    here = publish(warehouse, "a", sql)
    assert len(stored_row) == 1
    assert stored_row.pop().split()[:2] == ["a@v1", here.content_hash]


def test_a_version_outlives_everything_done_to_the_tables(warehouse: Warehouse) -> None:
    version = publish(warehouse, "a", KEPT)
    shutil.rmtree(Path(warehouse.root) / "tables")
    shutil.rmtree(Path(warehouse.root) / "images")
    assert resolve(warehouse, "a@v1") == version
    with open_version(warehouse, version) as folder:
        assert pq.read_table(folder / "rows.parquet").num_rows == 3
        files = list(folder.iterdir())
        assert {"rows.parquet", "images.parquet"} <= {file.name for file in files}
        assert not [file.name for file in files if file.stat().st_mode & 0o222]


def test_racing_publishers_take_different_numbers_or_share_one(warehouse: Warehouse) -> None:
    statements = [KEPT, "SELECT trace_id FROM traces", KEPT, "SELECT trace_id FROM traces"]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda sql: publish(warehouse, "a", sql), statements))
    assert {v.ref for v in done} == {"a@v1", "a@v2"}
    assert done[0] == done[2]
    assert done[1] == done[3]
    assert query(warehouse, "FROM dataset_versions").num_rows == 2


def test_a_publish_that_breaks_off_leaves_no_version(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warehouse.versions import versions

    with monkeypatch.context() as broken:
        broken.setattr(versions, "make_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(warehouse, "a", KEPT)
    assert list_versions(warehouse) == []
    assert list((Path(warehouse.root) / ".partial").iterdir()) == []
    assert publish(warehouse, "a", KEPT).ref == "a@v1"


def test_a_lost_or_damaged_image_stops_the_publish(warehouse: Warehouse) -> None:
    victim = Path(warehouse.root) / warehouse.objects.keys("images")[0]
    data = victim.read_bytes()
    victim.write_bytes(data[:-1])
    with pytest.raises(WarehouseError, match="are damaged"):
        publish(warehouse, "a", KEPT)
    victim.unlink()
    with pytest.raises(WarehouseError, match="are not stored"):
        publish(warehouse, "a", KEPT)
    assert list_versions(warehouse) == []


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT trace_id FROM traces WHERE random() < 0.5", "random"),
        ("SELECT trace_id FROM traces WHERE created_at < now()", "now"),
        ("FROM traces SELECT trace_id WHERE created_at < current_localtimestamp()", "localtime"),
        ("FROM traces SELECT trace_id WHERE created_at > pg_conf_load_time()", "pg_conf"),
        ("SELECT trace_id FROM traces WHERE created_at < current_timestamp", "current_timestamp"),
        ("SELECT trace_id FROM traces WHERE created_at::DATE < today()", "today"),
        ("SELECT trace_id FROM traces ORDER BY uuid()", "uuid"),
        ("SELECT trace_id FROM traces USING SAMPLE 2", "sample"),
        ("SELECT trace_id FROM traces TABLESAMPLE 50%", "sample"),
        ("SELECT trace_id FROM traces LIMIT 2", "LIMIT"),
        ("SELECT trace_id FROM traces ORDER BY reward LIMIT 2", "LIMIT"),
        ("SELECT trace_id FROM (FROM traces LIMIT 2)", "LIMIT"),
        ("SELECT DISTINCT ON (question_id) trace_id FROM traces", "DISTINCT ON"),
        ("SELECT any_value(trace_id) AS trace_id FROM traces GROUP BY question_id", "any_value"),
        ("SELECT trace_id FROM traces QUALIFY row_number() OVER (PARTITION BY question_id) = 1",
         "row_number"),
        ("SELECT trace_id FROM traces WHERE age(created_at) < INTERVAL 1 DAY", "age()"),
        ("SELECT trace_id FROM (SELECT trace_id, sum(n_steps) OVER (ORDER BY reward "
         "ROWS UNBOUNDED PRECEDING) AS n FROM traces) WHERE n <= 300", "a frame of ROWS"),
        ("SELECT trace_id FROM traces ORDER BY length(trace_id) LIMIT 2", "LIMIT"),
        ("SELECT max(trace_id) AS trace_id FROM traces GROUP BY kind ORDER BY count(*) LIMIT 1",
         "LIMIT"),
        ("SELECT trace_id FROM traces POSITIONAL JOIN (SELECT 1)", "POSITIONAL"),
        ("SELECT listagg(trace_id) AS trace_id FROM traces GROUP BY question_id", "listagg"),
        ("SELECT kind FROM traces", "gives no trace_id; it gives: kind"),
        ("SELECT 'x' AS trace_id", "'x', which is not a trace's id"),
        ("SELECT trace_id FROM traces WHERE false", "chose no trace"),
        ("SELECT trace_id FROM nowhere", "there is no table nowhere"),
        ("SELECT trace_id FROM traces; DROP VIEW traces", "one statement at a time"),
        ("SELECT trace_id FROM read_parquet('x')", "read_parquet"),
        ("EXPLAIN SELECT trace_id FROM traces", ""),
        ("SELECT trace_id FROM traces) UNION (SELECT content FROM read_text('/etc/passwd')", ""),
    ],
)  # fmt: skip
def test_a_statement_that_might_choose_otherwise_tomorrow_is_refused(
    warehouse: Warehouse, sql: str, why: str
) -> None:
    with pytest.raises((QueryError, WarehouseError)) as caught:
        publish(warehouse, "a", sql)
    assert why in str(caught.value)
    assert list_versions(warehouse) == []


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT trace_id FROM traces ORDER BY reward DESC, trace_id LIMIT 2", 2),
        ("SELECT DISTINCT ON (question_id) trace_id FROM traces ORDER BY question_id, trace_id", 3),
        ("SELECT min(trace_id) AS trace_id FROM traces GROUP BY question_id", 3),
        ("SELECT trace_id FROM traces QUALIFY row_number() OVER "
         "(PARTITION BY question_id ORDER BY hash(trace_id), trace_id) = 1", 3),
        ("SELECT trace_id FROM traces ORDER BY md5(trace_id || 'seed') LIMIT 2", 2),
        ("SELECT trace_id FROM (SELECT trace_id, sum(n_steps) OVER (ORDER BY trace_id "
         "ROWS UNBOUNDED PRECEDING) AS n FROM traces) WHERE n >= 0", 6),
        ("SELECT trace_id FROM steps JOIN traces USING (trace_id) WHERE x > 3", 6),
    ],
)  # fmt: skip
def test_a_statement_with_a_total_order_is_taken(warehouse: Warehouse, sql: str, rows: int) -> None:
    assert publish(warehouse, "a", sql).n_rows == rows


def test_names_and_references_are_checked(warehouse: Warehouse) -> None:
    for name in ("", "A", "../x", "a b", "a@v1", ".hidden"):
        with pytest.raises(WarehouseError, match="can't name a dataset"):
            publish(warehouse, name, KEPT)
    with pytest.raises(WarehouseError, match="nothing is published yet"):
        resolve(warehouse, "a@v1")
    publish(warehouse, "a", KEPT)
    with pytest.raises(WarehouseError, match="no dataset a@v7; there are: a@v1"):
        resolve(warehouse, "a@v7")
    with pytest.raises(WarehouseError, match="write name@v1"):
        resolve(warehouse, "a@7")


@pytest.mark.parametrize(
    "space",
    [None, CoordinateSpace.qwen3_vl(), CoordinateSpace.qwen25_vl(), CoordinateSpace.original()],
)
def test_an_export_loads_and_speaks_the_models_coordinates(
    warehouse: Warehouse, tmp_path: Path, space: CoordinateSpace | None
) -> None:
    from datasets import load_dataset

    version = publish(warehouse, "a", KEPT)
    out = export(warehouse, version, "trl", tmp_path / "out", space=space)
    loaded = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 3
    about = json.loads((out / "export.json").read_text())
    stored_row = about["space"]
    spoken = CoordinateSpace(**{**stored_row, "kind": SpaceKind(stored_row["kind"])})
    assert spoken == (space or CoordinateSpace.qwen25_vl(3136, 9800))
    questions = {question.question_id: question for question in read_questions(warehouse)}
    for example in loaded:
        assert [m["role"] for m in example["messages"]] == ["system", "user", "assistant"]
        question = questions[example["question_id"]]
        assert question.text in example["messages"][1]["content"]
        assert [i.size for i in example["images"]] == [(i.width, i.height) for i in question.images]
        assert isinstance(example["images"][0], PILImage.Image)
        parsed = parse(example["messages"][2]["content"], Frame(spoken, question.images))
        assert {problem.kind for problem in parsed.problems} <= {"thought_without_point"}
        assert parsed.answer == "left"
        point = parsed.steps[0].points[0]
        assert point.image == len(question.images) - 1
        shown = question.images[point.image]
        unit = max(
            a / b for a, b in zip((shown.width, shown.height), spoken.size(shown), strict=True)
        )
        assert abs(point.x - 20.5) <= unit / 2 + 1e-3
        assert abs(point.y - 30) <= unit / 2 + 1e-3


def test_the_trainers_library_takes_an_export(warehouse: Warehouse, tmp_path: Path) -> None:
    """TRL puts one image block in for each image, before the question."""
    from datasets import load_dataset
    from trl.data_utils import prepare_multimodal_messages

    out = export(warehouse, publish(warehouse, "a", KEPT), "trl", tmp_path / "out")
    loaded = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    for example in loaded:
        messages = prepare_multimodal_messages(example["messages"], example["images"])
        kinds = [block["type"] for block in messages[1]["content"]]
        assert kinds == ["image"] * len(example["images"]) + ["text"]


def test_what_a_killed_export_left_goes_with_the_next(warehouse: Warehouse, tmp_path: Path) -> None:
    version = publish(warehouse, "a", KEPT)
    old, running = tmp_path / ".export-0123abcd", tmp_path / ".export-4567cdef"
    for folder in (old, running):
        folder.mkdir()
        (folder / "train.parquet").write_bytes(b"half")
    for path in (old / "train.parquet", old):
        os.utime(path, (1, 1))
    export(warehouse, version, "trl", tmp_path / "out")
    assert not old.exists() and running.exists(), "another export may be at work"


def test_an_export_refuses_what_it_cannot_do(warehouse: Warehouse, tmp_path: Path) -> None:
    version = publish(warehouse, "a", KEPT)
    with pytest.raises(WarehouseError, match="no export to 'csv'; there are: trl, llama"):
        export(warehouse, version, "csv", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(WarehouseError, match="not empty"):
        export(warehouse, version, "trl", tmp_path / "full")


def test_sizes_in_a_version_are_those_of_its_images(warehouse: Warehouse) -> None:
    with open_version(warehouse, publish(warehouse, "a", KEPT)) as folder:
        stored = {
            i["image_id"]: PILImage.open(io.BytesIO(i["bytes"])).size
            for i in pq.read_table(folder / "images.parquet").to_pylist()
        }
        for row in pq.read_table(folder / "rows.parquet").to_pylist():
            for image_id, size in zip(row["image_ids"], row["image_sizes"], strict=True):
                assert Image(image_id, **size) == Image(image_id, *stored[image_id])


@pytest.mark.parametrize(
    ("licence", "license", "name"),
    [
        ("CC-BY-4.0", "cc-by-4.0", None), ("CC BY 4.0", "cc-by-4.0", None), ("MIT", "mit", None),
        ("Custom: research only", "other", "Custom: research only"), ("*", "other", "*"),
        ('a "b"', "other", 'a "b"'), ("unknown", "other", None),
    ],
)  # fmt: skip
def test_the_head_of_a_readme_is_yaml_and_names_a_licence_that_the_hub_knows(
    licence: str, license: str, name: str | None
) -> None:
    pages = Environment(loader=PackageLoader("curation.render"), trim_blocks=True)
    page = pages.from_string(
        '{% from "front_matter.jinja" import front_matter %}'
        "{% call front_matter([licence]) %}{% endcall %}"
    ).render(licence=licence)
    head = yaml.safe_load(page.strip().split("---")[1])
    assert (head["license"], head.get("license_name")) == (license, name)

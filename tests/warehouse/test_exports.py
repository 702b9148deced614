"""Every form of an export: loaded by `datasets`, with its pictures, in the model's frame."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image as PILImage

from curation.render.markdown import render_markdown
from curation.traces.preferences import preference_pairs
from curation.traces.step_values import step_values
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Verdict
from mcts.parsing import parse
from tests.flows.test_cli import searched
from tests.warehouse.test_versions import KEPT, fill
from warehouse.exports import marks
from warehouse.exports.dialogues import MARK, ConversationRenderer
from warehouse.exports.export import export, read_notes
from warehouse.exports.files import FILES, json_lines_info, write_rows
from warehouse.exports.formats import FORMATS, features, zoom_columns
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import insert_new, open_table
from warehouse.tables.rows import read_questions, verdict_row
from warehouse.versions.versions import open_version, publish, resolve

QWEN3 = CoordinateSpace.qwen3_vl()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Six searched questions, two of two images, and a version of what was kept."""
    warehouse = Warehouse(str(searched(tmp_path_factory.mktemp("made"), 6, simulations=6)))
    publish(warehouse, "all", KEPT)
    return warehouse


def exported(warehouse: Warehouse, to: str, out: Path, **options: Any) -> list[dict[str, Any]]:
    from datasets import load_dataset

    export(warehouse, resolve(warehouse, "all"), to, out, space=QWEN3, **options)
    loaded = load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache"))
    return list(loaded)


def numbers(text: str) -> Iterator[float]:
    for pair in re.findall(r"\(([\d.]+), ([\d.]+)\)", text):
        yield from map(float, pair)


@pytest.mark.parametrize(
    ("to", "files"),
    [(to, files) for to in FORMATS for files in FILES if (to, files) != ("verl", "jsonl")],
)
def test_every_form_loads_with_its_images(
    made: Warehouse, tmp_path: Path, to: str, files: str
) -> None:
    rows = exported(made, to, tmp_path / "out", files=files)
    sizes = {q.question_id: [(i.width, i.height) for i in q.images] for q in read_questions(made)}
    assert rows
    for row in rows:
        assert set(row) == {*FORMATS[to].columns, "images"}
        pictures = row["images"]
        if files == "jsonl":
            pictures = [PILImage.open(tmp_path / "out" / path) for path in pictures]
        name = row["extra_info"]["question_id"] if to == "verl" else row["question_id"]
        assert [picture.size for picture in pictures] == sizes[name]
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (about["format"], about["rows"]) == (to, {"train": len(rows)})
    assert (about["dataset"], about["space"]["kind"]) == ("all@v1", "normalized_1000")


@pytest.mark.parametrize("to", ["grpo", "easyr1", "trl"])
def test_json_lines_load_where_a_split_has_what_another_lacks(to: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    shapes = {**FORMATS[to].columns, **zoom_columns(to)}
    columns = {name: features(shape) for name, shape in shapes.items()}
    empty = {name: [] if isinstance(shape, list) else None for name, shape in shapes.items()}
    full = {
        name: ["a"] if shape == ["text"] else 0.5 if shape == "float" else "a"
        for name, shape in shapes.items()
        if not isinstance(shape, list) or shape == ["text"]
    }
    rows = [
        {**empty, "split": "train", "images": []},
        {**empty, **full, "split": "validation", "images": []},
    ]
    out = tmp_path / "out"
    counts = write_rows(iter(rows), out, columns, "jsonl", SimpleNamespace(names={}))  # type: ignore[arg-type]
    version = SimpleNamespace(card={"licences": ["MIT"]}, ref="a@v1", content_hash="c")
    readme = render_markdown(
        "warehouse.exports", "README.md.jinja", version=version, to=to, files="jsonl",
        counts=counts, notes=[], info=json_lines_info(columns),
    )  # fmt: skip
    (out / "README.md").write_text(readme)
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 1, "validation": 1}
    assert {name: loaded["validation"][0][name] for name in full} == full


def test_a_conversation_has_one_mark_for_each_image(made: Warehouse, tmp_path: Path) -> None:
    rows = exported(made, "llama-factory", tmp_path / "out")
    assert {len(row["images"]) for row in rows} == {1, 2}
    for row in rows:
        texts = [m["content"] for m in row["messages"]]
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert [t.count(MARK) for t in texts] == [0, len(row["images"]), 0]
        assert texts[1].startswith(MARK)
        assert max(numbers(texts[2])) > 112, "thousandths, not pixels of a picture 56 pixels wide"
    longest = max(sum(len(m["content"]) for m in row["messages"]) for row in rows)
    told = yaml.safe_load((tmp_path / "out" / "llama_factory.yaml").read_text())
    assert longest < told["cutoff_len"] < longest + 1_024
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    (entry,) = info.values()
    assert entry["formatting"] == "sharegpt"
    assert list((tmp_path / "out" / entry["file_name"]).glob("*.parquet"))


@pytest.mark.parametrize(("to", "text"), [("verl", "prompt"), ("easyr1", "problem")])
def test_prompts_for_grpo_ask_each_question_once(
    made: Warehouse, tmp_path: Path, to: str, text: str
) -> None:
    rows = exported(made, to, tmp_path / "out")
    solved = query(made, "SELECT DISTINCT question_id FROM kept_traces")
    questions = {q.question_id: q for q in read_questions(made)}
    assert len(rows) == solved.num_rows
    for row in rows:
        about = row["extra_info"] if to == "verl" else row
        question = questions[about["question_id"]]
        prompt = row[text] if to == "easyr1" else "\n".join(m["content"] for m in row[text])
        assert question.text in prompt and prompt.count(MARK) == len(question.images)
        assert "at least 3 steps" in prompt and "1000" in prompt
        if to == "easyr1":  # whose graders see nothing but this column
            gold = json.loads(row["answer"])
            assert gold["choices"] == list(question.choices)
            assert gold["gold"] == list(question.answers)
        else:
            assert row["reward_model"]["ground_truth"] == question.answers[0]
    assert (to == "easyr1") == rows[0].get("problem", "").startswith(MARK)
    if to == "easyr1":  # how EasyR1 itself reads a folder
        from datasets import load_dataset

        out, cache = str(tmp_path / "out"), str(tmp_path / "cache")
        read = load_dataset("parquet", data_dir=out, split="train", cache_dir=cache)
        assert len(read) == len(rows)


def test_a_gold_box_is_in_the_models_frame(tmp_path: Path) -> None:
    from dataclasses import replace

    from mcts.data import AnswerKind, Box, Image, Point, Question

    image = Image("i", 200, 100)
    box = Question("web", "Where?", (image,), AnswerKind.BOX, boxes=(Box(20, 10, 60, 50),))
    point = replace(box, answer_kind=AnswerKind.POINT, boxes=(), points=(Point(20, 10),))
    renderer = ConversationRenderer(Warehouse(str(tmp_path)), QWEN3, "points", 3)
    assert renderer.gold_answer(box) == "(100, 100, 300, 500)"
    assert renderer.gold_answer(point) == "(100, 100)"
    exact = replace(renderer, space=CoordinateSpace.original())
    assert exact.gold_answer(box) == "(20, 10, 60, 50)"


def test_pairs_are_those_of_the_trees_written_as_whole_turns(
    made: Warehouse, tmp_path: Path
) -> None:
    rows = exported(made, "dpo", tmp_path / "out")
    ids = query(made, "SELECT DISTINCT tree_id FROM kept_traces")["tree_id"].to_pylist()
    trees = {tree.tree_id: tree for tree, _ in read_trees(made, ids)}
    found = {i: preference_pairs(tree) for i, tree in trees.items()}
    assert len(rows) == sum(map(len, found.values())) > 0
    for row in rows:
        frame = Frame(QWEN3, trees[row["tree_id"]].question.images)
        chosen, rejected = (row[side][0] for side in ("chosen", "rejected"))
        assert chosen["role"] == "assistant" and chosen["content"] != rejected["content"]
        (pair, *_) = [
            p
            for p in found[row["tree_id"]]
            if (p.parent_id, p.margin) == (row["node_id"], row["margin"])
        ]
        shared = len(pair.prefix)
        a, b = parse(chosen["content"], frame), parse(rejected["content"], frame)
        assert [s.thought for s in a.steps[:shared]] == [s.thought for s in b.steps[:shared]]
        assert a.answer is not None and b.answer is not None
        assert row["margin"] > 0


def test_pairs_whose_better_side_a_filter_drops_are_left_out(
    made: Warehouse, tmp_path: Path
) -> None:
    warehouse = Warehouse(str(shutil.copytree(made.root, tmp_path / "home")))
    before = exported(warehouse, "dpo", tmp_path / "before")
    ids = query(made, "SELECT DISTINCT tree_id FROM kept_traces")["tree_id"].to_pylist()
    pairs = [pair for tree, _ in read_trees(made, ids) for pair in preference_pairs(tree)]
    faulty, copied = sorted({pair.chosen.trace_id for pair in pairs})[:2]
    found = {faulty: "points_on_their_objects", copied: "no_near_copy"}
    rows = [
        {**verdict_row(trace_id, Verdict(filter_, False, ""), 99), "stage": "later"}
        for trace_id, filter_ in found.items()
    ]
    insert_new(warehouse, "verdicts", rows)
    after = exported(warehouse, "dpo", tmp_path / "after")
    count = sum(pair.chosen.trace_id == faulty for pair in pairs)
    assert len(after) == len(before) - count < len(before)
    assert f"{count} left out, whose better side a filter drops" in read_notes(tmp_path / "after")
    every = [{**row, "trace_id": pair.chosen.trace_id} for row in rows[:1] for pair in pairs]
    unique = {row["trace_id"]: {**row, "stage": "last"} for row in every}
    insert_new(warehouse, "verdicts", list(unique.values()))
    with pytest.raises(WarehouseError, match=r"left out: \d+ whose better side a filter drops"):
        exported(warehouse, "dpo", tmp_path / "none")


def test_a_tree_with_a_mark_has_no_pairs_for_a_trainer(
    made: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "_CONTROL", re.compile(r"</answer>$"))
    with pytest.raises(WarehouseError, match=r"tree \w+ holds </answer>, which is a control token"):
        export(made, resolve(made, "all"), "dpo", tmp_path / "out", space=QWEN3)


def test_steps_carry_what_the_search_found_them_worth(made: Warehouse, tmp_path: Path) -> None:
    rows = exported(made, "prm", tmp_path / "out")
    ids = query(made, "SELECT DISTINCT tree_id FROM kept_traces")["tree_id"].to_pylist()
    worth = {
        (v.tree_id, v.node_id): (v.value, v.visits)
        for tree, _ in read_trees(made, ids)
        for v in step_values(tree)
    }
    labels = {}
    for row in rows:
        assert len(row["completions"]) == len(row["labels"]) == len(row["node_ids"])
        assert all(text.startswith("<think>") for text in row["completions"])
        assert row["labels"] == [value > 0 for value in row["values"]]
        for node, *valued in zip(row["node_ids"], row["values"], row["visits"], strict=True):
            labels[row["tree_id"], node] = tuple(valued)
    assert labels == worth


def test_a_failed_export_leaves_nothing(made: Warehouse, tmp_path: Path) -> None:
    warehouse = Warehouse(str(shutil.copytree(made.root, tmp_path / "home")))
    version = resolve(warehouse, "all")
    out = tmp_path / "exports" / "out"
    for to, files, why in (("csv", "parquet", "no export"), ("trl", "xml", "no 'xml' files")):
        with pytest.raises(WarehouseError, match=why):
            export(warehouse, version, to, out, files=files)
    questions = open_table(warehouse, "questions")
    assert questions is not None
    questions.update(updates={"text": "'Left of the <image>?'"})
    marked = publish(warehouse, "marked", KEPT)
    with pytest.raises(WarehouseError, match="holds <image>, which stands for an image"):
        export(warehouse, marked, "llama-factory", out)
    shutil.rmtree(Path(warehouse.root) / "tables" / "trees")
    with pytest.raises(WarehouseError, match="is not in the warehouse"):
        export(warehouse, version, "dpo", out)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_an_export_takes_away_what_a_killed_one_left_and_nothing_else(
    made: Warehouse, tmp_path: Path
) -> None:
    version, long_ago = resolve(made, "all"), 1_600_000_000
    out = tmp_path / "out"
    (killed := out / ".export-0a1b2c3d").mkdir(parents=True)
    (mine := out / ".export-settings").mkdir()
    with pytest.raises(WarehouseError, match="not empty"):
        export(made, version, "trl", out)
    mine.rename(beside := tmp_path / ".export-settings")
    (beside / "mine.txt").write_text("mine")
    for path in (beside / "mine.txt", beside, killed):
        os.utime(path, (long_ago, long_ago))
    export(made, version, "trl", out)
    assert (out / "export.json").is_file() and not killed.exists()
    export(made, version, "trl", tmp_path / "second")
    assert (beside / "mine.txt").read_text() == "mine"


def test_each_split_is_found_under_its_name(tmp_path: Path) -> None:
    from datasets import load_dataset

    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in")
    questions = open_table(warehouse, "questions")
    assert questions is not None
    (first, *_) = query(warehouse, "SELECT question_id FROM questions ORDER BY 1").to_pylist()
    name = first["question_id"]
    questions.update(updates={"split": "'val'"}, predicate=f"question_id = '{name}'")
    out = export(warehouse, publish(warehouse, "a", KEPT), "llama-factory", tmp_path / "out")
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "val": 1}
    assert set(json.loads((out / "dataset_info.json").read_text())) == {"a", "a-val"}


def test_the_teachers_dialect_is_kept_without_a_space(tmp_path: Path) -> None:
    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in")
    version = publish(warehouse, "a", KEPT)
    trees = open_table(warehouse, "trees")
    assert trees is not None

    def space_of(name: str) -> dict[str, Any]:
        out = export(warehouse, version, "trl", tmp_path / name)
        space: dict[str, Any] = json.loads((out / "export.json").read_text())["space"]
        return space

    assert space_of("pairs")["dialect"] == "pairs"
    trees.update(updates={"config": """'{"space": {"dialect": "json"}}'"""})
    space = space_of("json")
    assert (space["dialect"], space["kind"], space["max_pixels"]) == (
        "json", "absolute_resized", 9_800,
    )  # fmt: skip
    (first, *_) = query(warehouse, "SELECT tree_id FROM trees ORDER BY 1").to_pylist()
    one = f"tree_id = '{first['tree_id']}'"
    trees.update(updates={"config": """'{"space": {"dialect": "xml"}}'"""}, predicate=one)
    with pytest.raises(WarehouseError, match="in the dialects json, xml: say with --space"):
        space_of("both")


def test_a_split_of_any_name_is_a_folder_that_loads(tmp_path: Path) -> None:
    from datasets import load_dataset

    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in")
    questions = open_table(warehouse, "questions")
    assert questions is not None
    questions.update(updates={"split": "'../../held-out'"})  # which an import refuses today
    out = tmp_path / "a" / "out"
    out.mkdir(parents=True)  # an empty folder may be somebody's own, and stays that
    before = out.stat().st_ino
    export(warehouse, publish(warehouse, "a", KEPT), "trl", out)
    assert out.stat().st_ino == before and not any(p.name[0] == "." for p in out.iterdir())
    assert [path.name for path in (out / "data").iterdir()] == ["held_out"]
    assert set(load_dataset(str(out), cache_dir=str(tmp_path / "cache"))) == {"held_out"}


def test_a_version_has_images_of_some_of_its_traces(made: Warehouse) -> None:
    version = resolve(made, "all")
    with open_version(made, version) as folder:
        held = set(pq.read_table(folder / "rows.parquet")["trace_id"].to_pylist())
        shown = version.card["samples"]
        assert len(shown) == 3 and {s["trace_id"] for s in shown} <= held
        kinds = {r["trace_id"]: r["kind"] for r in query(made, "FROM traces").to_pylist()}
        assert {kinds[s["trace_id"]] for s in shown} == {"direct", "corrected"}
        readme = (folder / "README.md").read_text()
        for sample in shown:
            data = (folder / sample["file"]).read_bytes()
            assert PILImage.open(io.BytesIO(data)).width > 1000
            assert f"]({sample['file']})" in readme

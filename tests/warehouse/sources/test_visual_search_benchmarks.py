"""The benchmarks of visual search: which file is whose, and where what is asked about lies."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mcts.data import Box
from tests.support import visual_search_files as files
from tests.support.benchmark_files import b64, image_file, vstar_bench, vstar_parquet, write_json
from tests.support.benchmark_files import tsv as write_tsv
from warehouse.sources import ImportProblem, ReadContext, tasks
from warehouse.sources.find_files import find_readers
from warehouse.sources.importing import import_questions
from warehouse.sources.published import Spool
from warehouse.sources.reading.drafts import Draft
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_objects, read_questions


def drafts(task: str, path: Path) -> list[Draft]:
    found = [one for read, _ in find_readers(task, path) for one in read()]
    assert all(isinstance(one, Draft) for one in found), found
    return [one for one in found if isinstance(one, Draft)]


def test_a_folder_with_both_sizes_of_hr_bench_gives_each_task_its_own(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    folder = files.hr_bench(tmp_path / "hub")
    for size, other in (("4k", "8K"), ("8k", "4K")):
        report = import_questions(warehouse, f"hr-bench-{size}", folder)
        # The TSV and the Parquet file hold the same rows.
        assert (report.added, report.already_there, report.rejected) == (2, 2, 0)
        left_out = [one for one in report.remarks if f"is HR-Bench {other}" in one]
        assert len(left_out) == len(report.remarks) == 2
    images = {
        size: {q.images[0].image_id for q in read_questions(warehouse, f"hr-bench-{size}")}
        for size in ("4k", "8k")
    }
    assert len(images["4k"]) == len(images["8k"]) == 1
    assert images["4k"] != images["8k"]


def test_a_file_of_the_other_size_is_refused_by_its_name(tmp_path: Path) -> None:
    path = files.hr_bench(tmp_path) / "hr_bench_8k.parquet"
    with pytest.raises(ImportProblem, match=r"hr_bench_8k\.parquet is HR-Bench 8K, not 4K"):
        import_questions(Warehouse(str(tmp_path / "home")), "hr-bench-4k", path)


def test_an_order_of_the_options_is_kept_with_the_question(tmp_path: Path) -> None:
    found = drafts("hr-bench-8k", files.hr_bench_tsv(tmp_path))
    assert [one.part_of for one in found] == ["order 0", "order 1", "order 0"]
    assert [one.answers for one in found] == [("21",), ("21",), ("none",)]


def test_pictures_that_vlmevalkit_has_unpacked_are_found_by_their_paths(tmp_path: Path) -> None:
    def unpacked(picture: Path) -> Path:
        row = {name: value for name, value in files.HR_ROW.items() if name != "image"}
        return write_tsv(tmp_path / "HRBench4K_local.tsv", [{**row, "image_path": str(picture)}])

    (found,) = drafts("hr-bench-4k", unpacked(image_file(tmp_path, "images/HRBench4K/0.png", 1)))
    assert found.images[0].data == (tmp_path / "images/HRBench4K/0.png").read_bytes()
    elsewhere = image_file(tmp_path.parent, "0.png", 1)
    with pytest.raises(ImportProblem, match="the name leads out of the image root"):
        import_questions(Warehouse(str(tmp_path / "h")), "hr-bench-4k", unpacked(elsewhere))


def test_a_picture_that_every_row_repeats_is_written_once() -> None:
    with tempfile.TemporaryFile() as handle:
        spool = Spool(handle)
        for index in range(4):
            spool.index = str(index)
            data = spool.get(b64(1), "image")
        assert handle.seek(0, 2) == len(data)
        assert spool.get("2", "image") == data


def test_boxes_of_what_is_asked_about_become_the_images_objects(tmp_path: Path) -> None:
    for task, path, objects in (
        ("tree-bench", files.tree_bench(tmp_path), (Box(20, 30, 44, 52), Box(60, 10, 70, 20))),
        ("vstar-bench", vstar_bench(tmp_path), (Box(20, 30, 30, 42, label="glove"),)),
    ):
        known, unknown = (one.images[0].objects for one in drafts(task, path))
        assert (known, unknown) == (objects, None)


def test_options_in_a_questions_own_words_are_taken_out_of_it(tmp_path: Path) -> None:
    _, listed = drafts("tree-bench", files.tree_bench(tmp_path))
    assert listed.text == "Which word is on the van?"
    assert (listed.choices, listed.answers) == (("POST", "MAIL", "FOOD", "NEWS"), ("MAIL",))


def test_images_of_visual_probe_are_found_wherever_its_folder_lies(tmp_path: Path) -> None:
    name = files.PROBE_ROW["images"][0]
    for folder, image, root in (
        (tmp_path / "a" / "VisualProbe_Hard", tmp_path / "a" / name, None),
        (tmp_path / "b" / "snapshots", tmp_path / "b" / "snapshots" / name.split("/", 1)[1], None),
        (tmp_path / "c", tmp_path / "elsewhere" / name, tmp_path / "elsewhere"),
    ):
        image_file(image.parent, image.name, 1)
        path = write_json(folder / "val.json", [files.PROBE_ROW])
        (found,) = tasks()["visual-probe"].formats[".json"](path, ReadContext("visual-probe", root))
        assert isinstance(found, Draft), found


def test_the_training_set_of_visual_probe_has_the_split_train(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    files.visual_probe(tmp_path)
    row = {**files.PROBE_ROW, "data_source": "visual_probe_train"}
    write_json(tmp_path / "VisualProbe_train" / "train.json", [row])
    assert import_questions(warehouse, "visual-probe", tmp_path).added == 3
    found = [(one.split, one.family) for one in read_questions(warehouse, "visual-probe")]
    assert sorted(found) == [("train", ""), ("validation", "easy"), ("validation", "hard")]


def test_boxes_of_two_questions_about_one_picture_are_nobodys(tmp_path: Path) -> None:
    """TreeBench's boxes have no labels: nothing tells which question they are of."""
    other = {**files.TREE_ROW, "index": 2, "question": "And the woman?"}
    alike = write_tsv(tmp_path / "alike.tsv", [files.TREE_ROW, other])
    report = import_questions(Warehouse(str(tmp_path / "a")), "tree-bench", alike)
    assert (report.added, report.remarks) == (2, ())
    warehouse = Warehouse(str(tmp_path / "b"))
    other = {**other, "target_instances": "[[1, 1, 9, 9]]"}
    path = write_tsv(tmp_path / "TreeBench.tsv", [files.TREE_ROW, other])
    report = import_questions(warehouse, "tree-bench", path)
    assert [remark[:25] for remark in report.remarks] == ["the boxes of 1 images are"]
    (question, _) = read_questions(warehouse, "tree-bench")
    image_id = question.images[0].image_id
    assert read_objects(warehouse, [image_id]) == {image_id: None}


def test_an_image_that_is_stored_without_boxes_keeps_none_and_that_is_told(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    (tmp_path / "hub").mkdir()
    import_questions(warehouse, "vstar-bench", vstar_parquet(tmp_path / "hub"))
    path = vstar_bench(tmp_path)
    for _ in range(2):
        report = import_questions(warehouse, "vstar-bench", path)
        (remark,) = report.remarks
        assert remark.startswith("1 images were stored before with other boxes or none")
    fresh = Warehouse(str(tmp_path / "fresh"))
    assert [import_questions(fresh, "vstar-bench", path).remarks for _ in range(2)] == [(), ()]

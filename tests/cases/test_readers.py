"""Published folders and files as they are on the hub."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import benchmark_files as files
from tests.support.project import Project
from tests.support.sat_files import picture, row, sat2
from tests.warehouse.sources.test_reference_trees import published, record
from warehouse.sources import ImportProblem
from warehouse.sources.importing import import_questions
from warehouse.sources.importing_trees import import_trees
from warehouse.sources.preview import preview_import
from warehouse.sources.reading.image_marks import place_images
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    return files.parquet(path, rows, **{f"image_{n}": files.IMAGE for n in (2, 3, 4)})


def numbered(example: dict[str, Any], many: int, **changed: Any) -> list[dict[str, Any]]:
    return [{**example, "question": f"{example['question']} ({i})", **changed} for i in range(many)]


# ---- answers that are not published ------------------------------------------------------------


def test_f17_blink_as_it_is_on_the_hub(warehouse: Warehouse, folder: Path) -> None:
    parquet(folder / "Counting/val-00000-of-00001.parquet", numbered(files.BLINK_ROW, 8))
    hidden = numbered(files.BLINK_ROW, 8, answer="hidden")
    parquet(folder / "Counting/test-00000-of-00001.parquet", hidden)
    report = import_questions(warehouse, "blink", folder)
    assert (report.read, report.added, report.rejected, report.left_out) == (16, 8, 0, 8)
    (sentence,) = report.remarks
    assert sentence == "8 of 16 rows are left out: answer: it is not published (hidden) (8 rows)"
    assert report.rejects_path is None
    assert {q.split for q in read_questions(warehouse, "blink")} == {"validation"}


def test_a_limit_counts_what_is_not_left_out(
    warehouse: Warehouse, folder: Path, tmp_path: Path
) -> None:
    hidden = numbered(files.BLINK_ROW, 50, answer="hidden")
    parquet(folder / "Counting/test-00000-of-00001.parquet", hidden)
    parquet(folder / "Counting/val-00000-of-00001.parquet", numbered(files.BLINK_ROW, 8))
    report = import_questions(warehouse, "blink", folder, limit=5)
    assert (report.added, report.left_out) == (5, 50)
    looked = preview_import("blink", folder, out=tmp_path / "look", limit=3)
    assert len(looked.lines) == 3


HIDDEN = [
    ("blink", files.BLINK_ROW, "(hidden)"),
    ("mmmu", files.MMMU_ROWS[0], "?"),
    ("ai2d", files.AI2D_ROW, "-1"),
    *((name, example, missing) for missing in ("", None, " ")
      for name, example in (("blink", files.BLINK_ROW), ("pope", files.POPE_ROW),
                            ("mathvision", files.MATH_ROWS[1]), ("mmmu", files.MMMU_ROWS[0]),
                            ("realworldqa", files.REAL_ROWS[1]))),
]  # fmt: skip


@pytest.mark.parametrize(("task", "example", "answer"), HIDDEN)
def test_f17_rows_without_a_published_answer_are_counted_and_left_out(
    warehouse: Warehouse, folder: Path, task: str, example: dict[str, Any], answer: str | None
) -> None:
    rows = [example, *numbered(example, 30, answer=answer)]
    types = (
        {"options": pa.list_(pa.string()), "solution": pa.string()} if task == "mathvision" else {}
    )
    path = files.parquet(
        folder / "x.parquet", rows, image_4=files.IMAGE, image_3=files.IMAGE, **types
    )
    report = import_questions(warehouse, task, path)
    assert (report.added, report.rejected, report.left_out) == (1, 0, 30)
    assert len(report.remarks) == 1


def test_f17_a_file_without_any_published_answer_says_so(
    warehouse: Warehouse, folder: Path
) -> None:
    path = parquet(folder / "test.parquet", numbered(files.BLINK_ROW, 3, answer="hidden"))
    with pytest.raises(
        ImportProblem, match="3 of 3 rows are left out: answer: it is not published"
    ):
        import_questions(warehouse, "blink", path)


def test_f24_what_cannot_be_graded_offline_is_told_in_one_line(project: Project) -> None:
    rows = []
    for i in range(234):
        evaluation = {**files.VWA_ROW["eval"]}
        if i % 5:
            evaluation["eval_types"] = ["program_html"] if i % 2 else ["url_match"]
        rows.append({**files.VWA_ROW, "task_id": i, "eval": evaluation})
    shots = project.data / "shots"
    for i in range(0, 234, 5):
        files.image_file(shots, f"classifieds_{i}.png", i)
    path = files.write_json(project.data / "test_classifieds.raw.json", rows)
    ran = project.run("import", "visualwebarena", path, "--image-root", shots)
    assert ran.status == 0, ran.text
    assert "47 questions added, 0 already there, 0 rejected, 187 left out" in ran.out
    (line,) = ran.err.splitlines()
    assert line.startswith(
        "187 of 234 rows are left out: eval.eval_types: only string_match can be"
    )


def test_a_preview_tells_what_is_left_out(folder: Path, tmp_path: Path) -> None:
    path = parquet(folder / "x.parquet", [files.BLINK_ROW, {**files.BLINK_ROW, "answer": "hidden"}])
    looked = preview_import("blink", path, out=tmp_path / "look")
    assert (looked.read, looked.rejects) == (2, ())
    assert looked.remarks == (
        "1 of 2 rows are left out: answer: it is not published (hidden) (1 rows)",
    )


# ---- splits ------------------------------------------------------------------------------------


def mmmu(folder: Path) -> Path:
    open_row = files.MMMU_ROWS[1]
    parquet(folder / "Art/dev-00000-of-00001.parquet", numbered(open_row, 5))
    rows = [{**r, "question": f"v {r['question']}"} for r in numbered(open_row, 30)]
    parquet(folder / "Art/validation-00000-of-00001.parquet", rows)
    return folder


def test_f5_dev_is_no_validation_where_both_are(warehouse: Warehouse, folder: Path) -> None:
    report = import_questions(warehouse, "mmmu", mmmu(folder), split="validation")
    assert report.added == 30
    assert any("dev (1) are not validation" in remark for remark in report.remarks)
    assert import_questions(warehouse, "mmmu", folder, split="dev").added == 5
    assert len(list(read_questions(warehouse, "mmmu", split="validation"))) == 30
    assert len(list(read_questions(warehouse, "mmmu", split="dev"))) == 5


def test_f5_a_dev_file_given_by_itself_looks_beside_it(warehouse: Warehouse, folder: Path) -> None:
    dev = mmmu(folder) / "Art/dev-00000-of-00001.parquet"
    import_questions(warehouse, "mmmu", dev)
    assert {q.split for q in read_questions(warehouse, "mmmu")} == {"dev"}


def test_f5_dev_is_validation_where_there_is_no_other(warehouse: Warehouse, folder: Path) -> None:
    shutil.rmtree(mmmu(folder) / "Art", ignore_errors=True)
    parquet(folder / "Art/dev-00000-of-00001.parquet", numbered(files.MMMU_ROWS[1], 5))
    assert import_questions(warehouse, "mmmu", folder, split="validation").added == 5


@pytest.mark.parametrize("name", ["MMMU_DEV_VAL.tsv", "MMMU.tsv"])
def test_f5_rows_that_name_their_split_are_of_it(
    warehouse: Warehouse, folder: Path, name: str
) -> None:
    rows = [
        {"index": i, "image": files.b64(i), "question": f"<image 1> What is {i}?", "A": "a",
         "B": "b", "answer": "A", "category": "Art", "split": "dev" if i < 2 else "validation"}
        for i in range(5)
    ]  # fmt: skip
    path = files.tsv(folder / name, rows)
    report = import_questions(warehouse, "mmmu", path, split="validation")
    assert (report.added, report.left_out) == (3, 2)
    import_questions(warehouse, "mmmu", path)
    assert (
        sorted(q.split for q in read_questions(warehouse, "mmmu"))
        == ["dev"] * 2 + ["validation"] * 3
    )


def sat_folder(folder: Path) -> Path:
    for at, name in enumerate(("SAT_train", "SAT_val", "SAT_test", "SAT_static")):
        sat2(folder / f"{name}.parquet", [row(10 * at + i) for i in range(at + 2)])
    return folder


@pytest.mark.parametrize(("split", "added"), [("train", 2), (None, 9), ("validation", 3)])
def test_f20_sat_s_static_file_is_never_mixed_in(
    warehouse: Warehouse, folder: Path, split: str | None, added: int
) -> None:
    report = import_questions(warehouse, "sat2", sat_folder(folder), split=split)
    assert report.added == added
    (remark,) = report.remarks
    assert "SAT_static.parquet: its name says no split" in remark
    static = folder / "SAT_static.parquet"
    assert import_questions(warehouse, "sat2", static, split="train").added == 5


def test_where_no_name_says_a_split_all_are_of_the_one_that_is_given(
    warehouse: Warehouse, folder: Path
) -> None:
    for name in ("one", "two"):
        sat2(folder / f"{name}.parquet", [row(len(name) + ord(name[0]))])
    report = import_questions(warehouse, "sat2", folder, split="train")
    assert (report.added, report.remarks) == (2, ())


# ---- what lies beside the data ------------------------------------------------------------------


def test_f21_json_beside_the_data_is_no_data(warehouse: Warehouse, folder: Path) -> None:
    files.os_atlas(folder)
    files.write_json(
        folder / "prompts.json", {"desktop": ["Click {x}", "Find {x}"], "web": ["{x}"]}
    )
    files.write_json(folder / "dataset_infos.json", {"default": {"splits": {}}})
    files.write_json(folder / "numbers.json", [])
    files.write_json(folder / "one.json", 7)
    (folder / ".cache/huggingface").mkdir(parents=True)
    half_loaded = [{**files.ATLAS_ROWS[1], "instruction": "never whole"}]
    files.write_json(folder / ".cache/huggingface/x.json", half_loaded)
    (folder / ".gitattributes").write_text("*.zip filter=lfs")
    (folder / "x.json.lock").write_text("")
    root = folder / "desktop_domain"
    report = import_questions(warehouse, "web-grounding", folder, split="train", image_root=root)
    assert (report.added, report.rejected) == (3, 0)
    assert sum("prompts.json is not OS-Atlas" in remark for remark in report.remarks) == 1


def test_a_folder_of_nothing_but_other_files_says_what_they_lack(
    warehouse: Warehouse, folder: Path
) -> None:
    files.write_json(folder / "prompts.json", {"desktop": ["Click {x}"]})
    with pytest.raises(ImportProblem, match=r"prompts.json is not OS-Atlas: it has no column"):
        import_questions(warehouse, "web-grounding", folder, split="train")


def test_a_damaged_file_of_data_is_no_file_beside_it(warehouse: Warehouse, folder: Path) -> None:
    files.os_atlas(folder)
    (folder / "desktop_domain/half.json").write_text('[{"img_filename": "a/1.png", "instruc')
    with pytest.raises(ImportProblem, match=r"half.json is not whole JSON"):
        import_questions(warehouse, "web-grounding", folder, split="train")


def test_a_download_of_the_hub_is_read_through_its_links(
    warehouse: Warehouse, folder: Path
) -> None:
    """`datasets--org--name/snapshots/<hash>/` holds links to `blobs/`."""
    repo = folder / "datasets--BLINK-Benchmark--BLINK"
    snapshot = repo / "snapshots" / ("0" * 40)
    made = parquet(folder / "made.parquet", numbered(files.BLINK_ROW, 2))
    (repo / "blobs").mkdir(parents=True)
    shutil.move(made, repo / "blobs" / "abc")
    (snapshot / "Jigsaw").mkdir(parents=True)
    (snapshot / "Jigsaw/val-00000-of-00001.parquet").symlink_to("../../../blobs/abc")
    assert import_questions(warehouse, "blink", repo).added == 2


def test_images_of_a_hub_download_are_links_too(project: Project) -> None:
    repo = project.data / "datasets--a--b"
    snapshot = repo / "snapshots" / ("0" * 40)
    (snapshot / "images").mkdir(parents=True)
    project.image("datasets--a--b/blobs/123.png")
    (snapshot / "images/1.png").symlink_to("../../../blobs/123.png")
    outside = project.image("secret.png")
    (snapshot / "images/2.png").symlink_to(outside)
    lines = [json.dumps({"q": f"{n}?", "img": f"images/{n}.png", "a": "x"}) for n in (1, 2)]
    path = project.write("datasets--a--b/snapshots/" + "0" * 40 + "/train.jsonl", "\n".join(lines))
    ran = project.run("import", "mine", path, "--columns", "question=q,image=img,answer=a")
    assert ran.status == 0, ran.text
    assert "1 questions added, 0 already there, 1 rejected" in ran.out


# ---- forms of a row ------------------------------------------------------------------------------


def test_f19_joined_categories_are_one_question_each(warehouse: Warehouse, folder: Path) -> None:
    both = {"index": "0", "image": files.b64(1), "question": "Is there a dog in the image?",
            "answer": "Yes", "category": "adversarial,popular,random"}  # fmt: skip
    no = {**both, "index": "1", "image": "0", "question": "Is there a cat?", "answer": "No",
          "category": "popular"}  # fmt: skip
    bad = {**no, "index": "2", "question": "Is there a cow?", "category": "popular,rare"}
    report = import_questions(warehouse, "pope", files.tsv(folder / "POPE.tsv", [both, no, bad]))
    assert (report.added, report.rejected) == (5, 1)
    found = sorted((q.family, q.text) for q in read_questions(warehouse, "pope"))
    dog = "Is there a dog in the image?"
    assert [pair for pair in found if pair[1] == dog] == [
        (name, dog) for name in ("adversarial", "popular", "random")
    ]


@pytest.mark.parametrize("column", ["images", "image_bytes"])
@pytest.mark.parametrize("kind", [pa.list_(files.IMAGE), pa.list_(pa.binary()),
                                  pa.large_list(pa.large_binary())], ids=str)  # fmt: skip
def test_f23_a_list_of_images_is_one_however_it_is_typed(
    warehouse: Warehouse, folder: Path, column: str, kind: pa.DataType
) -> None:
    stored: Any = files.stored(1) if "struct" in str(kind) else picture(1)
    example = {k: v for k, v in row(1).items() if k not in ("images", "image_bytes")}
    path = files.parquet(
        folder / "SAT_train.parquet", [{**example, column: [stored]}], **{column: kind}
    )
    assert import_questions(warehouse, "sat2", path).added == 1


def test_a_sat_file_that_is_damaged_half_way_is_refused(warehouse: Warehouse, folder: Path) -> None:
    """untested.md: a damaged file was to be refused, not shortened in silence."""
    import pyarrow.parquet as pq

    path = sat2(folder / "SAT_train.parquet", [row(i) for i in range(80)])
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=20, compression="snappy")
    found = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    start = found.dictionary_page_offset or found.data_page_offset
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(ImportProblem, match=r"SAT_train.parquet can't be read after row \d+"):
        import_questions(warehouse, "sat2", path)
    assert list(read_questions(warehouse, "sat2")) == []


def test_f39_runs_of_several_tasks_are_not_all_the_first_one_s(
    warehouse: Warehouse, folder: Path
) -> None:
    root = published(folder / "boxes", record(true_answer="(3, 4, 30, 21)")).parent
    published(folder / "actions", record(true_answer="click [12]"))
    with pytest.raises(ImportProblem, match="its answers are of several kinds: actions") as told:
        import_trees(warehouse, folder, image_root=root)
    assert "boxes (first in" in str(told.value)
    assert "--into" in str(told.value)


# ---- marks of images -----------------------------------------------------------------------------


def test_f47_a_question_that_is_all_in_its_image(warehouse: Warehouse, folder: Path) -> None:
    example = {**files.MATH_ROWS[0], "question": "<image1>"}
    path = files.parquet(folder / "test.parquet", [example, files.MATH_ROWS[1]],
                         options=pa.list_(pa.string()), solution=pa.string())  # fmt: skip
    report = import_questions(warehouse, "mathvision", path)
    assert (report.added, report.rejected) == (2, 0)
    assert {q.text for q in read_questions(warehouse, "mathvision")} == {
        "(image 1)", "What share is shaded?",
    }  # fmt: skip


def test_s21_a_mark_in_a_sentence_stays(project: Project) -> None:
    texts = [
        "What does <image> mean in this HTML?",
        "<image>\nIs it?",
        "<image> What does <image> do?",
    ]
    assert project.add([{"q": text} for text in texts]).status == 0
    stored = project.sql("SELECT text FROM questions ORDER BY source_row")
    assert [one["text"] for one in stored] == [
        "What does <image> mean in this HTML?", "Is it?", "What does <image> do?",
    ]  # fmt: skip


def test_s21_marks_that_say_which_image_become_its_number(project: Project) -> None:
    project.image("b.png")
    asked = {"q": "Is <image> older than <image>?", "img": ["a.png", "b.png"]}
    assert project.add([asked]).status == 0
    assert project.sql("SELECT text FROM questions") == [
        {"text": "Is (image 1) older than (image 2)?"}
    ]


@pytest.mark.parametrize(
    ("text", "images", "kept"),
    [
        ("<image>Is it?", 1, "Is it?"),
        ("Is it?<image>", 1, "Is it?"),
        ("Is it? <image> Answer.", 1, "Is it? Answer."),
        ("One\n<image>\nTwo", 1, "One Two"),
        ("<image><image>Which?", 2, "Which?"),
        ("<image>\n<image>\nIs <image> a tag?", 2, "Is <image> a tag?"),
        ("<image> is a dog and <image> a cat.", 2, "(image 1) is a dog and (image 2) a cat."),
        ("Before: <image>\nAfter: <image>\nWhat?", 2, "Before: (image 1)\nAfter: (image 2)\nWhat?"),
        ("Look: <image>\nWhat?", 1, "Look: What?"),
        ("Look:\n<image>\n<image>\nWhat?", 2, "Look:  What?"),
        ("Why is <image> in <image>?", 3, "Why is <image> in <image>?"),
        ("<image>", 1, "(image 1)"),
        ("<image> <image>", 2, "(image 1) (image 2)"),
        ("", 1, ""),
        ("  ", 1, ""),
    ],
)
def test_what_becomes_of_marks(text: str, images: int, kept: str) -> None:
    assert place_images(text, images) == kept


@given(
    st.lists(st.sampled_from(["word", "Two?", "<image>", "\n", " ", "。", "(1, 200)", "<b>"])),
    st.integers(1, 3),
)
def test_nothing_but_marks_is_ever_taken_out(parts: list[str], images: int) -> None:
    text = "".join(parts)
    kept = place_images(text, images)
    rest = "".join(text.replace("<image>", "").split())
    shown = kept
    for number in range(1, 4):
        shown = shown.replace(f"(image {number})", "")
    assert "".join(shown.replace("<image>", "").split()) == rest
    assert place_images(kept, images) == kept or "<image>" in kept


# ---- texts and names as other machines write them ----------------------------------------------

COLUMNS = "question=q,image=img,answer=a"
CSV = 'q,img,a\n"Is it, né?",a.png,yes\n'


def imported(project: Project, name: str, content: str | bytes) -> str:
    """Import a table of one question; its text, or what was said."""
    if not (project.data / "a.png").exists():
        project.image("a.png")
    path = project.write(name, content)
    ran = project.run("import", "mine", path, "--split", "train", "--columns", COLUMNS)
    if ran.status:
        return ran.err
    return str(project.sql("SELECT text FROM questions")[0]["text"])


@pytest.mark.parametrize(
    "content",
    [CSV.encode(), CSV.encode("utf-8-sig"), CSV.replace("\n", "\r\n").encode(),
     CSV.encode("utf-16"), CSV.replace("\n", ",\n").encode(), CSV.replace("yes", "yes,,").encode()],
    ids=["utf-8", "mark", "crlf", "utf-16", "comma after every row", "commas after rows"],
)  # fmt: skip
def test_a_table_is_read_as_spreadsheets_write_it(project: Project, content: bytes) -> None:
    assert imported(project, "q.csv", content) == "Is it, né?"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lines_are_read_in_every_unicode(project: Project, encoding: str) -> None:
    line = json.dumps({"q": "Is it, né?", "img": "a.png", "a": "yes"}, ensure_ascii=False)
    assert imported(project, "q.jsonl", f"{line}\n".encode(encoding)) == "Is it, né?"
    packed = gzip.compress(f"{line}\n".encode(encoding))
    assert imported(project, "r.jsonl.gz", packed) == "Is it, né?"


def test_what_is_not_unicode_says_what_to_do(project: Project) -> None:
    told = imported(project, "q.csv", CSV.encode("cp1252"))
    assert "q.csv can't be read" in told
    assert "save it as UTF-8" in told
    assert "can't be read" in imported(project, "r.jsonl.gz", b"not gzip at all")


def test_a_key_or_a_column_that_is_there_twice_is_told(project: Project) -> None:
    told = imported(project, "q.jsonl", '{"q": "x", "img": "a.png", "a": "yes", "a": "no"}')
    assert "a key of this JSON object is there twice" in told
    assert "has the column a more than once" in imported(
        project, "q.csv", "q,img,a,a\nx,a.png,1,2\n"
    )
    assert imported(project, "r.jsonl", '{"q": "x", "q": "x", "img": "a.png", "a": "yes"}') == "x"


NAMES = ["a.png", "./a.png", "sub\\a.png", "sub%2Fa.png", "A%20b.png", "a.PNG", "sub/up.png"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_found_by_its_name_as_another_machine_writes_it(
    project: Project, name: str
) -> None:
    for file in ("a.png", "sub/a.png", "A b.png", "sub/up.PNG"):
        project.image(file)
    added = project.add([{"img": name}])
    assert added.status == 0, added.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [("https://a.b/c.png", "addresses are not fetched"), ("/data/c.png", "leads out"),
     ("..%2Fsecret.png", "leads out"), ("..\\secret.png", "leads out"),
     ("C:\\images\\c.png", "no such file"), ("none.png", "no such file")],
)  # fmt: skip
def test_a_name_that_leads_nowhere_says_why(project: Project, name: str, reason: str) -> None:
    (project.folder / "secret.png").write_bytes(files.drawn(1))
    added = project.add([{"img": name}])
    assert added.status == 2
    assert reason in added.err


def test_an_image_in_base64_is_one_however_short_and_broken_into_lines(project: Project) -> None:
    data = base64.encodebytes(files.drawn(1, (2, 2))).decode()
    assert len(data) < 1024
    for value in (data, data.replace("\n", ""), f"data:image/png;base64,{data}"):
        added = project.add([{"img": value, "q": f"{len(value)}?"}])
        assert added.status == 0, added.text


def test_lines_without_an_answer_in_a_table_of_ones_own_are_damage(project: Project) -> None:
    added = project.add([{}, {"q": "x", "a": None}])
    assert "1 questions added, 0 already there, 1 rejected" in added.out


COLUMNS = "question=q,image=img,answer=a"
LINE = {"q": "Which?", "img": "a.png", "a": "yes"}


@pytest.mark.parametrize("content", [
    json.dumps([LINE]), json.dumps(LINE), json.dumps([LINE, {**LINE, "q": "Second?"}]),
])  # fmt: skip
def test_json_is_a_table_for_columns(project: Project, content: str) -> None:
    project.image("a.png")
    path = project.write("train.json", content)
    ran = project.run("import", "mine", path, "--columns", COLUMNS)
    assert ran.status == 0, ran.text
    assert {row["text"] for row in project.sql("SELECT text FROM questions")} >= {"Which?"}


def test_json_beside_tables_of_columns_is_no_table(project: Project) -> None:
    project.image("d/a.png")
    project.write("d/rows.jsonl", json.dumps(LINE))
    for name in ("dataset_info.json", "state.json"):
        project.write(f"d/{name}", json.dumps({"citation": "", "features": {}}))
    how = ("--split", "train", "--columns", COLUMNS)
    ran = project.run("import", "mine", project.data / "d", *how)
    assert ran.status == 0 and "1 questions added" in ran.text, ran.text
    assert "left out" in ran.text and "state.json has no column q, img, a" in ran.text
    alone = project.run("import", "mine", project.data / "d" / "state.json", *how)
    assert alone.status == 2 and "it has: citation, features" in alone.text


def test_an_absolute_name_is_an_image_below_the_image_root(project: Project) -> None:
    path = project.image("shots/a.png")
    rows = project.write("train.jsonl", json.dumps({**LINE, "img": str(path)}))
    arguments = ("import", "mine", rows, "--columns", COLUMNS)
    assert project.run(*arguments).status == 0
    (project.data / "other").mkdir()
    ran = project.run(*arguments, "--image-root", project.data / "other")
    assert ran.status == 2 and "leads out of the image root" in ran.text


@pytest.mark.parametrize(("name", "value", "kind"), [
    ("a", {"text": "yes"}, "an object"), ("a", [["yes", "no"]], "a list"), ("q", ["x"], "a list"),
])  # fmt: skip
def test_what_is_no_text_is_not_stored_in_python_s_notation(
    project: Project, name: str, value: Any, kind: str
) -> None:
    project.image("a.png")
    path = project.write("train.jsonl", json.dumps({**LINE, name: value}))
    ran = project.run("import", "mine", path, "--columns", COLUMNS)
    assert ran.status == 2 and f"not {kind}; NAME.KEY leads into it" in ran.text

"""Exports as their trainers open them: upright images, the whole gold answer, no hidden marks."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curation.grading.exported_gold import read_gold, score, write_gold
from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame, smart_resize
from mcts.data import AnswerKind, Box, Point, Question
from mcts.data import Image as StoredImage
from mcts.image_io import decode
from mcts.parsing import parse
from tests.support.project import Project, Ran, thinking
from warehouse.exports.files import FILES
from warehouse.exports.formats import FORMATS
from warehouse.exports.marks import check_marks, mark_in
from warehouse.exports.trainer_files import check_format, pixel_limits
from warehouse.storage.home import WarehouseError

PUBLISH = "SELECT trace_id FROM traces"
QUESTIONS = ("grpo", "verl", "easyr1")


def published(project: Project, name: str = "x", where: str = "true") -> None:
    ran = project.run("dataset", "publish", name, "--sql", f"{PUBLISH} WHERE {where}")
    assert ran.status == 0, ran.text


def exported(project: Project, to: str, name: str, *options: object, files: str = "jsonl") -> Ran:
    return project.run(
        "dataset", "export", "x@v1", "--to", to, "--files", files, "--out", project.folder / name,
        *options,
    )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, Any]]:
    found = list(folder.rglob("data/train/*"))
    if found[0].suffix == ".parquet":
        return [row for path in found for row in pq.read_table(path).to_pylist()]
    return [json.loads(line) for path in found for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Boxes on a photo that lies on its side, a phone's MPO, a transparent and a 16-bit image."""
    project = Project(tmp_path_factory.mktemp("exports"))
    exif = Image.Exif()
    exif[0x112] = 6
    photo = Image.linear_gradient("L").resize((200, 150)).convert("RGB")
    project.image("side.jpg", photo, exif=exif)
    project.image("side.webp", photo, exif=exif)
    project.image("phone.jpg", photo, format="MPO", save_all=True, append_images=[photo])
    clear = Image.new("RGBA", (200, 150), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (50, 50, 100, 100))
    project.image("clear.png", clear)
    ramp = np.linspace(0, 65535, 60 * 60).astype(np.uint16).reshape(60, 60)
    project.image("deep.png", Image.fromarray(ramp))
    names = ("side.jpg", "side.webp", "phone.jpg", "clear.png", "deep.png")
    rows = [
        {"q": f"Point at a ball, {name}", "img": name, "box": [[10, 10, 20, 20], [30, 30, 55, 55]]}
        for name in names
    ]
    answer = thinking("<think>It is at {p}.</think>", end="(400, 400)")
    ran, _ = project.ask(rows, answer, columns="question=q,image=img,box=box")
    assert ran.status == 0, ran.text
    published(project)
    return project


@pytest.mark.parametrize(("to", "files"), [
    (to, files) for to in FORMATS for files in FILES
    if to not in ("dpo", "prm")  # made of larger trees
    and (to, files) != ("verl", "jsonl")
])  # fmt: skip
def test_f11_f12_s10_s51_exports_hold_what_everybody_sees(
    built: Project, to: str, files: str
) -> None:
    name = f"pixels-{to}-{files}"
    ran = exported(built, to, name, "--space", "qwen2.5-vl", files=files)
    assert ran.status == 0, ran.text
    truth = {
        np.asarray(decode(path.read_bytes())).tobytes()
        for path in built.data.iterdir()
        if path.suffix != ".jsonl" and path.name != "a.png"
    }
    seen = set()
    for row in rows_of(built.folder / name):
        for image in row["images"]:
            if files == "jsonl":
                path = built.folder / name / image
                opened = Image.open(path)
                assert path.suffix in {"PNG": (".png",), "JPEG": (".jpg",), "MPO": (".jpg",),
                                       "WEBP": (".webp",)}[opened.format or ""]  # fmt: skip
            else:
                opened = Image.open(io.BytesIO(image["bytes"]))
            seen.add(np.asarray(opened.convert("RGB")).tobytes())
    assert seen == truth


@pytest.mark.parametrize("to", QUESTIONS)
def test_f09_all_of_several_boxes_are_right_for_the_trainer(built: Project, to: str) -> None:
    name = f"gold-{to}"
    ran = exported(built, to, name, files="parquet")
    assert ran.status == 0, ran.text
    reward = module_of(built.folder / name / "reward.py")
    for row in rows_of(built.folder / name):
        gold = {"grpo": lambda r: r["gold"], "easyr1": lambda r: r["answer"],
                "verl": lambda r: r["reward_model"]["ground_truth"]}[to](row)  # fmt: skip
        boxes = [ast.literal_eval(text) for text in json.loads(gold)]
        assert len(boxes) == 2
        for x1, y1, x2, y2 in boxes:
            answers = {f"({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f})": 1, f"({x2 + 9}, {y2})": 0}
            for answer, right in answers.items():
                text = f"<think>It is there.</think><answer>{answer}</answer>"
                assert rewarded(reward, to, text, gold, row) == right


def rewarded(reward: ModuleType, to: str, text: str, gold: str, row: dict[str, Any]) -> float:
    if to == "grpo":
        completions = [[{"role": "assistant", "content": text}]]
        columns = {name: [row[name]] for name in row if name != "prompt"}
        (value,) = reward.trl_reward(completions=completions, prompts=[row["prompt"]], **columns)
        return value
    if to == "verl":
        return reward.compute_score(row["data_source"], text, gold, row["extra_info"])
    (found,) = reward.compute_score([{"response": text, "response_length": 9,
                                      "ground_truth": gold}])  # fmt: skip
    return found["overall"]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reward_{abs(hash(path))}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(kind: AnswerKind, **gold: Any) -> Question:
    return Question(
        "web", "Where?", (StoredImage("i", 200, 100), StoredImage("j", 400, 400)), kind, **gold
    )


@pytest.mark.parametrize("space", [
    CoordinateSpace.original(), CoordinateSpace.qwen3_vl(), CoordinateSpace.qwen25_vl(),
])  # fmt: skip
def test_f09_every_kind_of_gold_is_read_back_in_every_space(space: CoordinateSpace) -> None:
    points = (Point(20, 10), Point(150, 60, 1))
    cases = {
        ask(AnswerKind.BOX, boxes=(Box(20, 10, 60, 50), Box(100, 100, 300, 300, 1))): (
            {Point(40, 30): 1, Point(200, 200, 1): 1, Point(40, 30, 1): 0, Point(90, 90): 0}
        ),
        ask(AnswerKind.POINT, points=points, tolerance=15.0): (
            {Point(30, 14): 1, Point(154, 70, 1): 1, Point(45, 10): 0, Point(150, 60): 0}
        ),
    }
    for question, answers in cases.items():
        frame = Frame.of(space, question)
        gold = write_gold(question, frame)
        assert len(read_gold(gold)) == 2
        for point, right in answers.items():
            x, y = frame.to_model(point)
            where = f"({x}, {y})" + (f" in image {point.image + 1}" if point.image else "")
            text = f"<think>There.</think><answer>{where}</answer>"
            assert score(text, gold) == score(text, gold, str(question.answer_kind)) == right


@pytest.mark.parametrize("answers", [
    ("yes",), ("yes", "yeah"), ("[1, 2]",), ('["yes"]',), ("a, b",), ("(3, 4)",), ("日本", "Japan"),
    ("[x",), ("(1, 2, 3, 4)", "none"),
])  # fmt: skip
def test_f09_texts_are_read_back_as_they_were(answers: tuple[str, ...]) -> None:
    question = ask(AnswerKind.TEXT, answers=answers)
    gold = write_gold(question, Frame.of(CoordinateSpace.qwen3_vl(), question))
    assert tuple(read_gold(gold)) == answers
    for answer in answers:
        assert score(f"<think>I see.</think><answer>{answer}</answer>", gold, "text") == 1
    assert score("<think>I see.</think><answer>never</answer>", gold, "text") == 0


def test_f09_a_letter_is_an_answer_where_there_are_options() -> None:
    text = "<think>I see.</think><answer>B</answer>"
    assert score(text, "left", "text", ["right", "left"]) == 1
    assert score(text, "right", "text", ["right", "left"]) == 0


def test_f09_a_letter_is_an_answer_where_the_trainer_hands_over_the_gold_alone() -> None:
    choices = ("300, 400", "500, 600")
    question = ask(AnswerKind.TEXT, choices=choices, answers=("500, 600",))
    gold = write_gold(question, Frame.of(CoordinateSpace.qwen3_vl(), question), alone=True)
    assert read_gold(gold) == ["500, 600"]
    for answer, right in {"B": 1, "B. 500, 600": 1, "500, 600": 1, "A": 0, "300, 400": 0}.items():
        assert score(f"<think>I see.</think><answer>{answer}</answer>", gold) == right
    bare = replace(question, choices=(), answers=("left",))
    assert write_gold(bare, Frame.of(CoordinateSpace.qwen3_vl(), bare), alone=True) == "left"


SPACES = (
    CoordinateSpace.original(), CoordinateSpace.qwen3_vl(), CoordinateSpace.qwen25_vl(),
    CoordinateSpace.shares(), CoordinateSpace.molmo(),
)  # fmt: skip


@given(st.randoms(use_true_random=False), st.sampled_from(SPACES), st.booleans())
def test_an_exported_reward_is_the_grader_s_score_at_every_edge(
    rng: random.Random, space: CoordinateSpace, alone: bool
) -> None:
    x1, y1 = rng.randint(0, 99), rng.uniform(0, 60)
    box = Box(x1, round(y1, 3), x1 + rng.randint(1, 90), round(y1 + rng.uniform(1, 30), 3))
    question = ask(AnswerKind.BOX, boxes=(box,))
    if rng.random() < 0.5:
        question = ask(AnswerKind.POINT, points=(Point(box.x1, box.y1),), tolerance=5.5)
    frame = Frame.of(space, question)
    gold = write_gold(question, frame, alone=alone)
    for at in (Point(box.x1, box.y1), Point(box.x2, box.y2), Point(box.x1 + 5, box.y1 + 2)):
        x, y = frame.to_model(at)
        unit = 10.0**-space.decimals
        for dx, dy in ((0, 0), (-unit, 0), (0, unit), (unit, -unit)):
            text = f"<think>There.</think><answer>({x + dx:g}, {y + dy:g})</answer>"
            assert score(text, gold) == grade(question, parse(text, frame).answer).score


@pytest.mark.parametrize("question", [
    ask(AnswerKind.TEXT, answers=("(1, 2, 3, 4)",)),
    ask(AnswerKind.TEXT, answers=("(3, 4)", "none")),
    ask(AnswerKind.TEXT, answers=("no",), choices=("yes", "no")),
    ask(AnswerKind.TEXT, answers=("$16.99",)),
    ask(AnswerKind.ACTION, answers=("stop [(3, 4)]", "click [7]")),
    ask(AnswerKind.ACTION, answers=("type [7] [red wine]",)),
], ids=lambda question: question.answers[0])  # fmt: skip
def test_an_exported_reward_is_the_grader_s_score_where_it_has_the_gold_alone(
    question: Question,
) -> None:
    frame = Frame.of(CoordinateSpace.qwen3_vl(), question)
    gold = write_gold(question, frame, alone=True)
    for answer in (
        "(1, 2, 3, 4)", "(1,2,3,4)", "(3, 4)", "(3,4)", "(4, 3)", "B", "(B)", "no.", "yes", "A",
        "16.99", "$16.99", "stop [(3,4)]", "click [7].", "CLICK [7]", "click [8]", "none", "7",
        "type [7] [red wine] [1]", "type [7] [red wine] [0]", "",
    ):  # fmt: skip
        text = f"<think>I see.</think><answer>{answer}</answer>"
        assert score(text, gold) == grade(question, parse(text, frame).answer).score, answer


def test_f13_llama_factory_is_told_not_to_shrink_and_so_is_its_user(built: Project) -> None:
    ran = exported(built, "llama-factory", "limits", "--space", "qwen2.5-vl")
    assert ran.status == 0, ran.text
    folder = built.folder / "limits"
    told = yaml.safe_load((folder / "llama_factory.yaml").read_text())
    about = json.loads((folder / "export.json").read_text())
    assert told["image_max_pixels"] == about["space"]["max_pixels"] == 12_845_056
    assert told["image_min_pixels"] == about["space"]["min_pixels"] == 3_136
    assert told["dataset"] == "x" and (folder / told["dataset_dir"]).samefile(folder)
    for text in (ran.text, (folder / "README.md").read_text(), "\n".join(about["notes"])):
        assert "image_max_pixels: 12845056" in text and "EVERY POINT IS WRONG" in text


def test_f13_llama_factory_and_the_processor_make_the_size_that_points_are_about() -> None:
    space = CoordinateSpace.qwen25_vl()
    assert space.factor and space.min_pixels and space.max_pixels
    sizes = [(1920, 1080), (40, 30), (4000, 3711), (30, 4000)]
    least, most = pixel_limits(space, sizes)
    for width, height in sizes:
        w, h = width, height
        for limit, over in ((most, w * h > most), (least, w * h < least)):
            if over:  # as LLaMA-Factory and EasyR1 resize before the processor does
                factor = (limit / (w * h)) ** 0.5
                w, h = int(w * factor), int(h * factor)
        shown = smart_resize(h, w, space.factor, space.min_pixels, space.max_pixels)
        assert shown[::-1] == space.size(StoredImage("", width, height))


def test_f13_llama_factory_stretches_the_narrowest_images_so_they_are_refused() -> None:
    thin = {"whole": (640, 480), "thin": (200, 20)}
    with pytest.raises(WarehouseError, match="image thin has a side of 20 pixels"):
        check_format("llama-factory", "jsonl", CoordinateSpace.qwen25_vl(), thin)
    check_format("llama-factory", "jsonl", CoordinateSpace.qwen3_vl(), thin)
    check_format("trl", "jsonl", CoordinateSpace.qwen25_vl(), thin)


def test_f25_verl_reads_no_images_beside_json_lines(built: Project) -> None:
    ran = exported(built, "verl", "no", files="jsonl")
    assert ran.status == 2 and "--files parquet" in ran.err
    assert not (built.folder / "no").exists()


def test_f49_what_each_trainer_needs_is_said(built: Project) -> None:
    ran = exported(built, "easyr1", "easy")
    assert ran.status == 0 and "data/train" in ran.out
    told = yaml.safe_load((built.folder / "easy" / "easyr1.yaml").read_text())
    assert told["data"]["train_files"] == "data/train@train"
    assert (built.folder / "easy" / told["data"]["image_dir"] / "images").is_dir()
    row = rows_of(built.folder / "easy")[0]
    assert {row[told["data"][key]] is not None for key in ("prompt_key", "answer_key")} == {True}
    path, _, name = told["worker"]["reward"]["reward_function"].partition(":")
    assert callable(getattr(module_of(built.folder / "easy" / path), name))


def test_f49_trl_has_no_trainer_for_prm_as_the_note_says() -> None:
    root = Path(pytest.importorskip("trl").__file__).parent
    trainers = [path for path in root.rglob("*.py") if "class PRMTrainer" in path.read_text()]
    assert not trainers


def test_f49_parquet_names_lists_so_that_older_datasets_read_them(built: Project) -> None:
    assert exported(built, "llama-factory", "old", files="parquet").status == 0
    (path,) = (built.folder / "old").rglob("*.parquet")
    told = json.loads(pq.read_schema(path).metadata[b"huggingface"])
    assert '"List"' not in json.dumps(told)
    assert told["info"]["features"]["images"] == [{"_type": "Image"}]


MARKS = ["<image>", "<video>", "<audio>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>",
         "<|im_end|>", "<image_soft_token>", "<|eot_id|>", "[IMG]"]  # fmt: skip


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One trace with a mark in its thought, and one about a question with a mark."""
    project = Project(tmp_path_factory.mktemp("marks"))
    rows = [{"q": "Is it here?"}, {"q": "What does the button <|im_end|> do?"}]
    ran, _ = project.ask(rows, thinking("<think>The word <video> is at {p}.</think>"))
    assert ran.status == 0, ran.text
    questions = "SELECT question_id FROM questions WHERE text LIKE '%im_end%'"
    published(project, "x", f"question_id IN ({questions})")
    published(project, "thought", f"question_id NOT IN ({questions})")
    return project


def test_s38_a_mark_in_a_thought_is_refused_by_the_format_that_counts_it(marked: Project) -> None:
    traces = {row["trace_id"] for row in marked.sql("SELECT trace_id FROM traces")}
    for to, status in (("llama-factory", 2), ("trl", 0), ("grpo", 0), ("verl", 0)):
        out = marked.folder / f"thought-{to}"
        ran = marked.run("dataset", "export", "thought@v1", "--to", to, "--out", out)
        assert ran.status == status, (to, ran.text)
        assert out.exists() == (status == 0)
        if status:
            assert "<video>, which stands for a video" in ran.err
            assert set(re.findall(r"trace ([0-9a-f]{32})", ran.err)) <= traces


@pytest.mark.parametrize("to", ["verl", "easyr1", "grpo", "trl", "llama-factory"])
def test_s38_a_mark_in_a_question_is_refused(marked: Project, to: str) -> None:
    ran = exported(marked, to, f"question-{to}", files="parquet")
    assert ran.status == 2 and "<|im_end|>, which is a control token" in ran.err
    assert not (marked.folder / f"question-{to}").exists()


def test_s38_the_refusal_says_which_condition_leaves_such_rows_out(marked: Project) -> None:
    published(marked, "all")
    export = ("dataset", "export", "all@v1", "--to", "trl", "--out", marked.folder / "all")
    ran = marked.run(*export)
    assert ran.status == 2, ran.text
    published(marked, "rest", ran.err.partition("with the condition ")[2].strip())
    ran = marked.run(*export[:2], "rest@v1", *export[3:])
    assert ran.status == 0, ran.text
    with pytest.raises(WarehouseError) as refused:
        check_marks("a <|im_end|>", "dpo", "tree 3f")
    published(marked, "trees", str(refused.value).partition("with the condition ")[2])


@pytest.mark.parametrize("mark", MARKS)
def test_s38_every_mark_is_refused_where_it_means_something(mark: str) -> None:
    text = f"The word {mark} is here."
    for to in FORMATS:
        counted = mark not in ("<image>", "<video>", "<audio>") or to in (
            "llama-factory", "verl", "easyr1")  # fmt: skip
        if not counted:
            check_marks(text, to, "trace 3f")
            continue
        with pytest.raises(WarehouseError, match=re.escape(f"the text of trace 3f holds {mark},")):
            check_marks(text, to, "trace 3f")


def ordinary() -> Iterator[str]:
    yield from ("a < b and c > d", "x | y", "<b>bold</b>", "a <think> b", "[1] see", "<| |>", "<|>",
                "5 <|x", "image", "the <video tag", "$<$", "<img src='a'>")  # fmt: skip


@pytest.mark.parametrize("text", list(ordinary()))
def test_s38_ordinary_texts_hold_no_mark(text: str) -> None:
    assert all(mark_in(text, to) is None for to in FORMATS)


def test_llama_factory_is_told_which_role_is_which(built: Project) -> None:
    assert exported(built, "llama-factory", "roles").status == 0
    folder = built.folder / "roles"
    (entry,) = json.loads((folder / "dataset_info.json").read_text()).values()
    tags, column = entry["tags"], entry["columns"]["messages"]
    for row in rows_of(folder):
        roles = [message[tags["role_tag"]] for message in row[column]]
        assert roles == [tags["system_tag"], tags["user_tag"], tags["assistant_tag"]]
        assert all(message[tags["content_tag"]] for message in row[column])
    assert entry["formatting"] == "sharegpt" and entry["columns"]["images"] == "images"

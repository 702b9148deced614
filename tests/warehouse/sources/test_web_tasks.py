"""Points and actions as answers, the whole way: sample, prompt, search, grading, traces, export."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from curation.grading.actions import parse_action
from curation.grading.exported_gold import read_gold
from curation.grading.grade import grade
from flows.settings import BuildSettings
from flows.stages import build as stages
from flows.stages.build import _remarks
from flows.stages.curate import Summary
from flows.stages.search import search_config
from flows.stages.shards.shard import ShardOutcome
from flows.teachers.resolve import resolve
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Point, Question
from mcts.prompts import build_messages, load_prompt
from tests.support.project_files import ROOT
from tests.support.stub_server import StubServer, conversation
from vigorl_nano import task_control as control
from vigorl_nano.task_control import Measured, difference, format_result, grey_questions
from warehouse.exports.export import export
from warehouse.query.run_query import query
from warehouse.sources import find_task
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions
from warehouse.versions.versions import publish

WEB = ("vstar", "web-grounding", "web-action")
QWEN25 = CoordinateSpace.qwen25_vl(3136, 200_000)  # screens are resized, so its pixels are not ours

ANSWER = re.compile(r"(<answer>|^)[^<>]*(</answer>)")
PLACE = re.compile(r"\((\d+), (\d+)\)")


class Knowing(StubServer):
    """A server that knows each question's gold answer, and says everything in its own numbers."""

    def __init__(self, questions: Sequence[Question], space: CoordinateSpace) -> None:
        super().__init__()
        self.known = {(q.images[0].image_id, q.text): q for q in questions}
        self.space = space

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        found, (prompt, _) = super().answer(body), conversation(body)
        shown = pictures_in(body)
        matching = [
            q for (i, text), q in self.known.items() if i in shown and prompt.endswith(text)
        ]
        for choice in found["choices"] if matching else ():  # it is probed with another question
            width, height = self.space.size(matching[0].images[0])

            def inside(place: re.Match[str], size: tuple[float, float] = (width, height)) -> str:
                x, y = (int(n) * side // 1000 for n, side in zip(place.groups(), size, strict=True))
                return f"({x:g}, {y:g})"

            gold = right(matching[0], self.space)
            written = PLACE.sub(inside, choice["message"]["content"])
            written = ANSWER.sub(lambda match, gold=gold: f"{match[1]}{gold}{match[2]}", written)
            choice["message"]["content"] = written
        return found


def pictures_in(body: dict[str, Any]) -> set[str]:
    """The ids of the pictures that a request shows."""
    parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
    data = [p["image_url"]["url"].partition(",")[2] for p in parts if p["type"] == "image_url"]
    return {hashlib.sha256(base64.b64decode(text)).hexdigest() for text in data}


def right(question: Question, space: CoordinateSpace) -> str:
    if question.answer_kind is not AnswerKind.BOX:
        return question.answers[0]
    box = question.boxes[0]
    middle = Point((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.image)
    x, y = Frame(space, question.images).to_model(middle)
    return f"({x:g}, {y:g})"


@pytest.fixture(scope="module", params=["web-grounding", "web-action"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A warehouse in which a teacher that knows the answers has searched a few of a sample."""
    task = request.param
    warehouse = Warehouse(str(tmp_path_factory.mktemp(task) / "home"))
    import_sample(warehouse, task)
    questions = list(read_questions(warehouse, task, split="train", limit=4))
    with Knowing(questions, QWEN25) as server:
        summary = run(
            task, warehouse.root, teacher=server.url, space="qwen2.5-vl", limit=4,
            min_pixels=QWEN25.min_pixels, max_pixels=QWEN25.max_pixels, simulations=2,
        )  # fmt: skip
    assert summary.sentence().startswith("4 questions searched, 4 trees with a right answer")
    assert "remark" not in summary.extra, "only with a registered model is it a smoke test"
    return warehouse


def run(task: str, home: str, **how: Any) -> Summary:
    return asyncio.run(stages.build(BuildSettings.checked(task=task, home=home, **how)))


def test_points_and_actions_are_graded_and_kept_in_original_pixels(built: Warehouse) -> None:
    questions = {
        question.question_id: question for question in read_questions(built, split="train")
    }
    traces = query(built, "SELECT question_id, answer, reward FROM traces").to_pylist()
    assert len(traces) > 8
    for trace in traces:
        question = questions[trace["question_id"]]
        assert trace["reward"] == 1.0 == grade(question, trace["answer"]).score
        if question.answer_kind is AnswerKind.BOX:
            x, y = map(float, trace["answer"].strip("()").split(","))
            box = question.boxes[0]
            assert abs(x - (box.x1 + box.x2) / 2) < 3 and abs(y - (box.y1 + box.y2) / 2) < 3


def test_exports_tell_answers_in_the_students_own_numbers(built: Warehouse, tmp_path: Path) -> None:
    version = publish(built, "web", "SELECT trace_id FROM traces WHERE reward = 1")
    questions = {
        question.question_id: question for question in read_questions(built, split="train")
    }
    for name, space in [
        ("thousandths", CoordinateSpace.qwen3_vl()),
        ("pixels", CoordinateSpace.original()),
    ]:
        out = export(built, version, "trl", tmp_path / name, space=space, files="jsonl")
        (file,) = (out / "data").glob("*/*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert rows
        for row in rows:
            question = questions[row["question_id"]]
            written = row["messages"][-1]["content"]
            answer = re.search(r"<answer>(.*)</answer>", written, re.DOTALL)[1]  # type: ignore[index]
            if question.answer_kind is AnswerKind.ACTION:
                assert parse_action(answer) == parse_action(question.answers[0])
                continue
            x, y = map(float, answer.strip("()").split(","))
            point = Frame(space, question.images).to_point(x, y)
            assert question.boxes[0].contains(point)
        prompts = json.loads((out / "export.json").read_text())["prompts"]
        assert set(prompts) == {rows[0]["task"]}


def test_a_points_export_as_a_reward_is_the_box_in_the_students_numbers(
    built: Warehouse, tmp_path: Path
) -> None:
    version = publish(built, "web", "SELECT trace_id FROM traces WHERE reward = 1")
    out = export(built, version, "easyr1", tmp_path / "out", space=CoordinateSpace.qwen3_vl(),
                 files="jsonl")  # fmt: skip
    (file,) = (out / "data").glob("*/*.jsonl")
    for line in file.read_text().splitlines():
        row = json.loads(line)
        (question,) = read_questions(built, question_ids=[row["question_id"]])
        if question.answer_kind is AnswerKind.BOX:
            numbers = [float(n) for n in row["answer"].strip("()").split(",")]
            box, shown = question.boxes[0], question.images[0]
            wanted = [box.x1 / shown.width, box.y1 / shown.height, box.x2 / shown.width]
            assert numbers[:3] == pytest.approx([1000 * share for share in wanted], abs=0.51)
        else:
            assert read_gold(row["answer"]) == [question.answers[0]]


@pytest.mark.parametrize("task", WEB)
def test_every_sample_is_whole(task: str, tmp_path: Path) -> None:
    """Every row is accepted, pictures have objects, and a gold box is one of them."""
    warehouse = Warehouse(str(tmp_path))
    report = import_sample(warehouse, task)
    assert report is not None and report.rejected == 0 and report.warnings == ()
    sample = find_task(task).sample
    assert sample is not None and sum(f.stat().st_size for f in sample.files.values()) < 3 << 20
    questions = list(read_questions(warehouse, task))
    assert {question.split for question in questions} == {"train", "test"}
    assert {question.licence for question in questions} == {sample.licence}
    shown = {q.split: {i.image_id for i in q.images} for q in questions}
    assert not shown["train"] & shown["test"]
    rows = query(warehouse, "SELECT image_id, objects FROM images").to_pylist()
    objects = {row["image_id"]: row["objects"] for row in rows}
    for question in questions:
        seen = objects[question.images[0].image_id]
        image = question.images[0]
        assert all(0 <= o["x1"] < o["x2"] <= image.width and o["y2"] <= image.height for o in seen)
        for box in question.boxes:
            corners = (box.x1, box.y1, box.x2, box.y2)
            assert corners in {(o["x1"], o["y1"], o["x2"], o["y2"]) for o in seen}
        for answer in question.answers:
            if question.answer_kind is AnswerKind.ACTION:
                assert parse_action(answer) is not None
    # Words alone do not tell the answer of a question with choices.
    for family in {question.family for question in questions if question.choices}:
        matching = [q for q in questions if q.family == family and q.split == "train"]
        places = [q.choices.index(q.answers[0]) for q in matching]
        most = max(places.count(place) for place in set(places))
        assert most <= 0.65 * len(places), family


def test_prompts_say_what_an_answer_is(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    written = {}
    for task in WEB:
        import_sample(warehouse, task)
        (question,) = read_questions(warehouse, task, limit=1)
        messages = build_messages(load_prompt(find_task(task).prompt), question, QWEN25, 3)
        written[task] = messages[0].text
    assert "alone inside <answer> and </answer> as one location (x, y)." in written["web-grounding"]
    assert "type [number] [text]" in written["web-action"] and "click [12]" in written["web-action"]
    assert "several places" in written["vstar"] and "{" not in "".join(written.values())


def test_the_three_tasks_have_their_deployments() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    builds = {d["name"]: d for d in deployments if d["entrypoint"].endswith(".build_traces")}
    for task in WEB:
        assert builds[task]["parameters"]["task"] == task
    settings = BuildSettings(**builds["vstar"]["parameters"])
    assert search_config(settings, resolve(settings)).zoom, "its teacher zooms"


def test_a_model_that_has_learnt_no_action_says_what_it_is_worth(tmp_path: Path) -> None:
    summary = run("web-action", str(tmp_path / "home"), limit=1, simulations=1)
    assert summary.trees == 1 and not summary.failed
    given = {"task": "web-action", "home": str(tmp_path)}
    both = BuildSettings.checked(**given, teacher="nano + http://a", space="original")
    spent = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0}
    remark = summary.extra["remark"]
    assert _remarks(both, ShardOutcome(), spent, 0, False)["remark"] == remark
    assert remark.startswith("smoke test only: these traces show that everything runs (")


@pytest.mark.slow
@pytest.mark.parametrize("task", WEB[:2])
def test_the_model_that_zooms_keeps_traces_of_its_samples(task: str, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    summary = run(task, home, simulations=6, limit=40)
    assert "remark" not in summary.extra and not summary.failed
    kept = query(Warehouse(home), "SELECT count(DISTINCT question_id) AS n FROM kept_traces")
    assert kept.to_pylist()[0]["n"] >= 8


def test_grey_questions_ask_the_same_about_nothing(tmp_path: Path) -> None:
    seen, grey = Warehouse(str(tmp_path / "seen")), Warehouse(str(tmp_path / "grey"))
    import_sample(seen, "web-grounding")
    assert grey_questions(seen, grey, "web-grounding", 5) == 5
    matching = {q.text: q for q in read_questions(seen, "web-grounding", split="train")}
    for question in read_questions(grey, "web-grounding"):
        same = matching[question.text]
        assert replace(question, images=same.images) == same
        image = question.images[0]
        assert (image.width, image.height) == (same.images[0].width, same.images[0].height)
        data = read_image(grey, image.image_id)
        assert len(Image.open(BytesIO(data)).convert("RGB").getcolors()) == 1


def test_the_control_calls_a_smoke_test_what_grey_images_do_as_well() -> None:
    guess = Measured((True,) * 20, (0.5, 0.25) * 10, 40)
    sees = Measured((True,) * 20, (1.0, 0.75) * 10, 40)
    assert "the images count" in format_result("t", "nano", sees, guess)
    assert "smoke test only" in format_result("t", "nano", guess, guess)
    assert "smoke test only" in format_result("t", "nano", replace(sees, kept=0), guess)
    by, low, high = difference(sees.share, guess.share)
    assert by == 0.5 and 0.4 < low < 0.5 < high < 0.6
    assert difference((), ()) == (0.0, 0.0, 0.0)


@pytest.mark.slow
def test_the_control_measures_a_real_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control.tempfile, "tempdir", str(tmp_path))
    with StubServer() as server:
        teacher = {"teacher": server.url, "space": "qwen3-vl"}
        seen, grey = control.run_control("vstar", 2, teacher)
    assert len(seen.right) == len(seen.share) == len(grey.right) == 2
    assert all(0 <= share <= 1 for share in (*seen.share, *grey.share))
    assert not list(tmp_path.iterdir()), "both warehouses are thrown away"

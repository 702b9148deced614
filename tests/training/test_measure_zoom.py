"""Measuring a model that zooms: turn by turn, with its tool ledger, beside itself without zoom."""

import asyncio
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image, ImageStat

from mcts.coordinates import CoordinateSpace
from mcts.data import Box, Observation, Question
from mcts.data import Image as StoredImage
from mcts.teachers.base import TeacherError, TeacherUnavailable
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from mcts.zoom.render import render_crop
from tests.support.benchmark_files import vstar_bench
from tests.support.stub_server import StubServer
from tests.training.test_measure import (
    Scripted,
    imported,
    questions_of,
    table,
    vigorl,
)
from training.evaluation.controls import crop_elsewhere, gold_crop, noise_crop, with_crops
from training.evaluation.measure import EvaluationProtocol, Subject, measure
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

SPACE = CoordinateSpace.qwen3_vl()
ZOOM = ZoomConfig(Lens(10, 56), max_calls=2, max_turns=3)


def call(x, y):
    arguments = json.dumps({"coordinate": [x, y]})
    return (
        f"<think>I look at ({x}, {y}).</think>\n"
        f'<tool_call>{{"name": "search_coordinate", "arguments": {arguments}}}</tool_call>'
    )


class Looking(Scripted):
    """A teacher whose turn is a function of how many observations it was given, and of the last."""

    def __init__(self, *turns, **more):
        super().__init__(None, **more)
        self.turns = turns

    async def complete(self, request, images):
        seen = [m for m in request.messages if m.text.startswith("<observation>")]
        last = request.messages[-1]
        if last.role == "assistant" and last.text.endswith("<answer>"):
            self.answer = lambda _: "left</answer>"
        else:
            turn = self.turns[min(len(seen), len(self.turns) - 1)]
            self.answer = turn if callable(turn) else lambda _: turn
        return await super().complete(request, images)


ANSWER = "<think>It is left.</think>\n<answer>left</answer>"


@pytest.fixture
def warehouse(tmp_path):
    return imported(tmp_path, 6)


def run(teacher, warehouse, questions=None, *, zoom=ZOOM, protocol=None, **more):
    subject = Subject(teacher, SPACE, "zoom", 48, zoom)
    asked = questions_of(warehouse) if questions is None else questions
    return asyncio.run(measure(subject, asked, warehouse, protocol or EvaluationProtocol(), **more))


def test_each_turn_is_asked_with_the_crops_before_it_and_never_again(warehouse):
    teacher = Looking(call(300, 300), call(800, 800), ANSWER)
    report = run(teacher, warehouse)
    assert (report.requests, len(teacher.requests)) == (18, 18)
    images = [len(request.image_ids) for request in teacher.requests if len(request.messages) > 4]
    own = {len(question.images) for question in questions_of(warehouse)}
    assert {n - 2 for n in images} == own, "the question's own images and two crops"
    again = run(Looking("never asked"), warehouse)
    assert (again.requests, again.replayed) == (0, 18)
    assert again.evaluation_id == report.evaluation_id and again.figures == report.figures
    other = run(Looking(ANSWER), warehouse, zoom=ZoomConfig(Lens(11, 56), 2, 3))
    assert other.requests == 6, "another lens is another evaluation"
    assert other.evaluation_id != report.evaluation_id


def test_turns_limit_an_answer_and_thoughts_do_not(warehouse):
    def look(i):
        remarks = "<think>Nothing here.</think>" * 3
        return lambda _: remarks + call(60 * i, 900)

    zoom = ZoomConfig(Lens(2, 56), max_calls=12, max_turns=12)
    asked = questions_of(warehouse)[:1]
    report = run(Looking(*map(look, range(1, 13)), ANSWER), warehouse, asked, zoom=zoom)
    figures = report.figures["all"]
    assert (figures["calls"].value, figures["forced"].value) == (12, 0)


def test_what_was_looked_at_is_counted_and_stored(warehouse):
    report = run(Looking(call(300, 300), call(310, 305), call(500, 900), ANSWER), warehouse)
    figures = report.figures["all"]
    assert {name: figures[name].value for name in ("calls", "places", "looked", "forced")} == {
        "calls": 2, "places": 1, "looked": 1, "forced": 1,
    }  # fmt: skip
    assert figures["failed_calls"].value == 0, "two crops of one place, then the limit"
    assert "on_asked" not in figures, "where objects are is not known"
    assert figures["format"].value == 1 and figures["pointed"].value == 1
    (row, *_) = report.ledger_rows()
    assert row["calls"] == "2.00 [2.00, 2.00]" and row["answers that were forced"].startswith("100")
    (stored,) = table(warehouse, "FROM evaluations")
    assert json.loads(stored["figures"])["all"]["calls"]["value"] == 2
    assert json.loads(stored["settings"])["zoom"]["lens"]["half_width"] == 10
    steps = table(warehouse, "SELECT step, call, observation, crop_id FROM steps ORDER BY step")
    assert [bool(s["observation"]) for s in steps[:6]] == [True] * 6 and steps[0]["crop_id"]
    assert steps[0]["call"]["x"] == pytest.approx(16.8)
    responses = table(warehouse, "SELECT DISTINCT response FROM predictions")
    (response,) = [r["response"] for r in responses]
    assert response.count("<tool_call>") == 3 and response.endswith("left</answer>")


def test_a_crop_counts_where_it_shows_what_the_question_names(tmp_path, monkeypatch):
    warehouse = imported(tmp_path, 2)
    boxes = (Box(10, 10, 20, 20, label="red box"), Box(44, 40, 50, 50, label="lamp"))
    monkeypatch.setattr(
        "training.evaluation.measure.read_objects", lambda _, ids: dict.fromkeys(ids, boxes)
    )
    report = run(Looking(call(300, 300), call(900, 100), ANSWER), warehouse)
    assert report.figures["all"]["on_asked"].value == 0.5
    assert "looked_again" not in report.figures["all"], "no first crop was without one"
    shown = table(warehouse, "SELECT shows_asked FROM steps WHERE step < 2 ORDER BY step")
    assert [row["shows_asked"] for row in shown] == [True, True, False, False]


@pytest.mark.parametrize(
    ("then", "again"),
    [([call(300, 300)], 1), ([], 0), ([call(710, 505)], 0), ([call(100, 900), call(300, 300)], 1)],
)
def test_turning_back_is_told_by_a_look_elsewhere_after_a_miss(tmp_path, monkeypatch, then, again):
    warehouse = imported(tmp_path, 2)
    boxes = (Box(10, 10, 20, 20, label="red box"), Box(44, 40, 50, 50, label="lamp"))
    monkeypatch.setattr(
        "training.evaluation.measure.read_objects", lambda _, ids: dict.fromkeys(ids, boxes)
    )
    report = run(Looking(call(700, 500), *then, ANSWER), warehouse)
    assert report.figures["all"]["looked_again"].value == again


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (Box(10, 10, 20, 20), "wrong, points on the right objects"),
        (Box(44, 40, 50, 50), "wrong, points elsewhere"),
    ],
)
def test_a_wrong_answer_points_elsewhere_where_no_crop_shows_what_was_asked(
    tmp_path, monkeypatch, asked, outcome
):
    warehouse = imported(tmp_path, 2, correct_answer="right")
    named = (Box(10, 10, 20, 20, label="red box"),)
    monkeypatch.setattr(
        "training.evaluation.measure.read_objects", lambda _, ids: dict.fromkeys(ids, named)
    )
    about = [replace(question, boxes=(asked,)) for question in questions_of(warehouse)]
    run(Looking(call(300, 300), ANSWER), warehouse, about)
    found = table(warehouse, "SELECT DISTINCT outcome, prompt FROM error_taxonomy")
    assert found == [{"outcome": outcome, "prompt": "zoom"}]


def test_a_call_that_shows_nothing_is_a_failed_call_and_no_other_format(warehouse):
    report = run(Looking(call(300, 300), call(300, 300), ANSWER), warehouse)
    figures = report.figures["all"]
    assert figures["failed_calls"].value == 0.5 and figures["format"].value == 1
    assert figures["pointed"].value == 1, "the last thought is about what was shown"
    malformed = "<think>I look at (3, 3).</think><tool_call>there</tool_call>"
    report = run(Looking(malformed, ANSWER, identity="b@1"), warehouse)
    assert report.figures["all"]["failed_calls"].value == 1
    assert report.figures["all"]["format"].value == 0


def test_a_turn_that_failed_for_good_is_asked_again_and_nothing_else_is(warehouse):
    failing = Looking(call(300, 300), lambda _: TeacherError("timeout", "too slow"))
    with pytest.raises(TeacherUnavailable, match="timeout: too slow"):
        run(failing, warehouse, refusals=0)
    teacher = Looking("never asked", ANSWER)
    report = run(teacher, warehouse)
    assert (report.requests, report.replayed) == (6, 6)
    assert report.figures["all"]["looked"].value == 1
    again = run(Looking("never asked"), warehouse)
    assert (again.requests, again.evaluation_id) == (0, report.evaluation_id)


@pytest.mark.parametrize("control", ["noise", "elsewhere"])
def test_a_control_of_crops_shows_the_question_as_it_is_and_other_crops(warehouse, control):
    true, controlled = (Looking(call(300, 300), ANSWER) for _ in range(2))
    run(true, warehouse, concurrency=1)
    objects = sorted(warehouse.objects.keys("images"))
    protocol = EvaluationProtocol(control=control)
    report = run(controlled, warehouse, protocol=protocol, concurrency=1)
    assert report.requests == 12 and sorted(warehouse.objects.keys("images")) == objects
    for request, shown, other, seen in zip(
        true.requests, true.images, controlled.requests, controlled.images, strict=True
    ):
        own = len(shown) - (len(request.messages) > 2)
        assert seen[:own] == shown[:own] and not set(seen[own:]) & set(shown[own:])
        assert not set(request.image_ids) & set(other.image_ids), "no cache may mix them up"
        sizes = [Image.open(io.BytesIO(data)).size for data in (*shown[own:], *seen[own:])]
        assert len(set(sizes)) <= 1
    (row,) = table(warehouse, "SELECT control FROM evaluations WHERE control IS NOT NULL")
    assert row["control"] == control
    with pytest.raises(ValueError, match=f"{control} replaces crops, and nothing zooms here"):
        run(controlled, warehouse, protocol=protocol, zoom=None)


def test_what_a_control_shows_is_noise_or_another_region_and_always_the_same():
    image = Image.new("RGB", (100, 100), "white")
    image.paste("black", (0, 0, 50, 100))
    out = io.BytesIO()
    image.save(out, "PNG")
    data, looked = out.getvalue(), Observation(Box(0, 30, 40, 70), 64, 64, marked=True)

    def opened(data):
        return Image.open(io.BytesIO(data)).convert("RGB")

    assert ImageStat.Stat(opened(render_crop(data, looked))).mean == [0, 0, 0]
    elsewhere = opened(crop_elsewhere(data, looked))
    assert elsewhere.size == (64, 64) and ImageStat.Stat(elsewhere).mean[0] > 200
    asked = (Box(88, 0, 98, 5), Box(52, 88, 60, 98), Box(0, 0, 9, 9, image=1))
    gold = opened(gold_crop(data, looked, asked=asked))
    there = Observation(Box(36, 60, 76, 100), 64, 64)
    assert gold.tobytes() == opened(render_crop(data, there)).tobytes(), "the nearest whole region"
    assert gold_crop(data, looked, asked=asked[2:]) == render_crop(data, looked)
    noise = opened(noise_crop(data, looked))
    assert noise.size == (64, 64) and 60 < ImageStat.Stat(noise).stddev[0] < 90
    assert noise_crop(data, looked) == noise_crop(data, looked)
    question = Question("t", "?", (StoredImage("a" * 64, 100, 100),), "text")
    shown = [with_crops(question, [data], control)[0] for control in ("noise", "elsewhere", "gold")]
    assert len({q.images[0].image_id for q in (question, *shown)}) == 4


def test_a_killed_zoom_goes_on_in_the_middle_of_an_answer(warehouse, tmp_path):
    log = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "flows.cli", "evaluate"]
    with StubServer(log=log) as server:
        command += [server.url, "sat2", "--space", "qwen3-vl", "--home", warehouse.root, "--json"]
        command += ["--concurrency", "1", "--response-style", "zoom", "--max-crops", "2"]
        environment = {**os.environ, "VIGORL_FAILPOINT": "after_journal:5"}
        killed = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert killed.returncode == 137, killed.stderr
        before = server.request_count()
        del environment["VIGORL_FAILPOINT"]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        asked = server.request_count()
        assert found["replayed"] >= 4 and asked - before == found["requests"] + 6
        assert asked <= found["requests"] + found["replayed"] + 6 + 1, "only what was in flight"
        assert (
            found["no_zoom"]["requests"] == 6 and found["no_zoom"]["settings"].get("zoom") is None
        )


def test_the_command_reports_with_and_without_zoom(warehouse, capsys, monkeypatch):
    with StubServer() as server:
        options = ("sat2", "--space", "qwen3-vl", "--response-style", "zoom")
        assert vigorl(server.url, *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
        said = capsys.readouterr().out
        assert "no zoom" in said and "zoom minus no zoom: " in said and "distinct places" in said
        asked = server.request_count()
        noise = (*options, "--control", "noise", "--json")
        assert vigorl(server.url, *noise, home=warehouse.root, monkeypatch=monkeypatch) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["settings"]["control"] == "noise" and found["no_zoom"]["replayed"] == 6
        assert server.request_count() - asked == found["requests"] > 0
        assert set(found["zoom_gain"]["all"]) >= {"value", "low", "high", "mcnemar"}
    prompts = {row["prompt"] for row in table(warehouse, "SELECT prompt FROM evaluations")}
    assert prompts == {"zoom", "points"}


def test_a_benchmark_with_boxes_is_measured_on_any_server(tmp_path, capsys, monkeypatch):
    warehouse = Warehouse(str(tmp_path / "home"))
    import_questions(warehouse, "vstar-bench", vstar_bench(tmp_path))
    with StubServer() as server:
        options = ("vstar-bench", "--space", "qwen3-vl", "--response-style", "zoom", "--json")
        assert vigorl(server.url, *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == "vstar-bench/test"
    assert found["settings"]["zoom"]["lens"]["half_width"] == 182, "the task's own lens"
    assert found["figures"]["all"]["on_asked"]["value"] == 1, "a crop of it all shows the glove"
    assert found["no_zoom"]["settings"]["prompt"] == "visual-search"
    demanded = [each["settings"]["min_thoughts"] for each in (found, found["no_zoom"])]
    assert demanded == [1, 3], "one look can be all that a question needs"


def test_the_embedded_model_zooms_with_crops_that_it_encodes(warehouse, capsys, monkeypatch):
    options = ("sat2", "--response-style", "zoom", "--max-crops", "1", "--limit", "2", "--json")
    assert vigorl("nano-base", *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["settings"]["zoom"]["role"] == "tool"
        and found["no_zoom"]["settings"]["prompt"] == "nano"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nano-base", "sat2", "--control", "noise"), "control: noise replaces crops, and"),
        (("nano-base", "sat2", "--lens", "100:512"), "lens: the model answers grounded here"),
        (("nano-base", "sat2", "--response-style", "zoom", "--lens", "x"), "lens: 'x' is not H"),
        (
            ("nano-base", "sat2", "--response-style", "zoom", "--max-turns", "2"),
            "max_turns: 2 calls can't show 4 crops",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence(warehouse, capsys, monkeypatch, arguments, sentence):
    assert vigorl(*arguments, home=warehouse.root, monkeypatch=monkeypatch) == 2
    output = capsys.readouterr()
    assert sentence in output.err and output.err.count("\n") == 1 and not output.out
    assert not table(warehouse, "FROM evaluations")

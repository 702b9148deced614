"""Measuring a model: graded as searches are, resumable, stored whole, compared in pairs."""

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from flows.cli import app as cli
from mcts.coordinates import CoordinateSpace
from mcts.data import Grade, Point, Question, Step
from mcts.teachers.base import Completion, Ledger, Reply, TeacherError, TeacherUnavailable
from mcts.teachers.checkpoints import find_checkpoint, prompt_style, write_prompt_style
from mcts.teachers.local.teacher import LocalTeacher
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from training.evaluation import measure as evaluating
from training.evaluation import report as reports
from training.evaluation.controls import control_images, image_donors, with_images
from training.evaluation.measure import EvaluationProtocol, Subject, measure
from training.evaluation.report import compare
from vigorl_nano import BASE
from warehouse.models import ModelInfo, store_model
from warehouse.query.read_back import PrefixStart
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.sources.tasks import Task
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.rows import image_from, read_image, read_questions
from warehouse.versions.versions import publish

SPACE = CoordinateSpace.qwen3_vl()
THOUGHT = "<think>I see the red box at (100, 200).</think>\n"


class Scripted:
    """A teacher that answers what a function of the prompt says, and keeps what it was shown."""

    def __init__(self, answer, identity="scripted@1"):
        self.answer, self.identity, self.ledger = answer, identity, Ledger()
        self.requests, self.images = [], []

    async def open(self): ...
    async def close(self): ...

    async def complete(self, request, images):
        self.requests.append(request)
        self.images.append([images[name] for name in request.image_ids])
        output = self.answer(request.messages[-1].text)
        if isinstance(output, Exception):
            raise output
        text, finish = output if isinstance(output, tuple) else (output, "stop")
        return Reply((Completion(text, finish, 9),) * request.n, 50, 0, 9 * request.n, 0.1)


def imported(home, n=12, split="test", **changed):
    """A warehouse with `n` questions of SAT-2."""
    rows = [{**row, **changed} for row in sat_rows(n)]
    path = write_sat(home / f"SAT_{split}.parquet", rows)
    warehouse = Warehouse(str(home / "home"))
    import_questions(warehouse, "sat2", path, split=split)
    return warehouse


@pytest.fixture
def warehouse(tmp_path):
    return imported(tmp_path)


def questions_of(warehouse):
    return list(read_questions(warehouse, "sat2"))


def run(teacher, warehouse, questions=None, *, prompt="nano", protocol=None, **more):
    subject = Subject(teacher, SPACE, prompt, 48)
    questions = questions_of(warehouse) if questions is None else questions
    return asyncio.run(
        measure(subject, questions, warehouse, protocol or EvaluationProtocol(), **more)
    )


def left(prompt):
    return f"{THOUGHT}<answer>left</answer>"


def table(warehouse, sql):
    return query(warehouse, sql).to_pylist()


def test_what_was_found_is_stored_and_asked_once(warehouse):
    teacher = Scripted(left)
    report = run(teacher, warehouse)
    gold = sum(question.answers == ("left",) for question in questions_of(warehouse)) / 12
    assert report.figures["all"]["accuracy"].value == pytest.approx(gold)
    cost = {name: report.figures["all"][name].value for name in ("tokens", "seconds")}
    assert cost == {"tokens": 9, "seconds": pytest.approx(0.1)}, "of one answer"
    assert (report.requests, report.replayed, len(teacher.requests)) == (12, 0, 12)
    (row,) = table(warehouse, "FROM evaluations")
    assert row["accuracy"] == pytest.approx(gold) and row["low"] < gold < row["high"]
    assert (row["benchmark"], row["n_questions"], row["prompt"]) == ("sat2/test", 12, "nano")
    assert json.loads(row["figures"])["all"]["accuracy"]["value"] == pytest.approx(gold)
    found = table(
        warehouse,
        "SELECT p.score, t.reward, t.answer, t.model, s.x, s.y, b.count FROM predictions p "
        "JOIN traces t USING (trace_id) JOIN steps s USING (trace_id) "
        "JOIN behaviors b USING (trace_id) WHERE origin = 'evaluation' AND behavior = 'regions'",
    )
    assert len(found) == 12 and {r["model"] for r in found} == {"scripted@1"}
    assert all(r["score"] == r["reward"] and r["count"] == 1 for r in found)
    assert {(r["x"], r["y"]) for r in found} == {(5.6, 11.2)}, "thousandths of 56 pixels"
    again = run(teacher, warehouse)
    assert (again.requests, again.replayed, len(teacher.requests)) == (0, 12, 12)
    assert again.evaluation_id == report.evaluation_id and again.figures == report.figures
    assert len(table(warehouse, "FROM evaluations")) == 1
    assert len(table(warehouse, "FROM predictions")) == 12


def test_answers_graded_otherwise_are_another_evaluation(warehouse, monkeypatch):
    first = run(Scripted(left), warehouse)
    monkeypatch.setattr(evaluating, "grade", lambda question, answer: Grade(0.0, "a new grader"))
    again = run(Scripted(left), warehouse)
    assert again.requests == 0 and again.evaluation_id != first.evaluation_id
    stored = table(warehouse, "SELECT accuracy FROM evaluations ORDER BY accuracy")
    assert [row["accuracy"] for row in stored] == [0, first.figures["all"]["accuracy"].value]
    assert len(table(warehouse, "FROM predictions")) == 24


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(warehouse):
    prompts = []

    def answer(prompt):
        prompts.append(prompt)
        return left(prompt) if len(prompts) <= 5 else TeacherUnavailable("the server went away")

    with pytest.raises(TeacherUnavailable):
        run(Scripted(answer), warehouse, concurrency=1)
    assert not table(warehouse, "FROM evaluations") and not table(warehouse, "FROM predictions")
    teacher = Scripted(left)
    report = run(teacher, warehouse)
    assert (report.requests, report.replayed) == (7, 5)
    assert not {r.messages[-1].text for r in teacher.requests} & set(prompts[:5])


@pytest.mark.parametrize(
    "answer",
    [
        "left or right",
        "not left",
        "it is left",
        "left, right",
        "leftright",
        "A or B",
        "cannot tell",
    ],
)
def test_an_answer_that_contains_the_gold_one_is_wrong(tmp_path, answer):
    warehouse = imported(tmp_path, 3, correct_answer="left")
    report = run(Scripted(lambda prompt: f"{THOUGHT}<answer>{answer}</answer>"), warehouse)
    assert report.figures["all"]["accuracy"].value == 0
    assert report.outcomes == {"not an option": 1.0}


OUTCOMES = {
    "right": f"{THOUGHT}<answer>left</answer>",
    "request failed": TeacherError("timeout", "too slow"),
    "cut off": (THOUGHT * 9, "length"),
    "malformed": "<think>I see the red box at (100, 200). left",
    "no answer": THOUGHT,
    "not an option": f"{THOUGHT}<answer>both</answer>",
    "wrong, no points": "<think>I see it.</think><answer>right</answer>",
    "wrong, a point outside the image": "<think>At (100, 2000).</think><answer>right</answer>",
    "wrong, nothing known of its points": "<think>At (5, 5).</think><answer>right</answer>",
}


def test_every_way_to_fail_has_its_name(tmp_path):
    warehouse = imported(tmp_path, len(OUTCOMES), correct_answer="left")
    questions = questions_of(warehouse)
    script = dict(zip([q.text for q in questions], OUTCOMES.values(), strict=True))

    def answer(prompt):
        return next(output for text, output in script.items() if text in prompt)

    report = run(Scripted(answer), warehouse)
    found = table(warehouse, "SELECT text, outcome FROM prediction_outcomes JOIN questions "
                  "USING (question_id)")  # fmt: skip
    expected = {text: name for (text, _), name in zip(script.items(), OUTCOMES, strict=True)}
    (unanswered,) = [text for text, name in expected.items() if name == "request failed"]
    del expected[unanswered]  # nothing was measured of it, so nothing is stored
    assert {row["text"]: row["outcome"] for row in found} == expected
    assert report.failed == 1
    assert list(report.unanswered.values()) == ["timeout: too slow"]
    assert report.figures["all"]["accuracy"].value == pytest.approx(1 / len(expected))
    shares = table(warehouse, "SELECT outcome, share FROM error_taxonomy")
    assert sum(row["share"] for row in shares) == pytest.approx(1)
    (stored,) = table(warehouse, "SELECT n_questions, settings FROM evaluations")
    assert stored["n_questions"] == len(expected)
    assert json.loads(stored["settings"])["unanswered"] == 1


def test_samples_are_averaged_and_voted(warehouse):
    class Varied(Scripted):
        async def complete(self, request, images):
            reply = await super().complete(request, images)
            texts = ["left", "right", "left", "nowhere"]
            return replace(
                reply,
                completions=tuple(
                    Completion(f"{THOUGHT}<answer>{text}</answer>", "stop", 9) for text in texts
                ),
            )

    protocol = EvaluationProtocol(temperature=0.5, samples=4)
    report = run(Varied(left), warehouse, protocol=protocol)
    share = sum(q.answers == ("left",) for q in questions_of(warehouse)) / 12
    figures = report.figures["all"]
    assert figures["accuracy"].value == pytest.approx((2 * share + (1 - share)) / 4)
    assert figures["pass@k"].value == 1 and figures["majority"].value == pytest.approx(share)
    assert len(table(warehouse, "FROM predictions")) == 48
    assert len(table(warehouse, "FROM traces")) == 36, "two equal outputs are one trace"
    with pytest.raises(ValueError, match="one at temperature 0"):
        EvaluationProtocol(samples=4)


def test_two_models_that_say_the_same_have_traces_of_their_own(warehouse):
    run(Scripted(left, "a@1"), warehouse)
    run(Scripted(left, "b@2"), warehouse)
    found = table(warehouse, "SELECT model, count(*) AS n FROM traces GROUP BY model ORDER BY 1")
    assert found == [{"model": "a@1", "n": 12}, {"model": "b@2", "n": 12}]


def test_a_model_is_compared_question_by_question(warehouse):
    gold = {q.text: q.answers[0] for q in questions_of(warehouse)}

    def knows(prompt):
        answer = next(answer for text, answer in gold.items() if text in prompt)
        return f"<answer>{answer}</answer>"

    better, worse = run(Scripted(knows, "a@1"), warehouse), run(Scripted(left, "b@2"), warehouse)
    gap = compare(better, worse)["all"]
    assert gap.value == pytest.approx(1 - worse.figures["all"]["accuracy"].value)
    assert gap.low > 0 and gap.only_second == 0
    assert gap.clear is (gap.p <= 0.05), "ten groups of images are few"
    other = run(Scripted(left, "c@3"), warehouse, questions_of(warehouse)[:3])
    assert compare(better, other)["all"].n == 3


def test_controls_show_other_pictures_of_the_same_sizes_and_store_none(warehouse):
    before = {name: table(warehouse, f"SELECT count(*) AS n FROM {name}")
              for name in ("images", "questions")}  # fmt: skip
    objects = sorted(warehouse.objects.keys("images"))
    own = {}
    for control in (None, "blank", "shuffled"):
        teacher = Scripted(left)
        run(teacher, warehouse, protocol=EvaluationProtocol(control=control))
        for request, shown in zip(teacher.requests, teacher.images, strict=True):
            text = request.messages[-1].text
            pictures = own.setdefault(text, shown)
            with Image.open(io.BytesIO(shown[0])) as seen:
                assert seen.size == (56, 56)
                colours = seen.convert("RGB").getcolors(1 << 16)
            assert (len(colours) == 1) is (control == "blank")
            assert (shown == pictures) is (control is None)
            if control == "shuffled":
                assert not set(shown) & set(pictures)
    after = {name: table(warehouse, f"SELECT count(*) AS n FROM {name}") for name in before}
    assert after == before and sorted(warehouse.objects.keys("images")) == objects
    rows = table(warehouse, "SELECT control FROM evaluations ORDER BY control")
    assert [row["control"] for row in rows] == ["blank", "shuffled", None]


def test_a_shuffled_picture_of_another_size_is_made_to_fit():
    small, large = (image_from({"image_id": n, "width": w, "height": 40})
                    for n, w in (("a", 40), ("b", 80)))  # fmt: skip
    questions = [Question("t", n, (i,), "text") for n, i in (("1", small), ("2", large))]
    assert image_donors(questions, 0)[questions[0].question_id] == questions[1]

    def read(image_id):
        out = io.BytesIO()
        Image.new("RGB", (40 if image_id == "a" else 80, 40), "red").save(out, "PNG")
        return out.getvalue()

    (shown,) = control_images(questions, "shuffled", 0, read)(questions[0])
    with Image.open(io.BytesIO(shown)) as seen:
        assert seen.size == (40, 40)
    seen_question, data = with_images(questions[0], [shown])
    assert seen_question.question_id != questions[0].question_id and list(data.values()) == [shown]
    (alone,) = control_images(questions[:1], "shuffled", 0, read)(questions[0])
    with Image.open(io.BytesIO(alone)) as seen:
        assert seen.getcolors() == [(1600, (128, 128, 128))], "no other image to lend: grey"


def test_answers_of_an_evaluation_cannot_be_published(tmp_path):
    warehouse = imported(tmp_path, split="train")
    run(Scripted(left), warehouse)
    assert not table(warehouse, "FROM kept_traces")
    with pytest.raises(
        WarehouseError, match="12 of the traces chosen are answers of an evaluation"
    ):
        publish(warehouse, "leak", "SELECT trace_id FROM traces")


def test_a_benchmarks_own_figures_are_kept(warehouse, monkeypatch):
    monkeypatch.setattr(reports, "task_of", lambda name: Task(name, metrics=("by_family",)))
    report = run(Scripted(left), warehouse)
    accuracy = report.figures["all"]["accuracy"].value
    named = ("accuracy", "accuracy/left_right", "accuracy/macro")
    assert report.metrics == pytest.approx(dict.fromkeys(named, accuracy))
    (row,) = table(warehouse, "SELECT metrics FROM evaluations")
    assert json.loads(row["metrics"]) == report.metrics


def test_the_embedded_model_is_measured_in_each_response_style(tmp_path):
    from warehouse.sources.importing import import_sample

    warehouse = Warehouse(str(tmp_path))
    import_sample(warehouse, "sat2")
    questions = list(read_questions(warehouse, "sat2", split="test", limit=12))
    figures = {}
    for prompt in ("nano", "nano-ungrounded", "nano-answer"):
        report = run(LocalTeacher(BASE), warehouse, questions, prompt=prompt)
        assert report.figures["all"]["accuracy"].value > 0.2
        figures[prompt] = report.figures["all"]
    assert figures["nano"]["pointed"].value > 0.8 and figures["nano"]["grounded"].value > 0.5
    assert "pointed" not in figures["nano-answer"] and "pointed" not in figures["nano-ungrounded"]
    found = table(
        warehouse,
        "SELECT prompt, avg(n_steps) AS steps FROM evaluations JOIN predictions USING "
        "(evaluation_id) JOIN traces USING (trace_id) GROUP BY prompt",
    )
    steps = {row["prompt"]: row["steps"] for row in found}
    assert steps["nano-answer"] == 0 and steps["nano-ungrounded"] > 0 and steps["nano"] >= 2
    ends = table(warehouse, "SELECT DISTINCT outcome FROM error_taxonomy WHERE outcome <> 'right'")
    assert {row["outcome"] for row in ends} & {
        "wrong, points on the right objects", "wrong, points elsewhere",
    }  # fmt: skip


def vigorl(*arguments, home, monkeypatch):
    line = ["vigorl", "evaluate", *map(str, arguments), "--home", str(home)]
    monkeypatch.setattr("sys.argv", line)
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
    return 0


def test_the_command_measures_compares_and_asks_nothing_twice(warehouse, capsys, monkeypatch):
    with StubServer() as server:
        options = ("sat2", "--space", "qwen3-vl", "--json")
        assert vigorl(server.url, *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
        first = json.loads(capsys.readouterr().out)
        requests = server.request_count()
        assert first["requests"] == 12 and first["benchmark"] == "sat2/test"
        options = ("sat2", "--space", "qwen3-vl", "--against", server.url)
        assert vigorl(server.url, *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
        output = capsys.readouterr()
        assert "% right, 95% interval [" in output.out and "minus" in output.out
        assert "how answers end: " in output.out
        assert "0 requests, 24 answered from the journal" in output.err
        assert server.request_count() == requests


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("nano", "blink"),
            "there are no questions of benchmark 'blink', split test or validation",
        ),
        (("nano", "sat2", "--split", "nope"), "split nope"),
        (("nobody", "sat2"), "'nobody' is no registered model"),
        (("nano", "sat2", "--samples", 4), "samples: at temperature 0 all are the same"),
        (("nano", "sat2", "--control", "upside-down"), "control: "),
        (("nano", "sat2", "--response-style", "grounded", "--prompt", "nano"), "give one of them"),
        (("nano", "sat2", "--prompt", "nope"), "no prompt named 'nope'"),
        (("http://127.0.0.1:9", "sat2"), "space: "),
    ],
)
def test_bad_input_is_a_sentence(warehouse, capsys, monkeypatch, arguments, sentence):
    assert vigorl(*arguments, home=warehouse.root, monkeypatch=monkeypatch) == 2
    output = capsys.readouterr()
    assert sentence in output.err and output.err.count("\n") == 1 and not output.out
    assert not table(warehouse, "FROM evaluations")


def test_a_lost_image_is_reported(warehouse):
    question = questions_of(warehouse)[0]
    assert read_image(warehouse, question.images[0].image_id)
    lost = replace(question, images=(replace(question.images[0], image_id="0" * 64),))
    with pytest.raises(KeyError, match="0000"):
        run(Scripted(left), warehouse, [lost])


def test_a_killed_evaluation_asks_again_for_nothing_it_had(warehouse, tmp_path):
    log = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "flows.cli", "evaluate"]
    with StubServer(log=log) as server:
        command += [server.url, "sat2", "--space", "qwen3-vl", "--home", warehouse.root, "--json"]
        environment = {**os.environ, "VIGORL_FAILPOINT": "after_journal:5"}
        command += ["--concurrency", "1"]
        killed = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert killed.returncode != 0
        assert not table(warehouse, "FROM evaluations")
        del environment["VIGORL_FAILPOINT"]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["requests"] + report["replayed"] == 12 and report["replayed"] >= 4
        assert server.request_count() <= 13, "only what was in flight may be asked for twice"
    assert len(table(warehouse, "FROM predictions")) == 12


def test_a_trained_model_is_measured_by_its_name_as_it_was_taught(
    warehouse, capsys, monkeypatch, tmp_path
):
    folder = tmp_path / "student"
    shutil.copytree(BASE, folder)
    write_prompt_style(folder, prompt_style(find_checkpoint("nano")).with_response_style("answers"))
    row = store_model(
        warehouse, folder,
        ModelInfo("nano-answers", None, "sat2-sft@v1", {}, SPACE, {}, "train-1"),
    )  # fmt: skip
    options = ("sat2", "--limit", 3, "--json")
    assert vigorl("nano-answers", *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == row["model_id"]
    assert report["settings"]["prompt"] == "nano-answer"
    options = (*options, "--form", "grounded")
    assert vigorl("nano-answers", *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
    given = capsys.readouterr()
    assert json.loads(given.out)["settings"]["prompt"] == "nano"
    assert "--form is called --response-style now" in given.err
    options = (*options[:-2], "--response-style", "ungrounded")
    assert vigorl("nano-answers", *options, home=warehouse.root, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["prompt"] == "nano-ungrounded"


def test_prefixes_are_gone_on_from_and_kept_apart_from_whole_answers(warehouse):
    questions = questions_of(warehouse)[:2]
    steps = (Step("I see the red box", (Point(40.0, 80.0),)),)
    prefixes = {
        q.question_id: [PrefixStart("t", n, steps, None, None) for n in (1, 2)] for q in questions
    }
    answer = "\n<think>The ball is at (500, 200).</think>\n<answer>left</answer>"
    teacher = Scripted(lambda prompt: answer)
    protocol = EvaluationProtocol(temperature=1.0, samples=2)
    made = run(teacher, warehouse, questions, protocol=protocol, prefixes=prefixes)
    assert [(r.messages[-1].role, r.n) for r in teacher.requests] == [("assistant", 2)] * 4
    assert all("I see the red box" in r.messages[-1].text for r in teacher.requests)
    rows = query(warehouse, "FROM predictions ORDER BY question_id, sample").to_pylist()
    assert [(r["sample"], r["prefix_tree"], r["prefix_node"]) for r in rows[:4]] == [
        (0, "t", 1), (1, "t", 1), (2, "t", 2), (3, "t", 2),
    ]  # fmt: skip
    traces = query(warehouse, "SELECT n_steps, text FROM traces").to_pylist()
    assert {row["n_steps"] for row in traces} == {2}, "the prefix is part of what is graded"
    assert query(warehouse, "SELECT control FROM evaluations")["control"].to_pylist() == [
        "prefixes"
    ]
    assert query(warehouse, "FROM student_difficulty").num_rows == 0
    regions = "SELECT DISTINCT count FROM behaviors WHERE behavior = 'regions'"
    assert query(warehouse, regions)["count"].to_pylist() == [1], "the prefix's is not its own"
    again = run(Scripted(lambda prompt: answer), warehouse, questions, protocol=protocol,
                prefixes=prefixes)  # fmt: skip
    assert (again.requests, again.evaluation_id) == (0, made.evaluation_id)

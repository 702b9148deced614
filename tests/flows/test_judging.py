"""A judge model answers what boxes and rules cannot tell; it is asked once; failure is data."""

import asyncio
import base64
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from curation.scores.judge_prompts import (
    JUDGED_BEHAVIORS,
    count_in,
    counting_request,
    cut_out,
    probability,
    region_around,
    share_of_yes,
)
from curation.scores.necessity import change_step
from flows.cli import app as cli
from flows.settings import JudgeSettings
from flows.settings_base import Problem
from flows.stages.judge import judge
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Point, Question, Step, Trace, Verdict
from mcts.journal.records import Key, Record, decode, encode
from mcts.parsing import parse, render
from mcts.teachers.base import Completion, Message, Reply, Request, TextPart, seed_of
from mcts.teachers.reconnect import ReconnectingTeacher
from tests.support.fixtures import picture, sat_rows, write_sat
from tests.support.stub_server import StubServer, conversation
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import image_key
from warehouse.tables.delta import commit_traces
from warehouse.tables.rows import read_questions, trace_rows, verdict_row

SIZE = (400, 300)
RED, BLUE = (10, 16), (388, 36)  # in pictures of this size and seed 0: on the box of that colour
IMAGE = Image("a" * 64, 400, 300)


class Judge(StubServer):
    """A server that looks: a region shows red or blue, a reasoning so many points or words.

    It answers a question right when the reasoning before it holds the word `decisive`.
    """

    tells = "logprobs"
    """Or `nothing`, or `refuses`: what it does when asked for probabilities."""

    def refusal(self, body):
        if self.tells == "refuses" and "logprobs" in body:
            return "logprobs are not supported"
        return super().refusal(body)

    def answer(self, body):
        prompt, partial = conversation(body)
        first = None
        if partial.endswith("<answer>"):
            text = f"{'right' if 'decisive' in partial else 'left'}</answer>"
        elif "<count>" in prompt:
            text = f"There are some. <count>{prompt.partition('Reasoning:')[2].count('(')}</count>"
        else:
            yes = self.shows(body, re.search(r"The (\w+) box", prompt)[1])
            text = "Yes, it does." if yes else "No."
            first = [("Yes", 0.9 if yes else 0.2), (" no", 0.1 if yes else 0.6), ("Maybe", 0.05)]
        answer = super().answer(body)
        for choice in answer["choices"]:
            choice["message"]["content"] = text
            if first and body.get("logprobs") and self.tells == "logprobs":
                top = [{"token": token, "logprob": math.log(p)} for token, p in first]
                choice["logprobs"] = {"content": [{"top_logprobs": top}]}
        return answer

    def shows(self, body, colour):
        (part,) = [p for p in body["messages"][0]["content"] if p["type"] == "image_url"]
        data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
        with PILImage.open(io.BytesIO(data)) as seen:
            colours = {c for _, c in seen.convert("RGB").getcolors(1 << 20)}
        return {"red": (255, 0, 0), "blue": (0, 0, 255)}[colour] in colours


TRACES = (
    ("The red box is at {RED}.", "The blue box is at {BLUE}, decisive."),
    ("The red box is at {BLUE}.", "The blue box is at {BLUE}, decisive."),
)


@pytest.fixture
def warehouse(tmp_path):
    """One question about one picture, of which nobody said what it shows, and two kept traces."""
    warehouse = Warehouse(str(tmp_path / "home"))
    (row,) = sat_rows(1)
    row["images"] = [{"bytes": picture(0, SIZE), "path": "0.png"}]
    import_questions(warehouse, "sat2", write_sat(tmp_path / "SAT_train.parquet", [row]))
    (question,) = read_questions(warehouse, "sat2")
    pixels = Frame(CoordinateSpace.original(), question.images)
    traces, steps, verdicts = [], [], []
    for thoughts in TRACES:
        placed = [thought.format(RED=RED, BLUE=BLUE) for thought in thoughts]
        parsed = parse("".join(f"<think>{thought}</think>" for thought in placed), pixels).steps
        trace = Trace(question.question_id, parsed, "right", 1.0, "direct")
        text = render(parsed, "right", pixels)
        trace_row, step_rows = trace_rows(trace, task="sat2", text=text, model="m")
        traces.append(trace_row)
        steps += step_rows
        verdicts.append(verdict_row(trace.trace_id, Verdict("right_answer", True, ""), 1))
    commit_traces(warehouse, traces, steps=steps, verdicts=verdicts, run_id="r")
    return warehouse


def run(warehouse, server, what, **more):
    who = {"teacher": server.url, "space": "qwen3-vl"} if what == "necessity" else {}
    settings = JudgeSettings.checked(
        task="sat2", what=what, judge=server.url, home=warehouse.root, **who, **more
    )
    return asyncio.run(judge(settings))


def scores(warehouse):
    """(thought's colour, where it points, value, n, note, method's first word) of every row."""
    return [
        tuple(row.values())
        for row in query(
            warehouse,
            "SELECT split_part(thought, ' ', 2) AS colour, x, round(value, 3) AS value, n, note, "
            "split_part(method, ':', 1) AS how FROM step_scores JOIN steps USING (trace_id, step) "
            "WHERE score = 'grounding' ORDER BY ALL",
        ).to_pylist()
    ]


def test_a_region_around_the_point_is_shown_to_the_judge_and_its_probability_kept(warehouse):
    with Judge(model="j") as server:
        judged = run(warehouse, server, "grounding")
    assert scores(warehouse) == [
        ("blue", 388.0, 0.9, 1, "logprobs", "region/1"),
        ("blue", 388.0, 0.9, 1, "logprobs", "region/1"),
        ("red", 10.0, 0.9, 1, "logprobs", "region/1"),
        ("red", 388.0, 0.25, 1, "logprobs", "region/1"),
    ]
    # The two traces share their second step: it is asked about once.
    assert (judged.traces, judged.rows, judged.requests, server.request_count()) == (2, 4, 3, 3)


@pytest.mark.parametrize(("tells", "samples", "requests"), [("nothing", 1, 5), ("refuses", 3, 6)])
def test_without_probabilities_the_share_of_yes_among_samples_stands_in(
    warehouse, monkeypatch, tells, samples, requests
):
    monkeypatch.setattr("flows.stages.judge.BATCH", 1)
    with Judge(model="j") as server:
        server.tells = tells
        run(warehouse, server, "grounding", samples=samples, concurrency=1)
        # One that gave none is not asked for them in the next batch.
        assert server.request_count() == requests
    assert [row[2:5] for row in scores(warehouse)] == [
        (1.0, samples, "samples"), (1.0, samples, "samples"), (1.0, samples, "samples"),
        (0.0, samples, "samples"),
    ]  # fmt: skip
    assert server.repeated() == []


def test_of_several_judges_one_without_probabilities_costs_no_other_its_own(warehouse, monkeypatch):
    drawn = "curation.scores.judge_prompts.seed_of"
    monkeypatch.setattr(drawn, lambda *parts: seed_of("c", *parts))  # some are asked of each
    monkeypatch.setattr("flows.stages.judge.BATCH", 1)
    with Judge(model="j") as one, Judge(model="k") as other:
        one.tells = "nothing"
        settings = JudgeSettings.checked(
            task="sat2", what="grounding", judge=f"{one.url} + {other.url}", home=warehouse.root,
            concurrency=1,
        )  # fmt: skip
        asyncio.run(judge(settings))
        wanted = [sum("logprobs" in r["body"] for r in s.requests) for s in (one, other)]
    assert wanted == [2, 1], "the one that was silent about the first trace, the other later"
    assert sorted(row[4] for row in scores(warehouse)) == ["logprobs", *["samples"] * 3]


def test_where_a_first_word_is_no_answer_samples_are_asked_for_and_others_still_tried(
    warehouse, monkeypatch
):
    monkeypatch.setattr("flows.stages.judge.BATCH", 1)

    class Wordy(Judge):
        def answer(self, body):
            answer = super().answer(body)
            for choice in answer["choices"]:
                if choice.get("logprobs"):
                    choice["logprobs"]["content"][0]["top_logprobs"] = [
                        {"token": "The", "logprob": -0.1}
                    ]
            return answer

    with Wordy(model="j") as server:
        run(warehouse, server, "grounding", samples=2, concurrency=1)
        assert server.request_count() == 6
    assert [row[2:5] for row in scores(warehouse)] == [(1.0, 2, "samples")] * 3 + [
        (0.0, 2, "samples")
    ]


def test_what_cannot_be_looked_at_is_a_row_without_a_value_that_says_why(tmp_path):
    home = Warehouse(str(tmp_path / "home"))
    (row,) = sat_rows(1)
    row["images"] = [{"bytes": picture(0, SIZE), "path": "0.png"}]
    import_questions(home, "sat2", write_sat(tmp_path / "SAT_train.parquet", [row]))
    (question,) = read_questions(home, "sat2")
    steps = tuple(
        Step(thought, (point,))
        for thought, point in (
            ("The red box is in another image.", Point(1, 1, 1)),
            ("The red box is outside.", Point(401, 1)),
            ("The red box is here.", Point(*RED)),
        )
    )
    trace = Trace(question.question_id, (Step("Look."), *steps), "right", 1.0, "direct")
    trace_row, step_rows = trace_rows(trace, task="sat2", text="", model="m")
    verdict = verdict_row(trace.trace_id, Verdict("right_answer", True, ""), 1)
    commit_traces(home, [trace_row], steps=step_rows, verdicts=[verdict], run_id="r")
    with Judge(model="j") as server:
        judged = run(home, server, "grounding")
        assert (judged.rows, len(judged.values), server.request_count()) == (3, 1, 1)
        said = "SELECT step, note, n, value FROM step_scores ORDER BY step"
        assert [tuple(found.values()) for found in query(home, said).to_pylist()] == [
            (1, "no such image", 0, None),
            (2, "the point is outside the image", 0, None),
            (3, "logprobs", 1, 0.9),
        ]


@pytest.mark.parametrize("what", ["grounding", "necessity"])
def test_a_picture_that_is_lost_is_told_and_nothing_is_asked(warehouse, what):
    (question,) = read_questions(warehouse, "sat2")
    warehouse.objects.delete(image_key(question.images[0].image_id))
    with Judge(model="j") as server:
        judged = run(warehouse, server, what)
        assert judged.rows and not judged.values and server.request_count() == 0
    notes = query(warehouse, "SELECT DISTINCT note FROM step_scores")["note"].to_pylist()
    assert all("not among the objects" in note or "cannot be read" in note for note in notes)


def test_nothing_is_asked_twice_and_what_is_stored_is_left_alone(warehouse):
    with Judge(model="j") as server:
        run(warehouse, server, "grounding", limit=1)
        once = server.request_count()
        run(warehouse, server, "grounding")
        assert (once, server.request_count()) == (2, 3)
        assert run(warehouse, server, "grounding").sentence() == "there is nothing left to judge"
        assert server.request_count() == 3 and server.repeated() == []


def test_a_request_that_fails_for_good_is_a_row_that_says_why(warehouse):
    with Judge(model="j", fault_of=lambda body, came: "400" if "blue" in str(body) else "ok") as s:
        run(warehouse, s, "grounding")
        requests = s.request_count()
        run(warehouse, s, "grounding")
        assert s.request_count() == requests
    rows = scores(warehouse)
    assert [row[2] for row in rows] == [None, None, 0.9, 0.25]
    assert all(row[3:5] == (0, "bad_request: HTTP 400: scripted 400") for row in rows[:2])


@pytest.mark.parametrize(("what", "again"), [("grounding", 1), ("behaviors", 8), ("necessity", 9)])
def test_what_failed_is_asked_again_on_demand_and_its_rows_are_replaced(warehouse, what, again):
    table = "behaviors" if what == "behaviors" else "step_scores"
    how = f"SELECT count(*) AS n, count(error) AS failed FROM {table}"
    with Judge(model="j", fault_of=lambda body, came: "400" if "blue" in str(body) else "ok") as s:
        run(warehouse, s, what)
        (first,) = query(warehouse, how).to_pylist()
        assert first["failed"] > 0
        s.fault_of = lambda body, came: "ok"
        assert run(warehouse, s, what).traces == 0
        before = s.request_count()
        assert run(warehouse, s, what, retry_failed=True).traces == 2
        requests = s.request_count() - before
        (second,) = query(warehouse, how).to_pylist()
        assert second["failed"] == 0 and second["n"] >= first["n"]
        assert run(warehouse, s, what, retry_failed=True).traces == 0
        assert s.request_count() == before + requests
    assert requests == again


def test_a_judge_whose_server_goes_away_is_waited_for(warehouse, monkeypatch, capsys):
    monkeypatch.setitem(ReconnectingTeacher.__init__.__kwdefaults__, "retry_s", 0.05)
    with Judge(model="j", faults=["ok"] + ["503"] * 7) as server:
        judged = run(warehouse, server, "grounding", concurrency=1)
    assert [row[2] for row in scores(warehouse)] == [0.9, 0.9, 0.9, 0.25]
    assert judged.rows == 4 and "goes on" in capsys.readouterr().err


def test_steps_that_boxes_know_are_not_asked_about(warehouse, tmp_path):
    traces = query(warehouse, "SELECT trace_id FROM traces ORDER BY 1")["trace_id"].to_pylist()
    known = Warehouse(str(tmp_path / "known"))
    steps = [
        {"trace_id": t, "step": 0, "thought": "A", "x": 1.0, "y": 1.0, "grounded": True}
        for t in traces
    ]
    verdicts = [{"trace_id": t, "filter": "f", "version": 1, "keep": True} for t in traces]
    rows = [{"trace_id": t, "task": "sat2", "question_id": "q"} for t in traces]
    commit_traces(known, rows, steps=steps, verdicts=verdicts, run_id="r")
    with Judge(model="j") as server:
        assert run(known, server, "grounding").traces == 0
        assert server.request_count() == 0


def test_a_judge_counts_the_four_behaviors_and_agreement_is_reported(warehouse):
    from curation.scores.behaviors import METHOD
    from warehouse.tables.delta import insert_new

    ids = query(warehouse, "SELECT trace_id FROM traces")["trace_id"].to_pylist()
    rule = [{"trace_id": t, "behavior": "regions", "method": METHOD, "count": 2} for t in ids]
    insert_new(warehouse, "behaviors", rule)
    with Judge(model="j") as server:
        judged = run(warehouse, server, "behaviors")
        assert (judged.rows, server.request_count()) == (8, 8)
        run(warehouse, server, "behaviors")
        assert server.request_count() == 8
    rows = query(
        warehouse,
        "SELECT behavior, count FROM behaviors WHERE method = 'judge/1:j' GROUP BY ALL ORDER BY 1",
    ).to_pylist()
    assert [(row["behavior"], row["count"]) for row in rows] == [
        (behavior, 2) for behavior in sorted(JUDGED_BEHAVIORS)
    ]
    (agreed,) = query(warehouse, "FROM behavior_agreement").to_pylist()
    assert (agreed["behavior"], agreed["traces"], agreed["same_count"]) == ("regions", 2, 1.0)


def test_a_count_the_judge_did_not_give_is_null_and_not_zero(warehouse):
    with StubServer(model="rambling") as server:
        run(warehouse, server, "behaviors")
    rows = query(warehouse, "SELECT count FROM behaviors")["count"].to_pylist()
    assert rows == [None] * 8


def test_a_step_the_answer_needs_loses_value_when_it_is_left_out(warehouse):
    with Judge(model="t") as server:
        judged = run(warehouse, server, "necessity", samples=2)
        requests = server.request_count()
        run(warehouse, server, "necessity", samples=2)
        assert server.request_count() == requests and server.repeated() == []
    rows = query(
        warehouse,
        "SELECT step, split_part(method, '/', 1) AS how, value, base, n "
        "FROM step_scores WHERE score = 'necessity' GROUP BY ALL ORDER BY ALL",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (0, "moved", 0.0, 1.0, 2), (0, "without", 0.0, 1.0, 2),
        (1, "moved", 0.0, 1.0, 2), (1, "without", 1.0, 1.0, 2),
    ]  # fmt: skip
    # Both traces without their first step are one reasoning: it is asked for once.
    assert (judged.rows, judged.requests, judged.replayed) == (8, 9, 1)


def test_the_command_says_who_is_missing_and_what_it_did(warehouse):
    with pytest.raises(Problem, match="judge: grounding needs a model that judges"):
        JudgeSettings.checked(task="sat2")
    with pytest.raises(Problem, match="no traces of task 'vstar'"):
        asyncio.run(judge(JudgeSettings(task="vstar", judge="http://x", home=warehouse.root)))
    with Judge(model="j") as server:
        arguments = ["judge", "sat2", "--judge", server.url, "--home", warehouse.root]
        done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0
    assert "2 traces judged: 4 rows, 4 with a value, 0.738 on average" in done.stdout


# ---- the pure parts ---------------------------------------------------------------------------


def test_the_region_is_a_square_around_the_point_clipped_to_the_image():
    assert region_around(Point(200, 150), IMAGE) == Box(150, 100, 250, 200)
    assert region_around(Point(0, 300, 1), IMAGE) == Box(0, 250, 50, 300, 1)
    assert region_around(Point(401, 150), IMAGE) is None
    name, data = cut_out(picture(0, SIZE), Box(0, 0, 50, 50))
    with PILImage.open(io.BytesIO(data)) as crop:
        assert crop.size == (336, 336) and crop.getpixel((70, 100)) == (255, 0, 0)
    assert len(name) == 64
    assert cut_out(picture(0, SIZE), Box(400, 300, 400, 300))[0]  # one pixel at least


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ((("Yes", math.log(0.6)), ("No", math.log(0.2))), 0.75),
        ((("▁yes", math.log(0.3)), ("Yes", math.log(0.3)), ("no", math.log(0.2))), 0.75),
        ((("Not", math.log(0.6)), ("Yes", math.log(0.6))), 1.0),  # "Not" is not "No"
        ((("<think>", math.log(0.9)), ("Yes", math.log(0.05))), None),
        ((), None),
    ],
)
def test_a_probability_is_read_from_the_first_word_where_it_is_an_answer(first, expected):
    found = probability([Completion("Yes", "stop", 1, first)])
    assert found == (None if expected is None else pytest.approx(expected))


def test_samples_that_say_neither_are_left_out_of_the_share():
    said = ["Yes.", " **No**", "yes it does", "I see a box", "Nothing"]
    assert share_of_yes([Completion(text, "stop", 1) for text in said]) == (2 / 3, 3)
    assert share_of_yes([Completion("Hm", "stop", 1)]) == (None, 0)


def test_a_count_is_the_last_number_in_its_tags():
    assert count_in("I count 3. <count>2</count> No: <count> 4 </count>") == 4
    assert count_in("<count>many</count>") is None and count_in("3") is None


def test_a_reasoning_cannot_fill_the_gaps_of_the_prompt():
    question = Question("sat2", "Is {text} {ask}?", (IMAGE,), AnswerKind.TEXT)
    request = counting_request("regions", question, "braces {question}")
    text = request.messages[0].text
    assert "Question: Is {text} {ask}?" in text and "braces {question}" in text


def test_a_moved_point_is_far_inside_and_written_into_the_thought():
    question = Question("sat2", "?", (IMAGE, IMAGE), AnswerKind.TEXT)
    frame = Frame(CoordinateSpace.original(), question.images)
    steps = parse("<think>A (300, 10) in image 2.</think><think>B.</think>", frame).steps
    moved = change_step(steps, 0, "moved", question)
    assert moved[0].thought == "A (100, 160) in image 2."
    assert moved[0].points == (Point(100, 160, 1),) and moved[1:] == steps[1:]
    assert change_step(steps, 1, "moved", question) is None
    assert change_step(steps, 0, "without", question) == steps[1:]
    assert change_step(steps[:1], 0, "without", question) is None


def test_alternatives_survive_the_journal_and_change_no_older_hash():
    top = (("Yes", -0.1), ("No", -2.5))
    reply = Reply((Completion("Yes", "stop", 1, top),), 5, None, 1, 0.5)
    record = Record.of_reply(Key("s", "", "judge", 0), "f", reply, 1.0)
    assert decode(encode(record)) == record
    plain = Request((Message("user", (TextPart("Is it?"),)),), 1, 0.0, 1.0, 4, ("x",), 7)
    assert plain.fingerprint("m") == "534d63639e01c039a02ee7832af4e92a"
    assert replace(plain, top_logprobs=5).fingerprint("m") != plain.fingerprint("m")


def test_the_statement_of_the_documents_is_answered(warehouse):
    text = (Path(__file__).resolve().parents[2] / "docs" / "scores.md").read_text("utf-8")
    statement = text.partition("```sql\n")[2].partition("```")[0]
    with Judge(model="j") as server:
        run(warehouse, server, "grounding")
    # One of the two traces points at blue where it says red.
    assert query(warehouse, statement).num_rows == 1

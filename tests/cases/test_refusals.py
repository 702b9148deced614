"""What a server refuses everybody stops the run; what it refuses one question is its own."""

import json
import re

import pytest

from tests.support.project import AnswerServer, thinking

THOUGHT = "<think>The cup is at {p}.</think>"
QUESTIONS = [{"q": f"Is it {i}?"} for i in range(40)]
HTML = b"<!doctype html><html><title>Sign in</title></html>"

REFUSALS = {
    "a bad request": ((400, {"error": {"message": "no such parameter"}}), "no such parameter"),
    "no such model": ((404, {"error": {"message": "model m not found"}}), "model m not found"),
    "no credit": ((402, {"error": {"message": "pay first"}}), "pay first"),
    "a quota": ((429, {"error": {"code": "insufficient_quota", "message": "none left"}}), "left"),
    "moved": ((308, {}, {"location": "https://elsewhere.test/"}), "elsewhere.test"),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_s36_what_all_are_refused_stops_a_build_with_the_servers_sentence(project, how):
    answer, words = REFUSALS[how]
    ran, requests = project.ask(QUESTIONS, lambda body, nth: answer)
    assert ran.status == 1
    assert words in ran.err
    assert len(requests) < 100
    assert project.sql("SELECT count(*) AS n FROM trees") == [{"n": 0}]


@pytest.mark.parametrize("strategy", ["best-of-n", "linear"])
def test_a_refused_build_goes_on_by_the_same_command(project, strategy):
    answer, _ = REFUSALS["a bad request"]
    options = ("--strategy", strategy, "--samples", 1, "--concurrency", 4)
    ran, _ = project.ask(QUESTIONS[:9], lambda body, nth: answer, *options)
    assert ran.status == 1
    # Nothing was kept as those questions' failure, so no flag is needed.
    again, _ = project.build(thinking(THOUGHT), *options)
    assert again.status == 0, again.text
    assert "failed" not in again.out
    assert project.sql("SELECT count(*) AS n FROM trees") == [{"n": 9}]


@pytest.mark.parametrize("page", [HTML, b'data: {"choices": []}\n\n'])
def test_s36_what_cannot_be_read_from_anybody_stops_soon(project, page, monkeypatch):
    slept = []
    import mcts.teachers.openai_client as client

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    ran, requests = project.ask(QUESTIONS, lambda body, nth: (200, page))
    assert ran.status == 1
    assert "refuses every request" in ran.err
    assert len(requests) < 60
    assert sum(slept) < 20
    assert project.sql("SELECT count(*) AS n FROM trees") == [{"n": 0}]


def test_names_of_requests_do_not_tell_refusals_apart(project):
    def answer(body, nth):
        return 400, {"error": {"message": f"no such parameter (request req_{nth:08x}a)"}}

    ran, _ = project.ask(QUESTIONS, answer)
    assert ran.status == 1
    assert "no such parameter" in ran.err


def test_a_server_that_begins_to_refuse_all_stops_the_run(project):
    good = thinking(THOUGHT)

    options = ("--strategy", "best-of-n", "--samples", 1, "--concurrency", 4, "--shard", 10)

    def answer(body, nth):
        return good(body, nth) if nth <= 30 else (404, {"error": {"message": "m was removed"}})

    ran, requests = project.ask(QUESTIONS, answer, *options)
    assert ran.status == 1
    assert "m was removed" in ran.err
    assert len(requests) < 200
    failed = project.sql("SELECT count(*) AS n FROM trees WHERE status = 'failed'")
    assert failed == [{"n": 0}]
    again, _ = project.build(good, *options)
    assert again.status == 0
    assert "failed" not in again.out


def test_questions_at_fault_are_failures_of_their_own_and_told(project):
    good = thinking(THOUGHT)

    def answer(body, nth):
        bad = re.search(r"Is it \d*[37]\?", json.dumps(body))
        return (400, {"error": {"message": "the image is too large"}}) if bad else good(body, nth)

    few = ("--strategy", "best-of-n", "--samples", 1)
    ran, _ = project.ask(QUESTIONS, answer, *few)
    assert ran.status == 0, ran.text
    assert "8 failed" in ran.out
    assert "the image is too large (8)" in ran.out
    failed = project.sql("SELECT count(*) AS n FROM trees WHERE status = 'failed'")
    assert failed == [{"n": 8}]
    again, requests = project.build(good, *few)  # what is theirs is kept, and not asked again
    assert not requests
    assert again.status == 0


MODERATED = [
    {"message": "Your chosen model requires moderation and your input was flagged", "code": 403},
    {"message": "blocked", "metadata": {"reasons": ["violence"], "flagged_input": "..."}},
    {"message": "The request was blocked by a guardrail"},
    {"code": "content_filter", "message": "The response was filtered"},
]


@pytest.mark.parametrize("error", MODERATED, ids=lambda error: error["message"][:24])
def test_a_question_that_is_moderated_is_a_failure_of_its_own(project, error):
    good = thinking(THOUGHT)

    def answer(body, nth):
        bad = "Is it 3?" in json.dumps(body)
        return (403, {"error": error}) if bad else good(body, nth)

    ran, _ = project.ask(QUESTIONS[:9], answer, "--strategy", "best-of-n", "--samples", 1)
    assert ran.status == 0, ran.text
    assert "1 failed" in ran.out and error["message"] in ran.out


def test_a_key_that_is_refused_later_stops_the_run_and_no_question_is_at_fault(project):
    good = thinking(THOUGHT)
    options = ("--strategy", "best-of-n", "--samples", 1, "--concurrency", 1)

    def answer(body, nth):
        return (403, {"error": {"message": "key expired"}}) if nth > 3 else good(body, nth)

    ran, _ = project.ask(QUESTIONS[:9], answer, *options)
    assert ran.status == 1 and "refuses the API key (HTTP 403: key expired)" in ran.err
    again, _ = project.build(good, *options)
    assert again.status == 0 and "failed" not in again.out


@pytest.mark.parametrize("status", [404, 405, 410])
def test_an_address_that_is_gone_for_a_moment_is_nobodys_failure(project, status):
    good = thinking(THOUGHT)

    def answer(body, nth):
        return (status, {"error": {"message": "no route"}}) if nth in (4, 9) else good(body, nth)

    ran, _ = project.ask(QUESTIONS[:9], answer, "--strategy", "best-of-n", "--samples", 1)
    assert ran.status == 0, ran.text
    assert "failed" not in ran.out


def test_a_dry_run_that_all_are_refused_leaves_no_failure_behind(project):
    answer, words = REFUSALS["a bad request"]
    ran, _ = project.ask(QUESTIONS[:6], lambda body, nth: answer, "--dry-run", "--pilot", 4)
    assert ran.status == 1 and words in ran.err
    again, requests = project.build(thinking(THOUGHT))
    assert again.status == 0, again.text
    assert "failed" not in again.out and requests
    assert project.sql("SELECT count(*) AS n FROM trees") == [{"n": 6}]


def test_refusals_can_be_taken_as_the_questions_own(project):
    answer, words = REFUSALS["a bad request"]
    ran, _ = project.ask(QUESTIONS[:12], lambda body, nth: answer, "--refusals", 0)
    assert ran.status == 0
    assert "12 failed" in ran.out
    assert f"{words} (12)" in ran.out


def test_one_refused_question_is_a_failure_of_its_own(project):
    answer, words = REFUSALS["a bad request"]
    ran, _ = project.ask(QUESTIONS[:1], lambda body, nth: answer)
    assert ran.status == 0
    assert words in ran.out


def test_few_questions_that_are_all_refused_stop_too(project):
    answer, words = REFUSALS["a bad request"]
    ran, _ = project.ask(QUESTIONS[:3], lambda body, nth: answer)
    assert ran.status == 1
    assert words in ran.err


# ---- evaluations and judges ----------------------------------------------------------------------


def evaluate(project, answer, *options):
    with AnswerServer(answer) as server:
        given = (server.url, "mine", "--split", "test", "--space", "qwen3-vl", *options)
        ran = project.run("evaluate", *given)
    return ran, server.requests


def test_an_evaluation_that_all_are_refused_stores_nothing(project):
    answer, words = REFUSALS["a bad request"]
    project.add(QUESTIONS, split="test")
    ran, requests = evaluate(project, lambda body, nth: answer)
    assert ran.status == 1
    assert words in ran.err
    assert len(requests) < 100
    for table in ("evaluations", "predictions", "traces"):
        assert project.sql(f"SELECT count(*) AS n FROM {table}") == [{"n": 0}]


def test_what_was_not_answered_is_no_wrong_answer_and_is_asked_again(project):
    good = thinking(THOUGHT)

    def answer(body, nth):
        bad = "Is it 3?" in json.dumps(body)
        return (400, {"error": {"message": "the image is too large"}}) if bad else good(body, nth)

    project.add(QUESTIONS[:6], split="test")
    ran, _ = evaluate(project, answer)
    assert ran.status == 0, ran.text
    assert "unanswered and in no figure: 1 of 6 questions" in ran.err
    assert "the image is too large (1); the same command asks them again" in ran.err
    assert project.sql("SELECT n_questions, accuracy FROM evaluations") == [
        {"n_questions": 5, "accuracy": 1.0}
    ]
    assert project.sql("SELECT count(*) AS n, count(score) AS scored FROM predictions") == [
        {"n": 5, "scored": 5}
    ]
    again, requests = evaluate(project, good)
    assert again.status == 0, again.text
    assert "unanswered" not in again.err
    assert requests and all("Is it 3?" in json.dumps(body) for body in requests)
    counts = project.sql("SELECT max(n_questions) AS n FROM evaluations")
    assert counts == [{"n": 6}]


def test_a_figure_of_nothing_is_none(project):
    answer, words = REFUSALS["a bad request"]
    project.add(QUESTIONS[:1], split="test")
    ran, _ = evaluate(project, lambda body, nth: answer)
    assert ran.status == 1
    assert "no question was answered" in ran.err
    assert words in ran.err
    assert project.sql("SELECT count(*) AS n FROM evaluations") == [{"n": 0}]


def test_a_judge_that_refuses_all_stops_and_stores_nothing(project):
    answer, words = REFUSALS["a bad request"]
    built, _ = project.ask(QUESTIONS[:9], thinking(THOUGHT), "--strategy", "best-of-n",
                           "--samples", 1)  # fmt: skip
    assert built.status == 0
    with AnswerServer(lambda body, nth: answer) as server:
        ran = project.run("judge", "mine", "--what", "behaviors", "--judge", server.url)
    assert ran.status == 1
    assert words in ran.err
    judged = project.sql("SELECT count(*) AS n FROM behaviors WHERE method LIKE 'judge%'")
    assert judged == [{"n": 0}]


def test_a_space_that_is_not_the_models_is_named_where_no_point_lies_in_its_image(project):
    ran, _ = project.ask(QUESTIONS[:2], thinking(THOUGHT), space="normalized-1")
    assert ran.status == 0
    assert "nothing usable was said: point_outside_image (2)" in ran.text
    assert "another --space than the model's" in ran.text

"""Servers that differ from vLLM, and templates that own part of a turn."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from mcts.teachers.base import Message, Request, TextPart
from mcts.teachers.openai_client import OpenAITeacher
from tests.support.project import AnswerServer, Body, Project, partial_turn, reply, thinking
from tests.support.server_survey import survey

CUP = "<think>The cup is at {p}.</think>"
KEPT = "SELECT text FROM kept_traces ORDER BY 1"
ERRORS = "SELECT DISTINCT unnest(errors) AS error FROM trees"


def changed(**message: Any):
    """Change every choice's message."""

    def change(data: Body) -> Body:
        for choice in data["choices"]:
            choice["message"] = {**choice["message"], **message}
        return data

    return change


# ---- turns ---------------------------------------------------------------------------------------


def starting_anew(body: Body, nth: int) -> Body:
    """Begin the turn again, whatever was to be continued."""
    point = lambda: f"({random.randint(1, 999)}, {random.randint(1, 999)})"  # noqa: E731
    first = "<think>First I look at the room {}.</think>\n<think>The cup is here {}.</think>\n"
    texts = (first.format(point(), point()) + "<answer>yes</answer>" for _ in range(body["n"]))
    return reply(body, *texts)


def test_s05_a_turn_that_begins_anew_is_noticed_and_never_kept(project: Project) -> None:
    ran, requests = project.ask([{}], starting_anew)
    assert "it begins a partial turn again" in ran.err
    for row in project.sql(KEPT):
        assert row["text"].count("First I look") <= 1
    assert sum("continue_final_message" in body for body in requests) == 1
    assert project.sql(KEPT), "what goes on after a thought said again is a continuation"


def test_s05_a_server_that_only_forgets_partial_turns_gets_them_in_the_question(
    project: Project,
) -> None:
    def answer(body: Body, nth: int) -> Body:
        folded = "Previous thoughts" in str(body["messages"][-1]["content"])
        if folded:
            texts = "\n<think>The door is at (700, 700).</think>\n<answer>yes</answer>"
            return reply(body, *[texts] * body["n"])
        return starting_anew(body, nth)

    ran, _ = project.ask([{}], answer)
    assert ran.status == 0, ran.text
    kept = [row["text"] for row in project.sql(KEPT)]
    assert kept and all(text.count("First I look") == 1 and "door" in text for text in kept)


async def test_s05_a_server_whose_words_vary_is_asked_to_count_on() -> None:
    """One sample of two begins as the turn did, in the second request only."""
    begun = "<think>First I look at the room (1, 2).</think>"

    def answer(body: Body, nth: int) -> Body:
        if "Count from one" in str(body["messages"]):
            plain = body["temperature"] == body["top_p"] == 1  # all that some servers take
            return reply(body, "One, two, three, four, five" if plain else "")
        if "Previous thoughts" in str(body["messages"][-1]["content"]):
            return reply(body, *["\n<think>The door is at (7, 7).</think>"] * body["n"])
        words = ("Well", "So", "Now") if nth < 3 else ("Well", "First I look at", "Now")
        return reply(body, *(f"<think>{words[i]} a cup (3, {nth}).</think>" for i in range(2)))

    told: list[str] = []
    user = Message("user", (TextPart("Is it? Think in <think> and </think>."),))
    partial = Message("assistant", (TextPart(begun),))
    first = Request((user,), 2, 1.0, 1.0, 99, ("</think>",), 5)
    with AnswerServer(answer) as server:
        teacher = OpenAITeacher(server.url, report=told.append)
        await teacher.complete(first, {})
        then = Request((user, partial), 2, 1.0, 1.0, 99, ("</think>",), 7)
        await teacher.complete(then, {})
        reply_ = await teacher.complete(replace(then, seed=9), {})
        await teacher.close()
    assert all("The door" in c.text for c in reply_.completions)
    assert any("begins a partial turn again" in sentence for sentence in told)


def test_s05_what_a_server_can_do_is_declared_and_nothing_is_tried(project: Project) -> None:
    ran, requests = project.ask(
        [{}], thinking(CUP), "--server-can", "no-continue,no-seed", "--server-body", "top_k=40"
    )
    assert ran.status == 0, ran.text
    assert not any("continue_final_message" in body or "seed" in body for body in requests)
    assert all(body["messages"][-1]["role"] == "user" and body["top_k"] == 40 for body in requests)
    assert project.sql("SELECT DISTINCT model FROM trees")[0]["model"].startswith("m@fields-")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [("continue,fly", "'fly' is no capability"), ("n,no-n", "no-n contradicts n")],
)
def test_a_wrong_capability_is_a_sentence(project: Project, words: str, sentence: str) -> None:
    project.add([{}])
    ran = project.run("build", "mine", "--teacher", "http://x:1", "--server-can", words)
    assert ran.status == 2 and sentence in ran.err


def test_a_repeated_partial_turn_is_dropped_once(project: Project) -> None:
    def answer(body: Body, nth: int) -> Body:
        data = thinking(CUP)(body, nth)
        for choice in data["choices"]:
            choice["message"]["content"] = partial_turn(body) + choice["message"]["content"]
        return data

    ran, _ = project.ask([{}], answer)
    kept = [row["text"] for row in project.sql(KEPT)]
    assert ran.status == 0 and kept
    assert all(text.count("The cup") == 1 for text in kept)


# ---- templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["mcts", "best-of-n", "linear"])
def test_s24_a_think_tag_that_the_template_opened_is_put_back(
    project: Project, strategy: str
) -> None:
    options = () if strategy == "mcts" else ("--strategy", strategy, "--samples", 2)
    ran, _ = project.ask([{}], thinking("The cup is at {p}.</think>"), *options)
    kept = [row["text"] for row in project.sql(KEPT)]
    assert ran.status == 0 and kept, ran.text
    assert all(text.startswith("<think>The cup is at") for text in kept)


def test_an_empty_think_block_is_no_thought(project: Project) -> None:
    ran, _ = project.ask(
        [{}], thinking("<think>\n\n</think>\n\n" + CUP), "--strategy", "best-of-n", "--samples", 2
    )
    kept = [row["text"] for row in project.sql(KEPT)]
    assert ran.status == 0 and kept and all(text.startswith("<think>The cup") for text in kept)


def test_where_only_an_empty_think_block_comes_the_setting_is_named(project: Project) -> None:
    ran, _ = project.ask([{}], thinking("<think>\n\n</think>\n\n" + CUP))
    assert "enable_thinking" in ran.text + str(project.sql(ERRORS))


def reasoned(data: Body) -> Body:
    for choice in data["choices"]:
        answer = choice["message"]["content"].rpartition("</think>")[2]
        choice["message"] = {"reasoning_content": "x", "content": answer}
    return data


@pytest.mark.parametrize("options", [(), ("--strategy", "best-of-n", "--samples", 2)])
def test_s20_a_reasoning_parser_is_named_in_every_strategy(
    project: Project, options: tuple[object, ...]
) -> None:
    ran, _ = project.ask([{}], thinking(CUP, change=reasoned), *options)
    assert not project.sql(KEPT)
    assert "reasoning parser" in ran.text + str(project.sql(ERRORS))


def test_s20_evaluation_and_ask_name_the_reasoning_parser(project: Project) -> None:
    project.add([{}], split="test")
    with AnswerServer(thinking(CUP, change=reasoned)) as server:
        at = (server.url, "--space", "qwen3-vl")
        asked = project.run("ask", at[0], project.data / "a.png", "Is it?", *at[1:])
        evaluated = project.run("evaluate", at[0], "mine", *at[1:])
    assert asked.status and "reasoning parser" in asked.err
    assert "100.0% right" not in evaluated.out


def test_s44_text_in_tool_calls_is_a_sentence_about_the_tool_parser(project: Project) -> None:
    change = changed(content=None, tool_calls=[{"type": "function"}])
    ran, _ = project.ask([{}], thinking(CUP, change=change))
    assert "tool parser" in ran.text + str(project.sql(ERRORS))


def test_content_as_parts_is_read(project: Project) -> None:
    def parts(data: Body) -> Body:
        for choice in data["choices"]:
            text = choice["message"]["content"]
            choice["message"]["content"] = [
                {"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]},
                {"type": "text", "text": None},
            ]  # fmt: skip
        return data

    ran, _ = project.ask([{}], thinking(CUP, change=parts))
    assert ran.status == 0 and project.sql(KEPT)


# ---- parameters ----------------------------------------------------------------------------------


def refusing(parameter: str, message: str, **error: Any):
    """Refuse a parameter in these words, otherwise answer; the refusals are counted."""
    refused: list[int] = []
    answered = thinking(CUP)

    def answer(body: Body, nth: int) -> Any:
        if parameter in body and (parameter != "n" or body["n"] > 1):
            refused.append(nth)
            return 400, {"error": {"message": message, **error}}
        return answered(body, nth)

    return answer, refused


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("include_stop_str_in_output", "unsupported"),
        ("n", "If N is supplied, it must be equal to 1"),
    ],
)
def test_s32_a_parameter_that_is_refused_is_found_out_once(
    project: Project, parameter: str, message: str
) -> None:
    answer, refused = refusing(parameter, message)
    ran, requests = project.ask([{"q": f"Is it {i}?"} for i in range(4)], answer)
    assert ran.status == 0, ran.text
    kept = [row["text"] for row in project.sql(KEPT)]
    assert len(kept) >= 4 and all(text.endswith("</answer>") for text in kept)
    assert len(refused) <= 2, "one refusal, and where it names nothing one more"
    assert len(requests) > 8


@pytest.mark.parametrize(
    ("parameter", "message", "error"),
    [
        ("include_stop_str_in_output", "property 'include_stop_str_in_output' is unknown", {}),
        ("seed", "Unsupported parameter.", {"param": "seed"}),
        ("stop", "Unsupported parameter: 'stop' is not supported with this model.", {}),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", {}),
        ("top_p", "temperature and top_p cannot both be given", {}),
        ("structured_outputs", "extra fields not permitted", {}),
        ("continue_final_message", "This model does not support assistant message prefill.", {}),
        ("add_generation_prompt", "no", {}),
    ],
)
async def test_s32_many_requests_at_once_share_what_one_refusal_tells(
    parameter: str, message: str, error: dict[str, str]
) -> None:
    answer, refused = refusing(parameter, message, **error)
    partial = Message("assistant", (TextPart("<think>The cup is at (1, 2).</think>\n"),))
    user = Message("user", (TextPart("Is it? Think in <think> and </think>."),))
    first = Request((user,), 2, 1.0, 1.0, 99, ("</think>", "</answer>"), 7)
    then = Request((user, partial), 2, 1.0, 1.0, 99, ("</answer>",), 9, max_thoughts=4)
    with AnswerServer(answer) as server:
        teacher = OpenAITeacher(server.url)
        ten = [replace(request, seed=10 * i) for i in range(10) for request in (first, then)]
        replies = await asyncio.gather(*(teacher.complete(request, {}) for request in ten))
        await teacher.close()
    assert all(len(reply.completions) == 2 for reply in replies)
    assert all(c.text.endswith(("</think>", "</answer>")) for r in replies for c in r.completions)
    assert len(refused) <= (1 if parameter in message or error or "prefill" in message else 2)


def test_s32_the_plain_form_keeps_the_number_of_samples_and_the_seed(project: Project) -> None:
    answered = thinking(CUP)

    def answer(body: Body, nth: int) -> Any:
        assert body["n"] and body["seed"] is not None  # without them the connection is closed
        refused = "include_stop_str_in_output" in body
        return (400, {"error": {"message": "unsupported"}}) if refused else answered(body, nth)

    ran, _ = project.ask([{}], answer)
    assert ran.status == 0 and project.sql(KEPT), ran.text


def test_s35_seeds_have_31_bits(project: Project) -> None:
    def answer(body: Body, nth: int) -> Any:
        if body["seed"] > 2**31 - 1:
            return 400, {"error": {"message": "seed must be in [0, 2147483647]"}}
        return thinking(CUP)(body, nth)

    ran, requests = project.ask([{}], answer)
    assert ran.status == 0 and project.sql(KEPT)
    assert len({body["seed"] for body in requests}) == len(requests)


def test_a_temperature_that_is_refused_is_never_dropped_in_silence(project: Project) -> None:
    answer, _ = refusing("temperature", "Only the default (1) value is supported: temperature")
    ran, requests = project.ask([{}], answer, "--temperature", 0.5)
    assert all(body["temperature"] == 0.5 for body in requests)
    assert "give --temperature 1" in ran.text + str(project.sql(ERRORS))


# ---- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_s22_s31_tokens_that_are_not_told_are_counted_here(project: Project, usage: Any) -> None:
    change = lambda data: {**data, "usage": usage}  # noqa: E731
    rows = [{"q": f"Is it {i}?"} for i in range(12)]
    ran, requests = project.ask(
        rows, thinking(CUP, change=change), "--run-tokens", 50, "--concurrency", 1
    )
    assert ran.status == 0, ran.text
    assert "tokens are estimated, as the server does not count them" in ran.out
    assert "estimated here" in ran.err and "stopped by --run-tokens 50" in ran.text
    (counted,) = project.sql("SELECT min(prompt_tokens) AS p, count(*) AS n FROM trees")
    assert counted["p"] > 300, "the image of 640x480 is 300 tokens of 32 pixels"
    assert counted["n"] == 1 and len(requests) < 12


# ---- images that a server shrinks ----------------------------------------------------------------


def test_s11_a_server_that_shrinks_images_is_found_by_its_count(project: Project) -> None:
    from PIL import Image

    project.image("screen.png", Image.new("RGB", (1920, 1080), "white"))

    def counted(prompt: int):
        def change(data: Body) -> Body:
            usage = {**data["usage"], "prompt_tokens": prompt}
            return {**data, "usage": usage}

        return change

    rows = [{"img": "screen.png"}]
    ran, requests = project.ask(rows, thinking(CUP, change=counted(1522)), space="qwen2.5-vl")
    assert ran.status and len(requests) == 1, ran.text
    assert "1522 tokens" in ran.err and "--max-pixels 1003520" in ran.err
    assert not project.sql(KEPT)
    ran, _ = project.build(
        thinking(CUP, change=counted(1522)), "--max-pixels", 1003520, space="qwen2.5-vl"
    )
    assert ran.status == 0 and "misread" not in ran.text


# ---- all of it -----------------------------------------------------------------------------------


def test_servers_composed_of_differences_lose_nothing_and_ask_nothing_twice() -> None:
    found = survey(range(60))
    assert not (found.tracebacks or found.lost or found.twice), found
    assert not (found.fruitless or found.many_refusals), found


@pytest.mark.slow
def test_two_thousand_servers_lose_nothing_and_ask_nothing_twice() -> None:
    found = survey(range(2000))
    assert not (found.tracebacks or found.lost or found.twice), found
    assert not (found.fruitless or found.many_refusals), found

"""Turns that show a crop, as teachers send and read them: a tool's where there is such a turn."""

import asyncio
from dataclasses import replace

from mcts.coordinates import CoordinateSpace
from mcts.teachers.base import ImagePart, Message, TextPart
from mcts.teachers.local.teacher import LocalTeacher
from mcts.teachers.openai_client import OpenAITeacher
from tests.mcts.test_local import IMAGES, ask, folder, generate  # noqa: F401
from tests.support.stub_server import StubServer

CALL = '<think>A lamp at (1, 2).</think>\n<tool_call>{"name": "search_coordinate"}</tool_call>'


def dialogue(role: str = "tool", crop: str = "blue", partial: str = "", **options):
    """A question, a call and what it showed; then the model goes on."""
    request = ask("What is it? Choices: a or b.\nThink in at least 1 steps.", "red", **options)
    shown = (ImagePart(crop), TextPart("<observation>Image 2.</observation>"))
    turns = [Message("assistant", (TextPart(CALL),)), Message(role, shown)]
    if partial:
        turns.append(Message("assistant", (TextPart(partial),)))
    return replace(request, messages=(*request.messages, *turns))


async def sent(server, request, **options):
    teacher = OpenAITeacher(server.url, backoff_s=0.01, **options)
    try:
        reply = await teacher.complete(request, IMAGES)
    finally:
        await teacher.close()
    return server.requests[-1]["body"]["messages"], reply


async def test_a_crop_goes_to_a_server_as_the_answer_to_a_tool_call():
    with StubServer() as server:
        messages, _ = await sent(server, dialogue())
    question, call, shown = messages
    assert call == {"role": "assistant", "content": CALL}
    assert (shown["role"], shown["tool_call_id"]) == ("tool", "call_1")
    assert [part["type"] for part in shown["content"]] == ["image_url", "text"]
    assert question["content"][0] != shown["content"][0], "another picture"


async def test_a_server_without_tool_turns_gets_the_users():
    with StubServer(refuse_tool_turns=True) as server:
        messages, _ = await sent(server, dialogue())
        assert [m["role"] for m in messages] == ["user", "assistant", "user"]
        assert "tool_call_id" not in messages[-1]
        assert server.request_count() == 2, "one refusal is enough"


async def test_a_partial_turn_after_a_crop_is_folded_into_the_crops_turn():
    begun = "<think>It is a lamp.</think>\n"
    with StubServer(refuse_continue=True) as server:
        messages, _ = await sent(server, dialogue(partial=begun))
    assert [m["role"] for m in messages] == ["user", "assistant", "tool"]
    assert begun in messages[-1]["content"][-1]["text"]


async def test_image_tokens_of_all_turns_are_counted():
    space = CoordinateSpace.qwen2_vl(28 * 28, 28 * 28 * 4)  # at most four tokens an image
    with StubServer() as server:
        _, reply = await sent(server, dialogue(crop="wide"), space=space)
    assert reply.image_tokens == 4 + 2


async def test_a_dialogue_with_crops_reads_as_plain_generate_reads_it(folder):  # noqa: F811
    teacher = LocalTeacher(folder, batch=8, threads=1)
    requests = [dialogue(), dialogue(crop="wide", partial="<think>It is")]
    replies = await asyncio.gather(*(teacher.complete(r, IMAGES) for r in requests))
    await teacher.close()
    assert [r.completions[0].text for r in replies] == [generate(folder, r) for r in requests]


async def test_a_later_turn_runs_only_what_is_new_and_a_crop_is_encoded_once(folder):  # noqa: F811
    teacher = LocalTeacher(folder, batch=8, threads=1)
    first = await teacher.complete(dialogue(), IMAGES)
    assert teacher.images_encoded == 2
    assert first.image_tokens == 8, "two pictures of 64 px"
    grown = dialogue()
    more = (
        Message("assistant", (TextPart(CALL),)),
        Message("tool", (ImagePart("wide"), TextPart("<observation>Image 3.</observation>"))),
    )
    grown = replace(grown, messages=(*grown.messages, *more))
    second = await teacher.complete(grown, IMAGES)
    assert teacher.images_encoded == 3
    assert first.prompt_tokens <= second.cached_tokens < second.prompt_tokens
    assert second.image_tokens == first.image_tokens + 8
    other = await teacher.complete(dialogue(crop="wide"), IMAGES)
    assert other.cached_tokens < first.prompt_tokens, "other pixels under the same words"
    assert teacher.ledger.image_tokens == 8 + 16 + 12
    await teacher.close()

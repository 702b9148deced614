"""The server client against a real HTTP server: requests, retries, errors, fallbacks."""

import asyncio
import base64
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from mcts.teachers import openai_client
from mcts.teachers.base import (
    MAX_SEED,
    ImagePart,
    Message,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.connections import Connections
from mcts.teachers.openai_client import CONNECT_S, OpenAITeacher
from mcts.teachers.request_bodies import EncodedImages
from tests.support.server_differences import DifferentServer
from tests.support.stub_server import StubServer

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAADgAAAA4CAIAAAAn5KxJAAAAQUlEQVR42u3OAQ0AMAjAsHH/nkHHk1ZBZ/vDS1RUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUtKoDD+QBb364+IoAAAAASUVORK5CYII="
)
IMAGES = {"a" * 64: PNG}
EXPAND = ("</think>", "</answer>")
ROLLOUT = ("</answer>",)


def ask(partial: str = "", *, n: int = 1, stop=EXPAND, seed: int = 1, max_tokens=400) -> Request:
    """A request as the search makes it."""
    text = TextPart(
        "Is the lamp left of the chair? Choices: yes or no.\nThink in at least 3 steps."
    )
    messages = (Message("user", (ImagePart("a" * 64), text)),)
    if partial:
        messages += (Message("assistant", (TextPart(partial),)),)
    return Request(messages, n, 1.0, 1.0, max_tokens, stop, seed)


def client(server: StubServer, **options) -> OpenAITeacher:
    return OpenAITeacher(server.url, **{"backoff_s": 0.01, "timeout_s": 5.0} | options)


async def complete(server: StubServer, request: Request, **options):
    teacher = client(server, **options)
    try:
        return await teacher.complete(request, IMAGES)
    finally:
        await teacher.close()


async def failure(server: StubServer, request: Request, **options) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        await complete(server, request, **options)
    return caught.value


async def test_one_request_finds_out_what_a_server_takes_and_the_others_then_go_at_once():
    with StubServer(latency_s=0.3) as server:
        teacher = client(server)
        asked = [teacher.complete(ask("<think>a</think>", n=3, seed=i), IMAGES) for i in range(8)]
        await asyncio.gather(*asked)
        assert teacher.ledger.requests == server.request_count() == 8
        await teacher.close()
    assert server.most_in_flight >= 7, "all but the one that found out"


async def test_a_step_ends_with_its_stop_string_and_a_rollout_with_an_answer():
    with StubServer() as server:
        step = (await complete(server, ask(n=3))).completions
        rollout = (await complete(server, ask("<think>a</think>", stop=ROLLOUT))).completions
    assert len(step) == 3
    assert all(c.text.startswith("<think>") and c.text.endswith("</think>") for c in step)
    assert rollout[0].text.count("</think>") >= 2
    assert rollout[0].text.endswith(("<answer>yes</answer>", "<answer>no</answer>"))
    assert rollout[0].finish_reason == "stop"


async def test_a_completion_at_the_token_limit_says_so():
    with StubServer() as server:
        (completion,) = (await complete(server, ask(max_tokens=2))).completions
    assert completion.finish_reason == "length"
    assert not completion.text.endswith("</think>")


async def test_n_samples_are_one_request_and_equal_n_single_ones_with_seeds_one_apart():
    with StubServer() as server:
        at_once = (await complete(server, ask(n=3, seed=50))).completions
        assert server.request_count() == 1
        single = [(await complete(server, ask(seed=50 + i))).completions[0] for i in range(3)]
    assert [c.text for c in at_once] == [c.text for c in single]
    assert len({c.text for c in at_once}) == 3


async def test_usage_and_cached_tokens_are_recorded():
    with StubServer() as server:
        teacher = client(server)
        reply = await teacher.complete(ask(n=3), IMAGES)
        await teacher.close()
    assert reply.prompt_tokens > 0 and reply.cached_tokens is not None
    assert reply.completion_tokens == sum(c.tokens for c in reply.completions)
    assert reply.seconds > 0
    assert (teacher.ledger.requests, teacher.ledger.retries, teacher.ledger.in_flight) == (1, 0, 0)
    assert teacher.ledger.completion_tokens == reply.completion_tokens


async def test_a_request_has_the_image_the_partial_turn_and_the_sampling():
    with StubServer() as server:
        await complete(server, ask("<think>a</think>", n=2, seed=9))
    body = server.requests[0]["body"]
    user, assistant = body["messages"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert assistant == {"role": "assistant", "content": "<think>a</think>"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["n"], body["seed"], body["stop"]) == (2, 9, list(EXPAND))
    assert body["include_stop_str_in_output"] is True


@pytest.mark.parametrize("fault", ["404", "429", "500", "503", "reset", "malformed", "empty"])
async def test_a_passing_fault_is_retried_and_changes_nothing(fault):
    with StubServer() as server:
        smooth = await complete(server, ask(n=2))
    with StubServer(faults=[fault]) as server:
        bumpy = await complete(server, ask(n=2))
        assert server.request_count() == 2
    assert bumpy.completions == smooth.completions


async def test_samples_that_are_missing_are_asked_for_and_those_that_came_are_kept():
    with StubServer(faults=["ok", "short"]) as server:
        teacher = client(server)
        await teacher.complete(ask(n=3), IMAGES)
        reply = await teacher.complete(ask(n=3, seed=5), IMAGES)
        again = await teacher.complete(ask(n=3, seed=5), IMAGES)
        await teacher.close()
        assert [c.text for c in reply.completions] == [c.text for c in again.completions]
        assert [r["body"]["n"] for r in server.requests] == [3, 3, 1, 3]


async def test_retry_after_is_honoured():
    with StubServer(faults=["429"], retry_after_s=0.4) as server:
        started = time.monotonic()
        await complete(server, ask())
    assert time.monotonic() - started >= 0.4


async def test_a_timeout_hangs_up_and_the_request_is_sent_again():
    with StubServer(faults=["hang"]) as server:
        reply = await complete(server, ask(), timeout_s=0.3)
        assert reply.completions
        await asyncio.sleep(0.1)
        assert server.hung_up == 1  # the server saw the connection close


async def test_cancelling_a_request_hangs_up():
    with StubServer(faults=["hang"]) as server:
        teacher = client(server)
        task = asyncio.create_task(teacher.complete(ask(), IMAGES))
        while not server.request_count():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert server.hung_up == 1
        assert teacher.ledger.in_flight == 0
        await teacher.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("500", "server_error"),
        ("reset", "server_error"),
        ("hang", "timeout"),
        ("malformed", "malformed"),
        ("empty", "empty"),
    ],
)
async def test_a_fault_that_stays_becomes_a_final_error_of_its_kind(fault, kind):
    with StubServer(faults=[fault] * 9) as server:
        # Short only where it is to run out: a pause of this process would use up a try as well.
        limit = 0.2 if fault == "hang" else 10.0
        error = await failure(server, ask(), retries=2, timeout_s=limit)
        assert error.kind == kind
        assert server.request_count() == (2 if fault == "empty" else 3)


async def test_a_poisoned_question_fails_alone():
    with StubServer(poison="POISON") as server:
        teacher = client(server, retries=1)
        bad = Request((Message("user", (TextPart("POISON"),)),), 1, 1.0, 1.0, 9, (), 0)
        good, poisoned = await asyncio.gather(
            teacher.complete(ask(), IMAGES), teacher.complete(bad, {}), return_exceptions=True
        )
        await teacher.close()
    assert isinstance(poisoned, TeacherError) and poisoned.kind == "server_error"
    assert good.completions[0].text
    assert teacher.ledger.failures == 1


async def test_a_bad_request_is_final_at_once_with_the_servers_words():
    with StubServer(faults=["400"]) as server:
        error = await failure(server, ask())
        assert server.request_count() == 1
    assert error.kind == "bad_request" and "scripted 400" in error.message


async def test_a_model_that_is_not_there_is_no_failure_of_the_request():
    with StubServer(faults=["404"] * 9) as server:
        with pytest.raises(TeacherUnavailable, match=r"does not serve stub-teacher.*404") as told:
            await complete(server, ask(), retries=2)
        assert told.value.permanent, "the run ends"
        assert server.request_count() == 3


async def test_no_server_is_one_clear_sentence_not_a_failed_request():
    with StubServer() as server:
        url = server.url
    teacher = OpenAITeacher(url, retries=1, backoff_s=0.01)
    with pytest.raises(TeacherUnavailable, match=f"No model server answers at {url}.*start it"):
        await teacher.complete(ask(), IMAGES)
    await teacher.close()


async def test_a_server_that_goes_away_makes_the_teacher_unavailable():
    with StubServer() as server:
        teacher = client(server, retries=1)
        await teacher.complete(ask(), IMAGES)
    with pytest.raises(TeacherUnavailable):
        await teacher.complete(ask(seed=2), IMAGES)
    await teacher.close()


async def test_the_model_is_found_and_a_wrong_name_is_reported():
    with StubServer(model="qwen") as server:
        teacher = client(server, revision="abc")
        await teacher.open()
        assert teacher.identity == "qwen@abc"
        await teacher.close()
        with pytest.raises(TeacherUnavailable, match="serves qwen, not other"):
            await client(server, model="other").open()


async def test_no_more_requests_are_in_flight_than_allowed():
    with StubServer(latency_s=0.03) as server:
        teacher = client(server, concurrency=4)
        await asyncio.gather(*(teacher.complete(ask(seed=i), IMAGES) for i in range(24)))
        await teacher.close()
        assert server.most_in_flight == 4


@pytest.mark.parametrize("knob", ["refuse_many", "ignore_many"])
async def test_a_server_without_n_gets_single_requests_and_gives_the_same_samples(knob):
    with StubServer() as server:
        usual = await complete(server, ask(n=3))
    with StubServer(**{knob: True}) as server:
        teacher = client(server)
        reply = await teacher.complete(ask(n=3), IMAGES)
        assert [c.text for c in reply.completions] == [c.text for c in usual.completions]
        assert teacher.capabilities.known["n"] is False
        before = server.request_count()
        await teacher.complete(ask(n=2, seed=4), IMAGES)
        assert server.request_count() == before + 2  # known now: no further probe
        await teacher.close()


async def test_a_server_that_cannot_continue_a_turn_gets_the_thoughts_in_the_question():
    with StubServer(refuse_continue=True) as server:
        teacher = client(server)
        thoughts = "<think>One.</think>\n<think>Two.</think>\n<think>Three.</think>\n<answer>"
        reply = await teacher.complete(ask(thoughts, stop=ROLLOUT), IMAGES)
        assert reply.completions[0].text in ("yes</answer>", "no</answer>")
        assert teacher.capabilities.known["continue"] is False
        (message,) = server.requests[-1]["body"]["messages"]
        assert "Previous thoughts:\n<think>One." in message["content"][-1]["text"]
        await teacher.close()


async def test_thoughts_are_limited_by_a_grammar_except_where_the_server_refuses():
    request = replace(ask("<think>a</think>", n=2, stop=ROLLOUT), max_thoughts=2)
    with StubServer() as server:
        teacher = client(server)
        usual = await teacher.complete(request, IMAGES)
        grammar = re.compile(server.requests[-1]["body"]["structured_outputs"]["regex"])
        assert teacher.capabilities.known["count"] is True and server.request_count() == 1
        await teacher.complete(ask(n=2), IMAGES)
        assert "structured_outputs" not in server.requests[-1]["body"]
        await teacher.close()
    thought = "\n<think>It is < 3 px from </b> (1, 2).</think>"
    for allowed in (thought, 2 * thought, f"{thought}\n<answer>yes</answer>", "<think>cut off"):
        assert grammar.fullmatch(allowed)
    for denied in (3 * thought, f"{2 * thought}\n<answer>yes</answer>", f"{2 * thought}.", "</th"):
        assert not grammar.fullmatch(denied)
    with StubServer(refuse_grammar=True) as server:
        teacher = client(server)
        reply = await teacher.complete(request, IMAGES)
        assert (
            reply.completions == usual.completions and teacher.capabilities.known["count"] is False
        )
        before = server.request_count()
        await teacher.complete(replace(request, seed=5), IMAGES)
        assert server.request_count() == before + 1  # known now: no further probe
        await teacher.close()


@pytest.mark.parametrize("names_stop", [True, False])
async def test_a_dropped_stop_string_is_put_back(names_stop):
    with StubServer() as server:
        usual = [await complete(server, ask(n=4)), await complete(server, ask(stop=ROLLOUT))]
    with StubServer(drop_stop=True, tell_stop_reason=names_stop) as server:
        dropped = [await complete(server, ask(n=4)), await complete(server, ask(stop=ROLLOUT))]
    texts = [[c.text for c in reply.completions] for reply in usual]
    assert [[c.text for c in reply.completions] for reply in dropped] == texts


def test_the_fingerprint_changes_with_whatever_changes_the_answer():
    base = ask(n=2)
    system = (Message("system", base.messages[0].parts),)
    others = [
        ask("<think>"), ask(n=3), ask(n=2, stop=ROLLOUT), ask(n=2, seed=2), ask(n=2, max_tokens=7),
        replace(base, temperature=0.5), replace(base, top_p=0.5), replace(base, messages=system),
        replace(base, max_thoughts=5), replace(base, top_logprobs=5), replace(base, logprobs=True),
    ]  # fmt: skip
    variants = [base.fingerprint("model"), base.fingerprint("other model")]
    variants += [request.fingerprint("model") for request in others]
    assert len(set(variants)) == len(variants)
    assert ask(n=2).fingerprint("model") == variants[0]


def test_every_sample_seed_fits_a_signed_64_bit_integer():
    assert (MAX_SEED).to_bytes(8, "big", signed=True) == b"\x7f" + b"\xff" * 7
    assert ask(seed=MAX_SEED, n=2).sample_seed(1) == 0
    with pytest.raises(ValueError, match="seed"):
        ask(seed=MAX_SEED + 1)


def test_the_search_and_its_teacher_interface_load_without_torch_or_aiohttp():
    code = (
        "import sys, mcts.search, mcts.teachers.base; print({'torch', 'aiohttp'} & {*sys.modules})"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert out.stdout.strip() == "set()", out.stderr


def test_an_image_with_an_orientation_tag_is_sent_upright():
    import io

    from PIL import Image

    from mcts.image_io import canonical

    lying, exif = Image.new("RGB", (40, 20), "red"), Image.Exif()
    plain, tagged = io.BytesIO(), io.BytesIO()
    lying.save(plain, "JPEG")
    exif[0x0112] = 6
    lying.save(tagged, "JPEG", exif=exif)
    assert canonical(plain.getvalue()) == plain.getvalue()
    assert Image.open(io.BytesIO(canonical(tagged.getvalue()))).size == (20, 40)


async def test_an_image_is_made_once_for_all_requests_and_not_on_the_event_loop():
    reads = []

    class Images(dict):
        def __getitem__(self, image_id):
            reads.append(threading.current_thread())
            return super().__getitem__(image_id)

    with StubServer() as server:
        teacher = client(server)
        asked = (teacher.complete(ask(seed=i), Images(IMAGES)) for i in range(6))
        assert all(reply.completions for reply in await asyncio.gather(*asked))
        await teacher.close()
    assert len(reads) == 1 and reads[0] is not threading.current_thread()


def test_where_images_do_not_all_fit_the_one_used_longest_ago_is_encoded_again():
    shown = dict.fromkeys("abc", PNG)
    images = EncodedImages(2 * len(EncodedImages(0).encode("a", shown).url))
    first, second = images.encode("a", shown), images.encode("b", shown)
    assert images.encode("a", shown) is first
    third = images.encode("c", shown)
    assert images.encode("c", shown) is third and images.encode("a", shown) is first
    assert images.encode("b", shown) is not second


async def test_an_invalid_url_is_one_sentence():
    with pytest.raises(TeacherUnavailable, match="is not a valid URL"):
        await OpenAITeacher("http://localhost:port").open()


@pytest.mark.parametrize(("timeout_s", "limit"), [(3.0, 3.0), (600.0, CONNECT_S)])
async def test_connecting_gives_up_after_its_own_limit(timeout_s, limit):
    with StubServer() as server, mock.patch.object(
        openai_client, "Connections", wraps=Connections
    ) as made:  # fmt: skip
        teacher = client(server, timeout_s=timeout_s)
        await teacher.open()
        await teacher.close()
    assert made.call_args.kwargs["connect_s"] == limit


@pytest.mark.parametrize("models", [{"data": [{"id": "models/m"}]}, [{"id": "m"}]])
async def test_a_list_of_models_has_several_shapes(models):
    server = DifferentServer([])
    server.models = models
    with server.connected():
        teacher = OpenAITeacher("http://different/openai/v1/", "m")
        await teacher.open()
    assert teacher.identity == "m"


async def test_of_many_models_some_are_named_and_the_one_that_is_meant():
    server = DifferentServer([])
    server.models = {"data": [{"id": f"model-{i}"} for i in range(200)]}
    with server.connected(), pytest.raises(TeacherUnavailable) as caught:
        await OpenAITeacher("http://different", "modl-77").open()
    assert "and 190 more" in str(caught.value) and "did you mean model-77?" in str(caught.value)
    assert len(str(caught.value)) < 300


async def test_further_fields_are_sent_and_name_the_answers():
    with StubServer(model="m") as server:
        teacher = client(server, fields={"top_k": 5})
        await teacher.complete(ask(), IMAGES)
        await teacher.close()
    assert server.requests[0]["body"]["top_k"] == 5
    assert re.fullmatch(r"m@fields-\w{12}", teacher.identity)

"""The search benchmark measures what it says: its clock, its server, its bound, its orders."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.rows import Row
from benchmarks.search import model_server, scripted_model, virtual_clock
from benchmarks.search.__main__ import main
from benchmarks.search.compare_orders import config, reference, search_all
from benchmarks.search.model_server import (
    BLOCK,
    FRONT_S,
    PREFILL_S,
    SEQUENCE_S,
    STEP_S,
    ModelServer,
)
from benchmarks.search.overhead import cpu_per_request, memory
from benchmarks.search.real_server import against_itself
from benchmarks.search.search_vs_best_of_n import build_once, failed_questions
from flows.stages.search import overlapping
from mcts.concurrency import gather
from mcts.teachers.base import ImagePart, Message, Request, TextPart
from tests.support.stub_server import StubServer


def request_of(partial="", n=1, scene=0, stop=("</think>", "</answer>"), seed=7):
    text = f"Think in at least 3 steps. Is the lamp left or right in scene {scene}?"
    messages = [Message("user", (ImagePart(f"{scene:064x}"), TextPart(text)))]
    if partial:
        messages.append(Message("assistant", (TextPart(partial),)))
    return Request(tuple(messages), n, 1.0, 1.0, 512, stop, seed)


def test_the_clock_jumps_to_the_next_timer_and_keeps_their_order():
    reached = []

    async def sleeper(name, seconds):
        await asyncio.sleep(seconds)
        reached.append((name, asyncio.get_running_loop().time()))

    async def main_():
        await asyncio.gather(sleeper("late", 3600), sleeper("soon", 0.5), sleeper("then", 1800))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(400):
                await asyncio.sleep(10_000)

    began = time.perf_counter()
    _, seconds = virtual_clock.run(main_())
    assert time.perf_counter() - began < 1
    assert seconds == pytest.approx(4000)
    assert reached == [("soon", 0.5), ("then", 1800), ("late", 3600)]


def test_a_deadlock_is_an_error_and_not_waited_for():
    async def stuck():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(virtual_clock.Deadlock):
        virtual_clock.run(stuck())


def test_work_for_a_thread_is_done_at_once_and_its_failure_is_the_callers():
    async def main_():
        assert await asyncio.to_thread(lambda: 5) == 5
        with pytest.raises(KeyError):
            await asyncio.to_thread({}.__getitem__, "missing")

    assert virtual_clock.run(main_())[1] == 0


def served(*requests, server=None):
    """Replies to concurrent requests, the seconds they took, and the server."""
    server = server or ModelServer()

    async def main_():
        return await asyncio.gather(*(server.complete(request, {}) for request in requests))

    replies, seconds = virtual_clock.run(main_())
    return replies, seconds, server


def test_a_lone_request_takes_its_uncached_prompt_and_a_step_a_token():
    (reply,), seconds, server = served(request_of())
    assert reply.cached_tokens == 0 and server.prefilled_tokens == reply.prompt_tokens > 1350
    expected = FRONT_S + PREFILL_S * reply.prompt_tokens
    expected += reply.completion_tokens * (STEP_S + SEQUENCE_S)
    assert seconds == pytest.approx(expected) == pytest.approx(reply.seconds)


def test_a_batch_writes_more_a_second_than_one_but_each_of_it_slower():
    _, alone, _ = served(request_of())
    many, many_seconds, _ = served(*(request_of(scene=i) for i in range(40)))
    assert many_seconds > alone
    assert many_seconds < 5 * alone and len({reply.seconds for reply in many}) > 1


def test_answers_depend_on_the_request_alone_and_samples_on_their_seed():
    (first, _), _, _ = served(request_of(n=3), request_of(scene=1))
    (_, again), _, _ = served(request_of(scene=2), request_of(n=3))
    assert first.completions == again.completions
    (second,), _, _ = served(request_of(n=1, seed=8))
    assert second.completions[0] == first.completions[1] != first.completions[0]


def test_a_thought_limit_cuts_the_same_text():
    (free,), _, _ = served(request_of(n=8, stop=("</answer>",)))
    counting = replace(request_of(n=8, stop=("</answer>",)), max_thoughts=3)
    (bounded,), _, _ = served(counting)
    for whole, part in zip(free.completions, bounded.completions, strict=True):
        assert whole.text.startswith(part.text)
        assert part.text == whole.text or part.text.count("</think>") == 3
    assert free.completion_tokens > bounded.completion_tokens


def test_a_tree_alone_is_faster_with_prefetch_and_comes_out_the_same():
    questions, settings = scripted_model.questions(2), config(simulations=10)
    narrow, wide = (search_all(questions[:1], settings, room) for room in (1, 32))
    assert wide.seconds < 0.6 * narrow.seconds
    assert (wide.right, wide.simulations) == (narrow.right, narrow.simulations)
    assert narrow.completion_tokens <= wide.completion_tokens < 1.1 * narrow.completion_tokens


def test_cached_prompts_and_answers_are_not_prefilled_again():
    server = ModelServer()

    async def main_():
        before = await server.complete(request_of(), {})
        longer = request_of(before.completions[0].text)
        return (
            before,
            await server.complete(longer, {}),
            await server.complete(request_of(scene=3), {}),
        )

    (before, after, other), _ = virtual_clock.run(main_())
    assert after.prompt_tokens - after.cached_tokens < 2 * BLOCK, "prompt and answer are cached"
    assert after.prompt_tokens > before.prompt_tokens
    assert other.cached_tokens == 0, "another image is another prompt"


def test_a_cache_without_room_forgets_and_one_with_room_for_one_keeps_the_newest():
    none, one = ModelServer(cache_tokens=0), ModelServer(cache_tokens=1700)

    async def main_(server):
        for scene in (0, 1, 1, 0):
            reply = await server.complete(request_of(scene=scene), {})
        return reply.cached_tokens

    virtual_clock.run(main_(none)), virtual_clock.run(main_(one))
    assert none.ledger.cached_tokens == 0
    assert 1300 < one.ledger.cached_tokens < 1500, "only the second time that scene 1 came"


def test_more_than_fit_wait_for_their_turn(monkeypatch):
    monkeypatch.setattr(model_server, "MAX_SEQUENCES", 2)
    requests = [request_of(scene=i) for i in range(6)]
    _, seconds, server = served(*requests)
    assert seconds >= sum(server.lengths) / 2 * STEP_S
    assert seconds >= server.fastest() > 0.5 * seconds


def test_no_run_beats_the_bound_and_the_reference_is_slower_with_the_same_simulations():
    questions, settings = scripted_model.questions(6), config(wave=4, simulations=4)
    ours, theirs = search_all(questions, settings, 64), reference(questions, settings)
    assert ours.simulations == theirs.simulations == 24
    assert theirs.seconds > 3 * ours.seconds and theirs.n_requests > 3 * ours.n_requests
    for measured in (ours, theirs):
        assert measured.seconds > measured.fastest
    assert ours.right > 0 and ours.hit_rate > 0.8


def test_a_run_on_the_virtual_clock_comes_out_the_same_again():
    questions, settings = scripted_model.questions(2), config(simulations=2)
    assert search_all(questions, settings, 2) == search_all(questions, settings, 2)


def test_the_reference_keeps_one_request_of_a_tree_in_flight():
    questions, settings = scripted_model.questions(1), config(simulations=1)
    theirs = reference(questions, settings)
    assert 3 + 6 < theirs.n_requests <= 33
    assert {request.n for request in theirs.requests} == {1}


def test_the_engines_own_cost_is_counted_without_the_models_and_memory_is_seen():
    (milliseconds,) = cpu_per_request(4, runs=1, simulations=1)
    assert 0 < milliseconds < 50
    held = memory(trees=30, at_once=4, simulations=1)
    assert held.trees == 30 and held.requests > 60 and held.max_mb >= held.begin_mb > 1


def test_a_row_says_whether_its_target_is_met(tmp_path, capsys, monkeypatch):
    assert Row("x", 9.9, at_least=10).verdict == "NO"
    assert Row("x", 0.4, at_most=1).verdict == "yes"
    assert Row("x", 3.0).verdict == ""
    rows = iter([Row("faster", 12.0, at_least=10)])
    monkeypatch.setattr("benchmarks.search.__main__.table", lambda arguments: rows)
    assert main(["--json", str(tmp_path / "rows.json")]) == 0
    assert "faster" in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.json").read_text())[0]["verdict"] == "yes"


def test_a_json_file_in_no_folder_is_refused_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["--json", str(tmp_path / "nowhere" / "rows.json")])
    assert left.value.code == 2 and "--json" in capsys.readouterr().err


# ---- the commands that need a model, tried with a stub (they import the embedded sample) ---------


@pytest.mark.slow
def test_a_real_servers_requests_are_sent_again_all_at_once():
    with StubServer(latency_s=0.01) as server:
        share, hits = against_itself(server.url, "qwen3-vl", None, limit=2, runs=1)
        counts = Counter(request["fingerprint"] for request in server.requests)
    assert share.value > 0 and 0 <= hits.value <= 1
    assert list(counts.values()).count(2) > 0.9 * len(counts), "the same requests, twice"


@pytest.mark.slow
def test_both_strategies_are_given_the_same_tokens():
    with StubServer() as server:
        given = {"teacher": server.url, "space": "qwen3-vl", "tree_tokens": 400}
        found = [build_once(name, 2, 0, **given) for name in ("mcts", "best-of-n")]
    for built in found:
        assert built.trees == 2 and 2 * 400 <= built.completion_tokens < 2 * 3 * 400
        assert built.seconds > 0 and built.kept_per_mtok >= 0


# ---- shards that overlap (flows.stages.search.overlapping): best seen on a virtual clock
# -------------


def shards_of(seconds, concurrency):
    """What happened when shards of trees that take so many seconds ran: (time, shard, what)."""
    happened = []

    async def work(shard, turn):
        waiting = len(seconds[shard])
        now = asyncio.get_running_loop().time

        async def tree(lasts):
            nonlocal waiting
            async with turn.slots:
                happened.append((now(), shard, "tree"))
                waiting -= 1
                if not waiting:
                    turn.begun.set()
                await asyncio.sleep(lasts)

        await gather(tree(lasts) for lasts in seconds[shard])
        await turn.before.wait()
        happened.append((now(), shard, "commit"))

    _, total = virtual_clock.run(overlapping(range(len(seconds)), work, concurrency))
    return happened, total


def test_the_next_shards_trees_begin_where_there_is_room_and_commits_keep_their_order():
    happened, total = shards_of([[10, 1], [1, 1], [1, 1]], concurrency=2)
    commits = [(at, shard) for at, shard, what in happened if what == "commit"]
    assert commits == [(10, 0), (10, 1), (11, 2)], "a slow tree holds back commits, not trees"
    assert [at for at, shard, what in happened if (shard, what) == (1, "tree")] == [1, 2]
    assert total == 11 < 10 + 1 + 1
    at_most_two = [at for at, shard, what in happened if (shard, what) == (2, "tree")]
    assert min(at_most_two) >= 10, "the third shard waits until the first has ended"


def test_shards_that_overlap_are_done_sooner_than_one_by_one():
    lasts = [[1 + (3 * i + j) % 5 for j in range(8)] for i in range(6)]
    _, total = shards_of(lasts, concurrency=4)
    drained = sum(shards_of([each], concurrency=4)[1] for each in lasts)
    assert total < 0.95 * drained
    assert total >= sum(map(sum, lasts)) / 4


def test_a_shard_that_fails_stops_the_others_before_they_commit():
    ended = []

    async def work(shard, turn):
        turn.begun.set()
        await asyncio.sleep(1 if shard == 0 else 0.1)
        if shard == 0:
            raise RuntimeError("disk full")
        await turn.before.wait()
        ended.append(shard)

    with pytest.raises(RuntimeError, match="disk full"):
        virtual_clock.run(overlapping(range(3), work, 4))
    assert ended == []


def test_a_shard_with_nothing_to_do_delays_no_other():
    async def work(shard, turn):
        if shard % 2:
            await asyncio.sleep(1)

    assert virtual_clock.run(overlapping(range(6), work, 4))[1] <= 3


def test_where_sampling_fails_nowhere_there_is_nothing_to_compare() -> None:
    (none,) = failed_questions("sat2", "mcts", limit=1, tokens=4000, runs=1)
    assert none.value == 0, "half the budget is enough"


@pytest.mark.slow
def test_of_few_questions_no_ratio_is_held_against_a_target() -> None:
    rows = list(failed_questions("vstar", "mcts", limit=16, tokens=1, runs=1))
    asked, solved, theirs, measured, points, spent = rows
    assert 0 < asked.value <= 16 and solved.value <= asked.value and theirs.value < 10
    assert "ratio" in measured.what and measured.at_least is None and measured.verdict == ""
    assert "points more" in points.what and spent.value >= 0

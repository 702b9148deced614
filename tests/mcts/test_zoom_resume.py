"""A search with crops that is killed and continued, or replayed, is the same, crops included."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts.coordinates import Frame
from mcts.image_io import decode
from mcts.journal.journal import Journal
from mcts.teachers.base import Completion, Ledger, Reply
from mcts.teachers.openai_client import OpenAITeacher
from mcts.tree import flatten, rebuild
from mcts.zoom.crops import CropImages
from mcts.zoom.lenses import Lens
from mcts.zoom.observe import observe
from tests.mcts.test_zoom_search import look, say
from tests.support.stub_server import StubServer
from tests.support.zoom_searches import ZOOM, ZOOMING, as_bytes, asked_about, encoded, searched

ROOT = Path(__file__).parents[2]


# ---- killed and continued, with a server --------------------------------------------------------

RUN = """
import asyncio, os, signal, sys
from mcts.journal.journal import JournaledTeacher
from mcts.teachers.openai_client import OpenAITeacher
from tests.support.zoom_searches import as_bytes, searched

url, folder, dies_at = sys.argv[1:]
ask = JournaledTeacher.ask

async def dying(self, key, *rest, **more):
    replayed = self.replayed
    record = await ask(self, key, *rest, **more)
    if key.purpose == dies_at and self.replayed == replayed:
        os.kill(os.getpid(), signal.SIGKILL)
    return record

JournaledTeacher.ask = dying
sys.stdout.buffer.write(as_bytes(asyncio.run(searched(OpenAITeacher(url), folder))))
"""


def in_a_process(server, folder, dies_at=""):
    command = [sys.executable, "-c", RUN, server.url, str(folder), dies_at]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


async def test_a_search_killed_after_each_kind_of_request_gives_the_same_tree_and_crops(tmp_path):
    with StubServer() as server:
        teacher = OpenAITeacher(server.url)
        whole = await searched(teacher, tmp_path / "whole")
        await teacher.close()
        sent = {r["fingerprint"] for r in server.requests}
        purposes = [purpose for _, purpose, _ in whole.request_keys]
        assert set(purposes) == {"expand", "rollout", "turn", "finish", "answer"}
        server.requests.clear()
        for purpose in ("expand", "rollout", "turn", "finish", "answer"):
            killed = in_a_process(server, tmp_path / "killed", purpose)
            assert killed.returncode == -signal.SIGKILL, (purpose, killed.stderr.decode())
        finished = in_a_process(server, tmp_path / "killed")
        assert finished.stdout == as_bytes(whole), finished.stderr.decode()
        # A request holds the crops it shows, so equal requests show equal pixels.
        assert {r["fingerprint"] for r in server.requests} == sent


async def test_a_replay_needs_neither_server_nor_images_and_gives_the_same_bytes(tmp_path):
    with StubServer() as server:
        teacher = OpenAITeacher(server.url)
        tree = await searched(teacher, tmp_path)
        await teacher.close()
        asked = server.request_count()
    replayed = await searched(teacher, tmp_path, mode="replay")
    assert as_bytes(replayed) == as_bytes(tree)
    assert asked == tree.usage.requests
    own = 5 * 4 * tree.usage.requests  # patches of the question's picture
    assert tree.usage.image_tokens > own, "and crops on top"


async def test_a_server_that_drops_the_end_of_a_call_gives_the_same_tree(tmp_path):
    trees = []
    for i, knobs in enumerate([{}, {"drop_stop": True, "tell_stop_reason": False}]):
        with StubServer(**knobs) as server:
            teacher = OpenAITeacher(server.url)
            tree = await searched(teacher, tmp_path / str(i))
            await teacher.close()
        trees.append([(n.path, n.step, n.answer, n.problems) for n in tree.nodes])
        trees[-1] += [(r.steps, r.answer, r.problems) for r in tree.rollouts]
    assert trees[0] == trees[1]


async def test_a_server_that_can_do_nothing_but_chat_is_searched_with_crops_all_the_same(tmp_path):
    with StubServer(refuse_continue=True, refuse_tool_turns=True, refuse_many=True) as server:
        teacher = OpenAITeacher(server.url, backoff_s=0.01)
        tree = await searched(teacher, tmp_path)
        await teacher.close()
        turns = server.requests[-1]["body"]["messages"]
    assert tree.errors == () and not tree.failed
    assert any(s.observation.view for r in tree.rollouts for s in r.steps if s.observation)
    assert {turn["role"] for turn in turns[1:]} <= {"user", "assistant"}


# ---- whatever a model writes --------------------------------------------------------------------


def anything(rng: random.Random, looks: int) -> tuple[str, str]:
    """Return a turn as a model might write it, and why it ended."""
    x, y = rng.randrange(1000), rng.randrange(1000)
    call = look(x, y, image=rng.randrange(1, looks + 3))
    texts = [
        look(x, y), look(x, y), look(500, 500), call, say(rng.choice(["left", "right"])),
        look(x + 0.5, y), call.replace(f"[{x}, {y}]", f'["{x}", "{y}"]'), look(x + 900, y),
        look(0.25, 0.75), look(10**9, -(10**9)), look(x, y, image=10**30),
        call.replace("}", ""), call.replace("</tool_call>", ""), call[: rng.randrange(len(call))],
        call + say(), say() + call, call + call, call.partition("</think>")[2], "", " ",
        f"<think>A \ud800 thing ({x}, {y}).</think>", "<think></think>", "<answer></answer>",
        '<tool_call>{"arguments": {"bbox_2d": [9, 9, 1, 1], "label": "\\ud800"}}</tool_call>',
        f"<think>First ({x}, {y}).</think><think>Then ({y}, {x}).</think>{look(y, y)}",
    ]  # fmt: skip
    return rng.choice(texts), rng.choice(["stop", "stop", "stop", "length"])


class Scribbler:
    """A teacher that writes anything: a function of the request. It looks at every image."""

    identity = "scribbler"

    def __init__(self, write=anything):
        self.ledger, self.shown, self.write = Ledger(), {}, write

    async def open(self):
        pass

    async def complete(self, request, images):
        for name in request.image_ids:
            data = images[name]
            assert self.shown.setdefault(name, data) is data, "rendered once"
            decode(data)
        looks = len(request.image_ids)
        made = []
        for i in range(request.n):
            rng = random.Random(request.sample_seed(i))
            text, reason = ("left</answer>", "stop")
            if not request.messages[-1].text.endswith("<answer>"):
                text, reason = self.write(rng, looks)
            made.append(Completion(text or " ", reason, 3))
        return Reply(tuple(made), 7, None, 3 * request.n, 0.0, 49 * looks)


def check_protocol(tree, config):
    """Check that every observation is the one that its call must show."""
    frame = Frame.of(config.space, tree.question)
    lines = [node.steps() for node in tree.nodes]
    lines += [n.steps() + r.steps for n in tree.nodes for r in n.rollouts]
    for line in lines:
        for i, step in enumerate(line):
            assert (step.observation is None) == (step.call is None)
            if step.call is not None:
                assert step.observation == observe(frame, line[:i], step.call, config.zoom)
        shown = [s.observation for s in line if s.observation]
        assert not any(o.last for o in shown[:-1])
        assert sum(o.crop is not None for o in shown) <= config.zoom.max_calls


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), wave=st.sampled_from([1, 3]),
    strategy=st.sampled_from(["mcts", "mcts", "best-of-n", "linear"]),
)  # fmt: skip
def test_whatever_a_model_writes_the_tree_is_sound_and_comes_out_the_same_again(
    tmp_path_factory, seed, wave, strategy
):
    folder = tmp_path_factory.mktemp("journal")
    config = replace(ZOOMING, step_tokens=100 + seed, wave=wave, strategy=strategy, samples=6)
    files = [encoded(40, 30), encoded(1, 1)]
    tree = asyncio.run(searched(Scribbler(), folder, config, files))
    check_protocol(tree, config)
    again = asyncio.run(searched(Scribbler(), folder, config, files, mode="replay"))
    assert as_bytes(again) == as_bytes(tree)
    with Journal(folder) as journal:
        said = [(r, i) for r in journal.records(tree.tree_id) for i in range(len(r.completions))]
    texts = {f"{r.response_id}.{i}": r.completions[i] for r, i in said}
    whole = {k: c.text.encode("utf-8", "replace").decode() for k, c in texts.items()}
    rebuilt = rebuild(
        tree.tree_id, tree.question, flatten(tree), whole, Frame.of(config.space, tree.question),
        tree.simulations, tree.errors, config.zoom,
        {k for k, c in texts.items() if c.finish_reason == "length"},
    )  # fmt: skip
    assert flatten(rebuilt) == flatten(tree)
    assert [r.steps for r in rebuilt.rollouts] == [r.steps for r in tree.rollouts]
    json.dumps(flatten(tree).nodes, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("files", "sizes"),
    [
        ([encoded(1, 1)], {(112, 112)}),
        ([encoded(3, 300)], {(8, 112)}),
        ([encoded(90, 60, orientation=6, kind="JPEG")], {(112, 112)}),
        ([encoded(80, 50, seed=1), encoded(20, 90, seed=2)], {(112, 112), (56, 112)}),
    ],
    ids=["one pixel", "a line", "turned by its tag", "two pictures"],
)
async def test_crops_of_any_picture_have_the_size_that_was_told(tmp_path, files, sizes):
    def look_around(rng, looks):
        image = rng.randrange(1, looks + 1)
        return look(rng.randrange(1000), rng.randrange(1000), image=image), "stop"

    teacher = Scribbler(look_around)
    zoom = replace(ZOOM, lens=Lens(20, 112), max_calls=4)
    tree = await searched(teacher, tmp_path, replace(ZOOMING, zoom=zoom, simulations=12), files)
    question, images = asked_about(*files)
    crops, told = CropImages(images), {}
    for node in tree.nodes:
        shown = [s for s in node.steps() if s.observation and s.observation.crop]
        for name, step in zip(crops.add(question, shown), shown, strict=True):
            told[name] = (step.observation.width, step.observation.height)
            image = question.images[step.observation.crop.image]
            assert step.observation.crop.x2 <= image.width
            assert step.observation.crop.y2 <= image.height
    assert told and all(decode(crops[name]).size == told[name] for name in told)
    assert sizes <= set(told.values())

"""A search whose steps look closer: what becomes a node, what is followed, and what a turn sees."""

import asyncio
import json
import random
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from mcts.baselines import CHAINS_PER_REQUEST
from mcts.config import identifying_fields
from mcts.coordinates import Frame
from mcts.data import Image, Point, Step
from mcts.journal.records import Key
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import ImagePart, TeacherError
from mcts.tree import flatten, rebuild
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy

ZOOM = ZoomConfig(Lens(100, 400), max_calls=2, max_turns=4, role="tool")
CONFIG = replace(CONFIG, prompt="zoom", zoom=ZOOM)
FRAME = Frame.of(CONFIG.space, QUESTION)
ONE = replace(CONFIG, simulations=1, children=1, rollouts=1)


def run(policy, config=CONFIG, question=QUESTION):
    return asyncio.run(search(question, config, policy, grade, "t"))


def tool(arguments):
    return f"<tool_call>{json.dumps({'name': 'search_coordinate', 'arguments': arguments})}"


def look(x, y, thought="A thing at", **more):
    call = tool({"coordinate": [x, y], **more})
    return f"<think>{thought} ({x}, {y}).</think>\n{call}</tool_call>"


def say(answer="left", thought="It shows a box."):
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


def seeded(node, purpose, steps, sample):
    """A teacher that is a function of the request: it looks around, and answers in the end."""
    if purpose in ("answer", "finish"):
        return "left</answer>"
    rng = random.Random(f"{node}|{purpose}|{len(steps)}|{sample}")
    if steps and rng.random() < 0.4:
        return say(rng.choice(["left", "right"]), rng.choice(["A box.", "A lamp."]))
    texts = [look(rng.randrange(1000), rng.randrange(1000))] * 8
    texts += [
        look(1200, 10),
        look(5, 5, image=9),
        "<tool_call>{}</tool_call>",
        "<think>Well.</think>",
    ]
    return rng.choice(texts)


class SeeingPolicy(ScriptedPolicy):
    """Keeps what each request was shown, and every response."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen, self.texts = {}, {}

    async def sample(self, node, purpose, steps, n, first=0):
        shown = [s.observation for s in steps if s.observation]
        self.seen[node, purpose, first] = [o.view or o.problem for o in shown]
        samples = await super().sample(node, purpose, steps, n, first)
        self.texts |= {s.response_id: s.text for s in samples}
        return samples


def test_a_child_is_a_turn_and_what_follows_it_sees_its_crop():
    script = {
        ("", "expand", 0): look(500, 500),
        ("", "expand", 1): say("right"),
        ("", "expand", 2): look(20, 980),
        ("0", "rollout", 0): say("left"),
        ("0", "rollout", 1): look(100, 100),
        ("0", "turn", 65): say("right"),
        ("2", "rollout", 0): say("left"),
        ("2", "rollout", 1): say("left"),
    }
    policy = SeeingPolicy(script)
    tree = run(policy, replace(CONFIG, simulations=1))
    assert policy.seen == {
        ("", "expand", 0): [],
        ("0", "rollout", 0): [1],
        ("0", "turn", 65): [1, 2],
        ("2", "rollout", 0): [1],
    }
    middle, corner = tree.root.children[0].step, tree.root.children[2].step
    assert middle.call.point == Point(500, 500)
    crop = middle.observation.crop
    assert (crop.x1, crop.y1, crop.x2, crop.y2) == (400, 400, 600, 600)
    crop = corner.observation.crop
    assert (crop.x1, crop.y2) == (0, 1000), "moved into the image, not squeezed"
    assert [n.answer for n in tree.nodes if n.terminal] == ["right"]
    assert [(r.answer, len(r.steps)) for r in tree.rollouts] == [
        ("left", 1), ("right", 2), ("left", 1), ("left", 1),
    ]  # fmt: skip
    assert tree.rollouts[1].response_ids == ("0/rollout/1", "0/turn/65")


def test_a_place_already_shown_is_no_child_but_a_rollout_goes_on():
    script = {
        ("", "expand", 0): look(500, 500),
        ("0", "rollout", 0): look(502, 499, "Once more"),
        ("0", "turn", 1): say(),
        ("0", "expand", 0): look(501, 501, "Closer at"),
    }
    policy = SeeingPolicy(script, lambda *_: "left</answer>")
    tree = run(policy, replace(ONE, simulations=2))
    (rollout,) = tree.root.children[0].rollouts
    assert [s.observation.problem for s in rollout.steps[:1]] == ["shown_already"]
    assert policy.seen["0", "turn", 1] == [1, "shown_already"]
    assert rollout.answer == "left"
    assert [n.discarded for n in tree.root.children[0].children] == ["repeated_point"]


def test_what_a_crop_shows_may_be_told_with_its_place():
    script = {
        ("", "expand", 0): look(500, 500),
        ("0", "expand", 0): "<think>The box at (503, 502) is red.</think>",
        ("0.0", "expand", 0): "<think>A box at (900, 900).</think>",
        ("0.0.0", "expand", 0): "<think>A thing at (900, 900).</think>",
    }
    tree = run(ScriptedPolicy(script, lambda *_: say()), replace(ONE, simulations=4))
    reasons = {node.path: node.discarded for node in tree.nodes if node.step}
    assert reasons["0.0"] is None and reasons["0.0.0"] is None
    assert reasons["0.0.0.0"] == "repeated_point"


@pytest.mark.parametrize(
    ("text", "problem", "kind"),
    [
        ("<think>A (1, 2).</think><tool_call>{nope</tool_call>", "malformed", "call_malformed"),
        (look(1200, 10, "Look"), "point_outside_image", "call_point_outside_image"),
        (look(5, 5, image=7), "no_such_image", "call_no_such_image"),
        (f"<think>A (1, 2).</think>{tool({'coordinate': [5]})[:-3]}", "malformed",
         "unclosed_tool_call"),
        ("<tool_call>[]</tool_call>", "malformed", "call_without_thought"),
    ],
)  # fmt: skip
def test_a_call_that_shows_nothing_is_followed_and_told_why(text, problem, kind):
    text = text.replace("(1200, 10)", "there")  # the thought itself points at nothing
    script = {("", "expand", 0): (text, "length" if "unclosed" in kind else "stop")}
    policy = SeeingPolicy(script, lambda *_: say())
    tree = run(policy, replace(ONE, simulations=2))
    child = tree.root.children[0]
    assert child.discarded is None and kind in child.problems
    assert (child.step.observation.problem, child.step.observation.crop) == (problem, None)
    assert policy.seen["0", "rollout", 0] == policy.seen["0", "expand", 0] == [problem]
    assert [r.answer for r in tree.rollouts] == ["left"]


@pytest.mark.parametrize(
    "arguments",
    [{"coordinate": [500.0, 500.0]}, {"coordinate": ["500", "500"]}, {"coordinate": "500, 500"},
     {"bbox_2d": [400, 400, 600, 600], "label": "\ud800 a box"}],
)  # fmt: skip
def test_numbers_may_be_floats_or_texts_and_a_box_may_be_asked_for(arguments):
    text = f"<think>It is there.</think>{tool(arguments)}</tool_call>"
    tree = run(ScriptedPolicy({("", "expand", 0): text}, lambda *_: say()), ONE)
    (child,) = tree.root.children
    assert child.step.call.point == Point(500, 500) and child.step.observation.view == 1
    json.dumps(flatten(tree).nodes, ensure_ascii=False).encode()


def test_a_crop_may_be_looked_into_and_the_place_is_one_of_the_image():
    script = {("", "expand", 0): look(500, 500), ("0", "expand", 0): look(750, 250, image=2)}
    script["0", "expand", 0] = script["0", "expand", 0].replace("(750, 250)", "there")
    tree = run(ScriptedPolicy(script, lambda *_: say()), replace(ONE, simulations=2))
    inner = tree.root.children[0].children[0].step
    assert inner.call.point == Point(550, 450) and inner.call.view == 1
    crop = inner.observation.crop
    assert (crop.x1, crop.x2) == (500, 600), "half as large as the crop it was made in"


def test_a_call_ends_the_turn_and_an_answer_before_it_wins():
    script = {
        ("", "expand", 0): f"{look(500, 500)}<think>It is red.</think><answer>right</answer>",
        ("", "expand", 1): f"<answer>right</answer>{look(500, 500)}",
        ("", "expand", 2): look(100, 100) + look(900, 900),
    }
    policy = ScriptedPolicy(script, lambda *_: say())
    tree = run(policy, replace(CONFIG, simulations=1))
    called, answered, twice = tree.root.children
    assert called.problems == twice.problems == ("text_after_call",)
    assert called.step.observation.view == twice.step.observation.view == 1
    assert twice.step.call.point == Point(100, 100)
    assert answered.answer == "right" and answered.problems == ("call_after_answer",)


def test_a_turn_without_call_or_answer_is_continued():
    script = {
        ("", "expand", 0): "<think>A box at (10, 20).</think>",
        ("0", "expand", 0): look(700, 700),
        ("0.0", "expand", 0): say(),
    }
    policy = ScriptedPolicy(script, lambda *_: say())
    tree = run(policy, replace(ONE, simulations=3))
    assert [n.path for n in tree.nodes if not n.discarded] == ["", "0", "0.0", "0.0.0", "0.0.0.0"]


def test_a_thought_that_the_token_limit_cut_off_is_no_step():
    cut = ("<think>A box at (10, 20).</think><think>And a", "length")
    policy = ScriptedPolicy({("", "expand", 0): cut}, lambda *_: say())
    tree = run(policy, ONE)
    assert [n.step.thought for n in tree.nodes if n.step] == ["A box at (10, 20)."]


def test_lines_that_look_at_other_places_are_two():
    looks = {("", "expand", i): look(x, 500).replace(f"({x}, 500)", "there")
             for i, x in enumerate((300, 700, 305))}  # fmt: skip
    tree = run(ScriptedPolicy(looks, lambda *_: say()), replace(CONFIG, simulations=1))
    assert tree.right_lines() == 3, "by the pixels that they call for"


def test_behind_the_last_crop_the_model_answers_or_its_answer_is_forced():
    """Two crops are allowed: the second asks for the answer, and a third call gets none."""
    script = {
        ("", "expand", 0): look(500, 500),
        ("0", "rollout", 0): look(100, 100),
        ("0", "turn", 1): look(900, 900, "And one at"),
        ("0", "finish", 0): "left</answer>",
        ("0", "expand", 0): look(200, 200),
        ("0.0", "rollout", 0): say("right"),
        ("0.0", "expand", 0): look(800, 800),
        ("0.0.0", "finish", 0): "left</answer>",
        ("0.0.0", "answer", 0): "right</answer>",
    }
    policy = SeeingPolicy(script)
    tree = run(policy, replace(ONE, simulations=4))
    first = tree.root.children[0].rollouts[0]
    assert [s.observation and s.observation.last for s in first.steps] == [True, None]
    assert first.problems == ("call_after_limit", "answer_forced")
    assert first.response_ids == ("0/rollout/0", "0/turn/1", "0/finish/0")
    second = tree.root.children[0].children[0]
    assert second.step.observation.last and second.rollouts[0].answer == "right"
    third = second.children[0]
    assert third.step.observation is None and third.rollouts[0].problems == ("answer_forced",)
    assert third.children[0].answer == "right"
    assert third.children[0].problems == ("answer_forced",), "nobody learns from it"


def test_a_rollout_is_cut_at_its_greatest_length_and_its_answer_forced():
    zoom = replace(ZOOM, max_calls=40, max_turns=40)

    def wander(node, purpose, steps, sample):
        return "left</answer>" if purpose == "finish" else look(90 + 70 * len(steps), 40)

    policy = SeeingPolicy(otherwise=wander)
    tree = run(policy, replace(ONE, zoom=zoom, rollout_steps=3))
    (rollout,) = tree.rollouts
    assert len(rollout.steps) == 3 and rollout.problems == ("answer_forced",)
    assert policy.seen["0", "finish", 0] == [1, 2, 3, 4]


def test_a_turn_that_fails_costs_its_rollout_only():
    gone = TeacherError("timeout", "no answer within 60 s")
    script = {("", "expand", 0): look(500, 500), ("0", "rollout", 0): look(100, 100),
              ("0", "turn", 1): gone, ("0", "rollout", 1): say()}  # fmt: skip
    tree = run(ScriptedPolicy(script), replace(ONE, rollouts=2))
    failed, good = tree.rollouts
    assert failed.reward is None and failed.reason.startswith("failed: ")
    assert failed.steps[0].observation.view == 2, "what it had seen is kept"
    assert good.reward == 1 and len(tree.errors) == 1


def test_a_search_is_named_by_how_thoughts_behind_crops_are_kept():
    assert identifying_fields(CONFIG)["zoom"]["thoughts"] == "apart", "once they were joined"
    assert "zoom" not in identifying_fields(replace(CONFIG, zoom=None))


def test_equal_answers_behind_equal_thoughts_all_count():
    script = {("", "expand", i): say(a) for i, a in enumerate(["left", "right", "left"])}
    tree = run(ScriptedPolicy(script), replace(CONFIG, simulations=1))
    assert [answer for answer, _ in tree.outcomes()] == ["left", "right", "left"]
    script = {("", "expand", i): look(500, 500) for i in range(3)}
    tree = run(ScriptedPolicy(script, lambda *_: say()), replace(CONFIG, simulations=1))
    copies = [n.discarded for n in tree.root.children]
    assert copies == [None, "copy_of_sibling", "copy_of_sibling"], "but a look is made once"


@pytest.mark.parametrize("wave", [1, 4])
@pytest.mark.parametrize("ahead", [0, 8])
def test_neither_the_order_of_answers_nor_prefetching_changes_the_tree(wave, ahead):
    config = replace(CONFIG, wave=wave, simulations=12)

    def tree_with(seed, ahead):
        rng = random.Random(seed)

        async def delay(node, purpose):
            await asyncio.sleep(rng.random() * 0.002)

        policy = ScriptedPolicy(otherwise=seeded, delays=delay)
        tree = asyncio.run(search(QUESTION, config, policy, grade, "t", prefetch=lambda: ahead))
        return flatten(tree)

    assert tree_with(0, 0) == tree_with(1, ahead) == tree_with(2, ahead)


@pytest.mark.parametrize("strategy", ["best-of-n", "linear"])
def test_baselines_look_under_the_same_rules(strategy):
    config = replace(CONFIG, strategy=strategy, samples=CHAINS_PER_REQUEST + 2)
    policy = SeeingPolicy(otherwise=seeded)
    tree = run(policy, config)
    lines = [node.steps() for node in tree.nodes if node.terminal]
    lines += [rollout.steps for rollout in tree.rollouts]
    shown = [[s.observation for s in line if s.observation] for line in lines]
    assert max(map(len, shown)) > 1, "several turns"
    for observations in shown:
        assert sum(o.crop is not None for o in observations) <= ZOOM.max_calls
        assert not any(o.last for o in observations[:-1])
    if strategy == "best-of-n":
        turns = [key for key in policy.seen if key[1] == "turn"]
        assert turns and {sample // 64 for _, _, sample in turns} <= set(range(config.samples))


@pytest.mark.parametrize("strategy", ["mcts", "best-of-n", "linear"])
def test_rows_rebuild_the_tree_with_what_every_call_showed(strategy):
    config = replace(CONFIG, simulations=16, strategy=strategy, samples=12)
    cut = {("0", "rollout", 0): ("<think>A box (3, 4).</think><think>And a", "length")}
    policy = SeeingPolicy(cut, seeded)
    tree = run(policy, config)
    rows = flatten(tree)
    again = rebuild(
        "t", QUESTION, rows, policy.texts, FRAME, tree.simulations, tree.errors,
        zoom=ZOOM, cut_off={"0/rollout/0"},
    )  # fmt: skip
    assert flatten(again) == rows and again.zoom == ZOOM
    assert [n.step for n in again.nodes] == [n.step for n in tree.nodes]
    assert [r.steps for r in again.rollouts] == [r.steps for r in tree.rollouts]
    lines = [n.steps() for n in tree.nodes] + [r.steps for r in tree.rollouts]
    assert any(step.observation for line in lines for step in line)


def request(config, purpose, steps=()):
    policy = TeacherPolicy(QUESTION, config, "t", None, {})
    return policy.request(Key("t", "0", purpose, 0), steps, 1)


def test_a_request_is_one_turn_with_the_crops_before_it():
    tree = run(ScriptedPolicy({("", "expand", 0): look(500, 500)}, lambda *_: say()), ONE)
    steps = tree.root.children[0].steps()
    for purpose in ("expand", "rollout", "chain", "turn"):
        made = request(CONFIG, purpose, steps)
        assert made.stop == ("</tool_call>", "</answer>") and made.max_tokens == CONFIG.step_tokens
        roles = [message.role for message in made.messages]
        assert roles == ["system", "user", "assistant", "tool"] and not made.continues
        assert made.image_ids[0] == QUESTION.images[0].image_id and len(made.image_ids) == 2
    made = request(CONFIG, "finish", steps)
    assert made.messages[-1].text == "<answer>" and made.stop == ("</answer>",)
    user = request(replace(CONFIG, zoom=replace(ZOOM, role="user")), "turn", steps)
    assert [message.role for message in user.messages][2:] == ["assistant", "user"]
    assert isinstance(user.messages[-1].parts[0], ImagePart)


def test_requests_of_searches_that_do_not_look_closer_are_as_they_were():
    """Journals of older code answer to these hashes."""
    plain = replace(CONFIG, prompt="points", zoom=None)
    steps = (Step("A (5, 5).", (Point(5, 5),)),)
    made = {p: request(plain, p, steps).fingerprint("m") for p in ("expand", "rollout", "finish")}
    assert made == {
        "expand": "fa188bae4e4fbad61d582b9bb46fc56e",
        "rollout": "ba57866674fe96dbc58a5c4c3a705bad",
        "finish": "59837317cccc1ff52fef9cdf32973a29",
    }


def test_a_question_about_two_pictures_looks_into_either():
    question = replace(QUESTION, images=(*QUESTION.images, Image("e" * 64, 300, 200)))
    script = {("", "expand", 0): look(500, 500, image=2).replace("(500, 500)", "there")}
    tree = run(ScriptedPolicy(script, lambda *_: say()), ONE, question)
    step = tree.root.children[0].step
    assert step.call.point == Point(150, 100, 1) and step.observation.view == 2
    assert (step.observation.crop.image, step.observation.crop.x2) == (1, 250)

"""The baselines: chains without a tree, in the same tables; and the reference's order of calls."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.search.reference_order import ReferenceOrder
from curation.grading.grade import grade
from curation.render.gallery import shown_nodes
from curation.traces.linearize import linearize
from mcts.coordinates import Frame
from mcts.journal.records import Key
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherError
from mcts.tree import flatten, rebuild
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from warehouse.tables.tree_rows import search_rows


def think(x, y, text="A thing at"):
    return f"<think>{text} ({x}, {y}).</think>"


def chains(node, purpose, steps, sample):
    """A teacher that can also answer with a whole chain."""
    if purpose == "chain":
        draw = random.Random(sample)
        thoughts = "".join(think(draw.randint(0, 999), 5) for _ in range(draw.randint(1, 4)))
        return f"{thoughts}<answer>{draw.choice(['left', 'right'])}</answer>"
    return seeded_teacher(node, purpose, steps, sample)


def run(policy, config):
    return asyncio.run(search(QUESTION, config, policy, grade, "t"))


BEST = replace(CONFIG, strategy="best-of-n", samples=20)
LINEAR = replace(CONFIG, strategy="linear", samples=6)


def test_best_of_n_samples_whole_chains_from_the_question_many_to_a_request():
    policy = ScriptedPolicy(otherwise=chains)
    tree = run(policy, BEST)
    assert policy.log == [("", "chain", 8, 0), ("", "chain", 8, 8), ("", "chain", 4, 16)]
    assert tree.simulations == 20 and tree.nodes == [tree.root]
    assert [r.sample for r in tree.rollouts] == list(range(20))
    assert tree.root.visits == 20
    assert tree.root.value == pytest.approx(sum(r.reward for r in tree.rollouts) / 20)


AUTO = replace(CONFIG, strategy="auto", samples=8)


def test_auto_searches_only_what_its_samples_fail():
    policy = ScriptedPolicy(otherwise=chains)
    tree = run(policy, AUTO)
    assert tree.stopped_by == "sampled" and tree.simulations == 8
    assert policy.log == [("", "chain", 8, 0)] and tree.nodes == [tree.root]

    def wrong(node, purpose, steps, sample):
        if purpose == "chain":
            return f"{think(3, 5)}<answer>right</answer>"
        return seeded_teacher(node, purpose, steps, sample)

    policy = ScriptedPolicy(otherwise=wrong)
    tree = run(policy, AUTO)
    assert tree.stopped_by is None and tree.simulations == 8 + AUTO.simulations
    assert policy.log[0] == ("", "chain", 8, 0) and policy.log[1][1] == "expand"
    assert len(tree.nodes) > 1
    assert [r.reward for r in tree.root.rollouts[:8]] == [0] * 8, "the samples are kept"

    policy = ScriptedPolicy(otherwise=wrong)
    tree = run(policy, replace(AUTO, samples=16))
    assert [purpose for _, purpose, *_ in policy.log[:3]] == ["chain", "chain", "expand"]
    assert tree.simulations == 16 + AUTO.simulations, "many samples leave the root to be expanded"


@pytest.mark.parametrize(
    ("right", "wave", "paid"), [(0, 1, 8), (8, 1, 16), (0, 2, 16), (31, 1, 32)]
)
def test_auto_stops_behind_the_wave_that_has_a_right_chain(right, wave, paid):
    def one_right(node, purpose, steps, sample):
        assert purpose == "chain"
        return f"{think(3, 5)}<answer>{'left' if sample == right else 'right'}</answer>"

    tree = run(ScriptedPolicy(otherwise=one_right), replace(AUTO, samples=32, wave=wave))
    assert (tree.stopped_by, tree.simulations, len(tree.rollouts)) == ("sampled", paid, paid)


def test_linear_thinks_one_step_a_request_and_one_chain_after_the_other():
    script = {
        ("", "expand", 0): think(1, 1),
        ("0", "expand", 0): think(2, 2),
        ("0.0", "expand", 0): "<answer>left</answer>",
        ("", "expand", 1): think(3, 3),
        ("1", "expand", 0): "<answer>right</answer>",
    }
    policy = ScriptedPolicy(script)
    tree = run(policy, replace(LINEAR, samples=2))
    assert policy.log == [(n, p, 1, i) for n, p, i in script]
    assert tree.outcomes() == [("left", 1), ("right", 0)]
    assert [node.path for node in tree.nodes] == ["", "0", "0.0", "0.0.0", "1", "1.0"]
    assert tree.root.visits == 2 and tree.simulations == 2


def test_a_chain_of_linear_sampling_answers_at_the_greatest_depth():
    policy = ScriptedPolicy(otherwise=lambda node, purpose, steps, i: (
        "left</answer>" if purpose == "answer" else think(10 * len(steps), 7)
    ))  # fmt: skip
    tree = run(policy, replace(LINEAR, samples=1, max_depth=3))
    assert [purpose for _, purpose, *_ in policy.log] == ["expand"] * 3 + ["answer"]
    assert tree.outcomes() == [("left", 1)]


def test_what_is_sampled_twice_counts_twice():
    """A baseline drops neither copies nor repeated points: it is what sampling gives."""
    same = {("", "expand", i): think(1, 1) for i in range(3)}
    policy = ScriptedPolicy(same, lambda node, *_: (
        think(1, 1) if "." not in node else "<answer>left</answer>"
    ))  # fmt: skip
    tree = run(policy, replace(LINEAR, samples=3))
    assert not [node for node in tree.nodes if node.discarded]
    assert [answer for answer, _ in tree.outcomes()] == ["left"] * 3
    assert tree.right_lines() == 1


@pytest.mark.parametrize("config", [replace(BEST, wave=2), replace(LINEAR, wave=4)])
def test_the_order_in_which_answers_arrive_changes_nothing(config):
    def tree_with(seed):
        rng = random.Random(seed)

        async def delay(node, purpose):
            await asyncio.sleep(rng.random() * 0.002)

        return flatten(run(ScriptedPolicy(otherwise=chains, delays=delay), config))

    assert tree_with(0) == tree_with(1) == tree_with(2)


def test_side_by_side_or_one_after_the_other_the_chains_are_the_same():
    """`wave` is speed only: a chain does not depend on any other."""

    def lines(config):
        tree = run(ScriptedPolicy(otherwise=chains), config)
        direct = (trace for trace in linearize(tree) if trace.kind == "direct")
        return Counter((trace.steps, trace.answer, trace.reward) for trace in direct)

    assert lines(BEST) == lines(replace(BEST, wave=3))
    assert lines(LINEAR) == lines(replace(LINEAR, wave=6))


def test_a_chain_too_long_is_cut_and_its_answer_forced():
    long = "".join(think(80 * i, 50) for i in range(1, 12)) + "<answer>right</answer>"
    script = {("", "chain", 0): long, ("", "finish", 0): "left</answer>"}
    tree = run(ScriptedPolicy(script), replace(BEST, samples=1))
    (rollout,) = tree.rollouts
    assert len(rollout.steps) == CONFIG.max_depth, "a whole chain may be as long as a branch"
    assert (rollout.answer, rollout.reward) == ("left", 1)


@pytest.mark.parametrize("config", [BEST, LINEAR])
def test_a_teacher_that_gives_nothing_is_given_up(config):
    gone = TeacherError("timeout", "no answer within 60 s")
    policy = ScriptedPolicy(otherwise=lambda *_: gone)
    tree = run(policy, config)
    assert tree.failed and len(policy.log) == 2
    assert tree.stopped_by == "explored" and "at the root: timeout" in tree.errors[0]


def test_a_chain_that_ends_without_an_answer_is_asked_for_it_as_in_best_of_n():
    cut = "<answer></answer>"
    found: dict = {("", "expand", number): cut for number in range(2)}
    found |= {("", "chain", number): cut for number in range(2)}
    found |= {("", "finish", 0): "right</answer>", ("", "finish", 1): TeacherError("server", "500")}
    trees = []
    for config in (LINEAR, BEST):
        policy = ScriptedPolicy(found, otherwise=lambda *_: "<answer>left</answer>")
        trees.append(run(policy, config))
        assert [p[3] for p in policy.log if p[1] == "finish"] == [0, 1]
        assert trees[-1].simulations == config.samples and not trees[-1].failed
        assert sum(answer == "right" for answer, _ in trees[-1].outcomes()) == 1
    assert len(trees[0].outcomes()) == LINEAR.samples - 1 and trees[0].errors


@pytest.mark.parametrize("config", [BEST, LINEAR])
def test_rows_linearizer_and_gallery_take_a_baseline_as_any_tree(config):
    tree = run(ScriptedPolicy(otherwise=chains), config)
    rows = search_rows(tree, config, [], model="m", seed=0)
    texts = {f"/chain/{i}": chains("", "chain", (), i) for i in range(20)}
    frame = Frame(CONFIG.space, QUESTION.images)
    again = rebuild("t", QUESTION, flatten(tree), texts, frame, tree.simulations)
    assert flatten(again) == flatten(tree)
    assert linearize(again) == linearize(tree)
    kinds = {trace.kind for trace in linearize(tree)}
    assert kinds == {"direct", "corrected"}, "one chain may turn back into another"
    assert len(list(shown_nodes(tree))) == len(tree.nodes)
    answers = [answer for answer, _ in tree.outcomes()]
    assert answers.count(rows.tree["majority_answer"]) >= len(answers) / 2
    assert rows.tree["majority_right"] == (rows.tree["majority_answer"] == "left")


def test_answers_that_name_one_choice_vote_together():
    said = ("right", "A", "(A) left", "right", "left")
    script = {("", "chain", i): f"<think>A box (5, 5).</think><answer>{answer}</answer>"
              for i, answer in enumerate(said)}  # fmt: skip
    config = replace(BEST, samples=len(said))
    row = search_rows(run(ScriptedPolicy(script), config), config, [], model="m", seed=0).tree
    assert (row["majority_answer"], row["majority_right"]) == ("A", True)


def test_the_reference_order_is_one_request_at_a_time_and_a_step_a_request():
    inside = most = 0

    async def watch(node, purpose):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    def never_answers(node, purpose, steps, sample):
        if purpose in ("finish", "answer"):
            return "left</answer>"
        return think(7 * len(steps) + sample % 31, 100 * len(steps) + sample // 1000)

    config = replace(CONFIG, simulations=1)
    policy = ScriptedPolicy(otherwise=never_answers, delays=watch)
    tree = run(ReferenceOrder(policy, QUESTION, config), config)
    assert most == 1 and {n for _, _, n, _ in policy.log} == {1}
    assert len(policy.log) == len(set(policy.log)) == 3 + 3 * 2 * 5
    purposes = [purpose for _, purpose, *_ in policy.log]
    assert purposes == ["expand"] * 3 + (["step"] * 4 + ["finish"]) * 6
    assert [node for node, *_ in policy.log] == [""] * 3 + ["0"] * 10 + ["1"] * 10 + ["2"] * 10
    assert all(len(rollout.steps) == 4 and rollout.reward == 1 for rollout in tree.rollouts)
    assert tree.usage.requests == 1 + 3, "without costs, a call counts as one"


def test_a_whole_chain_may_write_as_much_as_its_steps():
    policy = TeacherPolicy(QUESTION, BEST, "t", None, {})
    request = policy.request(Key("t", "", "chain", 0), (), 8)
    assert request.max_tokens == BEST.step_tokens * (BEST.max_depth + 1)
    assert request.stop == ("</answer>",) and request.n == 8
    step = policy.request(Key("t", "", "step", 0), (), 1)
    assert step.max_tokens == BEST.step_tokens and "</think>" in step.stop

"""The search: its defaults are the paper's, its waves are deterministic, nothing breaks it."""

import asyncio
import random
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from mcts.config import draw_min_thoughts, search_id
from mcts.coordinates import Frame
from mcts.data import Step
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.journal.records import Key
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherError
from mcts.tree import flatten, rebuild
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher


def run(policy, config=CONFIG, tree_id="t"):
    return asyncio.run(search(QUESTION, config, policy, grade, tree_id))


def think(x, y, text="A thing at"):
    return f"<think>{text} ({x}, {y}).</think>"


def test_a_search_by_hand():
    """One simulation, checked number by number."""
    script = {
        ("", "expand", 0): think(100, 100),
        ("", "expand", 1): think(200, 200),
        ("", "expand", 2): "<answer>right</answer>",
        ("0", "rollout", 0): f"\n{think(300, 300)}\n<answer>left</answer>",
        ("0", "rollout", 1): "<answer>right</answer>",
        ("1", "rollout", 0): "<answer>left</answer>",
        ("1", "rollout", 1): "<answer>left</answer>",
    }
    policy = ScriptedPolicy(script)
    tree = run(policy, replace(CONFIG, simulations=1))
    assert policy.log == [("", "expand", 3, 0), ("0", "rollout", 2, 0), ("1", "rollout", 2, 0)]
    root, first, _, last = tree.nodes
    assert [n.visits for n in tree.nodes] == [5, 2, 2, 1]
    assert [n.value for n in tree.nodes] == [0.6, 0.5, 1.0, 0.0]
    assert last.terminal and last.reason == "another choice is right"
    assert not last.open and first.open and root.open
    assert [r.reward for r in tree.rollouts] == [1, 0, 1, 1]
    assert tree.outcomes() == [("right", 0), ("left", 1), ("right", 0), ("left", 1), ("left", 1)]


def test_the_better_branch_is_expanded_next_and_answers_are_never_simulated_again():
    policy = ScriptedPolicy(
        {
            ("", "expand", 0): think(100, 100),
            ("", "expand", 1): think(200, 200),
            ("", "expand", 2): "<answer>left</answer>",
            **{("0", "rollout", i): "<answer>right</answer>" for i in range(2)},
            **{("1", "rollout", i): "<answer>left</answer>" for i in range(2)},
        },
        seeded_teacher,
    )
    run(policy, replace(CONFIG, simulations=2))
    assert [entry for entry in policy.log if entry[1] == "expand"] == [
        ("", "expand", 3, 0),
        ("1", "expand", 3, 0),
    ]


def test_the_papers_defaults_cost_at_most_4_requests_a_simulation():
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    tree = run(policy)
    assert tree.simulations == 8
    assert len(policy.log) <= 8 * 4
    assert all(node.depth <= CONFIG.max_depth + 1 for node in tree.nodes)
    assert tree.root.visits == sum(len(node.rewards) for node in tree.nodes)


@pytest.mark.parametrize("wave", [1, 4])
def test_the_order_in_which_answers_arrive_changes_nothing(wave):
    config = replace(CONFIG, wave=wave, simulations=12)

    def tree_with(seed):
        rng = random.Random(seed)

        async def delay(node, purpose):
            await asyncio.sleep(rng.random() * 0.002)

        return flatten(run(ScriptedPolicy(otherwise=seeded_teacher, delays=delay), config))

    assert tree_with(0) == tree_with(1) == tree_with(2)


def test_a_wave_spreads_over_the_tree():
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    tree = run(policy, replace(CONFIG, wave=4, simulations=9))
    expanded = [node for node, purpose, *_ in policy.log if purpose == "expand"]
    assert tree.simulations == len(expanded) == len(set(expanded)) == 9
    assert len({path.partition(".")[0] for path in expanded[1:4]}) > 1, "not all on one branch"


WRONG = {("", "expand", i): think(90 * (i + 1), 100) for i in range(40)}
"""Steps at other places; what follows them is wrong."""


def test_widening_gives_a_much_visited_node_further_children():
    policy = ScriptedPolicy(WRONG, lambda *_: "<answer>right</answer>")
    expanded = []

    def roots(widening):
        policy.log.clear()
        run(policy, replace(CONFIG, simulations=7, widening=widening))
        expanded[:] = [entry for entry in policy.log if entry[1] == "expand"]
        return [first for node, _, _, first in expanded if not node]

    assert roots(0.0) == [0], "the root is expanded once"
    # Its 3 children have 6 visits, then 9 with the answers below the first: the square root of 9 is
    # no more than 3 children, 9 to the power of 0.6 is 3.7.
    assert roots(0.6)[:2] == [0, 3] and [node for node, *_ in expanded[:3]] == ["", "0", ""]
    assert len(roots(0.5)) < len(roots(0.8))


def test_where_all_is_explored_widening_asks_again_until_nothing_new_comes():
    def answers(*_):
        return "<answer>right</answer>"

    many = replace(CONFIG, simulations=40)
    assert run(ScriptedPolicy(WRONG, answers), many).stopped_by == "explored"
    tree = run(ScriptedPolicy(WRONG, answers), replace(many, widening=0.6))
    assert tree.simulations == 40 and tree.root.attempts > 2
    assert max(child.attempts for child in tree.root.children) > 2
    same = ScriptedPolicy(otherwise=lambda *_: think(100, 100))
    tree = run(same, replace(many, widening=0.6))
    assert tree.stopped_by == "explored"
    assert [child.discarded for child in tree.root.children].count(None) == 1
    assert tree.root.attempts == 4, "one that brings something, and three that don't"
    assert tree.root.children[0].attempts == 3


@pytest.mark.parametrize("distinct", [False, True])
def test_a_step_that_goes_where_its_sibling_does_can_be_discarded(distinct):
    script = {
        ("", "expand", 0): think(100, 100),
        ("", "expand", 1): think(103, 98, "Another word for what is at"),
        ("", "expand", 2): think(160, 100),
    }
    policy = ScriptedPolicy(script, lambda *_: "<answer>left</answer>")
    tree = run(policy, replace(CONFIG, simulations=1, distinct=distinct))
    found = [child.discarded for child in tree.root.children]
    assert found == [None, "place_of_sibling" if distinct else None, None]
    assert len(policy.log) == (3 if distinct else 4), "nothing is sampled behind it"


def test_a_wave_widens_a_node_once_and_its_requests_have_names_of_their_own():
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    run(policy, replace(CONFIG, wave=4, simulations=24, widening=0.7))
    asked = [(node, first) for node, purpose, _, first in policy.log if purpose == "expand"]
    assert len(asked) == len(set(asked)) > 24 // 2


def test_a_response_without_a_step_says_whether_the_token_limit_cut_it_off():
    script = {
        ("", "expand", 0): ("<think>I see a thi", "length"),
        ("", "expand", 1): ("", "stop"),
        ("", "expand", 2): think(100, 100),
    }
    policy = ScriptedPolicy(script, lambda *_: "<answer>left</answer>")
    tree = run(policy, replace(CONFIG, simulations=1))
    reasons = [child.discarded for child in tree.root.children]
    assert reasons == ["cut_off", "nothing_said", None]


def test_a_repeated_point_is_not_followed_unless_the_step_says_it_looks_again():
    script = {
        ("", "expand", 0): think(100, 100),
        ("", "expand", 1): think(100, 100),
        ("", "expand", 2): think(1500, 100),
        ("0", "expand", 0): think(103, 98),
        ("0", "expand", 1): think(103, 98, "Looking again, it is at"),
        ("0", "expand", 2): think(500, 500),
    }
    policy = ScriptedPolicy(script, lambda *_: "<answer>left</answer>")
    tree = run(policy, replace(CONFIG, simulations=2))
    reasons = {node.path: node.discarded for node in tree.nodes}
    assert reasons["1"] == "copy_of_sibling" and reasons["2"] == "point_outside_image"
    assert reasons["0.0"] == "repeated_point"
    assert reasons["0.1"] is None and reasons["0.2"] is None


def test_a_tree_whose_every_child_is_discarded_ends_without_a_crash():
    policy = ScriptedPolicy(otherwise=lambda *_: think(5000, 5000))
    tree = run(policy)
    assert tree.failed and tree.root.value is None
    assert [entry[3] for entry in policy.log] == [0, 3], "requested once more, with new samples"
    assert [node.sample for node in tree.root.children] == list(range(6)), "they count up"


def test_a_response_that_thinks_and_answers_keeps_its_reasoning():
    text = f"{think(100, 100)}{think(200, 200)}<answer>left</answer>"
    policy = ScriptedPolicy({("", "expand", 0): text}, lambda *_: "<answer>right</answer>")
    tree = run(policy, replace(CONFIG, simulations=1, children=1))
    end = tree.nodes[-1]
    assert end.path == "0.0.0" and end.answer == "left" and end.reward == 1
    assert [step.point.x for step in end.steps()] == [100, 200]


def test_a_rollout_over_the_limit_is_cut_and_its_answer_forced():
    long = "".join(think(100 * i, 50) for i in range(1, 9)) + "<answer>right</answer>"
    script = {("", "expand", 0): think(5, 5), ("0", "rollout", 0): long}
    script[("0", "finish", 0)] = "left</answer>"
    policy = ScriptedPolicy(script)
    tree = run(policy, replace(CONFIG, simulations=1, children=1, rollouts=1))
    (rollout,) = tree.rollouts
    assert len(rollout.steps) == CONFIG.rollout_steps
    assert (rollout.answer, rollout.reward) == ("left", 1)
    assert rollout.response_ids == ("0/rollout/0", "0/finish/0")
    assert "answer_forced" in rollout.problems


def test_an_unfinished_rollout_is_never_graded_on_its_last_thought():
    script = {
        ("", "expand", 0): think(5, 5),
        ("0", "rollout", 0): ("<think>it is left (10, 10). The left one is le", "length"),
        ("0", "finish", 0): "",
    }
    tree = run(ScriptedPolicy(script), replace(CONFIG, simulations=1, children=1, rollouts=1))
    (rollout,) = tree.rollouts
    assert rollout.answer is None and rollout.reward == 0
    assert rollout.reason == "no answer was given"


def test_a_request_that_fails_costs_its_branch_only():
    gone = TeacherError("timeout", "no answer within 60 s")
    script = {("0", "rollout", 0): gone, ("1.0", "rollout", 0): gone}
    tree = run(ScriptedPolicy(script, seeded_teacher))
    assert not tree.failed and tree.root.visits > 0
    assert len(tree.errors) >= 1 and "at 0: " in tree.errors[0]


def test_at_the_greatest_depth_only_answers_follow():
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    tree = run(policy, replace(CONFIG, max_depth=1, simulations=4))
    assert {purpose for _, purpose, *_ in policy.log} == {"expand", "finish", "answer"}
    assert all(node.terminal for node in tree.nodes if node.depth == 2 and not node.discarded)
    assert all(not rollout.steps for rollout in tree.rollouts)
    ends = [node for node in tree.nodes if node.depth == 2 and node.answer is not None]
    assert ends and all("answer_forced" in end.problems for end in (*ends, *tree.rollouts))


def test_rows_rebuild_the_tree():
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    tree = run(policy, replace(CONFIG, simulations=10, max_depth=3))
    texts = {
        f"{node}/{purpose}/{i}": seeded_teacher(node, purpose, (), i)
        for node, purpose, n, first in policy.log
        for i in range(first, first + n)
        if purpose == "rollout"
    }
    depths = {node.path: node.depth for node in tree.nodes}
    texts = {
        key: seeded_teacher(key.split("/")[0], "rollout", [None] * depths[key.split("/")[0]],
                            int(key.split("/")[2]))
        for key in texts
    }  # fmt: skip
    rows = flatten(tree)
    frame = Frame(CONFIG.space, QUESTION.images)
    again = rebuild("t", QUESTION, rows, texts, frame, tree.simulations, tree.errors)
    assert flatten(again) == rows
    assert [r.steps for r in again.rollouts] == [r.steps for r in tree.rollouts]


def test_a_search_is_named_by_everything_that_decides_it():
    base = search_id(QUESTION, CONFIG, 0, "m")
    others = {
        search_id(QUESTION, CONFIG, 1, "m"),
        search_id(QUESTION, CONFIG, 0, "m2"),
        search_id(QUESTION, replace(CONFIG, simulations=9), 0, "m"),
        search_id(QUESTION, replace(CONFIG, prompt_digest="x"), 0, "m"),
        search_id(replace(QUESTION, text="Other?"), CONFIG, 0, "m"),
    }
    assert base == search_id(QUESTION, CONFIG, 0, "m") and base not in others
    assert len(others) == 5
    demands = {draw_min_thoughts(str(i), CONFIG) for i in range(200)}
    assert demands == {3, 4, 5, 6, 7}


def test_equal_answers_all_count():
    texts = ["<answer>right</answer>", "<answer>left</answer>", "<answer>left</answer>"]
    policy = ScriptedPolicy({("", "expand", i): text for i, text in enumerate(texts)})
    tree = run(policy)
    assert [answer for answer, _ in tree.outcomes()] == ["right", "left", "left"]
    assert tree.root.value == pytest.approx(2 / 3)


def test_an_answer_that_ends_with_the_turn_is_an_answer():
    script = {("", "expand", 0): think(5, 5), ("0", "rollout", 0): "<answer>left"}
    tree = run(ScriptedPolicy(script), replace(CONFIG, simulations=1, children=1, rollouts=1))
    assert [(r.answer, r.reward) for r in tree.rollouts] == [("left", 1)]


def test_a_closing_remark_does_not_cost_a_step_of_the_limit():
    steps = "".join(think(100 * i, 50) for i in range(1, 6))
    text = f"{steps}<think>So it is left.</think><answer>left</answer>"
    script = {("", "expand", 0): think(5, 5), ("0", "rollout", 0): text}
    tree = run(ScriptedPolicy(script), replace(CONFIG, simulations=1, children=1, rollouts=1))
    (rollout,) = tree.rollouts
    assert (rollout.answer, len(rollout.steps)) == ("left", 5)
    assert rollout.steps[-1].thought.endswith("So it is left.")
    frame = Frame(CONFIG.space, QUESTION.images)
    again = rebuild("t", QUESTION, flatten(tree), {"0/rollout/0": text}, frame)
    assert again.rollouts[0].steps == rollout.steps


def test_when_one_request_meets_a_dead_server_the_others_stop():
    class Gone(Exception):
        pass

    finished = []

    async def delay(node, purpose):
        await asyncio.sleep(0 if node == "0" else 0.05)
        if purpose == "rollout":
            if node == "0":
                raise Gone
            finished.append(node)

    policy = ScriptedPolicy(otherwise=seeded_teacher, delays=delay)
    with pytest.raises(Gone):
        run(policy)
    assert finished == []


def test_a_request_limits_the_thoughts_only_in_a_bounded_search(tmp_path):
    def limit(config, purpose, depth):
        with Journal(tmp_path) as journal:
            teacher = JournaledTeacher(None, journal, "replay", identity="m")
            policy = TeacherPolicy(QUESTION, config, "t", teacher, {})
        steps = [Step("A thing at (1, 2).")] * depth
        return policy.request(Key("t", "0", purpose, 0), steps, 1).max_thoughts

    bounded = replace(CONFIG, bounded=True)
    assert search_id(QUESTION, CONFIG, 0, "m") != search_id(QUESTION, bounded, 0, "m")
    assert limit(CONFIG, "rollout", 1) == limit(bounded, "expand", 1) == 0
    assert limit(bounded, "finish", 9) == 0
    assert limit(bounded, "rollout", 1) == CONFIG.rollout_steps
    assert limit(bounded, "rollout", 8) == CONFIG.max_depth - 8
    assert limit(bounded, "chain", 0) == CONFIG.max_depth

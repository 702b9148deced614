"""Asking ahead: faster, and nothing else: the same tree, the same cost, each thing asked once."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.search import clock, script
from benchmarks.search.model_server import ModelServer
from benchmarks.search.runs import config as paper
from curation.grading.grade import grade
from mcts.budget import Budget
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.policy import TeacherPolicy
from mcts.prefetch import certain
from mcts.search import search, search_id
from mcts.teachers.base import TeacherError
from mcts.tree import flatten
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from warehouse.tables.tree_rows import search_rows


def grown(policy, config, ahead=0, tree_id="t"):
    """A tree and the virtual seconds it took."""
    growing = search(QUESTION, config, policy, grade, tree_id, ahead=lambda: ahead)
    return clock.run(growing)


async def a_second(node, purpose):
    await asyncio.sleep(1)


@pytest.mark.parametrize("wave", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_tree_and_its_cost_are_the_same_however_far_it_looks(wave, seed):
    config = replace(CONFIG, wave=wave, simulations=14)

    async def delay(node, purpose):
        await asyncio.sleep(random.Random(f"{seed}{node}{purpose}").random())

    found = []
    for ahead in (0, 1, 40):
        policy = ScriptedPolicy(otherwise=seeded_teacher, delays=delay)
        tree, seconds = grown(policy, config, ahead, f"tree {seed}")
        twice = [place for place, n in Counter(policy.log).items() if n > 1]
        assert not twice, "nothing is asked a second time"
        assert tree.spent.requests == len(tree.places) == len(policy.log) - tree.vain.requests
        found.append((flatten(tree), tree.errors, tree.spent.requests, seconds))
    (*_, slow), (*_, near), (*_, fast) = found
    assert [each[:3] for each in found] == [found[0][:3]] * 3
    assert fast < (0.6 if wave == 1 else 0.9) * slow, "what is certain is not waited for in turn"
    assert fast <= near <= slow


def test_little_is_asked_in_vain():
    policies = [ScriptedPolicy(otherwise=seeded_teacher, delays=a_second) for _ in range(12)]
    trees = [
        grown(p, replace(CONFIG, simulations=20), 31, str(i))[0] for i, p in enumerate(policies)
    ]
    asked = sum(len(policy.log) for policy in policies)
    assert sum(tree.vain.requests for tree in trees) < 0.05 * asked


def test_what_is_certain_is_expanded_in_the_end():
    config, wrong, told = replace(CONFIG, simulations=20), 0, 0
    for i in range(6):
        foretold = []

        def look(spent, foretold=foretold):
            if len(foretold) < 1 and spent.requests > 8:
                foretold.append(spent.requests)

        tree = asyncio.run(
            search(QUESTION, replace(config, simulations=4),
                   ScriptedPolicy(otherwise=seeded_teacher), grade, str(i), look)
        )  # fmt: skip
        sure = certain(tree.root, config, 16, random.Random(i))
        policy = ScriptedPolicy(otherwise=seeded_teacher)
        whole = asyncio.run(search(QUESTION, config, policy, grade, str(i)))
        expanded = {node.path for node in whole.nodes if node.attempts}
        there = [node.path for node in tree.nodes if node.path in sure]
        told += len(there)
        wrong += sum(path not in expanded for path in there)
    assert told > 20 and wrong < 0.1 * told


def test_no_leaf_is_asked_ahead_that_a_budget_or_enough_may_forestall():
    config = replace(CONFIG, simulations=1000, budget=Budget(requests=14))
    policy = ScriptedPolicy(otherwise=seeded_teacher, delays=a_second)
    tree, _ = grown(policy, config, 40)
    plain, _ = grown(ScriptedPolicy(otherwise=seeded_teacher), config)
    assert tree.stopped_by == plain.stopped_by == "requests"
    assert flatten(tree) == flatten(plain)
    assert tree.vain.requests <= 8, "as far as the last waves told, and no thousand"


def test_a_request_that_fails_for_good_ahead_of_its_turn_costs_its_branch_only():
    def teacher(node, purpose, steps, sample):
        if purpose == "rollout" and node in ("1", "0.2"):
            raise TeacherError("timeout", "no answer in time")
        return seeded_teacher(node, purpose, steps, sample)

    config = replace(CONFIG, simulations=12)
    trees = [
        grown(ScriptedPolicy(otherwise=teacher, delays=a_second), config, n)[0] for n in (0, 9)
    ]
    assert flatten(trees[0]) == flatten(trees[1])
    assert trees[0].errors == trees[1].errors and "timeout" in trees[0].errors[0]


def test_a_failure_of_ours_ahead_is_forgotten_and_met_again_by_who_asks_in_turn():
    met = []

    def teacher(node, purpose, steps, sample):
        if node == "2" and purpose == "expand" and not met:
            met.append(node)
            raise OSError("the disk was full for a moment")
        return seeded_teacher(node, purpose, steps, sample)

    config = replace(CONFIG, simulations=12)
    tree, _ = grown(ScriptedPolicy(otherwise=teacher, delays=a_second), config, 9)
    assert met and flatten(tree) == flatten(
        grown(ScriptedPolicy(otherwise=seeded_teacher), config)[0]
    )


def test_a_search_that_is_cancelled_withdraws_what_it_asked_ahead():
    under_way = Counter()

    async def waits(node, purpose):
        under_way["now"] += 1
        try:
            await asyncio.sleep(1 if not node else 1000)
        finally:
            under_way["now"] -= 1

    async def main():
        policy = ScriptedPolicy(otherwise=seeded_teacher, delays=waits)
        config = replace(CONFIG, simulations=12)
        growing = asyncio.ensure_future(
            search(QUESTION, config, policy, grade, "t", ahead=lambda: 20)
        )
        await asyncio.sleep(50)
        assert under_way["now"] > 3
        growing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await growing
        assert under_way["now"] == 0 and len(asyncio.all_tasks()) == 1

    clock.run(main())


def test_rows_hold_what_the_tree_used_and_the_journal_all_that_was_answered(tmp_path):
    (question,) = script.questions(1, first=5)
    found = []
    for ahead in (0, 31):
        server = ModelServer()

        async def main(folder, ahead=ahead, server=server):
            with Journal(folder) as journal:
                name = search_id(question, paper(), 0, server.identity)
                asking = JournaledTeacher(server, journal)
                policy = TeacherPolicy(question, paper(), name, asking, {})
                tree = await search(question, paper(), policy, grade, name, ahead=lambda: ahead)
                records = list(journal.records(name))
                return tree, records, search_rows(tree, paper(), records, model="m", seed=0)

        (tree, records, rows), _ = clock.run(main(tmp_path / str(ahead)))
        assert len(records) == rows.tree["requests"] + tree.vain.requests == len(server.requests)
        assert rows.tree["completion_tokens"] == tree.spent.completion_tokens
        written = tree.spent.completion_tokens + tree.vain.completion_tokens
        assert server.ledger.completion_tokens == written
        timed = {"seconds", "cached_tokens"}
        found.append(
            (
                {key: value for key, value in rows.tree.items() if key not in timed},
                rows.nodes,
                rows.rollouts,
                [{k: v for k, v in row.items() if k not in timed} for row in rows.responses],
            )
        )
    assert found[0] == found[1]

"""Prefetching is faster and changes nothing: the same tree and cost, each request sent once."""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.search import scripted_model, virtual_clock
from benchmarks.search.compare_orders import config as paper
from benchmarks.search.model_server import ModelServer
from curation.grading.grade import grade
from mcts.budget import Budget
from mcts.config import search_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.prefetch import certain_leaves
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherError
from mcts.tree import flatten
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from warehouse.tables.tree_rows import search_rows


def timed_search(policy, config, prefetch=0, tree_id="t"):
    """A tree and the virtual seconds it took."""
    return virtual_clock.run(
        search(QUESTION, config, policy, grade, tree_id, prefetch=lambda: prefetch)
    )


async def a_second(node, purpose):
    await asyncio.sleep(1)


@pytest.mark.parametrize("wave", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_tree_and_its_cost_are_the_same_whatever_is_prefetched(wave, seed):
    config = replace(CONFIG, wave=wave, simulations=14)

    async def delay(node, purpose):
        await asyncio.sleep(random.Random(f"{seed}{node}{purpose}").random())

    found = []
    for prefetch in (0, 1, 40):
        policy = ScriptedPolicy(otherwise=seeded_teacher, delays=delay)
        tree, seconds = timed_search(policy, config, prefetch, f"tree {seed}")
        twice = [request for request, n in Counter(policy.log).items() if n > 1]
        assert not twice, "no request is sent a second time"
        unused = tree.unused_prefetch.requests
        assert tree.usage.requests == len(tree.request_keys) == len(policy.log) - unused
        found.append((flatten(tree), tree.errors, tree.usage.requests, seconds))
    (*_, slow), (*_, near), (*_, fast) = found
    assert [each[:3] for each in found] == [found[0][:3]] * 3
    assert fast < (0.6 if wave == 1 else 0.9) * slow, "what is certain is not waited for in turn"
    assert fast <= near <= slow


def test_few_prefetched_requests_go_unused():
    policies = [ScriptedPolicy(otherwise=seeded_teacher, delays=a_second) for _ in range(12)]
    trees = [
        timed_search(p, replace(CONFIG, simulations=20), 31, str(i))[0]
        for i, p in enumerate(policies)
    ]
    sent = sum(len(policy.log) for policy in policies)
    assert sum(tree.unused_prefetch.requests for tree in trees) < 0.05 * sent


def test_what_is_certain_is_expanded_in_the_end():
    config, wrong, predicted = replace(CONFIG, simulations=20), 0, 0
    for i in range(6):
        tree = asyncio.run(
            search(QUESTION, replace(config, simulations=4),
                   ScriptedPolicy(otherwise=seeded_teacher), grade, str(i))
        )  # fmt: skip
        certain = certain_leaves(tree.root, config, 16, random.Random(i))
        policy = ScriptedPolicy(otherwise=seeded_teacher)
        whole = asyncio.run(search(QUESTION, config, policy, grade, str(i)))
        expanded = {node.path for node in whole.nodes if node.attempts}
        there = [node.path for node in tree.nodes if node.path in certain]
        predicted += len(there)
        wrong += sum(path not in expanded for path in there)
    assert predicted > 20 and wrong < 0.1 * predicted


def test_no_leaf_is_prefetched_that_a_budget_or_enough_may_exclude():
    config = replace(CONFIG, simulations=1000, budget=Budget(requests=14))
    policy = ScriptedPolicy(otherwise=seeded_teacher, delays=a_second)
    tree, _ = timed_search(policy, config, 40)
    plain, _ = timed_search(ScriptedPolicy(otherwise=seeded_teacher), config)
    assert tree.stopped_by == plain.stopped_by == "requests"
    assert flatten(tree) == flatten(plain)
    assert tree.unused_prefetch.requests <= 8, "as many as the last waves allow, not a thousand"


def test_a_prefetched_request_that_fails_for_good_costs_its_branch_only():
    def teacher(node, purpose, steps, sample):
        if purpose == "rollout" and node in ("1", "0.2"):
            raise TeacherError("timeout", "no answer in time")
        return seeded_teacher(node, purpose, steps, sample)

    config = replace(CONFIG, simulations=12)
    trees = [
        timed_search(ScriptedPolicy(otherwise=teacher, delays=a_second), config, n)[0]
        for n in (0, 9)
    ]
    assert flatten(trees[0]) == flatten(trees[1])
    assert trees[0].errors == trees[1].errors and "timeout" in trees[0].errors[0]


def test_our_own_failure_in_a_prefetch_is_forgotten_and_the_request_is_sent_again():
    met = []

    def teacher(node, purpose, steps, sample):
        if node == "2" and purpose == "expand" and not met:
            met.append(node)
            raise OSError("the disk was full for a moment")
        return seeded_teacher(node, purpose, steps, sample)

    config = replace(CONFIG, simulations=12)
    tree, _ = timed_search(ScriptedPolicy(otherwise=teacher, delays=a_second), config, 9)
    assert met and flatten(tree) == flatten(
        timed_search(ScriptedPolicy(otherwise=seeded_teacher), config)[0]
    )


def test_a_cancelled_search_cancels_its_prefetched_requests():
    in_flight = Counter()

    async def waits(node, purpose):
        in_flight["now"] += 1
        try:
            await asyncio.sleep(1 if not node else 1000)
        finally:
            in_flight["now"] -= 1

    async def main():
        policy = ScriptedPolicy(otherwise=seeded_teacher, delays=waits)
        config = replace(CONFIG, simulations=12)
        running = asyncio.ensure_future(
            search(QUESTION, config, policy, grade, "t", prefetch=lambda: 20)
        )
        await asyncio.sleep(50)
        assert in_flight["now"] > 3
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert in_flight["now"] == 0 and len(asyncio.all_tasks()) == 1

    virtual_clock.run(main())


def test_rows_hold_what_the_tree_used_and_the_journal_all_that_was_answered(tmp_path):
    (question,) = scripted_model.questions(1, first=5)
    found = []
    for leaves in (0, 31):
        server = ModelServer()

        async def main(folder, leaves=leaves, server=server):
            with Journal(folder) as journal:
                name = search_id(question, paper(), 0, server.identity)
                teacher = JournaledTeacher(server, journal)
                policy = TeacherPolicy(question, paper(), name, teacher, {})
                tree = await search(question, paper(), policy, grade, name, prefetch=lambda: leaves)
                records = list(journal.records(name))
                return tree, records, search_rows(tree, paper(), records, model="m", seed=0)

        (tree, records, rows), _ = virtual_clock.run(main(tmp_path / str(leaves)))
        unused = tree.unused_prefetch
        assert len(records) == rows.tree["requests"] + unused.requests == len(server.requests)
        assert rows.tree["completion_tokens"] == tree.usage.completion_tokens
        written = tree.usage.completion_tokens + unused.completion_tokens
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

"""Dead groups: which are, what replaces them, what that may cost, and that a resumed run agrees."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
import torch

from tests.support.trained import grpo, logged, warehouse_with_traces
from training.batches.live_groups import all_equal, further_rows, joined, live_groups, split
from training.batches.log_probs import ChunkedTrainer
from training.grpo import train_grpo
from training.rollouts import RolloutTrainer
from training.trainers import TrainingReporter
from warehouse.storage.home import Warehouse

NAN = float("nan")


def groups(*rewards: Sequence[float], tokens: int = 10, masks: bool = False) -> list[Any]:
    """Groups of two answers, each of so many tokens; a question is named by its place."""
    rows = [{"question_id": f"q{i}"} for i, pair in enumerate(rewards) for _ in pair]
    ids = [[7] * tokens for _ in rows]
    shown = [[0] * 3 + [1] * (tokens - 3) for _ in rows] if masks else None
    generated = (ids, ids, shown, [f"said {i}" for i in range(len(rows))], None, {}, None, [])
    parts = torch.tensor([[value, 0.5] for pair in rewards for value in pair])
    parts[parts[:, 0].isnan(), 1] = NAN
    return split(rows, generated, parts, torch.tensor([0.8, 0.2]), 2)


def test_a_group_is_dead_where_no_two_answers_earn_different_rewards() -> None:
    found = groups((1, 0), (1, 1), (0, 0), (NAN, 1), (NAN, NAN))
    assert [group.dead for group in found] == [False, True, True, True, True]
    assert [round(float(r), 6) for r in found[0].rewards] == [0.9, 0.1]
    assert [group.tokens for group in groups((1, 0), masks=True)] == [14], "of its own alone"


def test_rewards_are_equal_up_to_rounding_and_no_further() -> None:
    assert all_equal([0.85, 0.85 + 1e-7]) and all_equal([])
    assert not all_equal([0.85, 0.85 + 1e-5])


def test_dead_groups_are_counted_also_where_none_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = torch.tensor([[0.85], [0.85 + 1e-7], [1.0], [0.0]])
    trainer: Any = RolloutTrainer.__new__(RolloutTrainer)
    metrics: dict[str, Any] = {"train": defaultdict(list)}
    weights = torch.ones(1)
    trainer.__dict__ |= {"model": None, "_metrics": metrics, "reward_weights": weights}
    trainer.__dict__["num_generations"] = 2
    monkeypatch.setattr(RolloutTrainer, "_parts", lambda *given: parts)
    monkeypatch.setattr(
        ChunkedTrainer, "_generate_and_score_completions",
        lambda self, rows: {"parts": self._calculate_rewards(rows, [], [], [])},
    )  # fmt: skip
    assert trainer._generate_and_score_completions([{}] * 4)["parts"] is parts
    assert metrics["train"]["groups/dead_first"] == [0.5]


def test_what_is_masked_as_a_whole_counts_what_it_wrote_and_not_what_it_was_shown() -> None:
    ids = [[7] * 10] * 4
    masks = [[0] * 10, [0] * 10, [0] * 3 + [1] * 7, [0] * 10]
    generated = (ids, ids, masks, ["said"] * 4, None, {}, None, [])
    found = split([{}] * 4, generated, torch.zeros(4, 1), torch.ones(1), 2, [4, 6, 7, 1])
    assert [group.tokens for group in found] == [10, 8]


def test_dead_groups_are_replaced_in_place_until_none_is_left() -> None:
    asked: list[list[str]] = []

    def sample(rows: list[Any]) -> list[Any]:
        asked.append([row["question_id"] for row in rows])
        found = groups(*[(1, float(row["dead"])) for row in rows])
        return [
            type(group)([row, row], *(getattr(group, n) for n in ("generated", "parts")),
                        group.rewards, group.tokens)
            for row, group in zip(rows, found, strict=True)
        ]  # fmt: skip

    further = [{"question_id": n, "dead": n.isupper()} for n in ("A", "b", "C", "d", "e")]
    first = groups((1, 0), (1, 1), (0, 1), (0, 0))
    chosen, extra = live_groups(first, sample, further, 1.0)
    assert asked == [["A"], ["b"], ["C"], ["d"]]
    assert [group.rows[0]["question_id"] for group in chosen] == ["q0", "b", "q2", "d"]
    assert extra == 4 * 20 and not any(group.dead for group in chosen)
    rows, generated, parts = joined(chosen)
    assert [row["question_id"] for row in rows] == ["q0", "q0", "b", "b", "q2", "q2", "d", "d"]
    assert [len(part) for part in generated[:2]] == [8, 8] and generated[2] is None
    assert parts.shape == (8, 2)


@pytest.mark.parametrize(("most", "asked"), [(0.2, 0), (0.25, 1), (0.5, 2), (0.75, 3)])
def test_the_budget_is_kept(most: float, asked: int) -> None:
    spent = []

    def sample(rows: list[Any]) -> list[Any]:
        spent.extend(rows)
        return groups(*[(1, 1) for _ in rows])

    further = iter([{"question_id": str(i)} for i in range(9)])
    first = groups((1, 1), (1, 1), (1, 0), (1, 0))
    chosen, extra = live_groups(first, sample, further, most)
    assert (len(spent), extra) == (asked, 20 * asked)
    assert chosen == first, "dead ones that are left stay"


def test_further_groups_that_are_longer_cost_little_more_than_the_budget() -> None:
    asked: list[int] = []

    def sample(rows: list[Any]) -> list[Any]:
        asked.append(len(rows))
        return groups(*[(1, 1) for _ in rows], tokens=35)

    first = groups(*[(1, 1)] * 8)
    _, extra = live_groups(first, sample, ({"question_id": str(i)} for i in range(50)), 1.0)
    assert sum(group.tokens for group in first) == 160
    assert asked == [2] and extra == 140, "by the average of all ten a third one is no longer sure"


def test_further_questions_depend_on_the_step_and_are_new() -> None:
    rows = [{"question_id": f"q{i % 6}", "n": i} for i in range(12)]
    found = [[r["question_id"] for r in further_rows(rows, ["q1"], 3, s)] for s in (5, 5, 6)]
    assert found[0] == found[1] != found[2]
    assert sorted(found[0]) == ["q0", "q2", "q3", "q4", "q5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


class Killed(Exception):
    """In place of a kill, in this process."""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_replaces_dead_groups_and_asks_the_same_when_resumed(made: Warehouse) -> None:
    recipe = grpo(
        "steps=3", "save_every=1", "bands=[unsolved, hard, medium, easy, solved]", "trackers=[]",
        "weights={correctness: 1.0}", "dead_group_tokens=2.0", "group=3", "max_completion=160",
    )  # fmt: skip
    seen: list[dict[str, Any]] = []

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        seen.append(metrics)
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(made, recipe, task="sat2", name="live", reporter=TrainingReporter(stop))
    row = train_grpo(made, recipe, task="sat2", name="live")
    assert row is not None
    steps = [figures for figures in logged(made, row) if "loss" in figures]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for name in ("loss", "groups/dead_first", "groups/dead", "groups/extra_tokens", "reward"):
        assert steps[1][name] == seen[1][name], f"{name}: step 2 was made twice, in the same way"
    assert sum(step["groups/extra_tokens"] for step in steps) > 0
    assert sum(s["groups/dead"] for s in steps) < sum(s["groups/dead_first"] for s in steps)
    assert all(step["groups/dead"] == step["frac_reward_zero_std"] for step in steps)
    kept = json.loads(row["metrics"])
    for name in ("groups/dead_first", "groups/dead", "groups/extra_tokens", "groups/extra_share"):
        assert kept[name] == pytest.approx(fmean(step[name] for step in steps))

"""Tree GRPO on the embedded student: what is sampled, what TRL gets of it, and a resumed run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from tests.support.trained import built_trainer, grpo, logged, warehouse_with_traces
from training.errors import TrainingError
from training.grpo import train_grpo
from training.recipes import load_recipe
from training.trainers import TrainingReporter
from training.trees.rollout_tree import choose_forks
from training.trees.tree_rollouts import TreeTrainer

TREE = ("sampling=tree", "group=4", "max_completion=160", "tree.compared=0")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreeTrainer]:
    """A trainer before its first step, of two questions."""
    with built_trainer(tmp_path_factory.mktemp("trees"), *TREE) as trainer:
        trainer.model.train()
        yield trainer


@contextmanager
def trainer_of_trees(
    trainer: TreeTrainer, *, steps: int = 2, **attributes: int
) -> Iterator[tuple[TreeTrainer, list[Any]]]:
    """The trainer with other attributes for a while, and the rows of its questions.

    `steps`: micro batches of a batch.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would mostly wait for each other
    args: Any = trainer.args
    kept = {name: getattr(trainer, name) for name in attributes}
    before, args.steps_per_generation = args.steps_per_generation, steps
    for name, value in attributes.items():
        setattr(trainer, name, value)
    try:
        yield trainer, [trainer.train_dataset[i] for i in range(2)]
    finally:
        torch.set_num_threads(threads)
        trainer.state.global_step, args.steps_per_generation = 0, before
        for name, value in kept.items():
            setattr(trainer, name, value)


def completed(trainer: TreeTrainer, rows: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """A batch as TRL learns from it, and the groups that it was made of."""
    groups: list[Any] = []
    ask = trainer._ask

    def asking(asked: list[Any]) -> Any:
        groups.extend(found := ask(asked))
        return found

    trainer._ask = asking  # type: ignore[method-assign]
    group = trainer._group
    try:
        batch = trainer._generate_and_score_completions([r for r in rows for _ in range(group)])
    finally:
        trainer._ask = ask  # type: ignore[method-assign]
    return batch, groups


# ---- what is sampled -------------------------------------------------------------------------


def test_trees_share_their_prefixes_keep_their_budget_and_grow_again_the_same(
    built: TreeTrainer,
) -> None:
    with trainer_of_trees(built) as (trainer, rows):
        trees = trainer.grow(rows)
        again = trainer.grow(rows)
        trainer.state.global_step = 1
        later = trainer.grow(rows)
    for tree in trees:
        own = [step.completion() for step in tree.leaves[:2]]
        assert tree.budget == 4 * fmean(map(len, own)), "of as many chains as a group has"
        assert 2 < len(tree.leaves) <= 8
        assert tree.tokens < tree.chain_tokens
        last = max(len(leaf.tokens) for leaf in tree.leaves)
        assert tree.tokens <= tree.budget + 2 * last, "but for what two forks wrote unexpectedly"
        for step in tree.root.walk():
            firsts = [child.tokens for child in step.children]
            for leaf in (leaf for leaf in tree.leaves if step in leaf.lineage()):
                assert leaf.completion()[: len(step.completion())] == step.completion()
            assert all(firsts)
        assert choose_forks(tree, tree.budget - tree.tokens, 8 - len(tree.leaves)) == []
    assert [[leaf.completion() for leaf in tree.leaves] for tree in again] == [
        [leaf.completion() for leaf in tree.leaves] for tree in trees
    ]
    assert [t.leaves[0].completion() for t in later] != [t.leaves[0].completion() for t in trees]


def test_chains_and_trees_begin_with_the_same_samples(built: TreeTrainer) -> None:
    with trainer_of_trees(built) as (trainer, rows):
        chains = trainer.grow(rows, chains=4)
        trees = trainer.grow(rows, budgets=[chain.tokens for chain in chains])
    for chain, tree in zip(chains, trees, strict=True):
        assert chain.tokens == chain.chain_tokens and len(chain.leaves) == 4
        assert tree.budget == chain.tokens
        for a, b in zip(chain.leaves[:2], tree.leaves[:2], strict=True):
            assert a.completion() == b.completion()


def test_trees_that_cannot_fork_are_the_chains_of_as_many_tokens(
    built: TreeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers of one step, as students without reasoning steps write them.
    monkeypatch.setattr(TreeTrainer, "_step_ends", lambda self, tokens: [len(tokens)])
    with trainer_of_trees(built, max_completion_length=40) as (trainer, rows):
        chains = trainer.grow(rows, chains=4)
        trees = trainer.grow(rows)
    for tree, chain in zip(trees, chains, strict=True):
        assert tree.tokens == tree.chain_tokens > 0.7 * tree.budget
        first = [leaf.completion() for leaf in chain.leaves]
        assert [leaf.completion() for leaf in tree.leaves][:3] == first[:3]


def test_a_fork_ends_at_the_limit_of_a_whole_completion(built: TreeTrainer) -> None:
    with trainer_of_trees(built, max_completion_length=40) as (trainer, rows):
        trees = trainer.grow(rows)
    leaves = [leaf for tree in trees for leaf in tree.leaves]
    cut_off = [leaf for leaf in leaves if not leaf.learned]
    assert cut_off and all(len(leaf.completion()) == 40 for leaf in cut_off)
    assert max(len(leaf.completion()) for leaf in leaves) <= 40


# ---- what TRL gets ---------------------------------------------------------------------------


def test_each_leaf_is_a_completion_with_credit_and_mask_a_token(built: TreeTrainer) -> None:
    with trainer_of_trees(built, steps=3) as (trainer, rows):
        batch, groups = completed(trainer, rows)
        metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        steps = trainer.args.steps_per_generation
    leaves = [(group, leaf) for group in groups for leaf in group.tree.leaves]
    assert len(batch["completion_ids"]) % steps == 0
    for row, (group, leaf) in enumerate(leaves):
        tokens, width = leaf.completion(), len(leaf.completion())
        assert batch["completion_ids"][row, :width].tolist() == tokens
        assert not batch["advantages"][row, width:].any()
        scale = float(group.rewards.std()) + 1e-4
        at = 0
        for step in leaf.lineage():
            own = batch["advantages"][row, at : (at := at + len(step.tokens))]
            assert own.tolist() == pytest.approx([step.advantage / scale] * len(own), abs=1e-5)
    learned = batch["completion_mask"] * batch["tool_mask"]  # whose padding is 1
    assert not learned[len(leaves) :].any(), "copies that fill a batch teach nothing"
    assert not batch["advantages"][len(leaves) :].any()
    ended = all(leaf.learned for _, leaf in leaves)
    assert ended and int(learned.sum()) == sum(group.tree.tokens for group in groups)
    assert int(batch["num_items_in_batch"]) == sum(group.tree.tokens for group in groups)
    assert metrics["tree/leaves"] == len(leaves) / 2
    assert metrics["tree/tokens"] == sum(group.tokens for group in groups)
    assert metrics["tree/shared"] == pytest.approx(
        1 - metrics["tree/tokens"] / metrics["tree/chain_tokens"]
    )
    assert metrics["frac_reward_zero_std"] == metrics["groups/dead"]


def test_a_tree_without_forks_has_the_advantages_of_trl(built: TreeTrainer) -> None:
    with trainer_of_trees(built, chains=4, most_leaves=4) as (trainer, rows):
        batch, groups = completed(trainer, rows)
    assert (batch["completion_mask"] * batch["tool_mask"]).equal(batch["completion_mask"])
    rewards = torch.stack([group.rewards for group in groups])
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    for own, mask, advantage in zip(
        batch["advantages"], batch["completion_mask"], expected.flatten().tolist(), strict=True
    ):
        assert own[mask.bool()].tolist() == pytest.approx([advantage] * int(mask.sum()), abs=1e-5)


def test_a_completion_that_was_cut_off_is_masked_and_what_it_shares_is_not(
    built: TreeTrainer,
) -> None:
    with trainer_of_trees(built) as (trainer, rows):
        lengths = sorted(
            len(t.completion()) for tree in trainer.grow(rows) for t in tree.leaves[:2]
        )
    assert lengths[0] < lengths[-1]
    with trainer_of_trees(built, max_completion_length=lengths[0]) as (trainer, rows):
        batch, groups = completed(trainer, rows)
    leaves = [leaf for group in groups for leaf in group.tree.leaves]
    assert {leaf.learned for leaf in leaves} == {True, False}
    learned = batch["completion_mask"] * batch["tool_mask"]
    for row, leaf in enumerate(leaves):
        assert leaf.learned or not learned[row].any()
    needed = {s for leaf in leaves if leaf.learned for s in leaf.lineage()}
    assert int(learned.sum()) == sum(len(step.tokens) for step in needed)


def test_a_group_of_one_leaf_teaches_nothing_and_breaks_nothing(built: TreeTrainer) -> None:
    with trainer_of_trees(built, chains=1, most_leaves=1) as (trainer, rows):
        batch, groups = completed(trainer, rows)
    assert [len(group.tree.leaves) for group in groups] == [1, 1]
    assert all(group.dead for group in groups) and not batch["advantages"].any()


def test_a_prefix_is_before_the_tree_and_passed_over_by_the_loss(built: TreeTrainer) -> None:
    begun = "<think>I see it at (100, 200).</think>\n"
    with trainer_of_trees(built) as (trainer, rows):
        rows = [{**row, "prefix": text} for row, text in zip(rows, [begun, ""], strict=True)]
        batch, groups = completed(trainer, rows)
        tokenizer = trainer.processing_class.tokenizer
    tokens = tokenizer(begun, add_special_tokens=False)["input_ids"]
    for row in range(len(groups[0].tree.leaves)):
        assert batch["completion_ids"][row, : len(tokens)].tolist() == tokens
        assert not batch["tool_mask"][row, : len(tokens)].any()
        assert not batch["advantages"][row, : len(tokens)].any()
    first = groups[0].tree.leaves[0]
    own = batch["completion_ids"][0, len(tokens) : len(tokens) + len(first.completion())]
    assert own.tolist() == first.completion(), "and it goes on"


# ---- a whole training ------------------------------------------------------------------------


class Killed(Exception):
    """In place of a kill, in this process."""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_compares_both_ways_first_and_goes_on_the_same_when_resumed(
    tmp_path: Path,
) -> None:
    made = warehouse_with_traces(tmp_path)
    recipe = grpo(
        "steps=3", "save_every=1", "bands=[unsolved, hard, medium, easy, solved]", "trackers=[]",
        "sampling=tree", "group=3", "max_completion=160", "tree.compared=2",
        "dead_group_tokens=1.0", "weights={correctness: 1.0}",
    )  # fmt: skip
    seen: list[dict[str, Any]] = []
    messages: list[str] = []

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        seen.append(metrics)
        if step == 2:
            raise Killed

    first = TrainingReporter(stop, messages.append)
    with pytest.raises(Killed):
        train_grpo(made, recipe, task="sat2", name="trees", reporter=first)
    row = train_grpo(made, recipe, task="sat2", name="trees")
    assert row is not None
    steps = [figures for figures in logged(made, row) if "loss" in figures]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for name in ("loss", "tree/tokens", "tree/leaves", "groups/dead_first", "reward", "grad_norm"):
        assert steps[1][name] == seen[1][name], f"{name}: step 2 was made twice, in the same way"
    assert [line for line in messages if "2 questions at " in line and "; trees:" in line]
    assert steps[0]["comparison/trees/tokens"] > 0 and "comparison/trees/tokens" not in steps[1]
    kept = json.loads(row["metrics"])
    assert kept["tree/leaves"] == pytest.approx(fmean(step["tree/leaves"] for step in steps))
    assert kept["comparison/questions"] == 2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["engine=vllm"], "trees are sampled by engine local, not by transformers or vllm"),
        (["engine=transformers"], "trees are sampled by engine local"),
        (["sampling=chains", "tree.chains=2"], "only a recipe with sampling tree has it"),
        (["tree.chains=9"], "more than group chains are more than the budget"),
        (["tree.chains=3", "tree.leaves=2"], "at least as many leaves"),
        (["group=8", "tree.leaves=2"], "at least as many leaves: 4 here"),
    ],
)
def test_what_trees_cannot_be_is_said(overrides: list[str], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        load_recipe("nano-grpo", ["sampling=tree", *overrides])


def test_a_training_without_trees_is_the_one_it_was() -> None:
    assert not {"sampling", "tree"} & load_recipe("nano-grpo").settings().keys()
    assert load_recipe("nano-grpo", ["sampling=tree"]).settings()["sampling"] == "tree"

"""Tree GRPO of a student that zooms: forks behind what a call showed, and what TRL gets of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.flows.test_cli import run
from tests.support.scripted_student import look, say, script, turns
from tests.support.trained import logged, warehouse_with_questions, zoom_trainer
from training.grpo import train_grpo
from training.recipes import GrpoRecipe, load_recipe
from training.trainers import TrainingReporter
from training.trees.zoom_trees import EpisodeTree, ZoomTreeTrainer
from warehouse.storage.home import Warehouse

TREE = ("sampling=tree", "group=4", "tree.compared=0", "max_completion=400", "turn_tokens=120")
LOOK, CLOSER = look(200, 300), look(800, 700)
CHAINS = turns((LOOK, say("left")), (CLOSER, say("right")))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_questions(tmp_path_factory.mktemp("made"))


@contextmanager
def trees_of(
    made: Warehouse, name: str, *overrides: str
) -> Iterator[tuple[ZoomTreeTrainer, list[Any]]]:
    """A trainer that has not begun, and the rows of two questions."""
    with zoom_trainer(made, name, *TREE, *overrides) as (trainer, prompts):
        assert isinstance(trainer, ZoomTreeTrainer)
        trainer.model.train()
        dataset = prompts.dataset()
        yield trainer, [dataset[i] for i in range(2)]


def batch_of(trainer: ZoomTreeTrainer, rows: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """A batch as TRL learns from it, and the trees that it was made of."""
    trees: list[Any] = []
    grow = trainer.grow
    trainer.grow = lambda *given: trees.extend(found := grow(*given)) or found  # type: ignore
    try:
        repeated = [row for row in rows for _ in range(trainer._group)]
        return trainer._generate_and_score_completions(repeated), trees
    finally:
        trainer.grow = grow  # type: ignore[method-assign]


def test_forks_go_on_behind_the_crop_that_their_place_was_shown(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trees_of(made, "forks") as (trainer, rows):
        tokenizer = trainer.processing_class.tokenizer
        script(monkeypatch, tokenizer, CHAINS)
        trees = trainer.grow(rows)
        for tree in trees:
            assert isinstance(tree, EpisodeTree)
            assert len(tree.leaves) == len(tree.episodes) > 2, "two chains, and forks"
            for leaf, episode in zip(tree.leaves, tree.episodes, strict=True):
                assert leaf.completion() == episode.completion_ids
                assert leaf.written == episode.written == sum(episode.mask)
                looked, answered = [s for s in leaf.lineage() if s.parent is not None]
                text = tokenizer.decode(looked.tokens[: -looked.shown])
                assert text.endswith("</tool_call>")
                seen = tokenizer.decode(looked.tokens[-looked.shown :])
                assert seen.count("<observation>") == 1 and "<|image_pad|>" in seen
                assert answered.shown == 0
                assert "</answer>" in tokenizer.decode(answered.tokens)
            first, second = tree.root.children
            assert (first.entropy, first.children[0].entropy) == (1.0, 2.0)
            forked = [e for e, at in zip(tree.episodes, tree.leaves, strict=True)
                      if first in at.lineage()]  # fmt: skip
            assert len(forked) > 1 and len({e.texts[0] for e in forked}) == 1
            assert len({e.inputs[-1].key for e in forked}) == 1, "they see one crop"
            assert tree.tokens == sum(len(s.tokens) - s.shown for s in tree.root.walk())
            assert tree.tokens < tree.chain_tokens
            written = [leaf.written for leaf in tree.leaves[:2]]
            assert tree.budget == pytest.approx(4 * sum(written) / 2), "crops cost nothing"
            assert second.children


def test_what_is_learned_is_what_was_written_once_and_all_pictures_are_there(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trees_of(made, "learned") as (trainer, rows):
        tokenizer = trainer.processing_class.tokenizer
        script(monkeypatch, tokenizer, CHAINS)
        tools: list[Any] = []
        tokenize = trainer._tokenize_prompts
        monkeypatch.setattr(
            trainer,
            "_tokenize_prompts",
            lambda *given: tools.extend(trainer.tools) or tokenize(*given),
        )
        batch, trees = batch_of(trainer, rows)  # which holds pixels against tokens
        trainer.tools = [look]  # as TRL has it where it takes the images of completions
        trainer.grow(rows)
        assert tools == [] == trainer.tools, "the prompt has said which there are"
        learned = batch["completion_mask"] * batch["tool_mask"]
        leaves = [(tree, leaf) for tree in trees for leaf in tree.leaves]
        assert int(learned.sum()) == sum(tree.tokens for tree in trees)
        for row, (tree, leaf) in enumerate(leaves):
            ids = batch["completion_ids"][row, : len(leaf.completion())]
            assert ids.tolist() == leaf.completion()
            said = tokenizer.decode(ids[learned[row, : len(ids)].bool()])
            assert "<observation>" not in said and "<|image_pad|>" not in said
            value, root = leaf.value, tree.root.value
            assert value is not None and root is not None
            sign = (value > root) - (value < root)
            own = batch["advantages"][row, len(ids) - 1]
            assert not sign or float(own) * sign > 0, "better than the tree's mean pays"
        assert not learned[len(leaves) :].any()


def test_an_episode_at_a_limit_teaches_nothing_and_what_it_shares_does(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(place: int, turn: int) -> str:
        return say("left") if place % 2 else look(100 + 250 * turn, 500)

    with trees_of(made, "limits") as (trainer, rows):
        script(monkeypatch, trainer.processing_class.tokenizer, far)
        batch, trees = batch_of(trainer, rows)
        learned = batch["completion_mask"] * batch["tool_mask"]
        leaves = [leaf for tree in trees for leaf in tree.leaves]
        episodes = [episode for tree in trees for episode in tree.episodes]
        assert {episode.masked for episode in episodes} == {True, False}
        for row, (leaf, episode) in enumerate(zip(leaves, episodes, strict=True)):
            assert leaf.learned is not episode.masked
            assert not (episode.masked and learned[row].any())
            assert not (episode.masked and leaf.visits), "nor is it a member of its group"


def test_trees_grow_again_the_same_and_begin_as_chains_do(made: Warehouse) -> None:
    with trees_of(made, "again") as (trainer, rows):
        trees, again = trainer.grow(rows), trainer.grow(rows)
        chains = trainer.grow(rows, chains=4)
        trainer.state.global_step = 1
        later = trainer.grow(rows)
    said = [[leaf.completion() for leaf in tree.leaves] for tree in trees]
    assert said == [[leaf.completion() for leaf in tree.leaves] for tree in again]
    assert [own[:2] for own in said] == [
        [leaf.completion() for leaf in tree.leaves[:2]] for tree in chains
    ]
    assert said != [[leaf.completion() for leaf in tree.leaves] for tree in later]


def test_figures_are_of_the_chains_and_the_control_begins_with_the_same_samples(
    made: Warehouse,
) -> None:
    compared: list[Any] = []

    def control(noisy: Any, noise: Any, played: Any, rows: Any) -> None:
        trainer.play(noisy, noise)
        compared.extend(zip(noisy, played, rows, strict=True))

    with trees_of(made, "chains", "alarm.controls=1") as (trainer, rows):
        trainer._control = control  # type: ignore[method-assign]
        _, trees = batch_of(trainer, rows)
        metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert trainer._planted_last is None, "no pixels are kept"
    chains = [episode for tree in trees for episode in tree.episodes[:2]]
    called = [any(step.observation for step in episode.steps) for episode in chains]
    assert metrics["zoom/call_rate"] == pytest.approx(sum(called) / len(called))
    assert metrics["completions/mean_length"] == pytest.approx(
        sum(episode.written for episode in chains) / len(chains)
    )
    assert [played for _, played, _ in compared] == chains
    for noisy, played, row in compared:
        assert noisy is not played and noisy.texts[0] == played.texts[0]
        assert noisy.question.question_id == row["question_id"]


def test_a_prefix_is_before_the_tree_and_passed_over_by_the_loss(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trees_of(made, "prefix") as (trainer, rows):
        tokenizer = trainer.processing_class.tokenizer
        rows = [{**row, "prefix": json.dumps([LOOK])} for row in rows]

        def behind(place: int, turn: int) -> str:
            return CLOSER if (place, turn) == (0, 1) else say("left" if place else "right")

        script(monkeypatch, tokenizer, behind)
        batch, trees = batch_of(trainer, rows)
        learned = (batch["completion_mask"] * batch["tool_mask"]).bool()
        row = 0
        for tree in trees:
            for episode in tree.episodes:
                assert episode.texts[0] == LOOK and episode.begun
                begun = len(tree.begun.completion_ids)
                assert not learned[row, :begun].any()
                assert not batch["advantages"][row, :begun].any()
                assert batch["completion_ids"][row, :begun].tolist() == tree.begun.completion_ids
                row += 1
        assert int(learned.sum()) == sum(tree.tokens for tree in trees)


@pytest.mark.slow
def test_a_training_goes_on_the_same_when_resumed(tmp_path_factory: Any) -> None:
    class Killed(Exception):
        pass

    home = tmp_path_factory.mktemp("trees") / "home"
    assert run("build", "vstar", "--limit", "4", "--simulations", "1", home=home) == 0
    warehouse = Warehouse(str(home))
    recipe = load_recipe(
        "nano-zoom-grpo",
        ["steps=3", "save_every=1", "questions=2", "group=3", "micro_batch=6", "trackers=[]",
         "bands=[unsolved, hard, medium, easy, solved]", "sampling=tree", "tree.compared=2",
         "alarm.control_every=2", "dead_group_tokens=0.5"],
    )  # fmt: skip
    assert isinstance(recipe, GrpoRecipe)
    seen: list[dict[str, Any]] = []
    said: list[str] = []

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        seen.append(metrics)
        if step == 2:
            raise Killed

    reporter = TrainingReporter(stop, said.append)
    with pytest.raises(Killed):
        train_grpo(warehouse, recipe, task="vstar", name="trees", reporter=reporter)
    row = train_grpo(warehouse, recipe, task="vstar", name="trees")
    assert row is not None
    steps = [figures for figures in logged(warehouse, row) if "loss" in figures]
    assert [step["step"] for step in steps] == [1, 2, 3]
    for name in ("loss", "tree/tokens", "tree/leaves", "zoom/calls", "reward", "grad_norm"):
        assert steps[1][name] == pytest.approx(seen[1][name], abs=1e-6), name
    assert [line for line in said if "2 questions at " in line and "; trees:" in line]
    assert "zoom/control_gain" in steps[0] and torch.isfinite(torch.tensor(steps[2]["loss"]))

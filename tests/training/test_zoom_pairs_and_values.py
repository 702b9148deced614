"""What is learned of trees that zoom: pairs of turns behind crops that both saw, and values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from curation.traces.preferences import PreferencePair, preference_pairs
from tests.flows.test_cli import run
from training.batches.sft_batches import check_pair_labels
from training.chat_templates import ChatTemplate
from training.errors import TrainingError
from training.examples import Examples
from training.preferences.dpo import train_dpo
from training.preferences.pairs import _turns, pair_dataset, pair_examples
from training.recipes import DpoRecipe, PrmRecipe, load_recipe
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.sft import zooming
from training.students import load_model, open_student
from training.trainers import TrainingReporter, dpo_trainer, training_template
from training.values.model import NO_TARGET
from training.values.prm import line_examples
from training.values.trainer import check_values, value_trainer
from training.zoom_rows import DialogueProblem, Dialogues
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, publish, resolve

EVERY = ("least_margin=0", "least_visits=1", "question_pairs=null")
Ready = tuple[Examples, Any, Any]


def dpo(*overrides: str) -> DpoRecipe:
    given = ["batch=2", "micro_batch=2", "schedule=constant", "warmup=0", "trackers=[]"]
    found = load_recipe("nano-zoom-dpo", [*given, *overrides])
    assert isinstance(found, DpoRecipe)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Eight questions of V*'s sample, searched with crops, and a version of all their trees."""
    home = tmp_path_factory.mktemp("made") / "home"
    assert run("build", "vstar", "--limit", "8", "--simulations", "4", home=home) == 0
    warehouse = Warehouse(str(home))
    publish(warehouse, "trees", "SELECT min(trace_id) AS trace_id FROM traces GROUP BY tree_id")
    return warehouse


@pytest.fixture(scope="module")
def ready(made: Warehouse) -> Iterator[Ready]:
    """Sides, the chat template, and a trainer that has not begun."""
    recipe, version = dpo("steps=1", *EVERY), resolve(made, "trees")
    with open_student(made, "nano-zoom") as found, open_version(made, version) as folder:
        student = zooming(prepare_student(found, recipe), recipe, folder)
        sides = pair_examples(made, folder, version.ref, student, recipe)
        model, processor = load_model(student)
        template = ChatTemplate.of(processor, training_template(processor))
        plan = Plan("dpo", recipe.settings(), version.ref, "ready", found.model_id)
        with open_run(made, plan) as opened:
            pairs = pair_dataset(sides, template)
            trainer = dpo_trainer(opened, recipe, model, processor, pairs, TrainingReporter())
        yield sides, template, trainer


def pairs_of(made: Warehouse) -> dict[str, PreferencePair]:
    """Each pair of the trees by the name of its worse side."""
    ids = [r["tree_id"] for r in query(made, "SELECT DISTINCT tree_id FROM traces").to_pylist()]
    found = [pair for tree, _ in read_trees(made, ids) for pair in preference_pairs(tree)]
    return {f"tree {p.tree_id}, node {p.rejected.node_id}": p for p in found}


def test_each_side_is_the_one_turn_in_which_they_part(made: Warehouse, ready: Ready) -> None:
    sides, _, _ = ready
    pairs = pairs_of(made)
    left_out = sum(sides.left_out.values())
    assert len(sides.rows) == 2 * (len(pairs) - left_out) >= 12
    behind = set()
    for chosen, rejected in zip(sides.rows[::2], sides.rows[1::2], strict=True):
        pair = pairs[rejected["name"]]
        assert chosen["messages"][:-1] == rejected["messages"][:-1]
        assert chosen["image_ids"] == rejected["image_ids"]
        looks = [step for step in pair.prefix if step.observation is not None]
        turns = [m["content"] for m in chosen["messages"] if m["role"] == "assistant"]
        assert len(turns) == 1 + len(looks) and chosen["untrained"] == list(range(len(looks)))
        assert len(chosen["image_ids"]) == 1 + len([s for s in looks if s.observation.crop])
        for side, of in ((chosen, pair.chosen), (rejected, pair.rejected)):
            said = side["messages"][-1]["content"]
            ends = re.findall(r"<tool_call>|<answer>", said)
            called = any(step.observation is not None for step in of.steps)
            assert ends == ["<tool_call>" if called else "<answer>"]
        assert chosen["messages"][-1] != rejected["messages"][-1]
        behind.add(len(looks))
    assert {0, 1} <= behind, "first looks, and what comes behind a crop"


def test_that_turn_alone_is_trained_on_token_by_token(ready: Ready) -> None:
    sides, template, trainer = ready
    assert "pairs are right" in check_pair_labels(trainer, sides, template)
    tokenizer = template.processor.tokenizer
    at = next(i for i in range(0, len(sides.rows), 2) if len(sides.rows[i]["image_ids"]) > 1)
    batch = trainer.data_collator([trainer.train_dataset[at // 2]])
    assert len(batch["image_grid_thw"]) == 2 * len(sides.rows[at]["image_ids"])
    for side in range(2):
        learned = batch["input_ids"][side][batch["completion_mask"][side].bool()].tolist()
        said = sides.rows[at + side]["messages"][-1]["content"]
        assert tokenizer.decode(learned) == f"{said}<|im_end|>"


def test_a_value_that_is_not_read_where_the_next_turn_begins_is_found(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("nano-zoom-prm", ["steps=1", "micro_batch=4", "batch=4", "trackers=[]"])
    assert isinstance(recipe, PrmRecipe)
    version = resolve(made, "trees")
    with open_student(made, "nano-zoom") as found, open_version(made, version) as folder:
        student = zooming(prepare_student(found, recipe), recipe, folder)
        lines, _ = line_examples(made, folder, version.ref, student, recipe)
        model, processor = load_model(student)
        plan = Plan("prm", recipe.settings(), version.ref, "values", found.model_id)
        with open_run(made, plan) as opened:
            trainer = value_trainer(opened, recipe, model, processor, lines, TrainingReporter())
        looks = [row for row in lines.rows if [1, 0] in row["ends"]]
        assert looks and "are read where a step ends" in check_values(trainer, lines)
        collate = trainer.data_collator

        def shifted(rows: list[Any]) -> Any:  # only where a call is valued
            batch = collate(rows)
            labels, ids = batch["labels"], batch["input_ids"]
            tag = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
            for row, at in (labels != NO_TARGET).nonzero().tolist():
                if tag in ids[row, at - 3 : at].tolist():
                    labels[row, at - 1], labels[row, at] = labels[row, at].item(), NO_TARGET
            return batch

        monkeypatch.setattr(trainer, "data_collator", shifted)
        with pytest.raises(TrainingError, match="where no step ends"):
            check_values(trainer, lines)


def test_a_student_that_zooms_is_trained_and_keeps_what_its_calls_show(made: Warehouse) -> None:
    said: list[str] = []
    reporter = TrainingReporter(message=said.append)
    row = train_dpo(made, dpo("steps=1", *EVERY), "trees", name="looks", reporter=reporter)
    assert row is not None and json.loads(row["metrics"])["steps"] == 1
    assert any("the reference is the student; one batch overfits" in line for line in said)
    with open_student(made, "looks") as found, open_student(made, "nano-zoom") as begun:
        assert found.zoom == begun.zoom


def test_pairs_of_the_other_kind_of_trees_are_refused_with_the_reason(made: Warehouse) -> None:
    with pytest.raises(TrainingError, match="has no pairs to train on: 8 trees that zoom"):
        train_dpo(made, dpo("response_style=grounded", "model=nano-reader"), "trees")


def test_the_recipe_for_gpus_is_one_of_dialogues() -> None:
    recipe = load_recipe("qwen2.5-vl-3b-zoom-dpo")
    assert (recipe.kind, recipe.response_style, recipe.min_thoughts) == ("dpo", "zoom", 1)


def test_turns_that_teach_nothing_leave_their_pair_out(made: Warehouse) -> None:
    pair = next(
        p for p in pairs_of(made).values() if p.chosen.steps and p.chosen.steps[0].observation
    )
    ids = [r["tree_id"] for r in query(made, "SELECT DISTINCT tree_id FROM traces").to_pylist()]
    question = next(t.question for t, _ in read_trees(made, ids) if t.tree_id == pair.tree_id)
    with open_student(made, "nano-zoom") as found:
        dialogues = Dialogues(prepare_student(found, dpo()), 1)
        _turns(dialogues, question, pair)
        same = replace(pair, rejected=pair.chosen)
        with pytest.raises(DialogueProblem, match="whose sides say the same"):
            _turns(dialogues, question, same)
        look, *rest = pair.chosen.steps
        assert look.observation is not None
        failed = replace(look, observation=replace(look.observation, problem="outside"))
        lost = replace(pair, chosen=replace(pair.chosen, steps=(failed, *rest)))
        with pytest.raises(DialogueProblem, match="whose better call showed nothing"):
            _turns(dialogues, question, lost)

"""DPO on the embedded student: which pairs are taken, what is trained on, what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curation.traces.preferences import preference_pairs
from mcts.data import Verdict
from tests.support.trained import logged, warehouse_with_traces
from training import preflight
from training.chat_templates import ChatTemplate
from training.errors import TrainingError
from training.examples import Examples
from training.preferences.dpo import train_dpo
from training.preferences.pairs import pair_dataset, pair_examples
from training.recipes import DpoRecipe, load_recipe
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.students import load_model, open_student
from training.trainers import TrainingReporter, dpo_trainer, training_template
from vigorl_nano import BASE
from warehouse.lineage.lineage import Walker
from warehouse.models import open_model
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import verdict_row
from warehouse.versions.versions import open_version, resolve

Ready = tuple[Examples, Any, Any]
WHOLE = "set text = show(message.content) -%}"
SHORT = "set text = show(message.content).split('</think>')[-1] -%}"


def dpo(*overrides: str) -> DpoRecipe:
    given = ["batch=2", "micro_batch=4", "learning_rate=1e-4", "schedule=constant", "warmup=0"]
    given += ["model=nano-base", "trackers=[]"]
    found = load_recipe("nano-dpo", [*given, *overrides])
    assert isinstance(found, DpoRecipe)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


def sides_of(made: Warehouse, *overrides: str) -> Examples:
    recipe, version = dpo(*overrides), resolve(made, "kept")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        return pair_examples(made, folder, version.ref, prepare_student(found, recipe), recipe)


@pytest.fixture(scope="module")
def ready(made: Warehouse) -> Iterator[Ready]:
    """Sides, the processor, and a trainer that has not begun."""
    recipe, version = dpo("steps=1"), resolve(made, "kept")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        student = prepare_student(found, recipe)
        sides = pair_examples(made, folder, version.ref, student, recipe)
        model, processor = load_model(student)
        pairs = pair_dataset(sides, ChatTemplate.of(processor, training_template(processor)))
        plan = Plan("dpo", recipe.settings(), version.ref, "ready", found.model_id)
        with open_run(made, plan) as run:
            trainer = dpo_trainer(run, recipe, model, processor, pairs, TrainingReporter())
        yield sides, processor, trainer


def test_each_pair_of_the_trees_is_one_of_the_version_unless_the_recipe_leaves_it_out(
    made: Warehouse,
) -> None:
    ids = [r["tree_id"] for r in query(made, "SELECT DISTINCT tree_id FROM traces").to_pylist()]
    found = [pair for tree, _ in read_trees(made, ids) for pair in preference_pairs(tree)]
    every = sides_of(made, "least_margin=0", "least_visits=1", "question_pairs=null")
    assert not every.left_out and len(every.rows) == 2 * len(found) > 20
    names = {f"tree {p.tree_id}, node {p.rejected.node_id}" for p in found}
    assert {row["name"] for row in every.rows[1::2]} == names

    wide = [p for p in found if p.margin >= 0.5 and p.least_visits >= 3]
    some = sides_of(made, "least_margin=0.5", "least_visits=3", "question_pairs=null")
    assert len(some.rows) == 2 * len(wide) < len(every.rows)
    assert sum(some.left_out.values()) == len(found) - len(wide)

    few = sides_of(made, "least_margin=0", "least_visits=1", "question_pairs=1")
    widest = {p.question_id: max(q.margin for q in found if q.question_id == p.question_id)
              for p in found}  # fmt: skip
    margins = {f"tree {p.tree_id}, node {p.rejected.node_id}": p.margin for p in found}
    kept = {row["question_id"]: margins[row["name"]] for row in few.rows[1::2]}
    assert kept == widest


def test_both_sides_answer_one_prompt_about_the_same_images_and_differ(ready: Ready) -> None:
    sides, _, _ = ready
    for chosen, rejected in zip(sides.rows[::2], sides.rows[1::2], strict=True):
        assert chosen["messages"][:-1] == rejected["messages"][:-1]
        assert chosen["image_ids"] == rejected["image_ids"] != []
        assert chosen["messages"][-1] != rejected["messages"][-1]
        assert all("</answer>" in s["messages"][-1]["content"] for s in (chosen, rejected))


def test_only_the_answers_are_trained_on_token_by_token(ready: Ready) -> None:
    sides, processor, trainer = ready
    tokenizer = processor.tokenizer
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    for at, row in enumerate([*sides.rows[0:6:2], *sides.rows[1:6:2]]):
        learned = batch["input_ids"][at][batch["completion_mask"][at].bool()].tolist()
        answer = row["messages"][-1]["content"]
        assert learned == tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False)


def test_a_mask_that_is_off_by_one_is_found(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, processor, trainer = ready
    template = ChatTemplate.of(processor, training_template(processor))
    collate = trainer.data_collator

    def shifted(rows: list[Any]) -> Any:
        batch = collate(rows)
        batch["completion_mask"] = batch["completion_mask"].roll(-1, dims=1)
        return batch

    assert "16 pairs are right" in preflight.check_pair_labels(trainer, sides, template)
    monkeypatch.setattr(trainer, "data_collator", shifted)
    with pytest.raises(TrainingError, match=r"node \d+: '.+' would be trained on, which"):
        preflight.check_pair_labels(trainer, sides, template)


def test_an_image_that_is_lost_is_found(ready: Ready) -> None:
    _, _, trainer = ready
    row = trainer.train_dataset[0]
    with pytest.raises(TrainingError, match=r"of 4 images of tree \w+, node \d+ the batch has 0"):
        trainer.data_collator([{**row, "images": [], "prompt": row["chosen"]}])


def test_a_reference_of_other_weights_is_found(ready: Ready) -> None:
    sides, _, trainer = ready
    assert "the reference is the student; one batch overfits" in preflight.check_dpo(trainer, sides)
    weight = next(p for n, p in trainer.ref_model.named_parameters() if "language_model" in n)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        with pytest.raises(TrainingError, match="student and reference differ"):
            preflight.check_dpo(trainer, sides)
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_ends_where_one_that_was_not_does(made: Warehouse) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            raise Stop

    recipe, said = dpo("steps=4", "save_every=2"), list[str]()
    with pytest.raises(Stop):
        train_dpo(made, recipe, "kept", name="stopped", reporter=TrainingReporter(stop))
    reporter = TrainingReporter(message=said.append)
    again = train_dpo(made, recipe, "kept", name="stopped", reporter=reporter)
    whole = train_dpo(made, recipe, "kept", name="whole")
    assert again is not None and whole is not None
    assert "going on after step 2" in said
    ours, theirs = ([r for r in logged(made, row) if "loss" in r] for row in (again, whole))
    assert [r["step"] for r in ours] == [1, 2, 3, 4]
    for figure in ("loss", "rewards/margins"):
        expected = pytest.approx([r[figure] for r in theirs], abs=1e-3)
        assert [r[figure] for r in ours] == expected
    # The reference is the student that was started from, also behind the stop.
    assert ours[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert abs(ours[-1]["rewards/margins"]) > 0.01

    assert (again["dataset"], json.loads(again["recipe"])["kind"]) == ("kept@v1", "dpo")
    assert json.loads(again["metrics"])["steps"] == 4
    with Walker(made) as walker:
        found = walker.lineage(walker.find("stopped")[0])
    assert {"model", "dataset", "tree", "image"} <= {thing.kind for thing in found.ancestors}


@pytest.mark.slow
def test_adapters_have_the_student_without_them_for_a_reference(made: Warehouse) -> None:
    said: list[str] = []
    reporter = TrainingReporter(message=said.append)
    recipe = dpo("steps=2", "lora.rank=4", "sft_weight=0.5")
    row = train_dpo(made, recipe, "kept", name="adapted", reporter=reporter)
    assert row is not None and any("the reference is the student" in line for line in said)
    with open_model(made, row) as folder:
        after = load_file(folder / "model.safetensors")
    before = load_file(Path(BASE) / "model.safetensors")
    moved = {k for k in after if not torch.allclose(after[k].float(), before[k].float(), atol=1e-7)}
    assert moved and all("_proj." in k and ".language_model." in k for k in moved)


def test_a_version_without_such_pairs_is_refused_with_the_reason(made: Warehouse) -> None:
    with pytest.raises(TrainingError, match=r"has no pairs to train on: \d+ with a side of under"):
        train_dpo(made, dpo("least_visits=100000", "least_margin=0"), "kept")


def test_pairs_are_of_trees_as_they_were_searched() -> None:
    with pytest.raises(TrainingError, match="pairs are trained on as they were searched"):
        dpo("response_style=answer_only")


def test_a_side_that_spells_a_control_token_leaves_its_pair_out(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = sides_of(made)
    spelled = every.rows[1]["messages"][-1]["content"].splitlines()[0]
    monkeypatch.setattr("training.preferences.pairs.read_control_tokens", lambda s: (spelled,))
    fewer = sides_of(made)
    reason = f"whose text spells {spelled}, a control token of this model"
    assert len(fewer.rows) == len(every.rows) - 2 * fewer.left_out[reason]
    assert fewer.left_out[reason] >= 1


def test_a_template_that_changes_a_side_stops_before_the_first_step(ready: Ready) -> None:
    sides, processor, _ = ready
    template = ChatTemplate.of(processor, training_template(processor))
    changed = replace(template, source=template.source.replace(WHOLE, SHORT))
    assert changed.source != template.source
    with pytest.raises(TrainingError, match=r"tree \w+, node \d+: thought 1 of "):
        pair_dataset(sides, changed)


def test_a_pair_whose_better_side_a_filter_drops_is_left_out(made: Warehouse) -> None:
    options = ("least_margin=0", "least_visits=1", "question_pairs=null")
    before = sides_of(made, *options)
    ids = [r["tree_id"] for r in query(made, "SELECT DISTINCT tree_id FROM traces").to_pylist()]
    pairs = [pair for tree, _ in read_trees(made, ids) for pair in preference_pairs(tree)]
    faulty, copied = sorted({pair.chosen.trace_id for pair in pairs})[:2]
    found = (
        (faulty, Verdict("points_on_their_objects", False, "misses")),
        (copied, Verdict("no_near_copy", False, "of another")),
    )
    rows = [{**verdict_row(name, verdict, 99), "stage": "later"} for name, verdict in found]
    insert_new(made, "verdicts", rows)
    after = sides_of(made, *options)
    count = sum(pair.chosen.trace_id == faulty for pair in pairs)
    assert count and after.left_out == {"whose better side a filter drops": count}
    assert len(after.rows) == len(before.rows) - 2 * count

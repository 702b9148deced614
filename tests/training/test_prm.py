"""A process reward model: which steps have targets, where they are read, and what comes of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curation.traces.step_values import step_values
from mcts.coordinates import Frame
from mcts.data import AnswerKind, Image, Point, Question, Step, ZoomCall, content_id
from mcts.teachers.checkpoints import recorded_process_reward
from mcts.tree import Tree
from mcts.zoom.observe import observe
from tests.support.grown import fork
from tests.support.trained import logged, warehouse_with_traces
from tests.support.zoom_searches import asked_about, encoded
from training.errors import TrainingError
from training.examples import Examples
from training.preferences.pairs import version_trees
from training.recipes import PrmRecipe, load_recipe
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.students import load_model, open_student
from training.trainers import TrainingReporter
from training.values.calibration import Scored, calibration
from training.values.lines import ANSWER_DEPTH, LineWriter, ValueLine, value_lines
from training.values.model import HEAD, NO_TARGET, StepScorer, attach_head, load_value_model
from training.values.prm import _held_out, line_examples, lines_hash, train_prm
from training.values.trainer import check_values, mean_value, value_loss, value_trainer
from warehouse.lineage.lineage import Walker
from warehouse.models import open_model
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image
from warehouse.versions.versions import open_version, resolve

Ready = tuple[Examples, Examples, Any, Any]


def prm(*overrides: str) -> PrmRecipe:
    given = ["batch=4", "micro_batch=4", "learning_rate=1e-3", "schedule=constant", "warmup=0"]
    given += ["model=nano-base", "trackers=[]", "question_lines=4"]
    found = load_recipe("nano-prm", [*given, *overrides])
    assert isinstance(found, PrmRecipe)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def ready(made: Warehouse) -> Iterator[Ready]:
    """Lines to train on, those held out, the processor, and a trainer that has not begun."""
    recipe, version = prm("steps=1"), resolve(made, "kept")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        student = prepare_student(found, recipe)
        lines, held_out = line_examples(made, folder, version.ref, student, recipe)
        model, processor = load_model(student)
        plan = Plan("prm", recipe.settings(), version.ref, "ready", found.model_id)
        with open_run(made, plan) as run:
            trainer = value_trainer(run, recipe, model, processor, lines, TrainingReporter())
        yield lines, held_out, processor, trainer


@pytest.fixture(scope="module")
def trained(made: Warehouse) -> dict[str, Any]:
    row = train_prm(made, prm("steps=4", "save_every=2"), "kept", name="whole")
    assert row is not None
    return row


def lines_of(made: Warehouse, *overrides: str) -> tuple[list[Tree], list[ValueLine], Counter[str]]:
    left_out: Counter[str] = Counter()
    with open_version(made, resolve(made, "kept")) as folder:
        trees = list(version_trees(made, folder, left_out))
    lines = list(value_lines(trees, prm(*overrides), left_out, lambda *line: {}))
    return trees, lines, left_out


def test_each_step_of_a_tree_is_a_target_once_with_the_value_the_search_found(
    made: Warehouse,
) -> None:
    trees, lines, _ = lines_of(made, "question_lines=null", "least_visits=1", "rollout_steps=false")
    worth = Counter(
        (v.question_id, v.depth, v.value, v.visits)
        for tree in trees for v in step_values(tree) if _leads_on(tree, v.node_id)
    )  # fmt: skip
    found = Counter(
        (line.question.question_id, t.depth, t.value, t.visits)
        for line in lines for t in line.targets if t is not None and t.depth != ANSWER_DEPTH
    )  # fmt: skip
    assert found == worth and len(worth) > 20
    outcomes = Counter((t.question.question_id, a, r) for t in trees for a, r in t.outcomes())
    answers = Counter(
        (line.question.question_id, line.answer, line.targets[-1].value)
        for line in lines if line.targets[-1] is not None
    )  # fmt: skip
    assert not answers - outcomes, "an answer's target is its own reward"
    assert all(line.targets[-1] and line.targets[-1].visits == 1 for line in lines)


def test_a_step_of_a_line_that_cannot_be_written_is_learned_in_a_later_one() -> None:
    tree, recipe = fork(), prm("least_visits=1", "rollout_steps=false")

    def lines(*unwritten: tuple[Step, ...]) -> list[ValueLine]:
        return list(
            value_lines(
                [tree], recipe, Counter(),
                lambda question, steps, answer: None if steps in unwritten else {},
            )
        )  # fmt: skip

    def steps_of(some: list[ValueLine]) -> set[float]:
        """Return the first steps that have targets, by where they point."""
        return {x.steps[0].points[0].x for x in some if x.targets[0] is not None}

    every = lines()
    assert len(every) == 4 and len(steps_of(every)) == 2
    for line in every:
        left = lines(line.steps)
        assert len(left) == 3 and steps_of(left) == steps_of(every)


def _leads_on(tree: Tree, node_id: int) -> bool:
    """Whether an answer that was not forced is behind a node."""
    (node,) = (node for node in tree.nodes if node.node_id == node_id)
    return any(
        (below.terminal and "answer_forced" not in below.problems)
        or any(r.answer and "answer_forced" not in r.problems for r in below.rollouts)
        for below in node.walk()
    )


def test_steps_seldom_visited_forced_answers_and_many_lines_are_left_out(made: Warehouse) -> None:
    _, every, _ = lines_of(made, "question_lines=null", "least_visits=1")
    _, some, _ = lines_of(made, "question_lines=null", "least_visits=3", "rollout_steps=false")
    assert all(t is None or t.visits >= 3 for line in some for t in line.targets[:-1])
    assert any(t is None for line in some for t in line.targets)
    alone = [t for line in every for t in line.targets[:-1] if t and t.visits == 1]
    assert alone and all(t.value in (0.0, 1.0) for t in alone)
    trees, few, left_out = lines_of(made)
    questions = Counter(line.question.question_id for line in few)
    assert set(questions.values()) <= {1, 2, 3, 4} and left_out["lines beyond the 4 of a question"]
    forced = sum("answer_forced" in r.problems for tree in trees for r in tree.rollouts)
    assert left_out["lines whose answer was forced"] >= forced > 0


def test_a_value_is_read_at_the_last_token_of_a_step_and_nowhere_else(ready: Ready) -> None:
    lines, _, processor, trainer = ready
    tokenizer = processor.tokenizer
    for at in range(0, len(lines.rows), 3):
        row = lines.rows[at]
        batch = trainer.data_collator([trainer.train_dataset[at], trainer.train_dataset[0]])
        labels, ids = batch["labels"][0], batch["input_ids"][0]
        places = (labels != NO_TARGET).nonzero()[:, 0].tolist()
        wanted = [value for value in row["values"] if value is not None]
        assert labels[places].tolist() == pytest.approx(wanted)
        said = [tokenizer.decode(ids[: place + 1]) for place in places]
        answer = row["messages"][-1]["content"]
        ends = [answer[: end] for (_, end), v in zip(row["ends"], row["values"], strict=True)
                if v is not None]  # fmt: skip
        assert all(text.endswith(end) for text, end in zip(said, ends, strict=True))
        assert bool((batch["weights"][0][labels == NO_TARGET] == 0).all())


def test_targets_that_are_off_by_one_are_found(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, _, _, trainer = ready
    said = check_values(trainer, lines)
    assert "are read where a step ends; one batch overfits" in said
    collate = trainer.data_collator

    def shifted(rows: list[Any]) -> Any:
        batch = collate(rows)
        return {**batch, "labels": batch["labels"].roll(-1, dims=1)}

    monkeypatch.setattr(trainer, "data_collator", shifted)
    with pytest.raises(TrainingError, match="where no step ends"):
        check_values(trainer, lines)


def test_questions_about_held_out_images_are_not_trained_on(ready: Ready) -> None:
    lines, held_out, _, _ = ready
    images = [{i for row in part.rows for i in row["image_ids"]} for part in (lines, held_out)]
    assert images[0] and images[1] and not images[0] & images[1]


def test_questions_about_one_image_are_held_out_together() -> None:
    lines = []
    for number in range(12):
        image = Image(f"image {number % 6}", 10, 10)
        question = Question("t", f"What {number}?", (image,), AnswerKind.TEXT, answers=("a",))
        lines.append(ValueLine(question, (), "a", (None,), "line", {}))
    held = _held_out(lines, 0.5)
    images = [
        line.question.images[0].image_id for line in lines if line.question.question_id in held
    ]
    assert len(images) == 6 and sorted(images[:3]) == sorted(images[3:])
    assert _held_out(lines[::6], 0.5) == set(), "there is no other image to train on"


def test_the_loss_is_the_divergence_from_soft_targets_by_weight() -> None:
    labels = torch.tensor([[0.75, NO_TARGET, 0.5]])
    weights = torch.tensor([[3.0, 0.0, 1.0]])
    right = torch.logit(torch.tensor([[0.75, 0.1, 0.5]]))
    assert float(value_loss(right, labels, weights)) == pytest.approx(0, abs=1e-6)
    rows = torch.cat([right, right.roll(1)]), labels.expand(2, -1), weights.expand(2, -1)
    parts = [value_loss(*(part[i : i + 1] for part in rows)) for i in range(2)]
    assert float(value_loss(*rows)) == pytest.approx(float(sum(parts)) / 2), "whatever is at once"
    wrong = torch.logit(torch.tensor([[0.5, 0.1, 0.5]]))
    cross = 0.75 * torch.log(torch.tensor(0.75 / 0.5)) + 0.25 * torch.log(torch.tensor(0.25 / 0.5))
    assert float(value_loss(wrong, labels, weights)) == pytest.approx(3 * float(cross))


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_ends_in_the_same_weights(
    made: Warehouse, trained: dict[str, Any]
) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            raise Stop

    recipe, said = prm("steps=4", "save_every=2"), list[str]()
    with pytest.raises(Stop):
        train_prm(made, recipe, "kept", name="stopped", reporter=TrainingReporter(stop))
    reporter = TrainingReporter(message=said.append)
    again = train_prm(made, recipe, "kept", name="stopped", reporter=reporter)
    assert again is not None and "going on after step 2" in said
    weights = []
    for row in (trained, again):
        with open_model(made, row) as folder:
            weights.append(load_file(folder / "model.safetensors"))
    assert f"{HEAD}.weight" in weights[0]
    assert all(torch.allclose(weights[0][k], weights[1][k], atol=1e-5) for k in weights[0])
    ours, theirs = (
        [r["loss"] for r in logged(made, row) if "loss" in r] for row in (again, trained)
    )
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_model_is_stored_with_its_lineage_its_card_and_its_calibration(
    made: Warehouse, trained: dict[str, Any]
) -> None:
    assert (trained["dataset"], json.loads(trained["recipe"])["kind"]) == ("kept@v1", "prm")
    figures = json.loads(trained["metrics"])
    assert figures["steps"] == 4 and 0 <= figures["calibration/all/brier"] <= 1
    assert {"calibration/step_1/ece", "calibration/answer/baseline"} <= figures.keys()
    with Walker(made) as walker:
        found = walker.lineage(walker.find("whole")[0])
    assert {"model", "dataset", "tree", "image"} <= {thing.kind for thing in found.ancestors}
    with open_model(made, trained) as folder:
        card = (folder / "README.md").read_text()
        assert recorded_process_reward(folder) == (3, True)
        assert {p.suffix for p in Path(folder).iterdir()} <= {".safetensors", ".json", ".jinja",
                                                              ".txt", ".md"}  # fmt: skip
    assert "a process reward model" in card and "calibration/all/brier" in card


def test_a_stored_model_gives_the_values_it_was_measured_with_to_prefixes_too(
    made: Warehouse, trained: dict[str, Any], ready: Ready
) -> None:
    _, held_out, _, _ = ready
    _, lines, _ = lines_of(made)
    held = set(held_out.question_ids)
    line = next(x for x in lines if x.question.question_id in held and len(x.steps) > 1)
    scorer = load_value_model(made, "whole")
    rows = [
        scorer.writer.row(line.question, line.steps, line.answer),
        scorer.writer.row(line.question, line.steps[:1], None),
    ]
    whole, first = scorer.values(rows, lambda name: read_image(made, name))
    again = scorer.values(rows[1:], lambda name: read_image(made, name))
    assert len(whole) == len(line.steps) + 1 and all(0 < value < 1 for value in whole)
    assert first[0] == pytest.approx(whole[0], abs=1e-4), "nothing behind a step is seen"
    assert again == [first], "a value is a function of its line"
    assert len({round(value, 6) for value in whole}) > 1


def test_calibration_is_by_depth_and_against_the_mean() -> None:
    scored = [
        Scored(1, 0.8, 0.75, 4), Scored(1, 0.2, 0.5, 2), Scored(2, 1.0, 1.0, 1),
        Scored(ANSWER_DEPTH, 0.0, 1.0, 1), Scored(9, 0.5, 0.5, 2),
    ]  # fmt: skip
    found = {figures.name: figures for figures in calibration(scored, mean=0.5)}
    assert list(found) == ["all", "step_1", "step_2", "step_6_and_on", "answer"]
    first = found["step_1"]
    assert first.brier == pytest.approx(
        (3 * 0.2**2 + 0.8**2 + 0.2**2 + 0.8**2) / 6
    )  # every answer is an observation
    assert first.baseline == pytest.approx(0.25)
    assert first.ece == pytest.approx((4 * 0.05 + 2 * 0.3) / 6)
    assert (found["step_2"].brier, found["answer"].brier) == (0, 1)


def test_the_calibration_error_is_of_a_bins_mean_and_bins_do_not_make_up_for_each_other() -> None:
    alike = [Scored(1, 0.52, 0.4, 1), Scored(1, 0.58, 0.7, 1)]
    apart = [Scored(1, 0.42, 0.3, 1), Scored(1, 0.58, 0.7, 1)]
    (same, _), (other, _) = (calibration(some, mean=0.5) for some in (alike, apart))
    assert same.ece == pytest.approx(0) and other.ece == pytest.approx(0.12)


def test_bad_input_is_one_sentence(made: Warehouse) -> None:
    with pytest.raises(TrainingError, match=r"has 0 lines of steps to train on .* left out, trees"):
        train_prm(made, prm("response_style=zoom", "model=nano-zoom"), "kept")
    with pytest.raises(TrainingError, match="steps are valued as they were searched"):
        prm("response_style=answer_only")
    with pytest.raises(TrainingError, match=r"sharding: .*is trained in one process"):
        prm("sharding=fsdp")
    with pytest.raises(TrainingError, match="has no value head"):
        load_value_model(made, "nano-base")


def test_the_head_begins_at_the_mean_of_the_targets(ready: Ready) -> None:
    lines, _, _, trainer = ready
    bias = float(torch.sigmoid(getattr(trainer.model, HEAD).bias.detach()))
    assert bias == pytest.approx(mean_value(lines.rows), abs=1e-5)


def test_a_look_is_valued_behind_what_it_showed(made: Warehouse) -> None:
    """As its node stands in the search: whether the crop shows what is asked about is known."""
    question, files = asked_about(encoded(seed=1))
    with open_student(made, "nano-zoom") as found:
        student = prepare_student(found, prm("response_style=zoom", "model=nano-zoom"))
        assert student.zoom is not None
        frame, call = Frame.of(student.space, question), ZoomCall(Point(60, 45))
        look = Step(
            "A sign (60, 45).", (Point(60, 45),), call, observe(frame, (), call, student.zoom)
        )
        model, processor = load_model(student)
        attach_head(model)
        torch.nn.init.normal_(getattr(model, HEAD).weight, 0, 0.01, torch.manual_seed(0))
        writer = LineWriter.of(made, student, 1)
        whole = writer.row(question, (look, Step("It is a 7.")), "7")
        first = writer.row(question, (look,), None)
        scorer = StepScorer(model, processor, student, writer)
        text, ends = scorer.encoder.text(whole)
        turns = [message["content"] for message in whole["messages"]]
        assert text.count("<|im_start|>assistant\n", 0, ends[0]) == 2, (
            "the look's, and the answer's"
        )
        assert text[: ends[0]].endswith("<|im_start|>assistant\n") and turns[-2] in text[: ends[0]]
        assert text[ends[0] :].startswith("<think>It is a 7.")
        (behind, *_, answer), (alone, _) = scorer.values([whole, first], files.__getitem__)
        former = LineWriter.of(made, student, 1, reads_crops=False)
        (turn, characters), *_ = former.row(question, (look,), None)["ends"]
    assert 0 < behind < 1 and behind == pytest.approx(alone, abs=1e-5) and answer != behind
    assert turn == 0 and turns[-3][:characters].endswith("</tool_call>"), "in front of the crop"


def test_former_models_value_a_call_where_they_were_taught_to(
    made: Warehouse, trained: dict[str, Any]
) -> None:
    assert load_value_model(made, "whole").writer.reads_crops
    with open_model(made, trained) as folder:
        path = folder / "vigorl.json"
        whole = path.read_text()
        fields = json.loads(whole)
        del fields["process_reward"]["reads_crops"]
        path.write_text(json.dumps(fields))
        try:
            assert not load_value_model(made, "whole").writer.reads_crops
        finally:
            path.write_text(whole)


def test_rows_without_crops_are_named_as_before_values_stood_behind_any(ready: Ready) -> None:
    lines, _, _, _ = ready
    told = ("question_id", "messages", "values", "weights")
    assert lines_hash(lines) == content_id([tuple(row[k] for k in told) for row in lines.rows])
    rows = [{**row, "ends": [[1, 0], *row["ends"][1:]]} for row in lines.rows]
    assert lines_hash(Examples(rows, lines.read_image, {})) != lines_hash(lines)

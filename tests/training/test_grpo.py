"""GRPO on the embedded student: the sampler, the prompts, what is logged and stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.flows.test_cli import run
from tests.support.trained import grpo, logged, warehouse_with_traces
from training import preflight
from training.errors import TrainingError
from training.examples import (
    Examples,
    _prefixes,
    nearest_half,
    prompts_hash,
    task_prompts,
    version_prompts,
)
from training.grpo import reward_of, train_grpo
from training.recipes import GrpoRecipe
from training.rewards.question_column import read_question
from training.rewards.rewards import make_rewards
from training.rollouts import RATIO, check_ratio
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.students import load_model, open_student
from training.trainers import TrainingReporter, grpo_trainer
from warehouse.lineage.lineage import Walker
from warehouse.query.read_back import PrefixStart, read_pass_rates
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


ALL = "bands=[unsolved, hard, medium, easy, solved]"


def trainer_for(made: Warehouse, recipe: GrpoRecipe, name: str) -> tuple[Any, Any]:
    """A trainer that has not begun, and its prompts."""
    with open_student(made, "nano-base") as found:
        student = prepare_student(found, recipe)
        prompts = task_prompts(made, "sat2", "train", student, recipe)
        model, processor = load_model(student)
        rewards = make_rewards(reward_of(recipe), student.space)
        with open_run(made, Plan("grpo", recipe.settings(), None, name, "x", name=name)) as run:
            return grpo_trainer(
                run, recipe, model, processor, prompts, rewards, TrainingReporter()
            ), prompts


def test_grpo_runs_logs_its_parts_and_moves_the_language_model(made: Warehouse) -> None:
    row = train_grpo(made, grpo("steps=2", "max_completion=256", ALL), task="sat2")
    assert row is not None and row["dataset"] is None
    first, second = (figures for figures in logged(made, row) if "loss" in figures)
    for name in (
        "rewards/correctness/mean", "rewards/format/mean", "rewards/grounding/mean", "reward_std",
        "frac_reward_zero_std", "entropy", "completions/mean_length", "completions/points",
        "completions/answered", "kl", "step_time",
    ):  # fmt: skip
        assert name in first, name
    assert (first["step"], second["step"]) == (1, 2)
    assert first["kl"] == pytest.approx(0, abs=1e-6), "the reference is where it started"
    assert 0 <= first["reward"] <= 1
    with Walker(made) as walker:
        found = walker.lineage(walker.find(row["model_id"])[0])
    assert len(row["question_ids"]) == found.total("question", up=True) > 1
    assert found.total("image", up=True) > 0, "it leads down to the pixels without a version"


def test_grpo_on_a_version_asks_its_questions_and_has_its_lineage(made: Warehouse) -> None:
    row = train_grpo(made, grpo("steps=1", ALL), dataset="kept", name="on-a-version")
    assert row is not None and row["dataset"] == "kept@v1"
    again = train_grpo(made, grpo("steps=1", ALL), dataset="kept", name="on-a-version")
    assert again is not None and again["model_id"] == row["model_id"]


def test_a_trainer_that_begins_in_a_later_epoch_asks_what_that_epoch_asks(made: Warehouse) -> None:
    recipe = grpo("steps=1", "questions=1", "group=2", ALL)

    def asked(name: str, *epochs: int) -> list[list[str]]:
        trainer, _ = trainer_for(made, recipe, name)
        loader = trainer.get_train_dataloader()
        found = []
        for epoch in epochs:  # as the trainer does
            loader.set_epoch(epoch)
            found.append([row["question_id"] for batch in loader for row in batch])
        return found

    first, second = asked("whole", 0, 1)
    assert asked("later", 1) == [second]
    assert first != second and sorted(first) == sorted(second)


def test_both_samplers_say_the_same_and_the_trainer_agrees(made: Warehouse) -> None:
    messages = []
    for engine in ("local", "transformers"):
        trainer, prompts = trainer_for(made, grpo("steps=1", ALL, f"engine={engine}"), engine)
        assert preflight.check_rollouts(trainer, prompts).startswith("sampler and trainer agree")
        dataset = prompts.dataset()
        rows = [dataset[i] for i in range(len(dataset))]
        from trl.data_utils import prepare_multimodal_messages

        prompts = [prepare_multimodal_messages(r["prompt"], images=r["images"]) for r in rows]
        ids, images, fields = trainer._tokenize_prompts([p for p in prompts for _ in range(2)])
        assert {len(row["images"]) for row in rows} == {1, 2}
        with preflight.greedy(trainer):
            messages.append(trainer._generate_single_turn(ids, images, fields, 2)[0])
    assert messages[0] == messages[1]
    assert messages[0][0::2] == messages[0][1::2]


def test_samples_of_a_group_differ_and_depend_on_the_step_alone(made: Warehouse) -> None:
    trainer, prompts = trainer_for(made, grpo("steps=1", ALL), "samples")
    from trl.data_utils import prepare_multimodal_messages

    row = prompts.dataset()[0]
    prompt = prepare_multimodal_messages(row["prompt"], images=row["images"])
    ids, images, fields = trainer._tokenize_prompts([prompt] * 4)
    one, two = (trainer._generate_single_turn(ids, images, fields, 4)[0] for _ in range(2))
    assert one == two
    assert len({tuple(tokens) for tokens in one}) > 1
    trainer.state.global_step = 1
    assert trainer._generate_single_turn(ids, images, fields, 4)[0] != one


def test_the_sampler_holds_no_more_than_fits(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.data_utils import prepare_multimodal_messages

    from training import rollouts

    trainer, prompts = trainer_for(made, grpo("steps=1", ALL), "capacity")
    dataset = prompts.dataset()
    rows = [dataset[i] for i in range(2)]
    chats = [prepare_multimodal_messages(r["prompt"], images=r["images"]) for r in rows]
    ids, images, fields = trainer._tokenize_prompts([chat for chat in chats for _ in range(3)])
    whole = trainer._generate_single_turn(ids, images, fields, 3)[0]
    held = []

    class Counted(rollouts.Decoder):
        def join(self, waiting: Any) -> Any:
            grown = super().join(waiting)
            held.append(len(self.rows))
            return grown

    monkeypatch.setattr(rollouts, "Decoder", Counted)
    monkeypatch.setattr(rollouts, "CAPACITY", 2)
    assert trainer._generate_single_turn(ids, images, fields, 3)[0] == whole
    assert len(held) >= 3 and max(held) == 2


def test_a_sampler_with_other_weights_is_found_out(made: Warehouse) -> None:
    trainer, prompts = trainer_for(made, grpo("steps=1", ALL), "other-weights")
    sample = trainer._sampled

    def disturbed(model: Any, *arguments: Any) -> Any:
        weight = model.model.language_model.layers[0].mlp.down_proj.weight
        kept = weight.detach().clone()
        weight.mul_(-3)
        try:
            return sample(model, *arguments)
        finally:
            weight.copy_(kept)

    trainer._sampled = disturbed
    with pytest.raises(TrainingError, match="sampler and trainer disagree"):
        preflight.check_rollouts(trainer, prompts)


def test_only_questions_with_something_to_learn_are_asked(made: Warehouse) -> None:
    ids = [row["question_id"] for row in query(made, "FROM questions").to_pylist()]
    rates = read_pass_rates(made, ids)
    assert set(rates) == set(ids)
    bands = [band for _, band in rates.values()]
    version = resolve(made, "kept")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        for band in set(bands):
            recipe = grpo(f"bands=[{band}]", "questions=1", "curriculum=easy_first")
            student = prepare_student(found, recipe)
            prompts = task_prompts(made, "sat2", "train", student, recipe)
            shown = [row["question_id"] for row in prompts.rows]
            assert sorted(shown) == sorted(i for i in ids if rates[i][1] == band)
            assert [rates[i][0] for i in shown] == sorted(
                (rates[i][0] for i in shown), reverse=True
            )
            assert sum(prompts.left_out.values()) == len(ids) - len(shown)
        everything = version_prompts(made, version, folder, student, grpo(ALL))
        assert len({row["question_id"] for row in everything.rows}) == len(everything.rows)
        with pytest.raises(TrainingError, match="a batch of answers takes 400"):
            task_prompts(made, "sat2", "train", student, grpo(ALL, "questions=400"))


def test_questions_are_chosen_by_what_the_student_itself_was_measured_at(
    made: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_student(made, "nano-base") as found:
        unmeasured = grpo("questions=1", "pass_rates=student", ALL)
        prompts = task_prompts(
            made, "sat2", "train", prepare_student(found, unmeasured), unmeasured
        )
        assert "of base@" in prompts.rates_text and "there are none" in prompts.rates_text
    assert run("evaluate", "nano-base", "sat2", "--pass-at", 2, home=made.root) == 0
    assert "right once of k" in capsys.readouterr().out
    own = query(made, "FROM student_difficulty").to_pylist()
    questions = query(made, "FROM questions").to_pylist()
    assert {(row["asked"], row["split"]) for row in own} == {(2, "train")}
    assert {row["question_id"] for row in own} == {row["question_id"] for row in questions}
    for band in {row["band"] for row in own}:
        recipe = grpo(f"bands=[{band}]", "questions=1", "pass_rates=student")
        with open_student(made, "nano-base") as found:
            student = prepare_student(found, recipe)
            prompts = task_prompts(made, "sat2", "train", student, recipe)
        expected = sorted(row["question_id"] for row in own if row["band"] == band)
        assert sorted(row["question_id"] for row in prompts.rows) == expected
        assert all(why.endswith("by the model") for why in prompts.left_out)
        newest = max(row["measured_at"] for row in own)
        assert prompts.rates_text == (
            f"{len(own)} pass rates are {student.model_id}'s own, the oldest of "
            f"{newest:%Y-%m-%d %H:%M} UTC"
        )
        assert prompts.left_out_text.endswith(f"; {prompts.rates_text}")


BEGUN = "<think>I see it at (100, 200).</think>\n"


@pytest.mark.parametrize("engine", ["local", "transformers"])
def test_a_prefix_is_read_by_the_rewards_and_passed_over_by_the_loss(
    made: Warehouse, engine: str
) -> None:
    trainer, prompts = trainer_for(
        made, grpo("steps=1", ALL, f"engine={engine}", "trackers=[]"), f"begun-{engine}"
    )
    for row, begun in zip(prompts.rows, [BEGUN, ""], strict=False):
        row["prefix"] = begun
    dataset = Examples(prompts.rows[:2], prompts.read_image, {}).dataset()
    read: list[str] = []
    parts = trainer._parts

    def reading(rows: Any, chats: Any, completions: Any, ids: Any) -> Any:
        read.extend(completion[0]["content"] for completion in completions)
        return parts(rows, chats, completions, ids)

    trainer._parts, trainer.mask_truncated_completions = reading, False
    trainer.model.train()
    output = trainer._generate_and_score_completions([dataset[i // 2] for i in range(4)])
    tokens = trainer.processing_class.tokenizer(BEGUN, add_special_tokens=False)["input_ids"]
    assert [text.startswith(BEGUN) for text in read] == [True, True, False, False]
    for i, length in enumerate((len(tokens), len(tokens), 0, 0)):
        ids, mask = output["completion_ids"][i].tolist(), output["tool_mask"][i].tolist()
        assert ids[: len(tokens)] == tokens or not length
        assert not any(mask[:length]) and mask[length] == 1
    assert len(read[0]) > len(BEGUN), "it goes on"


def test_a_student_goes_on_from_where_it_was_measured_right_sometimes(
    made: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = grpo("questions=1", "pass_rates=student", "prefixes=2", "bands=[medium]")
    with open_student(made, "nano-base") as found:
        student = prepare_student(found, recipe)
        with pytest.raises(TrainingError, match="none behind which base@"):
            task_prompts(made, "sat2", "train", student, recipe)
        assert run("evaluate", "nano-base", "sat2", "--pass-at", 2, home=made.root) == 0
        assert (
            run("evaluate", "nano-base", "sat2", "--pass-at", 2, "--prefixes", 3, home=made.root)
            == 0
        )
        assert "behind prefixes of its trees" in capsys.readouterr().out
        prompts = task_prompts(made, "sat2", "train", student, recipe)
    measured = query(made, "FROM prefix_starts WHERE asked = 2").to_pylist()
    assert measured and max(row["place"] for row in measured) <= 3
    begun = [row for row in prompts.rows if row["prefix"]]
    hopeful = {row["question_id"] for row in measured if row["solved"] == 1}
    assert begun and {row["question_id"] for row in begun} == hopeful
    assert all(row["prefix"].endswith("</think>\n") for row in begun)
    assert all(row["prompt"] == other["prompt"] for row in begun for other in prompts.rows
               if other["question_id"] == row["question_id"])  # fmt: skip
    assert prompts_hash(prompts) != prompts_hash(replace(prompts, rows=begun))


def test_of_measured_prefixes_those_nearest_to_half_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = {"mostly": 7, "half": 4, "seldom": 2, "rather": 5}
    found = [PrefixStart(name, 1, (), solved, 8) for name, solved in rates.items()]
    assert [p.tree_id for p in nearest_half(found)] == ["half", "rather", "seldom", "mostly"]
    monkeypatch.setattr("training.examples.read_usable_prefixes", lambda *given: {"q": found})
    monkeypatch.setattr("training.examples._by_prompt", lambda *given: {"nano": ["q"]})
    student: Any = SimpleNamespace(model_id="m")
    taken = _prefixes(Warehouse("nowhere"), [], student, grpo("prefixes=2"))
    assert [p.tree_id for p in taken["q"]] == ["half", "rather"]


def test_a_training_says_which_behavior_it_lost(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    lines = [{"behaviors/verification": 0.7}] * 5 + [{"behaviors/verification": 0.1}] * 5
    monkeypatch.setattr("training.grpo.run_training", lambda *given: {"name": "m"})
    monkeypatch.setattr("training.grpo.read_metrics", lambda file: lines)
    reporter = TrainingReporter(message=said.append)
    train_grpo(made, grpo("steps=1", ALL), task="sat2", name="lost", reporter=reporter)
    assert said[-1].startswith("verification died: 70% of answers had it")


@pytest.mark.parametrize(
    ("ratio", "stops"), [(1.0, False), (0.6, False), (1e-6, True), (3.0, True)]
)
def test_a_sampler_that_disagrees_stops_the_training(ratio: float, stops: bool) -> None:
    if not stops:
        check_ratio({RATIO: ratio}, (0.5, 2.0))
        return
    with pytest.raises(TrainingError, match="trainer and vLLM disagree"):
        check_ratio({RATIO: ratio}, (0.5, 2.0))


def test_a_frozen_tower_looks_at_a_picture_once_and_says_the_same(made: Warehouse) -> None:
    from training.examples import decode_image
    from training.vision_cache import cache_image_features

    with open_student(made, "nano-base") as found:
        model, processor = load_model(found)
    prompts = query(
        made, "SELECT DISTINCT unnest(image_ids) AS i FROM questions ORDER BY i LIMIT 2"
    )
    from warehouse.tables.rows import read_image

    pictures = [decode_image(read_image(made, row["i"])) for row in prompts.to_pylist()]
    seen = processor.image_processor(images=[*pictures, pictures[0]], return_tensors="pt")
    arguments = (seen["pixel_values"], seen["image_grid_thw"])
    with torch.no_grad():
        plain = model.model.get_image_features(*arguments, return_dict=True).pooler_output
        memory = cache_image_features(model)
        known = [model.model.get_image_features(*arguments).pooler_output for _ in range(2)]
    assert memory.computed == 2
    for some in known:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain, some, strict=True))


def test_what_cannot_be_asked_is_said(made: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give one of both"):
        train_grpo(made, grpo("steps=1"))
    with pytest.raises(TrainingError, match="0 questions to ask"):
        train_grpo(made, grpo("steps=1"), task="nothing")


class Killed(Exception):
    """In place of a kill, in this process."""


def test_an_interrupted_training_goes_on_from_its_checkpoint_to_the_same_step(
    made: Warehouse,
) -> None:
    recipe = grpo("steps=4", "save_every=2", ALL)

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(made, recipe, task="sat2", name="stopped", reporter=TrainingReporter(stop))
    messages: list[str] = []
    row = train_grpo(
        made,
        recipe,
        task="sat2",
        name="stopped",
        reporter=TrainingReporter(message=messages.append),
    )
    assert row is not None and "going on after step 2" in messages
    assert not [line for line in messages if line.startswith("sampler")], "checked only once"
    assert [r["step"] for r in logged(made, row) if "loss" in r] == [1, 2, 3, 4]


def test_an_answer_that_was_cut_off_is_no_member_of_its_group_and_controls_are_read(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL masks it from the loss and counts its 0, which makes all others look good. It also leaves
    special tokens out of what rewards read, and an evaluation does not."""
    sizes = ("steps=1", "questions=1", "group=5", "micro_batch=5", "max_completion=256")
    recipe = grpo(*sizes, "trackers=[]", ALL)
    trainer, _ = trainer_for(made, recipe, "cut-off")
    tokenizer = trainer.processing_class.tokenizer
    row = trainer.train_dataset[0]
    graded = read_question(row["question"]).question
    wrong = next(choice for choice in graded.choices if choice not in graded.answers)
    steps = "".join(f"<think>It is at ({x}, 500), number {x}.</think>\n" for x in (100, 400, 700))
    said = {"wrong": f"{steps}<answer>{wrong}</answer><|im_end|>", "cut": steps}
    said["right"] = f"{steps}<answer>{graded.answers[0]}</answer><|im_end|>"
    said["odd"] = f"{steps}<answer>{graded.answers[0]}<|im_start|></answer><|im_end|>"

    def advantages(*names: str) -> list[float]:
        ids = [tokenizer(said[name], add_special_tokens=False)["input_ids"] for name in names]
        monkeypatch.setattr(trainer, "_generate_single_turn", lambda *given, **more: (ids, None))
        trainer.model.train()
        found = trainer._generate_and_score_completions([row] * len(names))
        return [round(float(value), 2) for value in found["advantages"]]

    assert advantages("wrong", "wrong", "wrong", "wrong", "cut") == [0.0] * 5
    assert trainer._metrics["train"]["groups/dead_first"][-1] == 1.0
    assert advantages("right", "wrong", "wrong", "wrong", "cut")[1:] == [-0.5, -0.5, -0.5, 0.0]
    right, odd, *_ = advantages("right", "odd", "wrong", "wrong", "wrong")
    assert right > 0 > odd, "an evaluation does not read its answer as an option"

"""GRPO of a student that zooms: whole episodes, what is masked in them, and what is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.scripted_student import look, say, script, turns
from tests.support.trained import ZOOM, grpo, logged, warehouse_with_questions, zoom_trainer
from training import preflight
from training.errors import TrainingError
from training.examples import Examples
from training.grpo import train_grpo
from training.recipes import GrpoRecipe
from training.students import open_student
from training.trainers import TrainingReporter
from training.zoom.episodes import EpisodeEnd, Observer
from training.zoom.rollouts import ZoomTrainer, check_images
from vigorl_nano import BASE
from warehouse.storage.home import Warehouse

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_questions(tmp_path_factory.mktemp("made"))


def batch(trainer: ZoomTrainer, prompts: Examples, group: int = 2) -> dict[str, Any]:
    """What the loss is computed of: a group of episodes for each of two questions."""
    dataset = prompts.dataset()
    trainer.model.train()
    return trainer._generate_and_score_completions([dataset[i // group] for i in range(2 * group)])


def gold(prompts: Examples, number: int) -> str:
    from training.rewards.question_column import read_question

    return read_question(prompts.rows[number]["question"]).question.answers[0]


EPISODES = (
    (look(200, 300), say("left")),
    (look(200, 300), look(800, 700), say("right")),
    (say("left"),),
    (look(200, 300), '<think>I look at it.</think>\n<tool_call>{"name"</tool_call>', say("right")),
)


@pytest.mark.parametrize("over", ["", "freeze_vision=false"])
def test_an_episode_is_what_it_wrote_and_what_it_was_shown_and_only_the_first_is_learned(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    with zoom_trainer(made, f"learned{over}", *filter(None, [over])) as (trainer, prompts):
        tokenizer = trainer.processing_class.tokenizer
        sampled = script(monkeypatch, tokenizer, turns(*EPISODES))
        made_of = batch(trainer, prompts)
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([made_of["prompt_ids"], made_of["completion_ids"]], 1),
            torch.cat([made_of["prompt_mask"], made_of["completion_mask"]], 1),
            made_of["completion_ids"].shape[1],
            **{k: made_of[k] for k in ("pixel_values", "image_grid_thw", "num_images",
                                       "mm_token_type_ids")},
        )  # fmt: skip
        own = [len(prompts.rows[i // 2]["image_ids"]) for i in range(4)]
        crops = [made_of["num_images"][i] - own[i] for i in range(4)]
        assert crops == [1, 2, 0, 1] and own == [2, 2, 1, 1]
        grids = iter((made_of["image_grid_thw"].prod(-1) // 4).tolist())
        for i, episode in enumerate(EPISODES):
            sizes = [next(grids) for _ in range(own[i] + crops[i])]
            ids, mask = made_of["completion_ids"][i], made_of["tool_mask"][i].bool()
            mask &= made_of["completion_mask"][i].bool()
            assert tokenizer.decode(ids[mask]) == "".join(episode)
            shown = tokenizer.decode(ids[~mask & made_of["completion_mask"][i].bool()])
            assert shown.count("<observation>") == len(episode) - 1
            assert shown.count("<|image_pad|>") == sum(sizes[own[i] :])
            theirs = torch.tensor([p for t in range(len(episode)) for p in sampled[i, t]])
            assert torch.allclose(logps[i][mask].detach(), theirs, atol=1e-3)


def test_an_episode_at_a_limit_is_no_member_of_its_group(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = say(gold_of_first := "left")
    over_turn = (*(look(100 + 300 * i, 500) for i in range(3)), right)
    too_long = ("<think>" + "so small " * 120,)
    with zoom_trainer(made, "limits", "group=4") as (trainer, prompts):
        assert gold(prompts, 0) in ("left", "right")
        wrong = say("right" if gold(prompts, 0) == gold_of_first else "left")
        episodes = (over_turn, too_long, (say(gold(prompts, 0)),), (wrong,))
        script(monkeypatch, trainer.processing_class.tokenizer, turns(*episodes))
        made_of = batch(trainer, prompts, 4)
        learned = (made_of["tool_mask"] * made_of["completion_mask"]).sum(1)
        assert learned[:2].tolist() == [0, 0] and learned[2] > 0
        assert made_of["completion_mask"][:2].all(1).any(), "it is masked from the loss alone"
        # Without the two, the mean lies in the middle of the right one and the wrong one.
        high, low = made_of["advantages"][2:4].tolist()
        assert made_of["advantages"][:2].tolist() == [0, 0]
        assert high == pytest.approx(-low) and high > 0
        assert trainer._metrics["train"]["zoom/forced"] == [0.5]
        assert trainer._metrics["train"]["completions/clipped_ratio"] == [0.25]


def test_calls_that_show_nothing_are_no_way_out_of_a_wrong_answer(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tuple(look(5000, 300 * i) for i in range(4))
    honest = tuple(look(100 + 300 * i, 500) for i in range(3))
    with zoom_trainer(made, "no-way-out", "group=4", "zoom.max_turns=3") as (trainer, prompts):
        gold_answer = gold(prompts, 0)
        wrong = say("right" if gold_answer == "left" else "left")
        episodes = (outside, honest, (say(gold_answer),), (wrong,))
        script(monkeypatch, trainer.processing_class.tokenizer, turns(*episodes))
        made_of = batch(trainer, prompts, 4)
        learned = (made_of["tool_mask"] * made_of["completion_mask"]).sum(1)
        assert learned[0] > 0 and learned[1] == 0
        called, excused, right, silent = made_of["advantages"][:4].tolist()
        assert called < silent < right and excused == 0, "worse than a wrong answer in its form"
        assert trainer._metrics["train"]["zoom/forced"] == [0.5]


def test_an_episode_goes_on_behind_the_turns_of_a_prefix(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = look(200, 300), look(800, 700)
    with zoom_trainer(made, "behind") as (trainer, prompts):
        for i, row in enumerate(prompts.rows):
            row["prefix"] = "" if i else json.dumps([first])
        rest = ((second, say("left")), (say("right"),), (first, say("left")), (say("right"),))
        # Its own turns are counted behind those that it was begun with.
        written = turns(*(episode if i > 1 else ("", *episode) for i, episode in enumerate(rest)))
        tokenizer = trainer.processing_class.tokenizer
        script(monkeypatch, tokenizer, written)
        made_of = batch(trainer, prompts)
        ids, learned = made_of["completion_ids"], made_of["tool_mask"].bool()
        learned &= made_of["completion_mask"].bool()
        shown = [tokenizer.decode(row[mask]) for row, mask in zip(ids, learned, strict=True)]
        assert shown == [second + say("left"), say("right"), first + say("left"), say("right")]
        assert tokenizer.decode(ids[1]).startswith(first), "the rewards read it, too"
        assert trainer._metrics["train"]["zoom/calls"] == [2 / 4], "those it made itself"
        images = list(made_of["num_images"])
        assert images[0] == images[1] + 1, "a crop is shown behind the prefix"
        high, low = made_of["advantages"][:2].tolist()
        assert high == pytest.approx(-low) and high != 0


def test_limits_are_excused_by_what_the_student_itself_called(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, honest = look(5000, 300), tuple(look(100 + 300 * i, 500) for i in range(3))
    too_long = "<think>" + "so small " * 120
    with zoom_trainer(made, "excused") as (trainer, prompts):
        for i, row in enumerate(prompts.rows):
            row["prefix"] = "" if i else json.dumps([outside])
        episodes = (("", *honest), ("", *honest), (outside, too_long), (too_long,))
        script(monkeypatch, trainer.processing_class.tokenizer, turns(*episodes))
        made_of = batch(trainer, prompts)
        learned = (made_of["tool_mask"] * made_of["completion_mask"]).sum(1) > 0
        assert learned.tolist() == [False, False, True, False]
        assert trainer._metrics["train"]["zoom/forced"] == [1.0]


def test_a_dead_group_of_episodes_is_replaced_by_episodes_about_another_question(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    over_turn = (*(look(100 + 300 * i, 500) for i in range(3)), say("left"))
    first = turns(over_turn, over_turn, (say("left"),), (say("right"),))
    further = turns((look(200, 300), say("left")), (say("right"),))
    with zoom_trainer(made, "replaced", "dead_group_tokens=20", "alarm.controls=1") as (
        trainer,
        prompts,
    ):
        script(
            monkeypatch, trainer.processing_class.tokenizer,
            lambda place, turn: (further if trainer._further else first)(place, turn),
        )  # fmt: skip
        played: list[int] = []
        control = trainer._control
        monkeypatch.setattr(trainer, "_control", lambda *a: played.append(1) or control(*a))
        sampled: list[Any] = []
        sample = trainer._sampled_groups
        monkeypatch.setattr(
            trainer, "_sampled_groups", lambda rows: sampled.append(sample(rows)) or sampled[-1]
        )
        made_of = batch(trainer, prompts)
        excused = sampled[0][0]
        assert 0 < excused.tokens < sum(map(len, excused.generated[1])), "not what it was shown"
        metrics = trainer._metrics["train"]
        assert (metrics["groups/dead_first"], metrics["groups/dead"]) == ([0.5], [0.0])
        extra, written = metrics["groups/extra_tokens"][0], sum(g.tokens for g in sampled[0])
        assert extra == sum(group.tokens for some in sampled[1:] for group in some) > 0
        assert metrics["groups/extra_share"] == [extra / written], "of what the batch wrote"
        assert metrics["zoom/forced"] == [0.5], "of the episodes as they were sampled first"
        assert played == [1], "noise is shown once a batch"
        advantages = made_of["advantages"].tolist()
        assert advantages[0] == pytest.approx(-advantages[1]) and advantages[0] != 0
        assert (made_of["tool_mask"] * made_of["completion_mask"]).sum(1).min() > 0
        assert trainer.tools == [], "nothing is left of it for the next prompt"


def test_nobody_waits_for_the_slowest_turn(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = say("left", "It takes a long while to say what I see here. " * 8)
    with zoom_trainer(made, "no-lock-step") as (trainer, prompts):
        script(monkeypatch, trainer.processing_class.tokenizer, turns(EPISODES[1], (slow,)))
        order: list[tuple[int, EpisodeEnd | None]] = []
        take = trainer._ending

        def noted(tokens: Any, episode: Any, reader: Any) -> Any:
            found = take(tokens, episode, reader)
            if found is not None:
                order.append(len(episode.texts))
            return found

        monkeypatch.setattr(trainer, "_ending", noted)
        batch(trainer, prompts)
        assert order[:6] == [0, 0, 1, 1, 2, 2] and order[6:] == [0, 0]


def test_the_ledger_counts_calls_places_and_what_failed(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = (look(200, 300), look(205, 300), say("left"))
    with zoom_trainer(made, "ledger") as (trainer, prompts):
        episodes = (EPISODES[1], EPISODES[2], EPISODES[3], again)
        script(monkeypatch, trainer.processing_class.tokenizer, turns(*episodes))
        batch(trainer, prompts)
        found = {name: values[0] for name, values in trainer._metrics["train"].items()}
    assert found["zoom/call_rate"] == 0.75 and found["zoom/calls"] == 6 / 4
    assert found["zoom/places"] == (2 + 0 + 1 + 1) / 4
    assert found["zoom/failed/malformed"] == found["zoom/failed/shown_already"] == 1 / 6
    assert found["zoom/failed/point_outside_image"] == found["zoom/forced"] == 0
    assert "zoom/on_object" not in found, "no boxes are known"


def test_lost_pictures_stop_a_training(made: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    with zoom_trainer(made, "lost") as (trainer, prompts):
        script(monkeypatch, trainer.processing_class.tokenizer, turns(*EPISODES))
        whole = batch(trainer, prompts)
        pad = trainer._image_pad_token_id
        of = int((whole["prompt_ids"][0] == pad).sum() + (whole["completion_ids"][0] == pad).sum())
        check_images(whole, pad, 4)
        for lost in ("pixel_values", "image_grid_thw"):
            without = {k: v for k, v in whole.items() if k != lost}
            with pytest.raises(TrainingError, match=rf"pictures were lost: episode 1 .* has {of} "):
                check_images(without, pad, 4)
        moved = {**whole, "num_images": [2, 5, 1, 2]}
        with pytest.raises(TrainingError, match=f"{of} image tokens and pixels for 98"):
            check_images(moved, pad, 4)


@pytest.mark.parametrize("engine", ["local", "transformers"])
def test_sampler_and_trainer_agree_behind_a_crop(made: Warehouse, engine: str) -> None:
    with zoom_trainer(made, f"agree-{engine}", f"engine={engine}") as (trainer, prompts):
        for row in prompts.rows:
            row["prefix"] = json.dumps([look(200, 300)])
        said = preflight.check_episodes(trainer, prompts)
        assert said.startswith("sampler and trainer agree") and "behind a crop" in said


def test_a_crop_that_the_trainer_does_not_see_is_found_out(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = Observer.crop

    def other(self: Observer, question: Any, step: Any) -> Any:
        image, found = crop(self, question, step)
        return image, type(found).of(-found.pixels, found.grid)

    monkeypatch.setattr(Observer, "crop", other)
    with (
        zoom_trainer(made, "other-crop") as (trainer, prompts),
        pytest.raises(TrainingError, match="other pictures behind a call"),
    ):
        preflight.check_episodes(trainer, prompts)


def test_another_turn_than_the_chat_template_writes_is_found_out(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Observer.turn
    monkeypatch.setattr(Observer, "turn", lambda *given: tokens(*given)[:-1])
    with (
        zoom_trainer(made, "other-turn") as (trainer, prompts),
        pytest.raises(TrainingError, match="other tokens than the chat template"),
    ):
        preflight.check_episodes(trainer, prompts)


@pytest.mark.parametrize(
    ("alarm", "sentence"),
    [
        (("alarm.batches=2", "alarm.controls=0"), "the student stopped zooming: at most 0.0%"),
        (("alarm.controls=2", "alarm.control_every=1"), "zooming is a decoration: .* 2 controls"),
    ],
)
def test_a_training_whose_zooming_dies_or_reads_nothing_stops(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch, alarm: tuple[str, ...], sentence: str
) -> None:
    name = f"alarm-{len(sentence)}"
    with zoom_trainer(made, name, "steps=6", *alarm) as (trainer, _):
        looking, answering = turns(*EPISODES[:2]), turns((say("left"),))

        def played(place: int, turn: int) -> str:
            dead = "stopped" in sentence and trainer.state.global_step >= 2
            return (answering if dead else looking)(place, turn)

        script(monkeypatch, trainer.processing_class.tokenizer, played)
        with pytest.raises(TrainingError, match=sentence):
            trainer.train()
        assert trainer.state.global_step == (4 if "stopped" in sentence else 2)


class Killed(Exception):
    """In place of a kill, in this process."""


def test_a_student_that_zooms_is_trained_killed_and_trained_on(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    student = Path(shutil.copytree(BASE, tmp_path / "student"))
    style = json.loads((student / "vigorl.json").read_text())
    style["prompts"]["zoom"] = "nano-zoom"
    (student / "vigorl.json").write_text(json.dumps(style))
    tokenizer = AutoTokenizer.from_pretrained(student)
    checked = preflight.check_episodes

    def then_scripted(trainer: Any, prompts: Any) -> str:
        said = checked(trainer, prompts)
        script(monkeypatch, tokenizer, turns(*EPISODES))
        return said

    monkeypatch.setattr("training.grpo.check_episodes", then_scripted)
    recipe: GrpoRecipe = grpo(*ZOOM, "steps=2", "save_every=1", "group=4")

    def stop(step: int, steps: int, metrics: dict[str, Any]) -> None:
        if step == 2:
            raise Killed

    ask = {"task": "sat2", "name": "zoomer", "model": str(student)}
    with pytest.raises(Killed):
        train_grpo(made, recipe, **ask, reporter=TrainingReporter(stop))
    said: list[str] = []
    row = train_grpo(made, recipe, **ask, reporter=TrainingReporter(message=said.append))
    assert row is not None and "going on after step 1" in said
    figures = [line for line in logged(made, row) if "loss" in line]
    assert [line["step"] for line in figures] == [1, 2]
    assert all(line["zoom/call_rate"] == 0.75 and line["grad_norm"] > 0 for line in figures)
    with open_student(made, "zoomer") as trained:
        assert trained.prompt_style.response_style == "zoom" and trained.zoom is not None
        assert trained.zoom.max_calls == 2 and Path(trained.folder).is_dir()

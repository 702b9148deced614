"""Recipes: every built-in one loads, overrides hold, and a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts.data import ResponseStyle
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS, Lens
from training.errors import TrainingError
from training.grpo import reward_of
from training.recipes import (
    GrpoRecipe,
    Recipe,
    SftRecipe,
    key_settings,
    load_recipe,
    recipe_names,
)
from training.run_training import student_name
from training.runs import Plan


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_under_its_own_name_and_says_what_it_is_for(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about.endswith(".")
    styled = any(word in name for word in ("ungrounded", "answers", "zoom"))
    assert (recipe.response_style is not ResponseStyle.GROUNDED) == styled
    assert recipe.model
    if isinstance(recipe, GrpoRecipe):
        assert reward_of(recipe).response_style is recipe.response_style


def test_the_papers_figures_are_in_its_recipes() -> None:
    sft = load_recipe("qwen2.5-vl-7b-sft")
    assert isinstance(sft, SftRecipe)
    assert (sft.epochs, sft.batch, sft.learning_rate, sft.weight_decay) == (3, 32, 1e-6, 0.01)
    assert (sft.warmup, sft.schedule, sft.max_tokens, sft.freeze_vision) == (
        0.03, "cosine", 8192, True,
    )  # fmt: skip
    grpo = load_recipe("qwen2.5-vl-7b-grpo")
    assert isinstance(grpo, GrpoRecipe)
    assert grpo.model == "Qwen/Qwen2.5-VL-7B-Instruct"
    # 500 rollouts of 128 questions with 5 answers, an update for every 32 questions.
    assert grpo.steps == 500 * grpo.updates
    assert (grpo.questions * grpo.updates, grpo.questions, grpo.group) == (128, 32, 5)
    assert (grpo.beta, grpo.epsilon, grpo.epsilon_high, grpo.top_p) == (0.01, 0.2, 0.28, 0.99)
    assert (grpo.max_prompt, grpo.max_completion, grpo.learning_rate) == (4096, 2048, 1e-6)


def test_the_papers_figures_of_several_turns_are_in_its_recipe() -> None:
    grpo = load_recipe("qwen2.5-vl-3b-zoom-grpo")
    assert isinstance(grpo, GrpoRecipe) and grpo.zoom is not None
    assert grpo.steps == 500 * grpo.updates
    assert (grpo.questions * grpo.updates, grpo.questions, grpo.group) == (128, 64, 8)
    assert (grpo.beta, grpo.epsilon_high, grpo.max_grad_norm, grpo.warmup) == (
        0.01,
        0.28,
        0.2,
        0.05,
    )
    assert (grpo.max_prompt, grpo.max_completion, grpo.turn_tokens) == (4096, 4096, 1024)
    assert (grpo.zoom.max_calls, grpo.temperature, grpo.top_p) == (4, 1.0, 0.99)


def test_a_recipe_without_zoom_has_the_settings_it_always_had() -> None:
    """Else a training that was begun before would not go on."""
    for name in ("nano-grpo", "qwen3-vl-4b-grpo"):
        recipe = load_recipe(name, ["alarm.batches=3"])
        assert not {"zoom", "turn_tokens", "alarm"} & recipe.settings().keys()


def test_overrides_reach_inner_fields_and_numbers_as_people_write_them() -> None:
    recipe = load_recipe("nano-sft", ["learning_rate=1e-5", "lora.rank=4", "steps=7"])
    assert isinstance(recipe, SftRecipe)
    assert recipe.lora is not None
    assert (recipe.learning_rate, recipe.lora.rank, recipe.steps) == (1e-5, 4, 7)
    assert recipe.settings() != load_recipe("nano-sft").settings()


def test_a_recipe_of_ones_own_says_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("like: nano-grpo\nabout: Mine.\ngroup: 4\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert isinstance(recipe, GrpoRecipe)
    given = load_recipe("nano-grpo")
    assert isinstance(given, GrpoRecipe)
    assert (recipe.name, recipe.group, recipe.steps) == ("mine", 4, given.steps)


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("nope", [], "there is no recipe 'nope'"),
        ("nano-sft", ["batch=0"], "nano-sft, batch: .*greater than or equal to 1 .it was 0."),
        (
            "nano-sft",
            ["batsch=8"],
            "nano-sft, batsch: there is no such field; there are: about, batch, ",
        ),
        ("nano-sft", ["batch"], "'batch' is not written key=value"),
        ("nano-grpo", ["engine=fast"], "engine: .*'local', 'transformers' or 'vllm'"),
    ],
)
def test_what_is_wrong_is_named(name: str, override: list[str], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        load_recipe(name, override)


def test_recipes_that_lead_back_to_themselves_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "round.yaml"
    path.write_text(f"like: {path}\nkind: sft\n")
    with pytest.raises(TrainingError, match="leads back to itself"):
        load_recipe(str(path))


def test_a_reward_must_fit_the_response_style() -> None:
    recipe = load_recipe("nano-grpo", ["response_style=ungrounded"])
    assert isinstance(recipe, GrpoRecipe)
    with pytest.raises(TrainingError, match="reward: grounded is for response style grounded"):
        reward_of(recipe)
    recipe = load_recipe("nano-grpo", ["weights={correctness: 0.4, format: 0.6}"])
    assert isinstance(recipe, GrpoRecipe)
    with pytest.raises(TrainingError, match=r"correctness must be over 0\.5"):
        reward_of(recipe)


def test_former_words_work_and_say_their_new_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = tmp_path / "mine.yaml"
    former.write_text("like: nano-grpo\nabout: Mine.\nform: answers\nreward: direct\n")
    recipe = load_recipe(str(former))
    assert isinstance(recipe, GrpoRecipe)
    assert f"recipe {former}: form is called response_style now" in capsys.readouterr().err
    assert recipe.response_style is ResponseStyle.ANSWER_ONLY
    assert reward_of(recipe).response_style is ResponseStyle.ANSWER_ONLY
    assert "reward direct is called answer_only now" in capsys.readouterr().err
    overridden = load_recipe("nano-sft", ["form=ungrounded"])
    assert overridden.response_style is ResponseStyle.UNGROUNDED
    assert "-o form=ungrounded: form is called response_style now" in capsys.readouterr().err
    # What a run's key hashes has the words of 0.1: trainings begun then go on.
    hashed = key_settings(recipe.settings())
    assert (hashed["form"], hashed["reward"]) == ("answers", "direct")
    assert "response_style" not in hashed


def test_a_run_begun_by_version_0_1_keeps_its_key() -> None:
    recipe = load_recipe("nano-sft-answers", ["model=nano-base"])
    plan = Plan("sft", recipe.settings(), "a@v1", "data", "parent")
    assert plan.key == "cfe5c56a"


def test_a_recipe_without_a_student_needs_one_from_the_command(tmp_path: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text("kind: sft\nabout: Bare.\nlearning_rate: 1.0e-4\n")
    recipe = load_recipe(str(path))
    assert student_name(recipe, "some-model") == "some-model"
    with pytest.raises(TrainingError, match="bare names no model to start from: give --model"):
        student_name(recipe, None)


def test_only_a_recipe_that_zooms_says_how() -> None:
    recipe = load_recipe("qwen3-vl-4b-zoom-sft", ["zoom.max_calls=6", "zoom.crop_tokens=2000"])
    assert recipe.response_style is ResponseStyle.ZOOM and recipe.zoom is not None
    zoom = recipe.zoom.config(VISUAL_SEARCH_LENS, "tool")
    assert zoom == ZoomConfig(VISUAL_SEARCH_LENS, 6, 12, role="tool", crop_tokens=2000)
    own = "zoom.lens={half_width: 0.1, shown_side: 336, share: true}"
    given = load_recipe("qwen3-vl-4b-zoom-sft", [own]).zoom
    assert given is not None
    assert given.config(VISUAL_SEARCH_LENS, "user").lens == Lens(0.1, 336, share=True)
    assert "zoom" not in load_recipe("nano-sft").settings()
    with pytest.raises(TrainingError, match="only a recipe of response_style zoom has it"):
        load_recipe("nano-sft", ["zoom.max_calls=6"])
    with pytest.raises(
        TrainingError, match=r"wrong_attempts: .*only dialogues that zoom have looks"
    ):
        load_recipe("nano-sft", ["wrong_attempts=context"])
    assert "wrong_attempts" not in load_recipe("nano-zoom-sft").settings()
    asked = load_recipe("nano-zoom-sft", ["wrong_attempts=context"]).settings()
    assert asked["wrong_attempts"] == "context"
    with pytest.raises(TrainingError, match=r"zoom.max_turns: .* at least max_calls"):
        load_recipe("qwen3-vl-4b-zoom-sft", ["zoom.max_turns=3"])
    with pytest.raises(TrainingError, match=r"zoom.lens: .* half width above 0"):
        load_recipe("qwen3-vl-4b-zoom-sft", [own.replace("0.1", "0")])


def bare(tmp_path: Path, kind: str, *overrides: str) -> Recipe:
    path = tmp_path / f"{kind}.yaml"
    steps = "steps: 1\nquestions: 2\n" if kind == "grpo" else ""
    path.write_text(f"kind: {kind}\nabout: Bare.\nlearning_rate: 1.0e-4\n{steps}")
    return load_recipe(str(path), list(overrides))


EVERY_KIND = {
    "model": None, "response_style": "grounded", "zoom": None, "min_thoughts": 3, "seed": 0,
    "weight_decay": 0.0, "warmup": 0.03, "schedule": "cosine", "max_grad_norm": 1.0,
    "micro_batch": 8, "freeze_vision": True, "lora": None, "precision": "float32",
    "gradient_checkpointing": False, "max_pixels": None, "save_every": 20, "trackers": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("sft", {"epochs": 1.0, "steps": None, "batch": 32, "max_tokens": None}),
        (
            "dpo",
            {"epochs": 1.0, "steps": None, "batch": 32, "max_tokens": None, "beta": 0.1,
             "loss": "sigmoid", "sft_weight": 0.0, "least_margin": 0.25, "least_visits": 2,
             "question_pairs": 8},
        ),
        (
            "prm",
            {"epochs": 1.0, "steps": None, "batch": 32, "max_tokens": None, "least_visits": 2,
             "rollout_steps": True, "visit_power": 0.0, "question_lines": 24, "holdout": 0.15},
        ),
        (
            "grpo",
            {"updates": 1, "group": 8, "max_completion": 256, "turn_tokens": None,
             "max_prompt": None, "temperature": 1.0, "top_p": 1.0, "beta": 0.0, "epsilon": 0.2,
             "epsilon_high": 0.28, "loss_type": "dapo", "scale_rewards": "group",
             "reward": "grounded", "weights": None, "bands": ["hard", "medium", "easy"],
             "dead_group_tokens": 0.0, "curriculum": "none", "engine": "transformers",
             "vllm_memory": 0.3, "ratio_low": 0.5, "ratio_high": 2.0},
        ),
    ],
)  # fmt: skip
def test_a_default_stays_what_it_is(tmp_path: Path, kind: str, own: dict[str, object]) -> None:
    """Whoever left a field out is trained with it."""
    found = bare(tmp_path, kind).model_dump(mode="json")
    assert found | EVERY_KIND | own == found


def test_defaults_of_inner_fields_stay_what_they_are(tmp_path: Path) -> None:
    recipe = bare(tmp_path, "grpo", "response_style=zoom", "reward=zoom", "zoom={}", "lora={}")
    assert isinstance(recipe, GrpoRecipe) and recipe.zoom is not None and recipe.lora is not None
    assert recipe.zoom.model_dump(mode="json") == {
        "lens": None, "max_calls": 4, "max_turns": None, "tool": "search_coordinate",
        "crop_tokens": 0,
    }  # fmt: skip
    assert recipe.alarm.model_dump() == {
        "batches": 20, "least_calls": 0.05, "forced_batches": 10, "most_forced": 0.33,
        "control_every": 25, "controls": 4, "least_gain": 0.01,
    }  # fmt: skip
    assert recipe.lora.model_dump(mode="json") == {
        "rank": 16, "alpha": 32, "dropout": 0.0,
        "targets": [f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field", "least", "below"),
    [
        ("sft", "min_thoughts", 1, 0), ("sft", "seed", 0, -1), ("sft", "learning_rate", 1e-9, 0),
        ("sft", "weight_decay", 0, -0.1), ("sft", "max_grad_norm", 0.1, 0),
        ("sft", "micro_batch", 1, 0), ("sft", "epochs", 0.1, 0), ("sft", "steps", 1, 0),
        ("sft", "warmup", 0, -0.1), ("sft", "lora.rank", 1, 0), ("sft", "lora.alpha", 1, 0),
        ("dpo", "epochs", 0.1, 0), ("dpo", "beta", 0.01, 0), ("dpo", "sft_weight", 0, -0.1),
        ("prm", "epochs", 0.1, 0), ("prm", "holdout", 0.1, 0), ("prm", "visit_power", 0, -0.1),
        ("grpo", "group", 2, 1), ("grpo", "temperature", 0.1, 0), ("grpo", "top_p", 0.1, 0),
        ("grpo", "beta", 0, -0.1), ("grpo", "epsilon", 0.1, 0), ("grpo", "epsilon_high", 0.1, 0),
        ("grpo", "dead_group_tokens", 0, -1), ("grpo", "ratio_low", 0.1, 0),
        ("grpo", "ratio_high", 1.1, 1), ("grpo", "alarm.batches", 0, -1),
        ("grpo", "alarm.controls", 0, -1), ("grpo", "alarm.control_every", 1, 0),
        ("grpo", "alarm.forced_batches", 0, -1),
    ],
)  # fmt: skip
def test_a_field_takes_its_least_value_and_nothing_below(
    tmp_path: Path, kind: str, field: str, least: float, below: float
) -> None:
    bare(tmp_path, kind, f"{field}={least}")
    with pytest.raises(TrainingError, match=f"{field}: Input should be greater than"):
        bare(tmp_path, kind, f"{field}={below}")


@pytest.mark.parametrize(
    ("kind", "field", "most"),
    [("sft", "warmup", 1), ("grpo", "top_p", 1), ("grpo", "vllm_memory", 1),
     ("grpo", "alarm.least_calls", 1), ("grpo", "alarm.least_gain", 1), ("dpo", "least_margin", 1),
     ("prm", "visit_power", 1), ("grpo", "alarm.most_forced", 1)],
)  # fmt: skip
def test_a_share_is_one_at_most(tmp_path: Path, kind: str, field: str, most: float) -> None:
    bare(tmp_path, kind, f"{field}={most}")
    with pytest.raises(TrainingError, match=f"{field}: Input should be less than or equal to 1"):
        bare(tmp_path, kind, f"{field}={most + 0.1}")


def test_a_field_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(TrainingError, match="adapters are of the language model alone"):
        load_recipe("nano-sft", ["freeze_vision=false", "lora.rank=4"])
    load_recipe("nano-sft", ["freeze_vision=false"])
    with pytest.raises(TrainingError, match="only answers of response_style zoom have turns"):
        load_recipe("nano-grpo", ["turn_tokens=7"])
    load_recipe("nano-zoom-grpo", ["turn_tokens=7"])


def test_cispo_wants_a_weight_where_others_have_a_clip() -> None:
    with pytest.raises(TrainingError, match="largest weight of a token"):
        load_recipe("nano-grpo", ["loss_type=cispo"])
    load_recipe("nano-grpo", ["loss_type=cispo", "epsilon_high=5.0"])


def test_a_recipe_says_what_is_new_in_it_only_where_it_uses_it() -> None:
    later = {"pass_rates", "prefixes", "dead_group_tokens"}
    assert not later & load_recipe("nano-grpo").settings().keys(), "older trainings are found"
    given = ["pass_rates=student", "prefixes=2", "dead_group_tokens=1"]
    found = load_recipe("nano-grpo", given).settings()
    assert {name: found[name] for name in later} == {
        "pass_rates": "student", "prefixes": 2, "dead_group_tokens": 1.0,
    }  # fmt: skip
    with pytest.raises(TrainingError, match="prefixes are gone on from as they were searched"):
        load_recipe("nano-grpo-ungrounded", ["prefixes=2"])

"""Recipes: every built-in one loads, overrides hold, and a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts.data import ResponseStyle
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS, Lens
from training.errors import TrainingError
from training.grpo import reward_of
from training.recipes import GrpoRecipe, SftRecipe, key_settings, load_recipe, recipe_names
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
        ("nano-sft", ["batsch=8"], "nano-sft, batsch: Extra inputs"),
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
    plan = Plan("sft", load_recipe("nano-sft-answers").settings(), "a@v1", "data", "parent")
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
    with pytest.raises(TrainingError, match=r"zoom.max_turns: .* at least max_calls"):
        load_recipe("qwen3-vl-4b-zoom-sft", ["zoom.max_turns=3"])
    with pytest.raises(TrainingError, match=r"zoom.lens: .* half width above 0"):
        load_recipe("qwen3-vl-4b-zoom-sft", [own.replace("0.1", "0")])

"""Recipes: every one that comes along loads, overrides hold, and a wrong field is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.grpo import reward_of
from training.recipes import GrpoRecipe, SftRecipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_under_its_own_name_and_says_what_it_is_for(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about.endswith(".")
    assert (recipe.form != "grounded") == ("ungrounded" in name or "answers" in name)
    if isinstance(recipe, GrpoRecipe):
        assert reward_of(recipe).form == recipe.form


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
        ("nano-sft", ["batch"], "'batch' is not of the form key=value"),
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


def test_a_reward_must_fit_the_form_of_the_answers() -> None:
    recipe = load_recipe("nano-grpo", ["form=ungrounded"])
    assert isinstance(recipe, GrpoRecipe)
    with pytest.raises(TrainingError, match="reward: grounded is for form grounded"):
        reward_of(recipe)
    recipe = load_recipe("nano-grpo", ["weights={correctness: 0.4, format: 0.6}"])
    assert isinstance(recipe, GrpoRecipe)
    with pytest.raises(TrainingError, match=r"correctness must be over 0\.5"):
        reward_of(recipe)

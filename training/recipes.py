"""Recipes: what a training does, as a checked YAML file of plain words.

    recipe = load_recipe("nano-sft", ["learning_rate=2e-4", "lora.rank=16"])
    recipe = load_recipe("my/recipe.yaml")
    recipe.settings()            # everything that decides the outcome, for the model's row

Those that come along are the files of `training/recipes/`. A file may begin with `like: NAME` and
say only what it does otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.errors import TrainingError

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Checked):
    """Train small matrices beside the frozen weights; they are merged into them at the end."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


class _Recipe(_Checked):
    name: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    about: str = Field(description="what it is for, in a sentence")
    model: str = Field("nano-base", description="the student where none is given")
    form: Literal["grounded", "ungrounded", "answers"] = "grounded"
    min_thoughts: Positive = Field(3, description="most steps a prompt demands")
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Share = Field(0.03, description="share of the steps")
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    micro_batch: Positive = Field(8, description="sequences in memory at once, a device")
    freeze_vision: bool = True
    lora: Lora | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    max_pixels: Positive | None = Field(
        None, description="most pixels the student's processor resizes to; else as it came"
    )
    save_every: Positive = Field(20, description="steps between checkpoints")
    trackers: tuple[Literal["trackio", "wandb", "mlflow"], ...] | None = Field(
        None, description="where curves go beside the file; trackio where nothing is said"
    )

    def settings(self) -> dict[str, Any]:
        """All that decides the outcome, as JSON's types."""
        left_out = {"about", "save_every", "trackers", "micro_batch"}
        return self.model_dump(mode="json", exclude=left_out)


class SftRecipe(_Recipe):
    """Supervised fine-tuning on the traces of a data set version."""

    kind: Literal["sft"]
    epochs: Annotated[float, Field(gt=0)] = 1.0
    steps: Positive | None = Field(None, description="optimizer steps, in place of epochs")
    batch: Positive = Field(32, description="traces an optimizer step, over all devices")
    max_tokens: Positive | None = Field(
        None, description="longest sequence that may be there; nothing is ever cut off"
    )


class GrpoRecipe(_Recipe):
    """Reinforcement learning on questions, a group of answers each."""

    kind: Literal["grpo"]
    steps: Positive = Field(description="optimizer steps")
    questions: Positive = Field(description="questions an optimizer step")
    updates: Positive = Field(1, description="optimizer steps made of one batch of answers")
    group: Annotated[int, Field(ge=2)] = Field(8, description="answers a question")
    max_completion: Positive = Field(256, description="most tokens of an answer")
    max_prompt: Positive | None = Field(None, description="longest prompt, pictures included")
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    beta: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the KL term")
    epsilon: Annotated[float, Field(gt=0)] = Field(0.2, description="clip below")
    epsilon_high: Annotated[float, Field(gt=0)] = Field(0.28, description="clip above")
    loss_type: Literal[
        "grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"
    ] = "dapo"  # fmt: skip
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what advantages are divided by"
    )
    reward: str = Field("grounded", description="a preset of `training.rewards.rewards`")
    weights: dict[str, Share] | None = Field(
        None, description="parts of the reward and their weights, in place of a preset"
    )
    bands: tuple[Literal["unsolved", "hard", "medium", "easy", "solved"], ...] = Field(
        ("hard", "medium", "easy"), description="pass-rate bands asked; where rates are known"
    )
    curriculum: Literal["none", "easy_first"] = "none"
    engine: Literal["local", "transformers", "vllm"] = Field(
        "transformers", description="what samples; local is for small models, vllm for GPUs"
    )
    vllm_memory: Share = Field(0.3, description="share of the GPU's memory that vLLM takes")
    ratio_low: Annotated[float, Field(gt=0)] = Field(
        0.5, description="least mean importance ratio between trainer and vLLM"
    )
    ratio_high: Annotated[float, Field(gt=1)] = Field(2.0, description="largest such ratio")


Recipe = Annotated[SftRecipe | GrpoRecipe, Field(discriminator="kind")]
_READ: TypeAdapter[SftRecipe | GrpoRecipe] = TypeAdapter(Recipe)


def recipe_names() -> list[str]:
    """The recipes that come along."""
    folder = resources.files("training") / "recipes"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(name: str, overrides: Sequence[str] = ()) -> SftRecipe | GrpoRecipe:
    """Read a recipe that comes along, or a file; `overrides` are `key=value`, `lora.rank=8` too.

    Raises:
        TrainingError: there is no such recipe, or a field of it is wrong.
    """
    values = _read(name)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise TrainingError(f"-o {override!r} is not of the form key=value")
        _put(values, key.strip().split("."), _value(override, text))
    try:
        return _READ.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        told = first["type"] != "missing" and not isinstance(first["input"], dict)
        given = f" (it was {first['input']!r})" if told else ""
        raise TrainingError(f"recipe {name}, {field}: {first['msg']}{given}") from None


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    if name in recipe_names():
        text = (resources.files("training") / "recipes" / f"{name}.yaml").read_text("utf-8")
        stem = name
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            known = ", ".join(recipe_names())
            raise TrainingError(f"there is no recipe {name!r}, nor such a file; there are: {known}")
        try:
            text, stem = path.read_text("utf-8"), path.stem
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"recipe {name} can't be read: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(f"recipe {name} is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise TrainingError(f"recipe {name} holds no fields")
    values.setdefault("name", stem)
    if like := values.pop("like", None):
        if like in (*above, name):
            raise TrainingError(f"recipe {name}, like: {like} leads back to itself")
        values = {**_read(str(like), (*above, name)), **values}
    return values


def _value(override: str, text: str) -> Any:
    """A value as YAML reads it; `1e-4`, which YAML takes for text, is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise TrainingError(f"-o {override!r}: the value is no YAML") from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    values[path[-1]] = value

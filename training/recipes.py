"""Recipes: everything that a training does, as a checked YAML file.

    recipe = load_recipe("qwen3-vl-4b-sft", ["learning_rate=2e-4", "lora.rank=16"])
    recipe = load_recipe("my/recipe.yaml")
    recipe.settings()            # everything that decides the outcome, for the model's row

Built-in recipes are the files of `training/recipes/` and of every folder that an installed package
registers under the entry-point group `vigorl.recipes`, as a module's attribute that is a `Path`. A
file may begin with `like: NAME` and hold only what differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from mcts.data import ResponseStyle
from mcts.names import check_name
from mcts.strict_yaml import YamlProblem, parse_value, parse_yaml
from training.errors import TrainingError
from training.recipe_sections import (
    Lora,
    Positive,
    Section,
    Share,
    TreeSettings,
    Zoom,
    ZoomAlarmSettings,
)

GROUP = "vigorl.recipes"
_LATER_FIELDS = frozenset({
    "zoom", "turn_tokens", "pass_rates", "prefixes", "dead_group_tokens", "text_tags", "most_steps",
    "sampling", "tree", "wrong_attempts",
})  # fmt: skip
"""Fields whose default is left out of the settings, as of students trained before there were such
fields."""


class _Recipe(Section):
    name: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    about: str = Field(description="what it is for, in a sentence")
    model: str | None = Field(None, description="the student where the command names none")
    response_style: ResponseStyle = Field(
        ResponseStyle.GROUNDED, description="how the student answers"
    )
    zoom: Zoom | None = Field(None, description="how it zooms, with response_style zoom only")
    min_thoughts: Positive = Field(
        3, description="steps that a prompt demands at least; fewer where a trace has fewer"
    )
    text_tags: tuple[Literal["think", "answer", "tool_call"], ...] = Field(
        (),
        description="tags written in pieces of text where the tokenizer has each as one token "
        "that the model was never trained on",
    )
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
    sharding: Literal["none", "fsdp", "zero3"] = Field(
        "none",
        description="what several processes hold: each the whole model, or each a part of it, by "
        "PyTorch's FSDP or DeepSpeed's ZeRO-3",
    )
    max_pixels: Positive | None = Field(
        None, description="most pixels the student's processor resizes to; unchanged when left out"
    )
    save_every: Positive = Field(20, description="steps between checkpoints")
    trackers: tuple[Literal["trackio", "wandb", "mlflow"], ...] | None = Field(
        None, description="where curves go beside the file; trackio when left out"
    )

    @field_validator("zoom")
    @classmethod
    def _zooms(cls, zoom: Zoom | None, info: ValidationInfo) -> Zoom | None:
        if zoom is not None and info.data.get("response_style") is not ResponseStyle.ZOOM:
            raise ValueError("only a recipe of response_style zoom has it")
        return zoom

    @field_validator("lora")
    @classmethod
    def _adapts_language(cls, lora: Lora | None, info: ValidationInfo) -> Lora | None:
        if lora is not None and info.data.get("freeze_vision") is False:
            raise ValueError("adapters are of the language model alone: freeze_vision is true then")
        return lora

    @field_validator("sharding")
    @classmethod
    def _merges_whole_weights(cls, sharding: str, info: ValidationInfo) -> str:
        if sharding != "none" and info.data.get("lora") is not None:
            raise ValueError("lora is merged where each process holds the whole model: none")
        return sharding

    def settings(self) -> dict[str, Any]:
        """Return all that decides the outcome, as JSON's types."""
        left_out = {"about", "save_every", "trackers", "micro_batch", "sharding", "alarm"}
        fields = type(self).model_fields
        left_out.update(
            name for name in _LATER_FIELDS & fields.keys()
            if getattr(self, name) == fields[name].default
        )  # fmt: skip
        return self.model_dump(mode="json", exclude=left_out)


class _VersionRecipe(_Recipe):
    """A training on what a dataset version holds, once or several times over."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    steps: Positive | None = Field(None, description="optimizer steps, in place of epochs")
    max_tokens: Positive | None = Field(
        None, description="longest sequence allowed; nothing is ever cut off"
    )


class SftRecipe(_VersionRecipe):
    """Supervised fine-tuning on the traces of a dataset version."""

    kind: Literal["sft"]
    batch: Positive = Field(32, description="traces an optimizer step, over all devices")
    most_steps: Positive | None = Field(
        None,
        description="leave out traces of more steps: a small student half learns them, and then "
        "it neither ends nor answers",
    )
    wrong_attempts: Literal["trained", "context"] = Field(
        "trained",
        description="the looks of a corrected dialogue before it turns back: trained on, or only "
        "in sight",
    )

    @field_validator("wrong_attempts")
    @classmethod
    def _of_dialogues(cls, attempts: str, info: ValidationInfo) -> str:
        if attempts == "context" and info.data.get("response_style") is not ResponseStyle.ZOOM:
            raise ValueError("only dialogues that zoom have looks: response_style zoom")
        return attempts


class DpoRecipe(_VersionRecipe):
    """Preference optimization on the sibling pairs of a version's trees."""

    kind: Literal["dpo"]
    batch: Positive = Field(32, description="pairs an optimizer step, over all devices")
    beta: Annotated[float, Field(gt=0)] = Field(
        0.1, description="how much leaving the reference model costs"
    )
    loss: Literal["sigmoid", "sigmoid_norm", "hinge", "ipo"] = Field(
        "sigmoid", description="loss of a pair; sigmoid_norm is by the token"
    )
    sft_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the better side's cross-entropy beside it"
    )
    least_margin: Share = Field(
        0.25, description="least difference of the sides' values in the tree"
    )
    least_visits: Positive = Field(2, description="fewest graded answers behind either side")
    question_pairs: Positive | None = Field(
        8, description="most pairs of a question, of the largest margins; null for all"
    )

    @field_validator("response_style")
    @classmethod
    def _as_searched(cls, style: ResponseStyle) -> ResponseStyle:
        if style not in (ResponseStyle.GROUNDED, ResponseStyle.ZOOM):
            raise ValueError("pairs are trained on as they were searched: grounded or zoom")
        return style


class PrmRecipe(_VersionRecipe):
    """A process reward model, from the step values of a version's trees."""

    kind: Literal["prm"]
    batch: Positive = Field(32, description="lines an optimizer step")
    least_visits: Positive = Field(2, description="fewest graded answers behind a step of a tree")
    rollout_steps: bool = Field(
        True, description="value steps that only a rollout took, by the one answer it led to"
    )
    visit_power: Share = Field(
        0.0, description="weight of a step: its visits to this power; 0 weighs all alike"
    )
    question_lines: Positive | None = Field(
        24, description="most lines of a question, drawn by a hash; null for all"
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="share of the images whose questions only measure calibration"
    )

    @field_validator("response_style")
    @classmethod
    def _as_searched(cls, style: ResponseStyle) -> ResponseStyle:
        if style not in (ResponseStyle.GROUNDED, ResponseStyle.ZOOM):
            raise ValueError("steps are valued as they were searched: grounded or zoom")
        return style

    @field_validator("sharding")
    @classmethod
    def _one_process(cls, sharding: str) -> str:
        if sharding != "none":
            raise ValueError("a process reward model is trained in one process: none")
        return sharding


class GrpoRecipe(_Recipe):
    """Reinforcement learning on questions, a group of answers each."""

    kind: Literal["grpo"]
    steps: Positive = Field(description="optimizer steps")
    questions: Positive = Field(description="questions an optimizer step")
    updates: Positive = Field(1, description="optimizer steps made of one batch of answers")
    group: Annotated[int, Field(ge=2)] = Field(8, description="answers a question")
    max_completion: Positive = Field(
        256, description="most tokens of an answer; with zoom, that a dialogue's turns have in all"
    )
    turn_tokens: Positive | None = Field(
        None, description="most tokens of a turn, with zoom; max_completion when left out"
    )
    max_prompt: Positive | None = Field(None, description="longest prompt, images included")
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
        ("hard", "medium", "easy"), description="pass-rate bands used, where rates are known"
    )
    pass_rates: Literal["search", "student"] = Field(
        "search",
        description="whose rates those are: the searches', or the student's own where an "
        "evaluation measured them",
    )
    prefixes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="most prefixes of a question's trees that the student goes on from, of those "
        "behind which it was measured right sometimes (`vigorl evaluate --prefixes`)",
    )
    dead_group_tokens: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="tokens that may be written for further questions, in place of groups whose "
        "answers all earn the same, as a multiple of what a batch writes; 0 replaces none",
    )
    curriculum: Literal["none", "easy_first"] = "none"
    engine: Literal["local", "transformers", "vllm"] = Field(
        "transformers", description="what samples: local for small models, vllm for GPUs"
    )
    vllm_memory: Share = Field(0.3, description="share of the GPU's memory that vLLM takes")
    ratio_low: Annotated[float, Field(gt=0)] = Field(
        0.5, description="least mean importance ratio between trainer and vLLM"
    )
    ratio_high: Annotated[float, Field(gt=1)] = Field(2.0, description="largest such ratio")
    alarm: ZoomAlarmSettings = Field(ZoomAlarmSettings.model_validate({}), description="zoom only")
    sampling: Literal["chains", "tree"] = Field(
        "chains",
        description="a question's group: chains of their own, or a tree whose forks share what is "
        "before them, within the tokens that group chains would write",
    )
    tree: TreeSettings | None = Field(None, description="how, with sampling tree only")

    @field_validator("turn_tokens")
    @classmethod
    def _has_turns(cls, tokens: int | None, info: ValidationInfo) -> int | None:
        if tokens is not None and info.data.get("response_style") is not ResponseStyle.ZOOM:
            raise ValueError("only answers of response_style zoom have turns")
        return tokens

    @field_validator("loss_type")
    @classmethod
    def _weighs_tokens(cls, loss_type: str, info: ValidationInfo) -> str:
        if loss_type == "cispo" and info.data.get("epsilon_high", 1.0) < 1:
            raise ValueError(
                "with cispo epsilon_high is the largest weight of a token, 1 or more: 5.0 in its "
                "paper"
            )
        return loss_type

    @field_validator("sampling")
    @classmethod
    def _sampled_here(cls, sampling: str, info: ValidationInfo) -> str:
        if sampling == "tree" and info.data.get("engine", "local") != "local":
            raise ValueError("trees are sampled by engine local, not by transformers or vllm")
        return sampling

    @field_validator("tree")
    @classmethod
    def _holds_its_chains(
        cls, tree: TreeSettings | None, info: ValidationInfo
    ) -> TreeSettings | None:
        if tree is None:
            return None
        if info.data.get("sampling") == "chains":
            raise ValueError("only a recipe with sampling tree has it")
        group = info.data.get("group", 2)
        chains = tree.chains_of(group)
        if chains > tree.leaves_of(group):
            raise ValueError(
                f"chains are leaves too, so there are at least as many leaves: {chains} here"
            )
        if chains > group:
            raise ValueError("chains: more than group chains are more than the budget")
        return tree

    @field_validator("engine")
    @classmethod
    def _samples_whole_weights(cls, engine: str, info: ValidationInfo) -> str:
        if engine == "local" and info.data.get("sharding", "none") != "none":
            raise ValueError(
                "local samples where each process holds the whole model: sharding none"
            )
        return engine

    @field_validator("prefixes")
    @classmethod
    def _as_searched(cls, most: int, info: ValidationInfo) -> int:
        searched = (ResponseStyle.GROUNDED, ResponseStyle.ZOOM)
        if most and info.data.get("response_style") not in searched:
            raise ValueError("prefixes are gone on from as they were searched: grounded or zoom")
        return most


Recipe = SftRecipe | DpoRecipe | PrmRecipe | GrpoRecipe
_READ: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


@cache
def _built_in() -> dict[str, Path]:
    """The files of all built-in recipes by name."""
    folders = [Path(point.load()) for point in entry_points(group=GROUP)]
    folders.append(Path(__file__).with_name("recipes"))
    return {file.stem: file for folder in folders for file in folder.glob("*.yaml")}


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(_built_in())


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a built-in recipe or a file; `overrides` are `key=value`, also `lora.rank=8`.

    Raises:
        TrainingError: there is no such recipe, or a field of it is wrong.
    """
    values = _read(name)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise TrainingError(f"-o {override!r} is not written key=value")
        if key.strip() == "form":
            print(f"-o {override}: form is called response_style now", file=sys.stderr)
            key = "response_style"
        _put(values, key.strip().split("."), parse_value(text))
    try:
        return _READ.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        shown = first["type"] != "missing" and not isinstance(first["input"], dict)
        given = f" (it was {first['input']!r})" if shown else ""
        raise TrainingError(f"recipe {name}, {field}: {_wrong(first)}{given}") from None


def _wrong(error: Any) -> str:
    """Say what is wrong with a field, as pydantic found it."""
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"there is no such field; there are: {', '.join(_fields(path[:-1]))}"
    if error["type"] in ("model_type", "model_attributes_type", "dataclass_type"):
        return f"it must hold fields: {', '.join(_fields(path))}"
    if error["type"] in ("tuple_type", "list_type"):
        return "it must be a list, as in [a, b]"
    return str(error["msg"])


def _fields(path: Sequence[str]) -> list[str]:
    """List the fields of a part of a recipe; `path` begins with the recipe's kind."""
    schema = _READ.json_schema()

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        for option in (node, *node.get("anyOf", ())):
            if "$ref" in option:
                return dict(schema["$defs"][option["$ref"].rpartition("/")[2]])
        return node

    node = resolved({"$ref": schema["discriminator"]["mapping"][path[0]]})
    for part in path[1:]:
        node = resolved(node["properties"][part])
    return sorted(node["properties"])


def _read(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    path = _built_in().get(name) or Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(recipe_names())
        raise TrainingError(f"there is no recipe {name!r}, nor such a file; there are: {known}")
    try:
        _, values = parse_yaml(path.read_text("utf-8"), f"recipe {name}")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"recipe {name} can't be read: {error}") from None
    except YamlProblem as problem:
        raise TrainingError(str(problem)) from None
    if not isinstance(values, dict):
        raise TrainingError(f"recipe {name} holds no fields")
    values = _with_new_names(values, f"recipe {name}")
    values.setdefault("name", path.stem)
    try:
        check_name("recipe", str(values["name"]))
    except ValueError as error:
        raise TrainingError(f"recipe {name}, name: {error}") from None
    if like := values.pop("like", None):
        if like in (*above, name):
            raise TrainingError(f"recipe {name}, like: {like} leads back to itself")
        values = {**_read(str(like), (*above, name)), **values}
    return values


def _with_new_names(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Rename fields that recipes had before 0.1.0, and say so on stderr."""
    if "form" in values and "response_style" not in values:
        print(f"{where}: form is called response_style now", file=sys.stderr)
        return {"response_style" if k == "form" else k: v for k, v in values.items()}
    return values


def key_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's settings as a run's key hashes them: with the words of version 0.1.

    So a training that was begun then goes on, and a model that was trained then is found.
    """
    former = {"answer_only": "answers"}
    settings = dict(settings)
    if style := settings.pop("response_style", None):
        settings["form"] = former.get(style, style)
    if settings.get("reward") == "answer_only":
        settings["reward"] = "direct"
    return settings


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    values[path[-1]] = value

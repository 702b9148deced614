"""Reads from a checkpoint's folder which coordinates its model speaks, and how to prompt it.

    space = checkpoint_space(folder)        # from config.json and the image processor's settings
    style = prompt_style(folder)            # GENERAL where the folder has no vigorl.json
    folder = find_checkpoint("my-model")    # a model that an installed package registered, or None

A checkpoint that was trained here, or that a package brings, carries `vigorl.json`: the prompt file
for each response style, the style it was trained to answer in, the tokens that a step needs, and,
where it was taught to zoom, what a call shows (`mcts.zoom.recorded`).
Packages register checkpoints under the entry-point group `vigorl.models`; each entry point is named
as the model is and points to the folder's `Path`. The one named `default` holds the name of the
model that commands use where none is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from mcts.coordinates import CoordinateSpace, Dialect
from mcts.data import ResponseStyle

SPACES = {
    "qwen2-vl": CoordinateSpace.qwen2_vl,
    "qwen2.5-vl": CoordinateSpace.qwen25_vl,
    "qwen3-vl": CoordinateSpace.qwen3_vl,
    "original": CoordinateSpace.original,
    "normalized-1": CoordinateSpace.shares,
    "normalized-1000": CoordinateSpace.thousandths,
    "molmo": CoordinateSpace.molmo,
}
"""A model family's coordinates, by the name a person gives."""


def named_space(name: str) -> CoordinateSpace:
    """Return the coordinate space of that name; `+json` behind it declares a dialect.

    Raises:
        ValueError: there is no such space, or no such dialect.
    """
    family, plus, dialect = name.lower().strip().partition("+")
    if family not in SPACES:
        raise ValueError(f"there is no coordinate space {family!r}; there are {', '.join(SPACES)}")
    space = SPACES[family]()
    if not plus:
        return space
    try:
        return replace(space, dialect=Dialect(dialect))
    except ValueError:
        raise ValueError(
            f"there is no dialect {dialect!r}; there are {', '.join(Dialect)}, "
            f"as in {family}+{Dialect.JSON}"
        ) from None


MODEL_TYPES = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
"""The same families by the `model_type` of their config.json."""
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_PROBE = "Image 2, enlarged."
STYLE_FILE = "vigorl.json"
_PROCESS_REWARD = "process_reward"
GROUP = "vigorl.models"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How a checkpoint is prompted, and what it was trained to answer with."""

    response_style: ResponseStyle = ResponseStyle.GROUNDED
    prompts: Mapping[ResponseStyle, str | None] = field(
        default_factory=lambda: {
            ResponseStyle.GROUNDED: None,
            ResponseStyle.UNGROUNDED: "thoughts",
            ResponseStyle.ANSWER_ONLY: "answer",
        }
    )
    """The prompt file (`mcts.prompts`) for each response style; None for each task's own."""
    step_tokens: int = 512
    """Most tokens of one reasoning step."""

    @property
    def prompt(self) -> str | None:
        """The prompt file that asks for what it was trained on; None for each task's own."""
        return self.prompts[self.response_style]

    def with_response_style(self, style: str) -> PromptStyle:
        """Return the same checkpoint with another response style.

        Raises:
            ValueError: it has no prompt for that style.
        """
        return replace(self, response_style=_known(ResponseStyle(style), self.prompts))


GENERAL = PromptStyle()
"""Any checkpoint that says nothing of itself."""


def checkpoint_space(folder: Path) -> CoordinateSpace:
    """Read a checkpoint's coordinate space from its configuration and its image processor's.

    Raises:
        ValueError: the model's family is not known, or a file is no JSON.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in MODEL_TYPES:
        raise ValueError(f"{folder}: the coordinates of a {kind!r} model are not known")
    processor = read_json(folder / "preprocessor_config.json")
    if not processor:
        processor = read_json(folder / "processor_config.json").get("image_processor", {})
    size = processor.get("size") or {}
    least = processor.get("min_pixels") or size.get("shortest_edge")
    most = processor.get("max_pixels") or size.get("longest_edge")
    limits = {"min_pixels": least, "max_pixels": most}
    given = {key: int(value) for key, value in limits.items() if value}
    return SPACES[MODEL_TYPES[kind]](**given)


def prompt_style(folder: Path) -> PromptStyle:
    """Read how the model in a folder is prompted; GENERAL where it has no `vigorl.json`.

    Raises:
        ValueError: `vigorl.json` is not as `write_prompt_style` writes it.
    """
    found = read_json(folder / STYLE_FILE)
    if not found:
        return GENERAL
    if "manners" in found:  # written before 0.1.0
        return _former_style(folder, found)
    try:
        prompts = {
            ResponseStyle(style): None if name is None else str(name)
            for style, name in dict(found["prompts"]).items()
        }
        style = _known(ResponseStyle(found["response_style"]), prompts)
        return PromptStyle(style, prompts, int(found["step_tokens"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / STYLE_FILE}: no prompt style ({error!r})") from None


def observation_role(folder: Path) -> str:
    """Return the turn in which a model's chat template shows what a tool returns, images included.

    `tool` where it renders such a turn, its image and its text, in a way of its own; else `user`. A
    template that knows no tools may well write the word into the turn's head, but its model has
    never seen it there.
    """
    template = _chat_template(folder)
    shown = _render_probe(template, "tool")
    named = _render_probe(template, "observer").lower().replace("observer", "tool")
    whole = _PROBE in shown and shown != _render_probe(template, "tool", image=False)
    return "tool" if whole and shown.lower() != named else "user"


def _render_probe(template: str, role: str, image: bool = True) -> str:
    """Render a dialogue that ends in an observation; empty if the template can't."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    pictures = [{"type": "image"}] if image else []
    turns = [("user", [], "Where?"), ("assistant", [], "There."), (role, pictures, _PROBE)]
    messages = [
        {"role": name, "content": [*parts, {"type": "text", "text": text}]}
        for name, parts, text in turns
    ]
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        return environment.from_string(_GENERATION.sub("", template)).render(messages=messages)
    except Exception:  # a template is a program and can raise anything
        return ""


def _chat_template(folder: Path) -> str:
    """Return a checkpoint's chat template, wherever it is kept; empty if it has none."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = read_json(folder / name).get("chat_template")
        if isinstance(found, list):  # several, each with a name
            found = {one["name"]: one["template"] for one in found}
        if isinstance(found, dict):
            found = found.get("default")
        if found:
            return str(found)
    return ""


def _former_style(folder: Path, found: Mapping[str, Any]) -> PromptStyle:
    """Read the style of a student trained before 0.1.0, which names a family of prompts."""
    families: dict[str, PromptStyle] = {"general": GENERAL}
    if found["manners"] not in families:
        for name, registered in registered_checkpoints().items():
            if name == found["manners"]:
                families[name] = prompt_style(registered)
    try:
        return families[found["manners"]].with_response_style(str(found.get("form")))
    except (KeyError, ValueError):
        raise ValueError(f"{folder / STYLE_FILE}: no known prompt style: {dict(found)}") from None


def _known(style: ResponseStyle, prompts: Mapping[ResponseStyle, str | None]) -> ResponseStyle:
    if style not in prompts:
        raise ValueError(f"there is no prompt for response style {style}: {', '.join(prompts)}")
    return style


def write_prompt_style(folder: Path, style: PromptStyle) -> None:
    """Write `vigorl.json` into a model's folder."""
    fields = {
        "response_style": str(style.response_style),
        "prompts": {str(name): prompt for name, prompt in style.prompts.items()},
        "step_tokens": style.step_tokens,
    }
    (folder / STYLE_FILE).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


class ProcessReward(NamedTuple):
    """How a process reward model is asked."""

    min_thoughts: int
    """What its prompts demand."""
    reads_crops: bool
    """Whether a call's value is read behind what it showed; former models read it in front."""


def record_process_reward(folder: Path, min_thoughts: int) -> None:
    """Add to a folder's `vigorl.json` that its model values steps, and answers nothing.

    Args:
        min_thoughts: what the prompts demand that its steps stand behind.
    """
    path = folder / STYLE_FILE
    recorded = ProcessReward(min_thoughts, reads_crops=True)
    fields = {**read_json(path), _PROCESS_REWARD: recorded._asdict()}
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def recorded_process_reward(folder: Path) -> ProcessReward | None:
    """Read what `record_process_reward` wrote; None for a model that answers.

    Raises:
        ValueError: it is not as it was written.
    """
    found = read_json(folder / STYLE_FILE).get(_PROCESS_REWARD)
    if found is None:
        return None
    try:
        return ProcessReward(int(found["min_thoughts"]), bool(found.get("reads_crops")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / STYLE_FILE}, {_PROCESS_REWARD}: {error!r}") from None


def shapes_identity(path: Path) -> bool:
    """Whether a checkpoint's file is part of its identity hash.

    The prompt style is no part of it: it says how to ask the model, not what the model computes,
    and prompts have a place of their own in a search's id. Former files were hashed and still are,
    so that students keep the names that stored rows know them by.
    """
    return path.name != STYLE_FILE or "manners" in read_json(path)


@cache
def registered_checkpoints() -> dict[str, Path]:
    """Every checkpoint that an installed package registered, by the name users type."""
    points = entry_points(group=GROUP)
    return {p.name: Path(p.load()) for p in points if p.name.partition("-")[0] != DEFAULT}


def find_checkpoint(name: str) -> Path | None:
    """Return the folder of a registered checkpoint; None if no package registered `name`."""
    return registered_checkpoints().get(name)


@cache
def default_model(task: str = "") -> str:
    """Return the name of the model used where none is given; empty if there is none.

    Args:
        task: what it is asked about; a package may register another model for it, under the name
            `default-TASK`.
    """
    for name in (f"{DEFAULT}-{task}", DEFAULT):
        for point in entry_points(group=GROUP, name=name):
            return str(point.load())
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file's object; empty if there is no such file.

    Raises:
        ValueError: it can't be read as JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    return dict(found)

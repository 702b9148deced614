"""What shapes a tree, and how a model looks closer: settings that commands share.

    settings.zoom_config(ZoomConfig(task.lens, role="tool"))     # that, but for what is given

Those about zooming are empty by default: a model is shown what it was taught with, or what its task
and its chat template say. `flows.teachers.response_styles` decides whether a model zooms at all.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from flows.settings_base import FieldProblem, Settings, option
from mcts.zoom.config import ZoomConfig
from mcts.zoom.episode import MOST_TURNS
from mcts.zoom.lenses import Lens

_LENS = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(\d+)(\+dot)?")
_LARGEST_SIDE = 8192
_MOST_CALLS = MOST_TURNS - 2
"""Calls of an episode that are answered: behind the last one it has a turn to answer in."""


class SearchSettings(Settings):
    """How a tree grows; `mcts.config.SearchConfig` has most of it under the same names."""

    simulations: int = option(8, "simulations a tree", ge=1)
    children: int = option(3, "steps sampled at an expansion", ge=1)
    rollouts: int = option(2, "answers sampled from each new step", ge=1)
    max_depth: int = option(10, "steps after which only an answer may follow", ge=1)
    exploration: float = option(2.0, "the constant c of UCT", ge=0)
    wave: int = option(1, "simulations at once within a tree", ge=1)
    widening: float = option(
        0.0, "give a node further children up to this power of its visits; 0: none", ge=0, le=1
    )
    distinct: bool = option(False, "discard a step that goes where its sibling does")
    value_model: str | None = option(
        None, "process reward model of this warehouse that values new steps (`vigorl train prm`)"
    )
    value_weight: float = option(2.0, "visits that such a value counts as", ge=0)
    value_rollouts: int = option(
        0, "new steps that answers are sampled from, of the highest values; 0: all", ge=0
    )
    keep_rollouts: bool = option(False, "add the steps of rollouts to the tree, to be gone on from")
    stay: bool = option(
        False, "go on below the last expanded step where right and wrong answers are behind it"
    )
    scale_exploration: float = option(
        0.0, "how far exploration shrinks where little is right, up to 1; 0: not", ge=0, le=1
    )
    policy_prior: float = option(
        0.0,
        "power of what the teacher finds likelier in exploration, 1 as in PUCT; below 0 what it "
        "finds less likely comes first; 0: not asked for",
        ge=-10,
        le=10,
    )


class ZoomSettings(Settings):
    """What a zoom call shows, and how many there may be."""

    lens: str | None = option(
        None,
        "region that a zoom call shows, HALF_WIDTH:SHOWN_SIDE in pixels, such as 182:672; a half "
        "width below 1 is a share of the image; +dot marks the place; the model's, or the task's, "
        "when left out",
    )
    max_crops: int | None = option(
        None, "crops shown in a line of reasoning; the model's, or 4, when left out", ge=1
    )
    max_turns: int | None = option(
        None,
        "calls answered in a line of reasoning, those that show nothing too; twice the crops when "
        "left out",
        ge=1,
    )
    crop_tokens: int | None = option(
        None, "image tokens of all crops of a line of reasoning; no limit when left out", ge=1
    )
    zoom_tool: Literal["search_coordinate", "image_zoom_in_tool"] | None = option(
        None, "tool that the prompt offers: by a point, or by a box; the former when left out"
    )
    observation_role: Literal["user", "tool"] | None = option(
        None, "turn that a crop comes in; what the chat template has, user for servers, if left out"
    )

    def check(self) -> None:
        """See `Settings.check`."""
        if self.lens is not None:
            parse_lens(self.lens)

    def given_about_zoom(self) -> str | None:
        """Return the first of these settings that was given; None if there is none."""
        return next((n for n in ZoomSettings.model_fields if getattr(self, n) is not None), None)

    def zoom_config(self, usual: ZoomConfig) -> ZoomConfig:
        """Return `usual`, with what these settings say in place of its own.

        Raises:
            FieldProblem: there are fewer turns than crops, or more than an episode has.
        """
        for field, calls in (("max_crops", self.max_crops), ("max_turns", self.max_turns)):
            if calls is not None and calls > _MOST_CALLS:
                raise FieldProblem(field, f"a line of reasoning has at most {_MOST_CALLS} calls")
        given: dict[str, object] = {
            "lens": parse_lens(self.lens) if self.lens else None,
            "max_calls": self.max_crops,
            "max_turns": self.max_turns or _turns_for(self.max_crops),
            "tool": self.zoom_tool,
            "role": self.observation_role,
            "crop_tokens": self.crop_tokens,
        }
        changed: Any = {name: value for name, value in given.items() if value is not None}
        crops = changed.get("max_calls", usual.max_calls)
        if changed.get("max_turns", usual.max_turns) < crops:
            raise FieldProblem("max_turns", f"{self.max_turns} calls can't show {crops} crops")
        return replace(usual, **changed)


def _turns_for(crops: int | None) -> int | None:
    """Return how many calls are answered where that many crops are shown."""
    return None if crops is None else max(crops, min(2 * crops, _MOST_CALLS))


def parse_lens(text: str) -> Lens:
    """Read a lens as a person types it.

    Raises:
        FieldProblem: it is none.
    """
    found = _LENS.fullmatch(text.strip())
    half_width, side = (float(found[1]), int(found[2])) if found else (0.0, 0)
    if found is None or half_width == 0 or not 1 <= side <= _LARGEST_SIDE:
        raise FieldProblem(
            "lens",
            f"{text!r} is not HALF_WIDTH:SHOWN_SIDE, such as 182:672, 0.1:672 or 100:512+dot",
        )
    return Lens(half_width, side, marked=found[3] is not None, share=half_width < 1)

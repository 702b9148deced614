"""The sections of a recipe: fields that belong together, each a mapping in the YAML file.

zoom:
  max_calls: 4                 # Zoom
tree:
  leaves: 12                   # TreeSettings
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from mcts.tool_calls.calls import POINT_TOOL
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Fields of which an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Section):
    """Train small matrices beside the frozen weights; they are merged into them at the end."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


class Zoom(Section):
    """How a student zooms: `mcts.zoom.config.ZoomConfig` without what its chat template decides."""

    lens: Lens | None = Field(
        None,
        description="what a call shows: half_width and shown_side in pixels, marked, share; what "
        "the dialogues show, or the model's or the task's own, when left out",
    )
    max_calls: Positive = Field(4, description="crops shown in a dialogue; the last asks to answer")
    max_turns: Positive | None = Field(
        None,
        description="calls answered, failed ones too; twice max_calls when left out",
    )
    tool: Literal["search_coordinate", "image_zoom_in_tool"] = Field(
        POINT_TOOL,
        description="tool that the prompt offers; what the dialogues call, or the model was "
        "taught, when left out",
    )
    crop_tokens: Annotated[int, Field(ge=0)] = Field(
        0, description="image tokens of a dialogue's crops, at most; 0 for no limit"
    )

    @field_validator("max_turns")
    @classmethod
    def _hold_the_crops(cls, turns: int | None, info: ValidationInfo) -> int | None:
        if turns is not None and turns < info.data.get("max_calls", turns):
            raise ValueError("crops are counted too, so it is at least max_calls")
        return turns

    @property
    def names_tool(self) -> bool:
        """Whether the recipe says which tool is offered."""
        return "tool" in self.model_fields_set

    def config(self, lens: Lens, role: str) -> ZoomConfig:
        """Return what a student zooms with.

        Args:
            lens: where the recipe names none.
            role: the turn in which its chat template shows a crop.
        """
        turns = self.max_turns or 2 * self.max_calls
        return ZoomConfig(
            self.lens or lens, self.max_calls, turns, self.tool, role, self.crop_tokens
        )


class TreeSettings(Section):
    """How a question's group is made a tree (`training.trees`)."""

    chains: Positive | None = Field(
        None, description="chains from the question, before its forks; half of group when left out"
    )
    leaves: Positive | None = Field(
        None, description="most completions of a question; twice group when left out"
    )
    forks: Positive | None = Field(
        None,
        description="forks of a question that are chosen at once, by all that was sampled before; "
        "as many as chains when left out",
    )
    compared: Annotated[int, Field(ge=0)] = Field(
        16,
        description="questions that are first sampled in both ways at equal tokens, for the "
        "report; 0 for none",
    )

    def chains_of(self, group: int) -> int:
        """Return how many chains there are before the forks, for a recipe with this `group`."""
        return self.chains or max(1, group // 2)

    def leaves_of(self, group: int) -> int:
        """Return the most completions of a question."""
        return self.leaves or 2 * group


class ZoomAlarmSettings(Section):
    """When GRPO stops a training whose zooming is lost (`training.zoom.ledger`)."""

    batches: Annotated[int, Field(ge=0)] = Field(
        20, description="stop after so many batches with hardly a call; 0 never does"
    )
    least_calls: Share = Field(0.05, description="share of episodes that call, of which less is so")
    forced_batches: Annotated[int, Field(ge=0)] = Field(
        10, description="stop if over so many batches too many episodes hit a limit; 0 never does"
    )
    most_forced: Share = Field(
        0.33, description="share of episodes at a limit, of which more, and twice the first, is so"
    )
    control_every: Positive = Field(
        25, description="batches from one control, with noise for crops, to the next"
    )
    controls: Annotated[int, Field(ge=0)] = Field(
        4, description="stop if over so many controls crops help no more than noise; 0 makes none"
    )
    least_gain: Share = Field(0.01, description="accuracy that crops must gain over noise")

"""How a search, a training and an evaluation zoom: one value, recorded and hashed with each.

zoom = ZoomConfig(VISUAL_SEARCH_LENS, max_calls=4, role="tool")
"""

from __future__ import annotations

from dataclasses import dataclass

from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL
from mcts.zoom.lenses import Lens


@dataclass(frozen=True, slots=True)
class ZoomConfig:
    """What a call shows, and how many of them a line of reasoning may make."""

    lens: Lens
    max_calls: int = 4
    """Crops that are shown in a line of reasoning; with the last comes a request to answer."""
    max_turns: int = 8
    """Observations in a line of reasoning, those that show nothing counted too."""
    tool: str = POINT_TOOL
    """The tool that the prompt offers; calls of either are understood."""
    role: str = "user"
    """The turn that an observation comes in: `tool` where the chat template shows images there."""
    crop_tokens: int = 0
    """Image tokens of all crops of a line of reasoning, at most, but the first is shown in any
    case; 0: no limit."""

    def __post_init__(self) -> None:
        if self.max_calls < 1 or self.max_turns < self.max_calls or self.crop_tokens < 0:
            raise ValueError("zoom: 1 <= max_calls <= max_turns, and crop_tokens of at least 0")
        if self.tool not in (POINT_TOOL, BOX_TOOL):
            raise ValueError(f"zoom: tool is {POINT_TOOL} or {BOX_TOOL}, not {self.tool}")
        if self.role not in ("user", "tool"):
            raise ValueError(f"zoom: role is user or tool, not {self.role}")

"""Zoom calls as text: the two tools, what they are told, and how a model's call is read.

    call = read_call(text, views)           # '{"name": "search_coordinate", "arguments": {…}}'
    text = write_call(call, views)
    tool_schema(POINT_TOOL, space)          # as chat templates and trainers take it

`search_coordinate` takes a point (ViGoRL), `image_zoom_in_tool` a box with a label (the field's).
Either is read, whichever was offered. A call that can't be read is kept in its own words: an
observation says what was wrong with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from mcts.coordinates import CoordinateSpace, format_number
from mcts.data import Box, Point, ZoomCall
from mcts.places.decide import UNREAD, is_share
from mcts.places.pairs import LARGEST
from mcts.tool_calls.views import Views

POINT_TOOL: Final = "search_coordinate"
BOX_TOOL: Final = "image_zoom_in_tool"
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")


def read_call(content: str, views: Views, problems: list[str] | None = None) -> ZoomCall:
    """Read a call's JSON, with numbers in the views' frame; never raises.

    Without `point` it can't be read; then `view` is out of range exactly where it named an image
    that there is not.

    Args:
        problems: gets the kind of what may be read in another coordinate space.
    """
    try:
        arguments = _arguments(content)
        numbers, box = _numbers(arguments)
        view = _view(arguments)
        if not 0 <= view < len(views):
            # Out of range too, but a number that every table can hold.
            return ZoomCall(None, max(-1, min(view, len(views))), text=content)
        if views.frame.space.counts_units and is_share(*numbers):
            if problems is not None:
                problems.append(f"{UNREAD}shares")
            return ZoomCall(None, text=content)
        corners = [
            views.to_point(x, y, view) for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return ZoomCall(None, text=content)
    if not box:
        return ZoomCall(corners[0], view)
    left, right = sorted(corner.x for corner in corners)
    top, bottom = sorted(corner.y for corner in corners)
    label = arguments.get("label")
    if not isinstance(label, str):
        label = ""
    label = label.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
    asked = Box(left, top, right, bottom, corners[0].image)
    centre = Point((left + right) / 2, (top + bottom) / 2, corners[0].image)
    return ZoomCall(centre, view, asked, label)


def _arguments(content: str) -> dict[str, Any]:
    call = json.loads(content)
    arguments = call["arguments"]
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(found, dict):
        raise ValueError("arguments are no object")
    return found


def _numbers(arguments: dict[str, Any]) -> tuple[list[float], bool]:
    """Return the two numbers of a point, or the four of a box and True."""
    box = arguments.get("bbox_2d") is not None
    told = arguments["bbox_2d" if box else "coordinate"]
    if isinstance(told, str):
        told = _NUMBER.findall(told)
    if any(isinstance(value, bool) for value in told):
        raise ValueError("a truth value is no number")
    numbers = [float(value) for value in told]
    if len(numbers) != (4 if box else 2) or not all(abs(n) < LARGEST for n in numbers):
        raise ValueError("no such place")
    return numbers, box


def _view(arguments: dict[str, Any]) -> int:
    """Return the view named: `image` counts from 1, the box tool's `img_idx` from 0; a null names
    none."""
    if (image := arguments.get("image")) is not None:
        return int(image) - 1
    index = arguments.get("img_idx")
    return 0 if index is None else int(index)


def write_call(call: ZoomCall, views: Views, tool: str = POINT_TOOL) -> str:
    """Write a call as JSON, as a model with the views' frame would."""
    if call.point is None:
        return call.text
    decimals = views.frame.space.decimals

    def numbers(*points: Point) -> list[int | float]:
        pairs = (views.to_model(point, call.view) for point in points)
        return [format_number(value, decimals) for pair in pairs for value in pair]

    arguments: dict[str, object]
    if call.box is not None:
        tool, box = BOX_TOOL, call.box
        corners = Point(box.x1, box.y1, box.image), Point(box.x2, box.y2, box.image)
        arguments = {"bbox_2d": numbers(*corners), "label": call.label}
    else:
        arguments = {"coordinate": numbers(call.point)}
    if call.view:
        arguments["image"] = call.view + 1
    return json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)


def tool_schema(tool: str, space: CoordinateSpace) -> dict[str, Any]:
    """Return a tool's description as OpenAI's function schema."""
    numbers = {"type": "array", "items": {"type": "number"}}
    image = {
        "type": "integer",
        "description": "Which picture: 1 is the first image of the question, and every region you "
        "are shown has the next number. 1 if left out.",
    }
    where = space.in_words
    if tool == POINT_TOOL:
        said = "Shows the region around a place enlarged."
        point = f"The place as [x, y], {where}."
        properties = {"coordinate": {**numbers, "minItems": 2, "maxItems": 2, "description": point}}
        required = ["coordinate"]
    else:
        said = "Shows a region enlarged."
        box = f"The region as [x1, y1, x2, y2], {where}."
        properties = {
            "bbox_2d": {**numbers, "minItems": 4, "maxItems": 4, "description": box},
            "label": {"type": "string", "description": "What you look for there."},
        }
        required = ["bbox_2d", "label"]
    parameters = {
        "type": "object",
        "properties": {**properties, "image": image},
        "required": required,
    }
    return {
        "type": "function",
        "function": {"name": tool, "description": said, "parameters": parameters},
    }

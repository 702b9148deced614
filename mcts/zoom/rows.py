"""Zoom calls and what they showed, as the structs `call` and `observation` of nodes and steps.

    row = {"call": call_row(step.call), "observation": observation_row(step.observation)}
    step = Step(thought, points, call_from(row["call"]), observation_from(row["observation"]))

Rows of older code have fewer fields: a call was a point of a whole image, and each was answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mcts.data import Box, Observation, Point, Question, Step, ZoomCall
from mcts.zoom.crops import crop_of

_CORNERS = ("x1", "y1", "x2", "y2")


def zoom_columns(step: Step | None, question: Question | None) -> dict[str, Any]:
    """Return the columns `call`, `observation` and `crop_id` of a step; null where it has none.

    Args:
        question: whose images its crop is cut from; None where they are not known.
    """
    crop = None
    if step is not None and step.observation is not None and step.observation.crop is not None:
        crop = crop_of(question, step) if question is not None else None
    return {
        "call": call_row(step.call if step else None),
        "observation": observation_row(step.observation if step else None),
        "crop_id": crop,
    }


def call_row(call: ZoomCall | None) -> dict[str, Any] | None:
    """Return a call as a struct."""
    if call is None:
        return None
    point = {"x": None, "y": None, "image": None} if call.point is None else asdict(call.point)
    return {
        **point,
        "view": call.view,
        "box": asdict(call.box) if call.box else None,
        "label": call.label or None,
        "text": call.text or None,
    }


def call_from(row: Mapping[str, Any] | None) -> ZoomCall | None:
    """Return the call of a struct; of older code's, a point of a whole image."""
    if not row:
        return None
    point = None if row["x"] is None else Point(row["x"], row["y"], row["image"])
    view, box = row.get("view"), row.get("box")
    if view is None:
        view = point.image if point else 0
    box = Box(**{**box, "label": box["label"] or ""}) if box else None
    return ZoomCall(point, view, box, row.get("label") or "", row.get("text") or "")


def observation_row(observation: Observation | None) -> dict[str, Any] | None:
    """Return an observation as a struct; its region is null where nothing was shown."""
    if observation is None:
        return None
    crop = observation.crop
    return {
        **{name: getattr(crop, name, None) for name in (*_CORNERS, "image")},
        "width": observation.width,
        "height": observation.height,
        "marked": observation.marked,
        "view": observation.view,
        "problem": observation.problem or None,
        "last": observation.last,
    }


def observation_from(row: Mapping[str, Any] | None) -> Observation | None:
    """Return the observation of a struct."""
    if not row:
        return None
    crop = None if row["x1"] is None else Box(*(row[name] for name in (*_CORNERS, "image")))
    problem, last = row.get("problem") or "", bool(row.get("last"))
    size = (row["width"], row["height"])
    return Observation(crop, *size, bool(row["marked"]), row.get("view"), problem, last)

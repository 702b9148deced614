"""Calls and crops as rows, as a file beside the weights, and as limits: nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcts.data import Box, Observation, Point, Step, ZoomCall
from mcts.tool_calls.calls import BOX_TOOL
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import crop_of
from mcts.zoom.lenses import Lens
from mcts.zoom.recorded import record_zoom, recorded_zoom
from mcts.zoom.rows import call_from, call_row, observation_from, observation_row, zoom_columns
from tests.support.scripted import QUESTION

CROP = Box(10, 20, 110, 120)
CALLS = [
    ZoomCall(Point(60, 70)),
    ZoomCall(Point(60, 70, 1), 1),
    ZoomCall(Point(60, 70), 2),
    ZoomCall(Point(60, 70), 0, Box(10, 20, 110, 120), "a sign"),
    ZoomCall(Point(60, 70, 1), 1, Box(10, 20, 110, 120, 1)),
    ZoomCall(None, text='{"nope'),
    ZoomCall(None, 7, text="{}"),
]
SEEN = [
    Observation(CROP, 400, 300, view=1),
    Observation(Box(10, 20, 110, 120, 1), 400, 300, marked=True, view=3, last=True),
    Observation(CROP, 400, 300),
    Observation(None, 0, 0, problem="malformed"),
    Observation(None, 0, 0, problem="shown_already", last=True),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_survives_its_row(call: ZoomCall) -> None:
    assert call_from(call_row(call)) == call


@pytest.mark.parametrize("seen", SEEN)
def test_an_observation_survives_its_row(seen: Observation) -> None:
    assert observation_from(observation_row(seen)) == seen


def test_a_row_says_null_where_there_is_nothing() -> None:
    assert (
        call_row(None) is observation_row(None) is call_from(None) is observation_from({}) is None
    )
    assert call_from({}) is None and observation_from(None) is None
    assert call_row(ZoomCall(Point(1, 2))) == {
        "x": 1, "y": 2, "image": 0, "view": 0, "box": None, "label": None, "text": None
    }  # fmt: skip
    row = observation_row(SEEN[3])
    assert row is not None and row["x1"] is row["image"] is None and row["problem"] == "malformed"
    shown = observation_row(SEEN[0])
    assert shown is not None and shown["problem"] is None


def test_rows_of_older_code_hold_points_of_whole_images() -> None:
    older = {"x": 5.0, "y": 6.0, "image": 1}
    assert call_from(older) == ZoomCall(Point(5.0, 6.0, 1), 1)
    assert call_from({"x": None, "y": None, "image": None}) == ZoomCall(None, 0)
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0, "image": 0, "label": None}
    assert call_from({**older, "view": 2, "box": box}) == ZoomCall(
        Point(5.0, 6.0, 1), 2, Box(1.0, 2.0, 3.0, 4.0)
    )
    crop = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0, "image": 1}
    size = {"width": 30, "height": 20, "marked": True}
    assert observation_from(crop | size) == Observation(
        Box(1.0, 2.0, 3.0, 4.0, 1), 30, 20, marked=True
    )


def test_a_crop_is_named_where_the_images_are_known() -> None:
    step = Step("A sign (60, 70).", (Point(60, 70),), ZoomCall(Point(60, 70)), SEEN[0])
    row = zoom_columns(step, QUESTION)
    assert row["crop_id"] == crop_of(QUESTION, step)
    assert (row["call"], row["observation"]) == (call_row(step.call), observation_row(SEEN[0]))
    assert zoom_columns(step, None)["crop_id"] is None
    failed = Step("A sign (60, 70).", (), CALLS[5], SEEN[3])
    assert zoom_columns(failed, QUESTION) == {
        "call": call_row(CALLS[5]), "observation": observation_row(SEEN[3]), "crop_id": None
    }  # fmt: skip
    nothing = {"call": None, "observation": None, "crop_id": None}
    assert zoom_columns(None, QUESTION) == zoom_columns(Step("So."), QUESTION) == nothing


def test_what_a_model_was_shown_is_kept_beside_its_weights(tmp_path: Path) -> None:
    style = tmp_path / "vigorl.json"
    style.write_text(json.dumps({"response_style": "zoom"}))
    assert recorded_zoom(tmp_path) is None
    zoom = ZoomConfig(Lens(0.2, 336, True, True), 3, 5, BOX_TOOL, "tool", 900)
    record_zoom(tmp_path, zoom)
    assert recorded_zoom(tmp_path) == zoom
    assert json.loads(style.read_text())["response_style"] == "zoom"
    for wrong in ({"lens": {"half_width": 0, "shown_side": 1}}, {"max_calls": 4}, {"lens": 3}):
        style.write_text(json.dumps({"zoom": wrong}))
        with pytest.raises(ValueError, match=r"vigorl.json, zoom: "):
            recorded_zoom(tmp_path)


@pytest.mark.parametrize(
    "limits",
    [{"max_calls": 1}, {"max_calls": 8}, {"crop_tokens": 0}, {"max_calls": 1, "max_turns": 1}],
)
def test_the_least_and_the_most_that_limits_may_be(limits: dict[str, int]) -> None:
    ZoomConfig(Lens(0.1, 1), **limits)


def test_limits_left_out_are_those_of_every_stage() -> None:
    assert ZoomConfig(Lens(1, 1)) == ZoomConfig(
        Lens(1, 1, False, False), 4, 8, "search_coordinate", "user", 0
    )
    for wrong in ({"max_calls": 0}, {"max_calls": 9}, {"crop_tokens": -1}):
        with pytest.raises(ValueError, match="1 <= max_calls <= max_turns"):
            ZoomConfig(Lens(1, 1), **wrong)

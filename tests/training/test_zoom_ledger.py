"""The tool ledger of a batch of dialogues, what they earn, and when an alarm stops a training."""

from __future__ import annotations

from typing import Any

import pytest

from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, Box, Image, Question
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.scripted_student import look, say
from training.errors import TrainingError
from training.recipe_sections import ZoomAlarmSettings
from training.rewards.completions import ParsedCompletion, parse_dialogue, turns_of
from training.rewards.question_column import (
    GradedQuestion,
    question_column,
    read_zoom,
    zoom_column,
)
from training.rewards.rewards import PRESETS, distinct_places, make_rewards
from training.zoom.ledger import CALL_RATE, FORCED, GAIN, ZoomAlarm, ZoomLedger

SPACE = CoordinateSpace.qwen3_vl()
ZOOM = ZoomConfig(Lens(100, 196))
QUESTION = Question(
    "t", "What colour is the sign?", (Image("a", 1000, 1000),), AnswerKind.TEXT, answers=("red",)
)
OBJECTS = ((Box(180, 280, 220, 320, label="sign"), Box(700, 700, 800, 800, label="door")),)
GRADED = GradedQuestion(QUESTION, OBJECTS)
FAR = [(100, 100), (900, 100), (100, 900), (900, 900)]


def parsed(*turns: str, graded: GradedQuestion = GRADED) -> ParsedCompletion:
    return parse_dialogue(turns, graded, SPACE, ZOOM)


def earned(*turns: str, preset: str = "zoom") -> float:
    rewards = make_rewards(PRESETS[preset], SPACE)
    messages = [{"role": "assistant", "content": turn} for turn in turns]
    columns = {"question": [question_column(QUESTION)], "zoom": [zoom_column(ZOOM)]}
    (total,) = rewards.total([""], [messages], **columns)
    assert total is not None
    return total


def looks(*places: tuple[int, int]) -> list[str]:
    return [look(x, y, f"I look at number {i}.") for i, (x, y) in enumerate(places)]


def test_further_places_are_paid_for_right_answers_alone() -> None:
    assert [earned(*looks(*FAR[:n]), say("red")) for n in range(5)] == pytest.approx(
        [0.85, 0.85, 0.9, 0.95, 1.0]
    )
    assert [earned(*looks(*FAR[:n]), say("blue")) for n in range(5)] == pytest.approx([0.25] * 5)
    plain = [earned(*looks(*FAR[:n]), say("red"), preset="zoom_no_bonus") for n in range(5)]
    assert plain == pytest.approx([1.0] * 5)


def test_looks_may_show_alike_but_no_turn_may_be_said_twice() -> None:
    found = "<think>Nothing here.</think>\n"
    first, second, third = looks(*FAR[:3])
    assert earned(first, found + second, found + third, found + say("red")) == pytest.approx(0.95)
    again = looks((500, 500))[0]
    assert earned(first, again, say("red")) == pytest.approx(0.6), "the format is lost"


def test_crops_that_share_half_of_what_they_show_are_of_one_place() -> None:
    near, apart = [(500, 500), (590, 500)], [(500, 500), (610, 500)]
    assert len(distinct_places(parsed(*looks(*near), say("red")).steps)) == 1
    assert len(distinct_places(parsed(*looks(*apart), say("red")).steps)) == 2


@pytest.mark.parametrize(
    ("turns", "answer", "whole"),
    [
        ((look(200, 300), say("red")), "red", True),
        ((look(200, 300), look(205, 300, "Once more, please."), say("red")), "red", True),
        ((look(2000, 300), say("red")), "red", False),
        ((look(200, 300), say("red"), say("red", "Again the same.")), None, False),
        ((look(200, 300),), None, False),
        ((look(200, 300) + "\n<observation>It is red.</observation>\n" + say("red"),), None, False),
        ((look(200, 300) + "<answer>red</answer>", say("red")), "red", False),
        ((say("red") + look(200, 300),), None, False),
        (("<think>I see</think>", say("red")), None, False),
        ((), None, False),
    ],
)
def test_a_dialogue_is_read_as_it_was_shown(
    turns: tuple[str, ...], answer: str | None, whole: bool
) -> None:
    found = parsed(*turns)
    assert (found.answer, found.whole) == (answer, whole)


def test_turns_that_an_environment_took_apart_are_put_together() -> None:
    call = {"name": "search_coordinate", "arguments": {"coordinate": [200, 300]}}
    turn = {
        "role": "assistant", "content": "", "reasoning_content": "It is too small.",
        "tool_calls": [{"type": "function", "function": call}],
    }  # fmt: skip
    shown = {"role": "tool", "name": "search_coordinate", "content": "a crop"}
    answer = {"role": "assistant", "content": "<answer>red</answer>", "reasoning_content": "Read."}
    found = parsed(*turns_of([turn, shown, answer]))
    assert found.whole and found.answer == "red" and len(distinct_places(found.steps)) == 1


def test_a_ledger_counts_what_calls_brought() -> None:
    batch = [
        parsed(*looks((200, 300), (900, 100)), say("red")),
        parsed(say("blue")),
        parsed(look(5000, 300), look(200, 300), "<think>I don't"),
        parsed(look(200, 300), say("red"), graded=GradedQuestion(QUESTION, (None,))),
    ]
    ledger = ZoomLedger.of(batch, [False, False, True, False])
    found = ledger.metrics()
    assert found[CALL_RATE] == 3 / 4 and found["zoom/calls"] == 5 / 4
    assert found["zoom/places"] == 4 / 4 and found["zoom/forced"] == 1 / 4
    assert found["zoom/failed/point_outside_image"] == 1 / 5 and found["zoom/failed/malformed"] == 0
    assert found["zoom/on_object"] == 2 / 3, "one crop elsewhere, and one of which nothing is known"
    assert found["zoom/accuracy"] == 2 / 4, "what hit a limit is not right"
    assert (ledger.calls, ledger.crops, ledger.places) == (5, 4, 4)
    both = (ledger + ledger).metrics()
    assert both == found
    with pytest.raises(ValueError, match="shorter"):
        ZoomLedger.of(batch, [False])
    behind = ZoomLedger.of(batch[:1], [False], [1])
    assert (behind.calls, behind.places, behind.known) == (1, 1, 1), "what it was begun with is not"
    assert ZoomLedger().metrics() == {}


def steps(**columns: list[float]) -> list[dict[str, Any]]:
    names = {"rates": CALL_RATE, "forced": FORCED, "gains": GAIN}
    return [
        {names[name]: values[i] for name, values in columns.items()}
        for i in range(len(next(iter(columns.values()))))
    ]


def checks(settings: ZoomAlarmSettings, rows: list[dict[str, Any]]) -> int | None:
    """At which row the alarm stops, if it does."""
    alarm = ZoomAlarm(settings)
    for number, row in enumerate(rows):
        try:
            alarm.check({"loss": 0.1, **row})
        except TrainingError:
            return number
    return None


@pytest.mark.parametrize(
    ("rates", "stops"),
    [
        ([0.8, 0.7, 0.5, 0.04, 0.03, 0.0], 4),
        ([0.8, 0.7, 0.04, 0.5, 0.04, 0.06], None),  # never two in a row
        ([0.02, 0.01, 0.0, 0.0, 0.0, 0.0], None),  # there never were any
    ],
)
def test_calls_that_die_out_stop_a_training(rates: list[float], stops: int | None) -> None:
    rows = steps(rates=rates)
    assert checks(ZoomAlarmSettings(batches=2, least_calls=0.05), rows) == stops
    assert checks(ZoomAlarmSettings(batches=0), rows) is None


@pytest.mark.parametrize(
    ("forced", "stops"),
    [
        ([0.1, 0.1, 0.2, 0.3, 0.5], 4),
        ([0.1, 0.1, 0.4, 0.4], None),  # no more than it takes
        ([0.1, 0.1, 0.5, 0.4], 3),
        ([0.3, 0.3, 0.5, 0.5], None),  # not twice as many as in the beginning
        ([0.1, 0.9, 0.9], None),  # too few to tell
    ],
)
def test_episodes_that_end_at_a_limit_stop_a_training(
    forced: list[float], stops: int | None
) -> None:
    settings = ZoomAlarmSettings(forced_batches=2, most_forced=0.39 if stops == 4 else 0.4)
    assert checks(settings, steps(forced=forced)) == stops
    assert checks(ZoomAlarmSettings(forced_batches=0), steps(forced=forced * 9)) is None


def test_crops_that_help_no_more_than_noise_stop_a_training() -> None:
    settings = ZoomAlarmSettings(controls=3, least_gain=0.02)
    assert checks(settings, steps(gains=[0.3, 0.1, 0.0, 0.01, 0.02])) == 4
    assert checks(settings, steps(gains=[0.0, 0.0, 0.1, 0.0, 0.0])) is None
    assert checks(ZoomAlarmSettings(controls=0), steps(gains=[0.0] * 9)) is None
    just = ZoomAlarmSettings(controls=2, least_gain=0.25)
    assert checks(just, steps(gains=[0.25, 0.25, 0.25])) is None
    assert checks(just, steps(gains=[0.0])) is None, "too few to tell"


def test_calls_are_rare_below_the_share_and_were_not_from_twice_the_share_on() -> None:
    settings = ZoomAlarmSettings(batches=1, least_calls=0.25)
    assert checks(settings, steps(rates=[0.5, 0.25])) is None
    assert checks(settings, steps(rates=[0.5, 0.24])) == 1
    assert checks(settings, steps(rates=[0.49, 0.0])) is None


def test_an_alarm_remembers_what_was_logged_before_a_kill() -> None:
    rows = steps(rates=[0.9, 0.8, 0.0, 0.0])
    alarm = ZoomAlarm(ZoomAlarmSettings(batches=2), lambda: rows[:3])
    alarm.recall()
    alarm.recall()  # it has all of it already
    with pytest.raises(TrainingError, match=r"at most 0\.0% .* 85\.0% in the first 2"):
        alarm.check(rows[3])


def test_what_a_call_shows_survives_the_column() -> None:
    assert read_zoom(zoom_column(ZOOM)) == ZOOM
    with pytest.raises(ValueError, match="column zoom"):
        read_zoom('{"lens": 3}')

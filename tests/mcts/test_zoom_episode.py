"""An episode that zooms, turn by turn: what a request sees, when it ends, how it is forced."""

from __future__ import annotations

import pytest

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Step
from mcts.policy import Continuation
from mcts.teachers.base import TeacherError
from mcts.zoom.config import ZoomConfig
from mcts.zoom.episode import MOST_TURNS, Episode, play, replay
from mcts.zoom.lenses import Lens
from tests.support.scripted import QUESTION, ScriptedPolicy
from tests.support.zoom_trees import look, tell

FRAME = Frame.of(CoordinateSpace.qwen3_vl(), QUESTION)
ZOOM = ZoomConfig(Lens(50, 100), max_calls=3, max_turns=4)
BEFORE = (Step("I see a sign at (9, 9).", ()),)
ANSWER = tell("It shows a 7, so it is left.", "left")


async def played(
    first: str, *more: str | Exception, limit: int = 5, number: int = 2, reason: str = "stop"
) -> tuple[Episode, list[tuple[str, str, int, int]]]:
    """Play an episode of which every later request gets the next of `more`."""
    later = iter(more)
    seen: list[int] = []

    def answer(node: str, purpose: str, steps: tuple[Step, ...], sample: int) -> object:
        seen.append(len(steps))
        return next(later)

    policy = ScriptedPolicy({}, answer)
    episode = await play(
        policy, FRAME, ZOOM, node="0.1", before=BEFORE, first=Continuation(first, reason, "first"),
        number=number, limit=limit,
    )  # fmt: skip
    whole = reason == "stop"  # a first thought that was cut off is no step
    assert seen == [len(BEFORE) + whole + i for i in range(len(seen))], "each sees all so far"
    return episode, policy.log


async def test_each_turn_is_a_request_of_its_own_number() -> None:
    episode, log = await played(look(100, 100), look(500, 500), ANSWER)
    turns = [2 * MOST_TURNS + 1, 2 * MOST_TURNS + 2]
    assert log == [("0.1", "turn", 1, number) for number in turns] and MOST_TURNS == 64
    assert (episode.answer, len(episode.steps)) == ("left", 3)
    assert [r.response_id for r in episode.responses] == [
        "first", *(f"0.1/turn/{number}" for number in turns)
    ]  # fmt: skip
    assert (episode.problems, episode.forced, episode.failure) == ((), False, None)
    views = [step.observation and step.observation.view for step in episode.steps]
    assert views == [1, 2, None], "a crop has the next number, whatever was before"


async def test_an_answer_in_the_first_turn_asks_nothing() -> None:
    episode, log = await played(ANSWER)
    assert (episode.answer, log, len(episode.responses)) == ("left", [], 1)


@pytest.mark.parametrize(
    ("turns", "limit", "kept", "requests"),
    [
        ([look(100, 100), look(500, 500)], 2, 2, ["turn", "finish"]),
        ([look(100, 100), ANSWER], 1, 1, ["finish"]),  # the answer comes with a step too many
        ([look(100, 100), ANSWER], 2, 2, ["turn"]),
        (["<think>A sign (500, 500).</think>"], 5, 1, ["finish"]),  # neither a call nor an answer
    ],
)
async def test_over_the_limit_or_without_a_call_the_answer_is_requested_alone(
    turns: list[str], limit: int, kept: int, requests: list[str]
) -> None:
    more = [*turns[1:], "right</answer>"] if "finish" in requests else turns[1:]
    if requests == ["finish"]:
        more = ["right</answer>"]
    episode, log = await played(turns[0], *more, limit=limit)
    assert [purpose for _, purpose, _, _ in log] == requests
    assert len(episode.steps) == kept
    forced = "finish" in requests
    assert episode.forced is forced and ("answer_forced" in episode.problems) is forced
    assert episode.answer == ("right" if forced else "left")
    assert len(episode.responses) == len(requests) + 1
    silent = ("turn_without_call",) if len(turns) == 1 else ()
    assert episode.problems == ((*silent, "answer_forced") if forced else ())
    if forced:
        assert log[-1] == ("0.1", "finish", 1, 2)


async def test_the_last_crop_is_followed_by_the_answer_whatever_is_called() -> None:
    places = [look(100, 100), look(500, 500), look(900, 900), look(300, 300)]
    episode, log = await played(*places, "left</answer>", limit=9)
    assert [purpose for _, purpose, _, _ in log] == ["turn", "turn", "turn", "finish"]
    assert episode.answer == "left" and episode.forced
    assert episode.problems == ("call_after_limit", "answer_forced")


@pytest.mark.parametrize("turns", [[look(100, 100)], ["<think>A sign (500, 500).</think>"]])
async def test_a_request_that_fails_for_good_ends_it(turns: list[str]) -> None:
    failure = TeacherError("timeout", "gone")
    episode, log = await played(*turns, failure)
    assert episode.failure is failure and episode.answer is None and len(log) == 1
    assert len(episode.steps) == len(episode.responses) == 1 and not episode.forced


async def test_a_thought_cut_off_is_no_step() -> None:
    episode, _ = await played("<think>A sign (500, 500).", "left</answer>", reason="length")
    assert episode.steps == () and episode.forced


async def test_an_episode_is_read_again_from_what_was_written() -> None:
    episode, _ = await played(look(100, 100), look(500, 500), ANSWER)
    texts = [(r.text, r.finish_reason) for r in episode.responses]
    assert replay(texts, FRAME, ZOOM, BEFORE) == episode.steps
    cut = [*texts[:1], ("<think>A sign (500, 500).", "length")]
    assert replay(cut, FRAME, ZOOM, BEFORE) == episode.steps[:1]

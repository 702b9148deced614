"""What servers and templates make of a turn is undone where that is certain, and only there."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.teachers.turn_watch import continues_counting
from mcts.teachers.turns import AssistantTurn

STEP = ("</think>", "</answer>")
ROLLOUT = ("</answer>",)
ONE = "<think>The cup is at (1, 2).</think>"
TWO = "<think>The door is at (3, 4).</think>"


@pytest.mark.parametrize(
    ("partial", "stops", "text", "told", "read"),
    [
        ("", STEP, ONE, "</think>", ONE),
        ("", STEP, ONE[:-8], "</think>", ONE),  # dropped, and told
        ("", STEP, ONE[:-8], "", ONE),  # not told: its element is open
        ("", STEP, ONE[:-8], None, ONE[:-8]),  # the model ended its turn
        ("", STEP, ONE[7:], "", ONE),  # the template opened the tag
        ("", STEP, ONE[7:-8], "</think>", ONE),
        ("", STEP, f"{ONE}\n{TWO}", "", ONE),  # went on after the stop
        ("", STEP, f"<think>\n\n</think>\n\n{ONE}", "", ONE),
        ("", STEP, "<think>\n\n</think>", "</think>", ""),
        ("", ROLLOUT, f"{ONE}\n<answer>yes", "", f"{ONE}\n<answer>yes</answer>"),
        (ONE, ROLLOUT, f"{ONE}\n{TWO}", "", f"\n{TWO}"),  # said again
        (ONE, ROLLOUT, f"{ONE}{ONE}\n{TWO}", "", f"{ONE}\n{TWO}"),  # ... once
        (f"{ONE}\n<answer>", ROLLOUT, "<answer>yes</answer>", "", "yes</answer>"),
        (f"{ONE}\n<answer>", ROLLOUT, "yes", "", "yes</answer>"),
        ("", (), "Five.", "", "Five."),
    ],
)
def test_a_turn_is_read_as_the_model_wrote_it(partial, stops, text, told, read) -> None:
    assert AssistantTurn(partial, stops).read(text, finished=True, stop_reason=told)[0] == read


def test_a_server_that_drops_stops_does_not_tell_the_end_of_a_turn_by_null() -> None:
    turn = AssistantTurn("", STEP, keeps_stops=False)
    assert turn.read(ONE[:-8], finished=True, stop_reason=None) == (ONE, True)


def test_a_text_that_was_cut_is_not_closed() -> None:
    assert AssistantTurn("", STEP).read("<think>The cup", finished=False) == (
        "<think>The cup",
        False,
    )
    assert AssistantTurn("", STEP).read(f"{ONE} and", finished=False) == (ONE, True)


@given(
    st.lists(st.text("abc (,)12.", min_size=1, max_size=20), min_size=1, max_size=3),
    st.lists(st.text("def (,)34.", min_size=1, max_size=20), min_size=1, max_size=3),
)
def test_a_plain_continuation_is_left_as_it_is(before: list[str], after: list[str]) -> None:
    partial, text = ("\n".join(f"<think>x{t}</think>" for t in ts) for ts in (before, after))
    text = re.sub("x", "y", text)
    turn = AssistantTurn(partial, ROLLOUT)
    whole = f"\n{text}\n<answer>yes</answer>"
    assert turn.read(whole, finished=True, stop_reason="</answer>") == (whole, True)
    assert not turn.begun_anew([whole]) and turn.without_restatement(whole) == whole


def test_a_turn_begun_anew_is_told_by_its_words_numbers_aside() -> None:
    turn = AssistantTurn(ONE, ROLLOUT)
    anew = f"<think>The cup is at (700, 8).</think>\n{TWO}"
    assert turn.begun_anew([anew, anew]) and not turn.begun_anew([anew, TWO])
    assert turn.may_be_begun_anew([TWO, anew]) and not turn.may_be_begun_anew([TWO])
    assert turn.without_restatement(anew) == f"\n{TWO}"
    assert AssistantTurn(f"{ONE}\n<answer>", ROLLOUT).begun_anew([TWO])
    assert not AssistantTurn(f"{ONE}\n<answer>", ROLLOUT).begun_anew(["yes</answer>"])


def test_counting_on_tells_a_server_that_continues() -> None:
    assert continues_counting(" eight, nine") is True
    assert continues_counting("one, two, three, five, seven, eight") is True  # repeated
    assert continues_counting("One, two, three, four") is False
    assert continues_counting("<think>I") is None

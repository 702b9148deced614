"""What servers and templates make of a turn is undone where that is certain, and only there."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.teachers.base import (
    Completion,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.turn_watch import COUNTING, TurnWatch, continues_counting
from mcts.teachers.turns import AssistantTurn, going_on

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
    assert continues_counting("one, two, three, four, five, six") is False
    assert continues_counting("one, two, three") is None
    assert continues_counting("<think>I") is None


# ---- the watch -----------------------------------------------------------------------------------

ANEW = f"<think>The cup is at (700, 8).</think>\n{TWO}"
LIKE = "<think>The cup is at (5, 6), and it is red.</think>"
"""Begins as the turn did, and may yet go on."""


class Server:
    """A server of partial turns, asked to count as often as it must be."""

    def __init__(self, says: str | Exception, *, watched: bool = True) -> None:
        self.says, self.asked = says, list[Request]()
        self.watch = TurnWatch(self.answer, watched=watched)

    async def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        if isinstance(self.says, Exception):
            raise self.says
        return Reply((Completion(self.says, "stop", 1),), 1, None, 1, 0.1)

    async def anew(self, *texts: str, known: bool | None = None, turn: str = ONE) -> bool:
        messages = (Message("user", (TextPart("?"),)), Message("assistant", (TextPart(turn),)))
        request = Request(messages, len(texts), 1.0, 1.0, 9, tuple(ROLLOUT), 1)
        reply = Reply(tuple(Completion(t, "stop", 1) for t in texts), 1, None, 1, 0.1)
        return await self.watch.begins_anew(request, reply, known)


async def test_what_is_known_of_a_server_is_not_found_out_again() -> None:
    server = Server("one, two, three, four")
    assert await server.anew(TWO, known=False)
    assert await server.anew(ANEW, ANEW, known=None), "its words tell"
    assert not await server.anew(TWO, known=None) and not server.asked
    declared = Server("one, two, three, four", watched=False)
    assert not await declared.anew(ANEW, known=True)
    assert not await declared.anew(TWO, LIKE, known=None) and not declared.asked


async def test_a_doubt_is_settled_by_counting_once() -> None:
    counts = Server(" eight, nine")
    assert not await counts.anew(LIKE, known=True)
    assert not counts.watch.watched and not await counts.anew(ANEW, known=True)
    restarts = Server("One, two, three, four")
    assert await restarts.anew(LIKE, TWO, known=None)
    for server in (counts, restarts):
        (asked,) = server.asked
        assert asked.messages == COUNTING.messages and 0 <= asked.seed < 2**31


@pytest.mark.parametrize("says", ["I", TeacherError("timeout", "late"), TeacherUnavailable("gone")])
async def test_where_counting_tells_nothing_several_samples_alike_do(
    says: str | Exception,
) -> None:
    server = Server(says)
    assert not await server.anew(LIKE, TWO, known=True)
    assert not await server.anew(ANEW, known=True), "one may be by chance"
    assert await server.anew(ANEW, ANEW, known=True)
    assert server.watch.watched and len(server.asked) == 1


@pytest.mark.parametrize("known", [None, True])
async def test_one_sample_alone_may_repeat_itself_by_chance(known: bool | None) -> None:
    counts = Server(" eight, nine")
    assert not await counts.anew(ANEW, known=known) and not counts.watch.watched
    untold = Server("I")
    found = [await untold.anew(text, known=known) for text in (ANEW, ANEW, TWO, ANEW, ANEW, ANEW)]
    assert found == [False] * 5 + [True] and len(untold.asked) == 1
    inside = Server("I")
    assert await inside.anew(TWO, known=known, turn=f"{ONE}\n<answer>")


def test_a_reply_that_says_nothing_new_is_refused() -> None:
    messages = (Message("user", (TextPart("?"),)), Message("assistant", (TextPart(ONE),)))
    request = Request(messages, 2, 1.0, 1.0, 9, tuple(ROLLOUT), 1)

    def reply(*texts: str) -> Reply:
        return Reply(tuple(Completion(text, "stop", 1) for text in texts), 1, None, 1, 0.1)

    assert going_on(request, reply(f"{ONE} ", TWO)).completions[1].text == TWO
    assert going_on(request, reply("", "")) == reply("", ""), "it said nothing at all"
    with pytest.raises(TeacherError, match="begins its turn again instead of going on"):
        going_on(request, reply(f"{ONE} ", ONE))

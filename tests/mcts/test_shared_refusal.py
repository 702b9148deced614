"""When refusals are everybody's, and when they are a request's own."""

import asyncio
from contextlib import suppress

import pytest

from mcts.journal.journal import Journal, JournaledTeacher
from mcts.journal.records import Key
from mcts.teachers.base import (
    Completion,
    Ledger,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.shared_refusal import LATER, SharedRefusal, UnreadAnswers, cause_of

REFUSED = TeacherError("bad_request", "HTTP 400: no such parameter")


def fail(refusals: SharedRefusal, *searches: str, why: TeacherError = REFUSED) -> bool:
    held = [refusals.failed(refusals.sent(), search, why) for search in searches]
    return all(held)


def test_eight_questions_in_a_row_refused_alike_stop_a_run():
    refusals = SharedRefusal()
    assert fail(refusals, *"abcdefg"), "held back: it may be everybody's"
    with pytest.raises(TeacherUnavailable, match=r"no such parameter.*8 questions") as stopped:
        fail(refusals, "h")
    assert stopped.value.permanent


def test_many_requests_of_one_question_are_one_question():
    refusals = SharedRefusal()
    assert fail(refusals, *"a" * 100)


def test_where_there_are_fewer_questions_all_of_them_must_fail():
    refusals = SharedRefusal(of=3)
    fail(refusals, "a", "b")
    with pytest.raises(TeacherUnavailable):
        fail(refusals, "c")
    assert fail(SharedRefusal(of=1), *"a" * 40), "one question alone may be at fault"


def test_an_answer_in_between_or_one_that_is_awaited_breaks_the_row():
    for later in ("answered", "open", "failed otherwise"):
        refusals = SharedRefusal()
        fail(refusals, *"abcd")
        number = refusals.sent()
        if later == "answered":
            refusals.answered(number)
        elif later == "failed otherwise":
            refusals.failed(number, "x", TeacherError("timeout", "no answer within 9 s"))
        fail(refusals, *"efgh")


def test_the_order_is_that_of_sending():
    refusals = SharedRefusal()
    numbers = [refusals.sent() for _ in range(9)]
    for number in numbers[:0:-1][:7]:
        refusals.failed(number, str(number), REFUSED)
    refusals.withdrawn(numbers[1])  # says nothing
    with pytest.raises(TeacherUnavailable):
        refusals.failed(numbers[0], "first", REFUSED)


def test_after_an_answer_it_takes_more_or_the_end():
    refusals = SharedRefusal()
    refusals.answered(refusals.sent())
    fail(refusals, *(str(i) for i in range(LATER - 1)))
    with pytest.raises(TeacherUnavailable):
        fail(refusals, "last")
    refusals = SharedRefusal()
    refusals.answered(refusals.sent())
    fail(refusals, *"abcdefg")
    refusals.ended()
    fail(refusals, "h")
    with pytest.raises(TeacherUnavailable, match="HTTP 400: no such parameter"):
        refusals.ended()


def test_a_failure_that_was_sent_before_an_answer_is_its_own():
    refusals = SharedRefusal()
    early, late = refusals.sent(), refusals.sent()
    refusals.answered(late)
    assert not refusals.failed(early, "a", REFUSED)


def test_none_stops_the_run():
    refusals = SharedRefusal(0)
    assert not fail(refusals, *"abcdefghijkl")
    refusals.ended()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("no (request req_8f3a91bc)", "no (request req_11aa22cc)", True),
        ("at 2026-11-28T13:05:09Z: no", "at 2026-11-28T13:05:10Z: no", True),
        ("id 3f2504e0-4f89-11d3-9a0c-0305e82", "id 7c9e6679-7425-40de-944b-e07fc1f", True),
        ("the prompt has 9012 tokens", "the prompt has 8455 tokens", False),
        ("image 1 is too large", "image 2 is too large", False),
    ],
)  # fmt: skip
def test_what_changes_from_answer_to_answer_does_not_count(one, other, alike):
    causes = {cause_of(TeacherError("bad_request", words)) for words in (one, other)}
    assert (len(causes) == 1) == alike


def test_answers_that_were_never_readable_are_not_asked_for_again():
    unread = UnreadAnswers(5)
    assert not any(unread.always("malformed") for _ in range(5))
    assert not unread.always("server_error")
    assert unread.always("malformed")
    unread.noted("GET", {})
    assert unread.always("malformed")
    unread.noted("POST", {})
    assert not unread.always("malformed")


async def test_an_answer_is_journaled_before_failures_that_were_held_back(tmp_path):
    class Teacher:
        identity, ledger = "m@1", Ledger()

        async def open(self):
            pass

        async def complete(self, request, images):
            if request.seed == 1:
                raise TeacherError("bad_request", "no")
            return Reply((Completion("paid", "stop", 3),), 10, None, 3, 0.1)

    def request(seed):
        return Request((Message("user", (TextPart("?"),)),), 1, 1.0, 1.0, 10, (), seed)

    with Journal(tmp_path) as journal:
        teacher = JournaledTeacher(Teacher(), journal, refusals=SharedRefusal(8, 100))
        await teacher.ask(Key("s0", "", "x", 0), request(2), {})
        with pytest.raises(TeacherError):
            await teacher.ask(Key("s1", "", "x", 0), request(1), {})
        asking = asyncio.create_task(teacher.ask(Key("s2", "", "x", 0), request(3), {}))
        while teacher.requested < 3:
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    with Journal(tmp_path) as journal:
        (record,) = journal.records("s2")
        assert record.completions[0].text == "paid"

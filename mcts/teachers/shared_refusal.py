"""Finds out that a server refuses everybody, so that a run stops instead of failing throughout.

    refusals = SharedRefusal(questions=8)
    number = refusals.sent()                              # before each request
    refusals.answered(number)                             # or withdrawn(number), or:
    held = refusals.failed(number, search_id, failure)    # or TeacherUnavailable: all are refused
    refusals.ended()                                      # or TeacherUnavailable

The rule: requests that were sent one after another failed for good with the same words, none sent
among them was answered or is still open, and they belong to `questions` different searches. Before
the first answer, and at a run's end, that is enough; in between the same must hold of `LATER`
requests, since a server that answered has shown that it can. Of fewer questions, all must be
refused alike. What all share says nothing about a question, so a failure is held back from the
journal until a request that was sent after it is answered.
"""

from __future__ import annotations

import re
from typing import Any

from mcts.teachers.base import TeacherError, TeacherUnavailable

QUESTIONS = 8
"""Questions in a row, refused alike, that stop a run."""
LATER = 32
"""Requests in a row, refused alike, that stop a run in which some were answered."""

# Names of requests, times and hashes differ from answer to answer; plain numbers say something.
_CHANGING = re.compile(r"\b(?=[\w:.+-]*\d)(?=[\w:.+-]*[A-Za-z:-])[\w:.+-]{8,}|\b\d{9,}\b")


def without_changing(sentence: str) -> str:
    """Return a sentence without what changes from answer to answer: names of requests, times."""
    return _CHANGING.sub("…", sentence)


def cause_of(failure: TeacherError) -> str:
    """Return a failure's words without what changes from answer to answer."""
    return without_changing(f"{failure.kind}: {failure.message}")


class UnreadAnswers:
    """Counts answers of a server that could not be read, until there is one that can.

    Args:
        most: so many are worth another attempt; after that a request is tried once.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count, self._answered = most, 0, False

    def noted(self, method: str, answer: Any) -> Any:
        """Note a good answer, and return it; a list of models is none."""
        self._answered = self._answered or method == "POST"
        return answer

    def always(self, kind: str) -> bool:
        """Note a failed attempt; return whether answers were never readable."""
        self._count += kind == "malformed"
        return kind == "malformed" and not self._answered and self._count > self._most


class SharedRefusal:
    """Watches the requests of one run.

    Args:
        questions: different questions in a row that must be refused alike; 0: never stop.
        of: how many questions the run has, where that is known.
    """

    def __init__(self, questions: int = QUESTIONS, of: int | None = None) -> None:
        self._never = questions == 0
        # One question alone may be at fault itself.
        self._questions = max(2, questions if of is None else min(questions, of))
        self._next = 0
        self._since = -1  # the newest request that was answered
        # Since then, by number: why and in which search it failed; None where it was withdrawn.
        self._failed: dict[int, tuple[str, str] | None] = {}

    def sent(self) -> int:
        """Number a request, in the order of sending."""
        self._next += 1
        return self._next - 1

    def answered(self, number: int) -> None:
        """Note an answer: what failed before this was sent did so for its own reasons."""
        if number > self._since:
            self._since = number
            self._failed = {n: why for n, why in self._failed.items() if n > number}

    def withdrawn(self, number: int) -> None:
        """Note that a request was cancelled: it says nothing."""
        if number > self._since:
            self._failed[number] = None

    def failed(self, number: int, search_id: str, failure: TeacherError) -> bool:
        """Note a final failure; return whether it may yet turn out to be everybody's.

        Raises:
            TeacherUnavailable: it is everybody's; waiting can't help.
        """
        if self._never or number < self._since:
            return False
        cause = cause_of(failure)
        self._failed[number] = cause, search_id
        alike = [
            found
            for step in (-1, 1)
            for found in self._neighbours(number if step < 0 else number + 1, step, cause)
        ]
        if self._since < 0 or len(alike) >= LATER:
            self._stop_where_enough(alike, failure.message)
        return True

    def ended(self) -> None:
        """Note the end of a run, or of a part of it: nothing more may be answered.

        Raises:
            TeacherUnavailable: its last questions were all refused alike.
        """
        for number, why in () if self._never else list(self._failed.items()):
            if why is not None:
                words = why[0].partition(": ")[2]
                self._stop_where_enough(self._neighbours(number, 1, why[0]), words)

    def _stop_where_enough(self, alike: list[tuple[str, str]], message: str) -> None:
        searches = {search for _, search in alike}
        if len(searches) >= self._questions:
            raise TeacherUnavailable(
                f"The teacher refuses every request ({message}): {len(searches)} questions in a "
                "row had this answer. Nothing is stored for them: end the cause and give the same "
                "command again, or --refusals 0 where the questions are at fault.",
                permanent=True,
            )

    def _neighbours(self, number: int, step: int, cause: str) -> list[tuple[str, str]]:
        """Return what failed of the same cause from `number` on, up to the first that did not."""
        found = []
        while number in self._failed:
            why = self._failed[number]
            if why is not None:
                if why[0] != cause:
                    break
                found.append(why)
            number += step
        return found

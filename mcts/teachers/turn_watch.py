"""Finds out whether a server begins partial turns again, though it takes them.

    watch = TurnWatch(ask)                      # `ask` sends a probe and returns its reply
    await watch.begins_anew(request, reply, known=None)      # True: it can't continue a turn

Only its words tell: samples that all repeat the turn's first words do at once. Where one does,
which may be by chance, the server is asked once to go on counting, a turn of which it is plain what
follows; if that tells nothing either, so do several replies in a row.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from mcts.teachers.base import Message, Reply, Request, TeacherError, TeacherUnavailable, TextPart
from mcts.teachers.turns import WORD, AssistantTurn

COUNTING = Request(
    (
        Message("user", (TextPart("Count from one to ten in words, and write nothing else."),)),
        Message("assistant", (TextPart("one, two, three, five, seven,"),)),
    ),
    n=1, temperature=1.0, top_p=1.0, max_tokens=16, stop=(), seed=0,
)  # fmt: skip
"""Nobody begins so: a server that continues this turn goes on behind seven, or repeats it."""


IN_A_ROW = 3
"""Replies of one sample, one after the other, that begin their turn again by no chance."""


class TurnWatch:
    """What is known of one server's partial turns.

    Args:
        ask: sends a request as a partial turn that is to be continued.
        watched: whether it may still turn out to begin turns again.
    """

    def __init__(self, ask: Callable[[Request], Awaitable[Reply]], *, watched: bool) -> None:
        self.watched = watched
        self._ask = ask
        self._counting: asyncio.Task[bool | None] | None = None
        self._in_a_row = 0
        """Replies since the last one that did not begin its turn again."""

    async def begins_anew(self, request: Request, reply: Reply, known: bool | None) -> bool:
        """Return whether the server begins a partial turn again, though it took it.

        Args:
            known: whether it continues turns; None where that was neither declared nor found out.
        """
        if known is False:  # found out by another request meanwhile
            return True
        if known and not self.watched:
            return False
        turn = AssistantTurn(request.messages[-1].text, request.stop)
        texts = [completion.text for completion in reply.completions]
        anew = turn.begun_anew(texts)
        self._in_a_row = self._in_a_row + 1 if anew else 0
        by_no_chance = anew and (len(texts) > 1 or turn.in_answer or self._in_a_row >= IN_A_ROW)
        if known is None and by_no_chance:
            return True
        if not self.watched or not (anew or turn.may_be_begun_anew(texts)):
            return False
        if self._counting is None:
            self._counting = asyncio.create_task(self._continues_counting())
        continues = await asyncio.shield(self._counting)
        self.watched = continues is None
        return by_no_chance if continues is None else not continues

    async def _continues_counting(self) -> bool | None:
        """Ask the server to continue a turn where it is plain what follows; once a run."""
        try:
            reply = await self._ask(replace(COUNTING, seed=random.getrandbits(31)))
        except (TeacherError, TeacherUnavailable):
            return None
        return continues_counting(reply.completions[0].text)


def continues_counting(text: str) -> bool | None:
    """Return whether an answer to `COUNTING` continues the turn; None where it can't be told."""
    words = WORD.findall(text.lower())
    if words[:4] == ["one", "two", "three", "four"]:
        return False
    repeated = words[:5] == ["one", "two", "three", "five", "seven"]
    return True if repeated or words[:1] in (["eight"], ["nine"], ["ten"], ["eleven"]) else None

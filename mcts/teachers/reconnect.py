"""A teacher that waits for its server to come back.

    teacher = ReconnectingTeacher(OpenAITeacher(url), report=print)
    await teacher.open()                              # TeacherUnavailable: it was never reachable
    reply = await teacher.complete(request, images)   # waits while the server is away

A run of days outlives restarts of its server. While the server is away one request at a time tries
it, the others wait. A request that was in flight when the server went away is a suspect: it may
have crashed it. Suspects are sent again one by one at first, and with every answer one more at
once. Those in flight when it goes away again are each sent alone, and one that crashes the server
repeatedly becomes a failure of its own, so that it ends its own branch and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from mcts.teachers.base import Ledger, Reply, Request, Teacher, TeacherError, TeacherUnavailable

STRIKES = 3
"""A suspect during which the server went away this often is what crashed it."""


class ReconnectingTeacher:
    """Another teacher, tried again every `retry_s` seconds while its server is away.

    `report` receives a sentence when the server goes away and when it is back.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        retry_s: float = 5.0,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._teacher, self._retry_s, self._report = teacher, retry_s, report
        self._away = ""
        """Why there is no server now, as last reported; empty while there is one."""
        self._at_once = 1
        """Suspects that may be asked at once; one more with every answer, 1 after a crash."""
        self._asked = 0
        """Suspects that are asked now, or whatever tries a server that is away."""
        self._alone = False
        """Whether nothing else may be asked beside what is asked now."""
        self._waiting_alone = 0
        """Suspects of a second crash: they come first, each alone."""
        self._changed = asyncio.Event()

    @property
    def identity(self) -> str:
        """The wrapped teacher's."""
        return self._teacher.identity

    @property
    def ledger(self) -> Ledger:
        """The wrapped teacher's."""
        return self._teacher.ledger

    async def open(self) -> None:
        """Reach the server; do not wait for one that was never reachable: its URL may be mistyped.

        Raises:
            TeacherUnavailable: there is no server.
        """
        await self._teacher.open()

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request` once there is a server; see `mcts.teachers.base.Teacher.complete`.

        Raises:
            TeacherUnavailable: only where waiting can't help.
        """
        await self._teacher.open()
        suspect, strikes = False, 0
        while True:
            if not suspect and not self._away:
                try:
                    return await self._teacher.complete(request, images)
                except TeacherUnavailable as error:
                    self._mark_away(error)
                    suspect = error.in_flight
                continue
            async with self._turn(alone=strikes > 0):
                if self._away:
                    await asyncio.sleep(self._retry_s)
                elif not suspect:
                    continue
                try:
                    reply = await self._teacher.complete(request, images)
                except TeacherUnavailable as error:
                    self._mark_away(error)
                    self._at_once = 1
                    strikes += error.in_flight
                    if strikes >= STRIKES:
                        message = f"the server went away {STRIKES} times while it had this request"
                        raise TeacherError("server_error", message) from error
                    continue
                except TeacherError:
                    self._mark_back()
                    raise
                self._mark_back()
                self._at_once += suspect
                return reply

    @asynccontextmanager
    async def _turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait until this request may be asked, among suspects or `alone`."""
        self._waiting_alone += alone
        try:
            while not self._may_ask(alone):
                await self._changed.wait()
        finally:
            self._waiting_alone -= alone
            self._wake()
        alone = alone or bool(self._away)
        self._asked, self._alone = self._asked + 1, alone
        try:
            yield
        finally:
            self._asked, self._alone = self._asked - 1, False
            self._wake()

    def _may_ask(self, alone: bool) -> bool:
        if alone or self._away:
            return self._asked == 0
        return not self._alone and not self._waiting_alone and self._asked < self._at_once

    def _wake(self) -> None:
        """Have all that wait look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _mark_away(self, error: TeacherUnavailable) -> None:
        if error.permanent:
            raise error
        if str(error) != self._away:
            self._away = str(error)
            self._report(f"{error} Waiting until it is back; Ctrl-C stops, and nothing is lost.")

    def _mark_back(self) -> None:
        if self._away:
            self._away = ""
            self._report("The model server answers again: the run goes on.")

    async def close(self) -> None:
        """Close the wrapped teacher."""
        await self._teacher.close()

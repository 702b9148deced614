"""A teacher that waits for its server to come back, where others give up.

    teacher = PatientTeacher(OpenAITeacher(url), say=print)
    await teacher.open()                              # TeacherUnavailable: it never was there
    reply = await teacher.complete(request, images)   # however long the server is gone meanwhile

A run of days outlives its server's restarts. While the server is gone one request at a time looks
for it, the others wait. A request that was under way when the server went away is suspect: it may
be what killed it. Suspects are asked again one by one, and one that takes the server along time
after time becomes a failure of its own, so that a poisoned question ends and its siblings do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mcts.teachers.base import Ledger, Reply, Request, Teacher, TeacherError, TeacherUnavailable

STRIKES = 3
"""A server that went away this often while it had one suspect to answer was killed by it."""


class PatientTeacher:
    """`teacher`, asked again every `again_s` seconds while there is no server to ask.

    `say` is told, in a sentence, when the server is gone and when it is back.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        again_s: float = 5.0,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._teacher, self._again_s, self._say = teacher, again_s, say
        self._away = ""
        """Why there is no server now, as said last; empty while there is one."""
        self._one_by_one = asyncio.Lock()

    @property
    def identity(self) -> str:
        """The other teacher's."""
        return self._teacher.identity

    @property
    def ledger(self) -> Ledger:
        """The other teacher's."""
        return self._teacher.ledger

    async def open(self) -> None:
        """Reach the server; this does not wait, for a server that never was may be a slip.

        Raises:
            TeacherUnavailable: there is none.
        """
        await self._teacher.open()

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`, as soon as there is a server; see `Teacher.complete`.

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
                    self._lost(error)
                    suspect = error.answering
                continue
            async with self._one_by_one:
                if self._away:
                    await asyncio.sleep(self._again_s)
                elif not suspect:
                    continue
                try:
                    reply = await self._teacher.complete(request, images)
                except TeacherUnavailable as error:
                    self._lost(error)
                    strikes += error.answering
                    if strikes >= STRIKES:
                        told = f"the server went away {STRIKES} times while it had this request"
                        raise TeacherError("server_error", told) from error
                    continue
                except TeacherError:
                    self._found()
                    raise
                self._found()
                return reply

    def _lost(self, error: TeacherUnavailable) -> None:
        if error.lasting:
            raise error
        if str(error) != self._away:
            self._away = str(error)
            self._say(f"{error} Waiting until it is back; Ctrl-C stops, and nothing is lost.")

    def _found(self) -> None:
        if self._away:
            self._away = ""
            self._say("The model server answers again: the run goes on.")

    async def close(self) -> None:
        """Close the other teacher."""
        await self._teacher.close()

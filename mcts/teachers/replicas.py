"""Several servers of one model as one teacher: a tree stays with one, as long as that one is there.

    servers = [OpenAITeacher(url, connect_retries=1) for url in urls]
    teacher = Replicas(servers, say=print)
    await teacher.open()      # TeacherUnavailable: none answers, or they serve different models
    reply = await teacher.complete(request, images)

Prefix caches live in the servers, so what belongs together goes to one place: every request about
the same pictures, and with them every request of a tree. Which server that is follows from the
pictures' ids by rendezvous hashing (Thaler and Ravishankar 1998): no state is shared, and when a
server comes or goes only its own trees move. What a server would have answered another one
answers; the search, its name and its journal know of no servers, so their number and addresses may
change between runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from mcts.data import content_id
from mcts.teachers.base import Ledger, Picture, Reply, Request, TeacherError, TeacherUnavailable
from mcts.teachers.server import OpenAITeacher

CHECK_S = 10.0
"""Seconds in which a server must say what it serves to count as there."""


@dataclass(slots=True)
class _Replica:
    """One of the servers, and whether it can be asked."""

    teacher: OpenAITeacher
    again_at: float | None = None
    """When to look for it again, on the teacher's clock; None while it is there."""
    told: str = ""
    """Why it is away, as said last."""


class Replicas:
    """Servers of one model; see `mcts.teachers.base.Teacher`.

    A server that went away is looked for again after `again_s` seconds, by `clock`. `say` is told,
    in a sentence, when one goes and when it returns.

    Raises:
        ValueError: there are no servers, or two have one address.
    """

    def __init__(
        self,
        teachers: Sequence[OpenAITeacher],
        *,
        again_s: float = 30.0,
        say: Callable[[str], None] = lambda sentence: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not teachers or len({teacher.url for teacher in teachers}) < len(teachers):
            raise ValueError("replicas are one or more servers with addresses of their own")
        self._replicas = [_Replica(teacher) for teacher in teachers]
        self._again_s, self._say, self._clock = again_s, say, clock
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        """The model's, the same whichever and how many the servers are."""
        if self._identity is None:
            raise RuntimeError("the teacher's identity is known only after open()")
        return self._identity

    @property
    def ledger(self) -> Ledger:
        """The sum of what was asked of each; a request that moved counts at both."""
        ledgers = [replica.teacher.ledger for replica in self._replicas]
        sums = {f.name: sum(getattr(one, f.name) for one in ledgers) for f in fields(Ledger)}
        return Ledger(**sums)

    async def open(self) -> None:
        """Find the model on every server; those that do not answer are looked for again later.

        Raises:
            TeacherUnavailable: none of them answers, or they do not serve the same model.
        """
        if self._identity is not None:
            return
        teachers = [replica.teacher for replica in self._replicas]
        results = await asyncio.gather(*(t.open() for t in teachers), return_exceptions=True)
        found: dict[str, str] = {}
        missing: list[tuple[_Replica, TeacherUnavailable]] = []
        for replica, result in zip(self._replicas, results, strict=True):
            if isinstance(result, TeacherUnavailable):
                missing.append((replica, result))
            elif isinstance(result, BaseException):
                raise result
            else:
                found.setdefault(replica.teacher.identity, replica.teacher.url)
        if not found:
            raise self._none_of_them(missing[-1][1])
        if len(found) > 1:
            told = ", ".join(f"{url} serves {identity}" for identity, url in found.items())
            raise TeacherUnavailable(f"Servers of one teacher must serve one model: {told}.")
        self._identity = next(iter(found))
        for replica, error in missing:
            self._lost(replica, error)

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`.

        Raises:
            TeacherUnavailable: none of the servers is there, those given up before included.
        """
        await self.open()
        last: TeacherUnavailable | None = None
        for replica in self._in_turn(place(request)):
            if replica.again_at is not None and not await self._is_back(replica):
                continue
            try:
                return await replica.teacher.complete(request, images)
            except TeacherUnavailable as error:
                last = error
            except TeacherError:
                try:
                    await replica.teacher.served(CHECK_S)
                except TeacherUnavailable as gone:
                    last = gone
                else:
                    raise  # the server has the model: it is this request that fails
            self._lost(replica, last)
        raise self._none_of_them(last)

    def _none_of_them(self, last: TeacherUnavailable | None) -> TeacherUnavailable:
        if last is not None and len(self._replicas) == 1:
            return last
        urls = ", ".join(replica.teacher.url for replica in self._replicas)
        why = f" ({last})" if last else ""
        return TeacherUnavailable(
            f"None of {urls} answers{why}: start one; answers already given are kept."
        )

    def _in_turn(self, key: str) -> list[_Replica]:
        """The servers in the order in which `key` prefers them, those known to be away last."""
        now = self._clock()

        def away(replica: _Replica) -> bool:
            return replica.again_at is not None and replica.again_at > now

        ranked = sorted(self._replicas, key=lambda r: content_id(r.teacher.url, key), reverse=True)
        return sorted(ranked, key=away)

    async def _is_back(self, replica: _Replica) -> bool:
        """Look for a server that went away; it must serve what it served."""
        replica.again_at = self._clock() + self._again_s  # meanwhile the others do not wait for it
        teacher = replica.teacher
        try:
            identity = await teacher.served(CHECK_S)
            if identity != self._identity:
                served = f"{teacher.url} serves {identity}, not {self._identity}"
                raise TeacherUnavailable(served)
        except TeacherUnavailable as error:
            if str(error) != replica.told:
                replica.told = str(error)
                self._say(f"{teacher.url} is still away: {error}")
            return False
        if replica.again_at is not None:
            replica.again_at, replica.told = None, ""
            self._say(f"{teacher.url} answers again: its trees go back to it")
        return True

    def _lost(self, replica: _Replica, error: TeacherUnavailable) -> None:
        if replica.again_at is None:  # of many requests in flight, the first one tells
            url, seconds = replica.teacher.url, self._again_s
            self._say(f"{url} is away, its trees move; tried again in {seconds:g} s ({error})")
        replica.again_at = self._clock() + self._again_s

    async def close(self) -> None:
        """Close the connections to all of them."""
        await asyncio.gather(*(replica.teacher.close() for replica in self._replicas))


def place(request: Request) -> str:
    """What decides where a request goes: the question's pictures, or its text if it has none.

    Crops shown later in a dialogue do not count, or a branch would wander from server to server.
    """
    first = next((m for m in request.messages if m.role == "user"), request.messages[0])
    shown = [part.image_id for part in first.parts if isinstance(part, Picture)]
    return content_id(*shown) if shown else content_id(first.text)

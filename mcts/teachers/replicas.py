"""Several servers of one model as one teacher; a tree stays with one server while that is up.

    servers = [OpenAITeacher(url, connect_retries=1) for url in urls]
    teacher = Replicas(servers, report=print)
    await teacher.open()      # TeacherUnavailable: none answers, or they serve different models
    reply = await teacher.complete(request, images)

Prefix caches live in the servers, so all requests about the same images, and thus all requests of
a tree, go to one server. Rendezvous hashing of the image ids chooses it (Thaler and Ravishankar
1998): no state is shared, and when a server comes or goes only its own trees move. Search ids and
journals do not name servers, so their number and addresses may change between runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mcts.data import content_id
from mcts.teachers.base import ImagePart, Ledger, Reply, Request, TeacherError, TeacherUnavailable
from mcts.teachers.openai_client import OpenAITeacher

CHECK_S = 10.0
"""Seconds within which a server must name its model to count as up."""
OPEN_S = 60.0
"""The same at the start, where it may be under load: the others are not kept waiting longer."""
MOST_SUSPECTED_S = 3600.0
"""Seconds after which a server that took requests and did not answer is tried again, at most."""


@dataclass(slots=True)
class _Replica:
    """One of the servers, and whether it is up."""

    teacher: OpenAITeacher
    retry_at: float | None = None
    """When to try it again, on the teacher's clock; None while it is up."""
    listed: bool = True
    """Whether it is still one of the model's servers."""
    reported: str = ""
    """Why it is down, as last reported."""
    silences: int = 0
    """How often it took a request and did not answer in time, where another server did; 0 after an
    answer."""


class Replicas:
    """Servers of one model; see `mcts.teachers.base.Teacher`.

    A server that went down is tried again after `retry_s` seconds by `clock`. One that does not
    answer a request in time that another server answers is suspected: it is tried again with one
    request at a time, after `retry_s`, and twice as long each time it stays silent. `report`
    receives a sentence when a server goes down and when it returns. Where addresses change, `find`
    makes a client for each server there is now: it is called when one is down, each `retry_s` at
    most.

    Raises:
        ValueError: there are no servers, or two have the same address.
    """

    def __init__(
        self,
        teachers: Sequence[OpenAITeacher],
        *,
        retry_s: float = 30.0,
        report: Callable[[str], None] = lambda sentence: None,
        clock: Callable[[], float] = time.monotonic,
        find: Callable[[], Sequence[OpenAITeacher]] | None = None,
    ) -> None:
        if not teachers or len({teacher.url for teacher in teachers}) < len(teachers):
            raise ValueError("replicas are one or more servers with different addresses")
        self._replicas = [_Replica(teacher) for teacher in teachers]
        self._retry_s, self._report, self._clock = retry_s, report, clock
        self._find, self._find_at = find, clock()
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        """The model's identity, the same for every server."""
        if self._identity is None:
            raise RuntimeError("the teacher's identity is available only after open()")
        return self._identity

    @property
    def ledger(self) -> Ledger:
        """The sum over the servers; a request that moved counts at both."""
        return Ledger.total(replica.teacher.ledger for replica in self._replicas)

    async def open(self) -> None:
        """Find the model on every server; those that do not answer are tried again later.

        Raises:
            TeacherUnavailable: none of them answers, or they do not serve the same model.
        """
        if self._identity is not None:
            return
        teachers = [replica.teacher for replica in self._replicas]
        results = await asyncio.gather(*map(_reach, teachers), return_exceptions=True)
        urls: dict[str, str] = {}  # of one server, by the identity it serves
        missing: list[tuple[_Replica, TeacherUnavailable]] = []
        for replica, result in zip(self._replicas, results, strict=True):
            if isinstance(result, TeacherUnavailable):
                missing.append((replica, result))
            elif isinstance(result, BaseException):
                raise result
            else:
                urls.setdefault(replica.teacher.identity, replica.teacher.url)
        if not urls:
            raise self._all_down([error for _, error in missing])
        if len(urls) > 1:
            served = ", ".join(f"{url} serves {identity}" for identity, url in urls.items())
            raise TeacherUnavailable(f"Servers of one teacher must serve one model: {served}.")
        self._identity = next(iter(urls))
        for replica, error in missing:
            self._mark_down(replica, error)

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`.

        Raises:
            TeacherUnavailable: none of the servers is up, those known to be down included.
        """
        await self.open()
        await self._look()
        lost: list[TeacherUnavailable] = []
        late: tuple[_Replica, bool, TeacherError] | None = None
        for replica in self._ranked(affinity_key(request)):
            again = replica.retry_at is not None
            if again and not await self._is_back(replica):
                continue
            try:
                reply = await replica.teacher.complete(request, images)
            except TeacherUnavailable as error:
                lost.append(error)
            except TeacherError as error:
                if late or error.kind != "timeout":
                    await self._raise_unless_gone(replica, error, lost)
                else:  # the request's own, or the server's: another one decides
                    late = replica, again, error
                    continue
            else:
                self._mark_answering(replica)
                if late:
                    self._suspect(*late)
                return reply
            self._mark_down(replica, lost[-1])
        if late:
            raise late[2]
        raise self._all_down(lost)

    async def _raise_unless_gone(
        self, replica: _Replica, failure: TeacherError, lost: list[TeacherUnavailable]
    ) -> None:
        """Raise a request's failure, unless its server has not got the model: then note that."""
        try:
            await replica.teacher.served_identity(CHECK_S)
        except TeacherUnavailable as gone:
            gone.in_flight = True
            lost.append(gone)
        else:
            raise failure

    def _all_down(self, lost: Sequence[TeacherUnavailable]) -> TeacherUnavailable:
        """Say that no server answers.

        Args:
            lost: why those do not that were asked just now.
        """
        if lost and len(self._replicas) == 1:
            return lost[-1]
        urls = ", ".join(replica.teacher.url for replica in self._replicas if replica.listed)
        why = f" ({lost[-1]})" if lost else ""
        return TeacherUnavailable(
            f"None of {urls} answers{why}: start one; answers already given are kept.",
            in_flight=any(error.in_flight for error in lost),
            permanent=len(lost) == len(self._replicas) and all(e.permanent for e in lost),
        )

    def _ranked(self, key: str) -> list[_Replica]:
        """Return the servers in the order of preference of `key`, those known to be down last."""
        now = self._clock()

        def down(replica: _Replica) -> bool:
            return replica.retry_at is not None and replica.retry_at > now

        listed = [replica for replica in self._replicas if replica.listed]
        ranked = sorted(listed, key=lambda r: content_id(r.teacher.url, key), reverse=True)
        return sorted(ranked, key=down)

    async def _look(self) -> None:
        """Learn new addresses while a server is down."""
        now = self._clock()
        down = any(replica.listed and replica.retry_at is not None for replica in self._replicas)
        if self._find is None or not down or now < self._find_at:
            return
        self._find_at = now + self._retry_s
        found = {teacher.url: teacher for teacher in await asyncio.to_thread(self._find)}
        if not found:  # it is being started again
            return
        for replica in self._replicas:
            replica.listed = replica.teacher.url in found
            found.pop(replica.teacher.url, None)
        # New ones are tried like those that were down: they must serve the same model.
        self._replicas += [_Replica(teacher, retry_at=now) for teacher in found.values()]

    async def _is_back(self, replica: _Replica) -> bool:
        """Try a server that was down; it must serve the same model."""
        replica.retry_at = (
            self._clock() + self._retry_s
        )  # meanwhile other requests do not wait for it
        teacher = replica.teacher
        try:
            identity = await teacher.served_identity(CHECK_S)
            if identity != self._identity:
                served = f"{teacher.url} serves {identity}, not {self._identity}"
                raise TeacherUnavailable(served)
        except TeacherUnavailable as error:
            if str(error) != replica.reported:
                replica.reported = str(error)
                self._report(f"{teacher.url} is still down: {error}")
            return False
        if not replica.silences:  # else an answer is to show it
            self._mark_answering(replica)
        return True

    def _mark_answering(self, replica: _Replica) -> None:
        if replica.retry_at is not None:
            replica.retry_at, replica.reported = None, ""
            self._report(f"{replica.teacher.url} answers again: its trees go back to it")
        replica.silences = 0

    def _suspect(self, replica: _Replica, again: bool, failure: TeacherError) -> None:
        """Send no more to a server that was silent where another one answered, for some time.

        Args:
            again: whether it was under suspicion already, and this was to show what it does.
        """
        if replica.retry_at is None:
            self._report(
                f"{replica.teacher.url} took a request that another server answered, and was "
                f"silent ({failure.message}): its trees move"
            )
        elif not again:  # one of many that were in flight
            return
        seconds = min(self._retry_s * 2**replica.silences, MOST_SUSPECTED_S)
        replica.silences += 1
        replica.retry_at = self._clock() + seconds

    def _mark_down(self, replica: _Replica, error: TeacherUnavailable) -> None:
        if replica.retry_at is None:  # the first of many requests in flight reports it
            url, seconds = replica.teacher.url, self._retry_s
            self._report(f"{url} is down, its trees move; tried again in {seconds:g} s ({error})")
        replica.retry_at = self._clock() + self._retry_s

    async def close(self) -> None:
        """Close the connections to all of them."""
        await asyncio.gather(*(replica.teacher.close() for replica in self._replicas))


async def _reach(teacher: OpenAITeacher) -> None:
    """Find the model on a server.

    Raises:
        TeacherUnavailable: it does not answer, or not within `OPEN_S`.
    """
    try:
        async with asyncio.timeout(OPEN_S):
            await teacher.open()
    except TimeoutError:
        raise TeacherUnavailable(
            f"{teacher.url} does not list its models within {OPEN_S:g} s."
        ) from None


def affinity_key(request: Request) -> str:
    """Return what decides a request's server: the question's images, or its text without any.

    Crops shown later in a dialogue do not count, or a branch would move between servers.
    """
    first = next((m for m in request.messages if m.role == "user"), request.messages[0])
    shown = [part.image_id for part in first.parts if isinstance(part, ImagePart)]
    return content_id(*shown) if shown else content_id(first.text)

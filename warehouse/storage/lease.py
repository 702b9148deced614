"""A lease: one process at a time does a piece of work, on any machine that shares the warehouse.

    with take_lease(warehouse, "retrain/sat2"):
        ...                                    # nobody else is in here; LeaseHeld if somebody was

A lease is a row of small objects, one a term, named by the term's number. A term is begun by
writing the next number, which an object store grants to one writer only, and ends at a time that is
written in it. Its holder begins another well before that; who finds a term that has ended, or a
holder on this machine whose process is gone, begins the next. So a holder that was killed blocks
nobody for longer than a term. Nothing is overwritten: stores that only put what is absent will do.
Old terms are deleted, so that a put which a store delayed may get a number of long ago: who has put
a term holds the lease only if it is the newest then. A holder that was away for a whole term may
find another's; it renews no more, and its lease says so.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from warehouse.storage.home import Warehouse, WarehouseError

TERM_S = 120.0
"""Seconds a term lasts: about as long as a holder may be silent before another takes over."""
_RENEWALS = 4
"""Terms begun in the time of one."""


class LeaseHeld(WarehouseError):
    """Somebody else holds the lease; the sentence says who, and until when."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a lease, as it is stored."""

    holder: str
    """A unique name of the holding process."""
    host: str
    pid: int
    ends: float
    """Unix time."""

    place: str = ""
    """Where its process number means that process (see `_here`)."""
    started: str = ""
    """When its process was started, in the kernel's words; a number is given again."""

    @property
    def over(self) -> bool:
        """Whether another holder may begin."""
        return time.time() >= self.ends or (self.place == _here() and self._gone())

    def _gone(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _started(self.pid) != self.started


@cache
def _here() -> str:
    """Name what shares this process's numbers: the host, its boot, and there its container."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # there is none where containers are another system's
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the boot; empty where nothing says so."""
    with suppress(OSError, IndexError):
        # Behind the command in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


@contextmanager
def take_lease(
    warehouse: Warehouse, name: str, term_s: float = TERM_S, *, once: bool = False
) -> Iterator[threading.Event]:
    """Hold the lease `name` while the block runs; yield what is set if another takes it over.

    Args:
        name: its place below the warehouse, such as `retrain/sat2`.
        once: the work is done for good when the block ends without an error; whoever comes later
            finds it done, so that no term need be kept.

    Raises:
        LeaseHeld: somebody holds it.
    """
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _begin(warehouse, name, holder, term_s)
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(term_s / _RENEWALS):
            try:
                _begin(warehouse, name, holder, term_s)
            except LeaseHeld:
                lost.set()
                return
            except Exception:  # a store that is away comes back within the term
                continue

    keeper = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
    keeper.start()
    finished = False
    try:
        yield lost
        finished = True
    finally:
        done.set()
        keeper.join()
        _release(warehouse, name, holder, for_good=finished and once)


def current(warehouse: Warehouse, name: str) -> tuple[int, Term | None]:
    """Return the number of the newest term and the term; 0 and None before the first."""
    keys = warehouse.objects.keys(_folder(name))
    if not keys:
        return 0, None
    newest = max(keys)
    number = int(newest.rpartition("/")[2].partition(".")[0])
    try:
        return number, Term(**json.loads(warehouse.objects.get(newest)))
    except KeyError:  # forgotten by its holder since it was listed
        return number, None


def _begin(warehouse: Warehouse, name: str, holder: str, term_s: float) -> None:
    """Begin the next term.

    Raises:
        LeaseHeld: another holder's has not ended, or another began first.
    """
    number, term = current(warehouse, name)
    if term is not None and term.holder != holder and not term.over:
        left = max(0.0, term.ends - time.time())
        raise LeaseHeld(
            f"{name} is being worked on by process {term.pid} of {term.host}; if that is gone, "
            f"try again in {left:.0f} s"
        )
    _put(warehouse, name, number + 1, holder, time.time() + term_s)
    # The newest term decides. The put may have come late, at a number that is free again; or it
    # was repeated by the store's client, and the repetition refused.
    _, newest = current(warehouse, name)
    if newest is None or newest.holder != holder:
        raise LeaseHeld(f"{name} was begun by another process at this moment")
    _forget(warehouse, name)


def _release(warehouse: Warehouse, name: str, holder: str, for_good: bool) -> None:
    """End the holder's term; another's that began when it was over goes on.

    Args:
        for_good: the lease is needed no more, so that its terms are deleted.
    """
    number, term = current(warehouse, name)
    if term is None or term.holder != holder:
        return
    if for_good:
        for key in warehouse.objects.keys(_folder(name)):
            warehouse.objects.delete(key)
    else:
        _put(warehouse, name, number + 1, holder, ends=0.0)
        _forget(warehouse, name)


def _put(warehouse: Warehouse, name: str, number: int, holder: str, ends: float) -> None:
    pid = os.getpid()
    term = Term(holder, socket.gethostname(), pid, ends, _here(), _started(pid))
    data = json.dumps(asdict(term)).encode()
    warehouse.objects.put(f"{_folder(name)}/{number:09d}.json", data)


def _forget(warehouse: Warehouse, name: str) -> None:
    """Delete all terms but the newest, which holds the count."""
    for key in sorted(warehouse.objects.keys(_folder(name)))[:-1]:
        warehouse.objects.delete(key)


def _folder(name: str) -> str:
    return f"{name}/lease"

"""A lease: one at a time, also after its holder was killed, and never two of those who race."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from botocore.exceptions import EndpointConnectionError

from warehouse.storage import lease
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import LeaseHeld, Term, current, take_lease


@pytest.fixture
def home(tmp_path):
    return Warehouse.at(str(tmp_path))


def test_a_lease_is_held_by_one_and_free_again_afterwards(home):
    with take_lease(home, "retrain/sat2"):
        with (
            pytest.raises(LeaseHeld, match=f"process {os.getpid()} of"),
            take_lease(home, "retrain/sat2"),
        ):
            pytest.fail("two hold it")
        with take_lease(home, "retrain/vstar"):
            pass
    with take_lease(home, "retrain/sat2"):
        pass


def test_who_holds_it_and_for_how_long_is_told(home):
    elsewhere = Term("h", "another-host", 17, time.time() + 60)
    home.objects.put("work/lease/000000001.json", json.dumps(asdict(elsewhere)).encode())
    told = r"process 17 of another-host; if that is gone, try again in (59|60) s"
    with pytest.raises(LeaseHeld, match=told), take_lease(home, "work"):
        pytest.fail("it is held")


def test_an_error_inside_gives_it_back(home):
    with pytest.raises(ZeroDivisionError), take_lease(home, "work"):
        _ = 1 / 0
    with take_lease(home, "work"):
        pass


def test_of_those_who_race_one_wins(home):
    def take(number):
        try:
            with take_lease(home, "work"):
                time.sleep(0.5)
                return number
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(take, range(8)) if number is not None]
    assert len(won) == 1


def test_a_holder_that_was_killed_blocks_nobody(home):
    code = (
        "import sys, time; from warehouse.storage.home import Warehouse;"
        "from warehouse.storage.lease import take_lease;"
        "lease = take_lease(Warehouse.at(sys.argv[1]), 'work'); lease.__enter__();"
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, home.root], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseHeld), take_lease(home, "work"):
        pass
    holder.kill()
    holder.wait()
    with take_lease(home, "work"):
        pass


def test_a_term_on_another_machine_ends_when_it_says(home):
    elsewhere = Term("h", "another-host", 1, time.time() + 60)
    assert not elsewhere.over
    assert Term("h", "another-host", 1, time.time() - 1).over


def test_a_long_piece_of_work_renews_its_term_and_leaves_no_heap_behind(home):
    with take_lease(home, "work", term_s=0.4):
        time.sleep(1.0)
        number, term = current(home, "work")
        assert number > 3 and not term.over
        with pytest.raises(LeaseHeld), take_lease(home, "work"):
            pass
    assert len(home.objects.keys("work/lease")) == 1


def test_whoever_is_turned_away_is_told_by_whom_and_how_long(home):
    assert current(home, "work") == (0, None)
    with take_lease(home, "work"):
        number, term = current(home, "work")
        assert (number, term.pid, term.host) == (1, os.getpid(), socket.gethostname())
        assert 100 < term.ends - time.time() <= 120 and not term.over
        sentence = r"^work is being worked on by process \d+ of .*; if that is gone, try again"
        with pytest.raises(LeaseHeld, match=sentence) as told:
            lease._begin(home, "work", "other", 60.0)
        assert 100 < float(str(told.value).rpartition(" in ")[2].removesuffix(" s")) <= 120
        lease._begin(home, "work", term.holder, 60.0)
        assert current(home, "work")[0] == 2, "its own it may renew"
    number, term = current(home, "work")
    assert (number, term.ends, term.over) == (3, 0.0, True), "the count goes on, and it is free"


def test_who_begins_second_at_the_same_moment_is_turned_away(home, monkeypatch):
    lease._begin(home, "work", "first", 60.0)
    seen = [(0, None)]  # as it was before
    monkeypatch.setattr(lease, "current", lambda *given: seen.pop() if seen else current(*given))
    with pytest.raises(LeaseHeld, match="work was begun by another process at this moment"):
        lease._begin(home, "work", "second", 60.0)
    monkeypatch.undo()
    assert current(home, "work")[1].holder == "first"


def test_a_term_of_this_machine_ends_with_its_process():
    here, ends = lease._here(), time.time() + 60

    def term(pid, place=here, started=None):
        started = lease._started(pid) if started is None else started
        return Term("h", socket.gethostname(), pid, ends, place, started)

    assert not term(os.getpid()).over
    assert not term(1).over, "one of somebody else is alive, too"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert term(gone.pid).over
    assert term(os.getpid(), started="1").over, "another process has its number now"
    assert not term(gone.pid, "another place").over
    assert not Term("h", socket.gethostname(), gone.pid, ends).over, "nothing says where that is"


def test_where_a_process_number_means_something_else_is_another_place(monkeypatch):
    place = lease._here()
    lease._here.cache_clear()
    monkeypatch.setattr(lease.os, "readlink", lambda path: "pid:[another container]")
    assert lease._here() != place
    lease._here.cache_clear()


@pytest.mark.parametrize("renewals", [1, 6])
def test_a_put_that_comes_late_at_a_number_that_is_free_again_holds_nothing(home, renewals):
    class Late:
        """Puts after others have begun terms of their own."""

        def __getattr__(self, name):
            return getattr(home.objects, name)

        def put(self, key, data):
            for _ in range(renewals):
                lease._begin(home, "work", "other", 60.0)
            return home.objects.put(key, data)

    late = Warehouse(home.root)
    late.__dict__["objects"] = Late()
    with pytest.raises(LeaseHeld, match="begun by another"), take_lease(late, "work"):
        pytest.fail("two hold it")
    assert current(home, "work")[1].holder == "other"


def test_a_put_whose_answer_was_lost_counts(home):
    class Repeating:
        def __getattr__(self, name):
            return getattr(home.objects, name)

        def put(self, key, data):
            home.objects.put(key, data)
            return home.objects.put(key, data)  # as a client does that heard nothing

    repeating = Warehouse(home.root)
    repeating.__dict__["objects"] = Repeating()
    with take_lease(repeating, "work"), pytest.raises(LeaseHeld), take_lease(home, "work"):
        pytest.fail("it is held")


def test_a_holder_whose_lease_was_taken_over_is_told_and_takes_it_back_from_nobody(home):
    with take_lease(home, "work", term_s=0.8) as lost:
        number, _ = current(home, "work")
        other = Term("other", "another-host", 1, time.time() + 0.5)
        key = f"work/lease/{number + 5:09d}.json"
        home.objects.put(key, json.dumps(asdict(other)).encode())
        assert lost.wait(10)
        time.sleep(1.0)  # the other's term is over
        assert current(home, "work")[1] == other


def test_one_failed_renewal_ends_no_lease(home, monkeypatch):
    begin, failed = lease._begin, []

    def fails_once(*arguments):
        if threading.current_thread().name.startswith("lease ") and not failed:
            failed.append(True)
            raise EndpointConnectionError(endpoint_url="http://store")  # no OSError
        begin(*arguments)

    monkeypatch.setattr(lease, "_begin", fails_once)
    with take_lease(home, "work", term_s=0.8):
        time.sleep(1.2)
        assert failed and not current(home, "work")[1].over
        with pytest.raises(LeaseHeld), take_lease(home, "work"):
            pytest.fail("its holder is still in it")


@pytest.mark.parametrize("once", [False, True])
def test_a_holder_whose_term_was_over_ends_nobody_elses(home, once):
    with take_lease(home, "work", term_s=1000, once=once):  # no renewal comes meanwhile
        number, _ = current(home, "work")
        other = Term("other", "another-host", 1, time.time() + 100)
        key = f"work/lease/{number + 1:09d}.json"
        home.objects.put(key, json.dumps(asdict(other)).encode())
    assert current(home, "work")[1] == other
    with pytest.raises(LeaseHeld, match="of another-host"), take_lease(home, "work"):
        pytest.fail("another holds it")


def test_a_term_that_cannot_be_read_is_not_taken_for_none(home, monkeypatch):
    def fails(self, key):
        raise OSError(5, "Input/output error")

    with take_lease(home, "work", term_s=1000):
        with monkeypatch.context() as patch:
            patch.setattr(type(home.objects), "get", fails)
            with pytest.raises(OSError, match="Input/output"), take_lease(home, "work"):
                pytest.fail("it is held")
        assert current(home, "work")[0] == 1

"""A build's journal in the warehouse's store: what another machine has of it, on disk and on S3."""

from pathlib import Path

import pytest

from mcts.journal.journal import Journal, JournalError
from mcts.journal.segments import purge
from tests.mcts.test_journal import found, record
from tests.warehouse.test_objects import s3, warehouse
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import LocalObjects

__all__ = ["s3", "warehouse"]


async def test_a_journal_in_a_store_goes_on_on_another_machine(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    objects = warehouse.objects
    here, there = tmp_path / "here", tmp_path / "there"
    with Journal(here, store=objects) as journal:
        await journal.append(record(0))
        await journal.append(record(1))
        with Journal(there, store=objects) as other:  # this machine may be lost any moment
            assert other.find(record(0).key, "f" * 32) and other.find(record(1).key, "f" * 32)
            await journal.append(record(2))
            await other.refresh()
            assert other.find(record(2).key, "f" * 32) == record(2)
    (whole,) = objects.keys("journal")
    assert whole == f"journal/{next(here.glob('*.jsonl')).name}", "parts are one object at the end"
    with Journal(there, store=objects) as again, Journal(tmp_path / "new", store=objects) as new:
        for journal in (again, new):
            assert [r.key.sample for r in journal.records("s1")] == [0, 1, 2]
            assert not journal.damage


async def test_what_is_purged_is_gone_from_the_store_too(
    tmp_path: Path, warehouse: Warehouse
) -> None:
    objects = warehouse.objects
    with Journal(tmp_path / "here", store=objects) as journal:
        await journal.append(record(0))
        await journal.append(record(0, search="s2"))
    assert purge(tmp_path / "there", {"s1"}, objects) == 1
    with Journal(tmp_path / "new", store=objects) as journal:
        assert journal.find(record(0).key, "f" * 32) is None
        assert journal.find(record(0, search="s2").key, "f" * 32)


async def test_a_store_that_refuses_is_told_and_the_answer_stays_here(tmp_path: Path) -> None:
    class Refusing(LocalObjects):
        def put(self, key: str, data: bytes) -> bool:
            raise PermissionError("access denied")

    told = pytest.raises(JournalError, match=r"the store did not take journal/.*access denied")
    with Journal(tmp_path / "here", store=Refusing(tmp_path / "store")) as journal, told:
        await journal.append(record(0))
    assert found(tmp_path / "here", record(0)) == [True]

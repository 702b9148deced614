"""A build's journal in the warehouse's store: what another machine has of it, on disk and on S3."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcts.journal.journal import Journal, JournalError
from mcts.journal.segments import fetch, purge
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


async def test_a_purge_that_broke_off_at_the_store_is_finished_by_the_next(
    tmp_path: Path,
) -> None:
    class Away(LocalObjects):
        def put_file(self, key: str, path: Path, replace: bool = False) -> bool:
            raise OSError("503")

    folder, objects = tmp_path / "here", LocalObjects(tmp_path / "store")
    with Journal(folder, store=objects) as journal:
        await journal.append(record(0))
        await journal.append(record(0, search="s2"))
    (folder / f".{next(folder.glob('*.jsonl')).name}.1f").write_text("half a copy")
    with pytest.raises(OSError, match="503"):
        purge(folder, {"s1"}, Away(objects.root))
    assert purge(folder, {"s1"}, objects) == 1
    data = [objects.get(key) for key in objects.keys("journal")]
    data += [path.read_bytes() for path in folder.iterdir()]
    assert len(data) == 2 and not any(b" s1 " in text for text in data)


def test_those_who_fetch_into_one_folder_at_once_all_have_it_all(tmp_path: Path) -> None:
    names = [f"journal/{n:020d}-1-abc.jsonl" for n in range(20)]
    together = threading.Barrier(2)

    class Store(LocalObjects):
        def keys(self, prefix: str) -> list[str]:
            together.wait(30)
            return names

        def get(self, key: str) -> bytes:
            time.sleep(0.001)
            return b"x" * 100_000

    store = Store(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: fetch(tmp_path, store), range(2)))
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [100_000] * 20


def test_a_part_whose_segment_is_closed_meanwhile_is_fetched_with_it(tmp_path: Path) -> None:
    class Closing(LocalObjects):
        def get(self, key: str) -> bytes:
            if key.count("-") == 3 and self.put("journal/1-1-a.jsonl", b"whole"):
                self.delete(key)
            return super().get(key)

    store = Closing(tmp_path / "store")
    store.put("journal/1-1-a-000000000000.jsonl", b"part")
    (tmp_path / "here").mkdir()
    fetch(tmp_path / "here", store)
    assert [path.read_bytes() for path in (tmp_path / "here").iterdir()] == [b"whole"]


async def test_a_store_that_refuses_is_told_and_the_answer_stays_here(tmp_path: Path) -> None:
    class Refusing(LocalObjects):
        def put(self, key: str, data: bytes) -> bool:
            raise PermissionError("access denied")

    told = pytest.raises(JournalError, match=r"the store did not take journal/.*access denied")
    with Journal(tmp_path / "here", store=Refusing(tmp_path / "store")) as journal, told:
        await journal.append(record(0))
    assert found(tmp_path / "here", record(0)) == [True]

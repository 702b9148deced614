"""What every test shares: no network hub, a thread a process, short waits, no curves left."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run a process a core: more threads of so small models would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="vigorl-tests-")

import pytest
from hypothesis import settings

SHARED = Path(os.environ["TRACKIO_DIR"])
"""What the tests of this process share, curves among it: removed behind the last one."""

settings.register_profile("vigorl", deadline=None, derandomize=True)
settings.load_profile("vigorl")


@pytest.fixture(scope="session", autouse=True)
def short_waits() -> None:
    """Ask a server that failed again at once: as often as for users, without their pauses."""
    from mcts.teachers.openai_client import OpenAITeacher

    OpenAITeacher.__init__.__kwdefaults__["backoff_s"] = 0.01


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: more of so small a model would mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: many a test waits for processes of its own."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_finish() -> None:
    """Leave what was imported out of later searches for garbage: each training asks for some."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    gc.unfreeze()  # what is still there at the end is reported as lost
    shutil.rmtree(SHARED, ignore_errors=True)

"""Runs tests in processes that are forked with the large libraries loaded, which saves most time.

with WarmTests(tree) as tests:
    tests.run(["-x", "tests/mcts/test_tree.py"], seconds=60)    # 0: they pass; None: no end
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LIBRARIES = (
    "pytest", "hypothesis", "PIL.Image", "numpy", "pyarrow.parquet", "pyarrow.dataset", "duckdb",
    "deltalake", "pydantic", "aiohttp", "boto3", "prefect", "torch", "datasets", "peft",
    "transformers.models.qwen3_vl.modeling_qwen3_vl", "trl.trainer.sft_trainer",
    "trl.trainer.grpo_trainer",
)  # fmt: skip
"""Nothing of the tree: that is loaded in each process, changed or not."""


class WarmTests:
    """A process that forks one child for each run of tests in a copy of the tree."""

    def __init__(self, tree: Path, libraries: tuple[str, ...] = LIBRARIES) -> None:
        settings = {
            "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *libraries], cwd=tree, env={**os.environ, **settings},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def __enter__(self) -> WarmTests:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, arguments: list[str], seconds: float) -> int | None:
        """Run pytest; return its exit status, or None where it did not end in time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, seconds]) + "\n")
        self._process.stdin.flush()
        code: int | None = json.loads(self._process.stdout.readline())
        return code


def _serve() -> None:
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_run_forked(*json.loads(line))), flush=True)


def _run_forked(arguments: list[str], seconds: float) -> int | None:
    import pytest

    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            os._exit(pytest.main(arguments))
        finally:
            os._exit(1)
    code, end = None, time.monotonic() + seconds
    while code is None and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and whatever its tests left running
    if code is None:
        os.kill(child, signal.SIGKILL)  # before its setsid there is no such group
        os.waitpid(child, 0)
    return code


if __name__ == "__main__":
    _serve()

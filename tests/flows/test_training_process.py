"""A training as a process of its own: what is told of it, and that it is never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import artifacts, training_process
from flows.orchestration.training_process import train_in_process, train_shown
from flows.settings import SftSettings
from flows.settings_base import Problem
from tests.flows.test_supervise import is_gone
from training.errors import TrainingError
from training.runs import runs_folder
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new


class Prefect:
    """What Prefect was given to show."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.tables: list[dict[str, Any]] = []
        self.emitted: list[str] = []
        for name in ("acreate_progress_artifact", "aupdate_progress_artifact"):
            monkeypatch.setattr(training_process, name, self.progress)
        monkeypatch.setattr(training_process, "acreate_table_artifact", self.table)
        told = staticmethod(self.lines.append)
        log = type("Log", (), {"info": told, "warning": told})
        for module in (training_process, artifacts):
            monkeypatch.setattr(module, "get_run_logger", lambda: log)
        monkeypatch.setattr(
            training_process.events, "emit_trained", lambda row: self.emitted.append(row["name"])
        )

    async def progress(self, *_: object, **__: object) -> str:
        return "artifact"

    async def table(self, rows: Any, **given: Any) -> None:
        self.tables.append({"rows": rows, **given})


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    return Prefect(monkeypatch)


def line(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import sys; print('some', flush=True); sys.exit('vigorl: no such recipe')",
            "no such recipe",
        ),
        ("raise SystemExit(3)", "the training ended with status 3"),
        ("print('nothing was made')", "nothing was made"),
        ("print('model mine (m)'); raise SystemExit(1)", "model mine \\(m\\)"),
    ],
)
async def test_a_training_that_fails_is_told_by_its_last_line(
    prefect: Prefect, code: str, sentence: str
) -> None:
    with pytest.raises(Problem, match=f"^{sentence}$"):
        await training_process._run(line(code))


@pytest.mark.parametrize("away", ["acreate_progress_artifact", "aupdate_progress_artifact"])
async def test_a_training_goes_on_where_its_progress_cannot_be_shown(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr(training_process, away, fails)
    code = "print('step 1 of 2'); print('step 2 of 2'); print('model mine (m)')"
    assert await training_process._run(line(code)) == "mine"
    assert "the progress could not be shown: no server" in prefect.lines
    assert prefect.lines[-1] == "model mine (m)"


async def test_a_training_may_print_a_line_of_any_length(prefect: Prefect) -> None:
    code = "print('x' * 300_000); print('model mine (m)'); print('no newline', end='')"
    assert await training_process._run(line(code)) == "mine"
    long, *others = prefect.lines
    assert set(long) == {"x"} and len(long) == training_process._LONGEST_LINE
    assert others == ["model mine (m)", "no newline"]


async def test_a_training_whose_flow_is_cancelled_is_stopped(
    prefect: Prefect, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    running = asyncio.create_task(training_process._run(line(code)))
    while not note.exists() or not note.read_text():
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_gone(int(note.read_text()))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: Prefect) -> SftSettings:
    """The settings of a training that made a model, whose run is replaced by its end."""
    home = Warehouse(str(tmp_path / "home"))
    row = {
        "model_id": "my.model@1", "name": "my.model", "base": "b@0", "dataset": "d@v1",
        "path": "models/m", "recipe": '{"kind": "sft"}', "run_id": "r",
        "metrics": json.dumps({"steps": 2, "loss": 0.5}),
    }  # fmt: skip
    insert_new(home, "models", [row])
    folder = runs_folder(home) / "my.model-1"
    folder.mkdir(parents=True)
    logged = [{"step": 1}, {"step": 2, "loss": 0.9}, {"step": 3, "loss": 0.5}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))

    async def ran(words: list[str]) -> str:
        assert words[1:5] == ["-m", "flows.cli", "train", "sft"]
        return os.environ.get("MADE", "my.model")

    monkeypatch.setattr(training_process, "_run", ran)
    return SftSettings.checked(recipe="nano-sft", dataset="d@v1", home=home.root)


async def test_a_trained_model_is_shown_and_announced(
    trained: SftSettings, prefect: Prefect
) -> None:
    assert await train_in_process(trained) == "my.model: 2 steps, from b@0"
    assert prefect.emitted == ["my.model"]
    (table,) = prefect.tables
    assert (table["key"], table["description"]) == ("training-my-model", "my.model@1")
    assert table["rows"] == [
        {"figure": "loss", "first": 0.9, "last": 0.5},
        {"figure": "steps", "first": None, "last": 2},
    ]


async def test_a_trained_model_is_announced_where_its_figures_cannot_be_shown(
    trained: SftSettings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr(training_process, "acreate_table_artifact", fails)
    assert await train_in_process(trained) == "my.model: 2 steps, from b@0"
    assert prefect.emitted == ["my.model"]
    assert prefect.lines == ["the figures could not be shown: no server"]


async def test_a_training_that_is_not_worth_it_yet_is_not_begun(
    trained: SftSettings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        training_process, "too_few_rows", lambda *given: asked.append(given[2]) or "too few"
    )
    assert await train_in_process(trained, 100) == "too few"
    assert asked == [100] and prefect.lines == ["too few"] and not prefect.emitted
    bad = trained.model_copy(update={"recipe": "no-such-recipe"})
    with pytest.raises(TrainingError, match="there is no recipe 'no-such-recipe'"):
        await train_in_process(bad, 100)
    assert asked == [100], "a bad recipe is reported first"


async def test_a_model_that_is_not_stored_is_told(
    trained: SftSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MADE", "lost")
    with pytest.raises(Problem, match="the training made lost, which is not in the warehouse"):
        await train_shown(trained)

"""What Prefect is given to show of a run: its progress, a table of figures, one of its traces."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.cache_policies import NO_CACHE

from flows import evaluate_model as evaluating
from flows import retrain as retraining
from flows.orchestration import artifacts
from flows.orchestration.artifacts import FlowProgress, as_task, show_summary
from flows.stages.curate import Summary


class Log:
    """What a run's log was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)

    warning = info


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The shares that Prefect was sent."""
    shares: list[float] = []

    async def update(artifact: object, progress: float) -> None:
        shares.append(progress)

    monkeypatch.setattr(artifacts, "aupdate_progress_artifact", update)
    return shares


async def test_progress_begins_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[float, str]] = []

    async def create(progress: float, description: str) -> Any:
        made.append((progress, description))
        return uuid4()

    monkeypatch.setattr(artifacts, "acreate_progress_artifact", create)
    monkeypatch.setattr(artifacts, "get_run_logger", Log)
    assert isinstance(await FlowProgress.begun("build-traces/sat2"), FlowProgress)
    assert made == [(0.0, "build-traces/sat2: trees searched")]


async def test_a_share_is_sent_now_and_then_and_at_the_end(
    sent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, log = [1000.0], Log()
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: now[0])
    progress = FlowProgress("build", uuid4(), log)
    progress.start(8, 2, None)
    await progress.flush()
    assert sent == [25.0]
    now[0] += 2.9
    progress.grown("a", 0.5)
    await progress.flush()
    assert sent == [25.0], "too soon for another request"
    now[0] += 0.2
    progress.grown("a", 0.8)
    await progress.flush()
    assert sent == [25.0, pytest.approx(35.0)]
    for name in "abcdef":
        progress.tree(name, True, False)
    await progress.flush()
    assert sent[2:] == [100.0], "the last tree is told at once"
    assert log.lines[0] == "8 questions, 2 of their trees are in the warehouse already"
    assert log.lines[-1].startswith("8 of 8 trees, 6 right")
    progress.report("a remark")
    assert log.lines[-1] == "a remark"


async def test_a_run_of_nothing_is_done(sent: list[float]) -> None:
    progress = FlowProgress("build", uuid4(), Log())
    await progress.flush()
    progress.start(0, 0, None)
    await progress.flush()
    assert sent == [100.0]


async def test_a_build_goes_on_where_its_progress_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr(artifacts, "aupdate_progress_artifact", fails)
    log = Log()
    progress = FlowProgress("build", uuid4(), log)
    progress.start(1, 0, None)
    await progress.flush()
    assert log.lines[-1] == "the progress could not be shown: no server"


@pytest.mark.parametrize("drawing", [None, b"pixels"])
async def test_a_summary_is_a_table_and_a_drawing_where_a_trace_was_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawing: bytes | None
) -> None:
    made: list[SimpleNamespace] = []

    async def create(content: Any, **given: Any) -> None:
        made.append(SimpleNamespace(content=content, **given))

    for name in ("acreate_table_artifact", "acreate_image_artifact"):
        monkeypatch.setattr(artifacts, name, create)
    log = Log()
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: log)
    monkeypatch.setattr(artifacts, "draw_example", lambda warehouse, task: drawing)
    summary = Summary("My_task.v2", 9, 8, 7, 1, 6, 5, 40, 3, extra={"dataset": "d@v1"})
    await show_summary(summary, str(tmp_path))
    table, *images = made
    assert {row["what"]: row["count"] for row in table.content} == {
        "questions searched": 9, "trees with a right answer": 7, "trees that failed": 1,
        "traces": 6, "traces kept": 5, "requests to the teacher": 40,
        "answered from the journal": 3, "dataset": "d@v1",
    }  # fmt: skip
    assert (table.key, table.description) == ("summary-my-task-v2", summary.sentence())
    assert log.lines == [summary.sentence()]
    shown = [(image.key, image.content.partition(",")[2]) for image in images]
    expected = [] if drawing is None else [("trace-my-task-v2", base64.b64encode(drawing).decode())]
    assert shown == expected


async def test_a_run_ends_well_where_nothing_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: list[float]
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no server")

    for kind in ("table", "image", "progress"):
        monkeypatch.setattr(artifacts, f"acreate_{kind}_artifact", fails)
    log = Log()
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: log)
    monkeypatch.setattr(artifacts, "draw_example", lambda warehouse, task: b"pixels")
    progress = await FlowProgress.begun("build-traces/sat2")
    progress.start(0, 0, None)
    await progress.flush()
    assert log.lines[0] == "the progress could not be shown: no server" and not sent
    await show_summary(Summary("sat2", 9, 8, 7, 1, 6, 5, 40, 3), str(tmp_path))
    assert log.lines[-2:] == [
        "the summary could not be shown: no server",
        "the trace could not be shown: no server",
    ]


async def test_an_evaluation_and_a_cycle_end_well_where_nothing_can_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no server")

    log = Log()
    for module in (artifacts, retraining):
        monkeypatch.setattr(module, "get_run_logger", lambda: log)
    monkeypatch.setattr(evaluating, "acreate_table_artifact", fails)
    monkeypatch.setattr(retraining, "acreate_markdown_artifact", fails)

    async def evaluate(*_: object, **__: object) -> Any:
        report = SimpleNamespace(model_id="m@1")
        return SimpleNamespace(
            report=report, reranking=None, no_zoom=None, second=None, rows=lambda: [{"share": 0.5}],
            sentence=lambda: "half is right",
        )  # fmt: skip

    async def cycle(*_: object) -> Any:
        return SimpleNamespace(sentence="refused", cycle=object(), decided=False)

    monkeypatch.setattr(evaluating, "evaluate", evaluate)
    monkeypatch.setattr(retraining, "run_cycle", cycle)
    monkeypatch.setattr(retraining, "read_report", lambda cycle: {})
    monkeypatch.setattr(retraining, "render_summary", lambda report: "# refused")
    evaluated = evaluating.evaluate_model.fn(model="nano", benchmark="sat2")
    assert await evaluated == "half is right"
    assert await retraining.retrain.fn(task="sat2", sft_recipe="nano-sft") == "refused"
    assert log.lines == [
        "the figures could not be shown: no server",
        "refused",
        "the report could not be shown: no server",
    ]


def test_a_stage_is_a_task_whose_results_prefect_does_not_keep() -> None:
    async def search_shard() -> int:
        return 7

    made: Any = as_task(search_shard)
    assert made.name == "search-shard" and made.cache_policy == NO_CACHE
    assert made.persist_result is False
    assert asyncio.run(made.fn()) == 7

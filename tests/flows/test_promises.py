"""What the README promises of the commands, typed as it says; trainings with the fewest steps."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import training_process
from flows.orchestration.local_server import _environment
from flows.stages.run_budget import OutOfBudget, RunBudget
from mcts.budget import Budget, Usage
from tests.support.project import Project
from tests.support.trained import warehouse_with_traces


def test_the_demo_goes_the_whole_way(tmp_path: Path) -> None:
    project = Project(tmp_path)
    ran = project.run("demo", "--limit", 1)
    assert ran.status == 0, ran.text
    assert "1 questions searched, " in ran.out
    assert "dataset sat2-sft@v1" in ran.out
    assert (project.home / "demo-trace.png").is_file()
    assert (project.home / "gallery" / "index.html").is_file()
    assert "above_below" in ran.out or "reward" in ran.out  # the table of the question in SQL
    assert project.sql("SELECT count(*) AS n FROM trees") == [{"n": 1}]
    assert "sat2-sft@v1" in project.run("dataset", "list").out


def test_an_evaluation_may_be_the_first_command(tmp_path: Path) -> None:
    project = Project(tmp_path)
    ran = project.run("evaluate", "nano-base", "sat2", "--limit", 3)
    assert ran.status == 0, ran.text
    assert "the embedded sample was imported" in ran.err
    assert "3 of 3 questions" in ran.err, "the progress is told at the end too"
    assert "95% interval" in ran.out
    assert project.sql("SELECT n_questions FROM evaluations") == [{"n_questions": 3}]


def test_trainings_are_listed_with_the_recipes(tmp_path: Path) -> None:
    ran = Project(tmp_path).run("train", "list")
    assert ran.status == 0
    for recipe in ("nano-sft", "nano-grpo"):
        assert any(line.startswith(f"{recipe} ") for line in ran.out.splitlines())


@pytest.mark.slow
def test_a_student_is_taught_rewarded_and_measured_as_the_readme_says(tmp_path: Path) -> None:
    warehouse_with_traces(tmp_path)
    project, fewest = Project(tmp_path), ("-o", "steps=1", "-o", "batch=2", "-o", "micro_batch=1")

    def train(*words: object) -> str:
        # A process of its own, as its handlers of signals are the process's.
        import subprocess

        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "train", *map(str, words)],
            capture_output=True, text=True, env={**os.environ, "VIGORL_HOME": str(project.home)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = train("sft", "nano-sft", "--dataset", "kept@v1", "--name", "my-sft", *fewest)
    assert made.startswith("model my-sft (")
    few = ("-o", "steps=1", "-o", "questions=1", "-o", "group=2", "-o", "max_completion=32")
    made = train("grpo", "nano-grpo", "--dataset", "kept@v1", "--model", "my-sft", *few)
    assert made.startswith("model ")
    assert "from my-sft" in project.run("train", "list").out
    ran = project.run("evaluate", "my-sft", "sat2", "--against", "nano-base", "--limit", 2)
    assert ran.status == 0, ran.text
    assert "my-sft" in ran.out and " minus " in ran.out


# ---- numbers beside the main value ---------------------------------------------------------------


def test_a_trainings_progress_is_in_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    async def create(progress: float, **_: Any) -> str:
        shares.append(progress)
        return "artifact"

    async def update(artifact: Any, progress: float) -> None:
        shares.append(progress)

    monkeypatch.setattr(training_process, "acreate_progress_artifact", create)
    monkeypatch.setattr(training_process, "aupdate_progress_artifact", update)
    log = type("Log", (), {"info": lambda self, line: None})()
    monkeypatch.setattr(training_process, "get_run_logger", lambda: log)
    script = "print('step 1 of 4, loss 2'); print('step 4 of 4'); print('model mine (m-1)')"
    name = asyncio.run(training_process._run([sys.executable, "-c", script]))
    assert name == "mine"
    assert shares == [0.0, 25.0, 100.0]


def test_the_first_limit_reached_is_the_one_that_is_told() -> None:
    now = [0.0]
    budget = RunBudget(Budget(tokens=10), run_seconds=5.0, clock=lambda: now[0])
    budget.begin(["a", "b"], {})
    spent = budget.between("a")
    spent(Usage(1, 0, 50))  # its own tree may end; what comes after may not begin
    with pytest.raises(OutOfBudget):
        budget.between("b")(Usage())
    assert budget.stopped_by == "tokens"
    now[0] = 9.0
    with pytest.raises(OutOfBudget):
        spent(Usage(1, 0, 50))
    assert budget.stopped_by == "tokens"


# ---- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "internal.test"])
def test_s40_what_talks_to_this_machine_does_so_past_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", before)
    env = _environment(tmp_path, "http://127.0.0.1:4200", str(tmp_path))
    for name in ("NO_PROXY", "no_proxy"):
        assert env[name].split(",") == [*filter(None, [before]), "127.0.0.1", "localhost"]

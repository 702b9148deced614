"""A task is data: one object in one file, here or in another package, and everything works."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from flows.settings import TeacherSettings
from flows.teachers.resolve import resolve
from mcts.prompts import load_prompt
from tests.flows.test_build import vigorl
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.sources import ImportProblem, Task, find_task, task_of, tasks
from warehouse.storage.home import Warehouse

MODULE = """
from mcts.data import AnswerKind, Box
from warehouse.sources import Draft, DraftImage, Task
from warehouse.sources.reading.drafts import Reject


def read(file, context):
    for row, line in enumerate(file.read_text().splitlines(), start=1):
        name, text, *box = line.split("|")
        if len(box) != 4:
            yield Reject(file.name, row, "box", "there are not four numbers")
            continue
        picture = DraftImage((file.parent / name).read_bytes())
        gold = Box(*map(float, box))
        yield Draft(file.name, row, text, (picture,), AnswerKind.BOX, boxes=(gold,))


KNOBS = Task("knobs", "gold boxes on machines (text)", {".txt": read}, kind=AnswerKind.BOX,
             prompt="outside_package:knobs.txt")
BROKEN = "not a task"
"""
PROMPT = """[system]
You find knobs ({coordinates}); at least {min_thoughts} steps.
[user]
Where is {question}?
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed beside this one and brings a task with its own prompt."""
    site = tmp_path / "site"
    (site / "outside_package").mkdir(parents=True)
    (site / "outside_package" / "__init__.py").write_text(MODULE)
    (site / "outside_package" / "knobs.txt").write_text(PROMPT)
    about = site / "outside_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vigorl.tasks]\nknobs = outside_package:KNOBS\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("outside_package", None)


@pytest.mark.slow
def test_a_package_outside_brings_a_task_with_its_reader_and_its_prompt(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.fixtures import picture

    monkeypatch.setenv("PYTHONPATH", str(outside))
    (tmp_path / "machine.png").write_bytes(picture(3, (400, 200)))
    table = tmp_path / "train.txt"
    table.write_text("machine.png|the red knob|20|5|60|30\nmachine.png|no box|1\n")
    home = tmp_path / "home"
    assert (
        "knobs            gold boxes on machines (text)"
        in vigorl("import", "--list", home=home).stdout
    )
    done = vigorl("import", "knobs", table, home=home)
    assert done.stdout.startswith("2 rows read: 1 questions added, 0 already there, 1 rejected")
    with StubServer() as server:
        vigorl(
            *("build", "knobs", "--teacher", server.url, "--space", "qwen3-vl"),
            *("--simulations", 1),
            home=home,
        )
        asked = (str(request["body"]["messages"]) for request in server.requests)
        prompts = {text for text in asked if "knob" in text}  # not what only probes the server
    assert prompts
    assert all("You find knobs (in thousandths" in text for text in prompts)
    assert all("Where is the red knob?" in text for text in prompts)
    (tree,) = query(Warehouse(str(home)), "SELECT task, prompt_hash FROM trees").to_pylist()
    assert tree == {"task": "knobs", "prompt_hash": load_prompt("outside_package:knobs.txt").digest}


def test_what_another_package_registers_wrongly_is_named(outside: Path) -> None:
    about = outside / "outside_package-1.0.dist-info" / "entry_points.txt"
    for entry, message in [
        ("sliders = outside_package:KNOBS", "outside_package:KNOBS is registered as the task"),
        ("sliders = outside_package:BROKEN", "outside_package:BROKEN is registered as the task"),
        ("sliders = outside_package:NONE", "the task 'sliders' of outside_package:NONE can't be"),
    ]:
        about.write_text(f"[vigorl.tasks]\n{entry}\n")
        with pytest.raises(ImportProblem, match=message):
            find_task("sliders")
    about.write_text("[vigorl.tasks]\nsat2 = outside_package:KNOBS\n")
    assert find_task("sat2").title.startswith("SAT"), "an outside package replaces none of ours"


def test_a_name_nobody_registered_is_a_task_with_every_default() -> None:
    assert task_of("my-own") == Task("my-own")
    with pytest.raises(ImportProblem, match="no task named 'my-own'; there are: "):
        find_task("my-own")


def test_every_task_has_what_it_names() -> None:
    found = tasks()
    assert {"sat2", "vstar", "web-grounding", "web-action"} <= set(found)
    for task in found.values():
        prompt = load_prompt(task.prompt)
        gaps = ("{coordinates}", "{min_thoughts}", "{answer_form}")
        assert all(gap in prompt.system for gap in gaps), task.prompt
        for split, file in task.sample.files.items() if task.sample else ():
            assert split in ("train", "validation", "test", "gate")
            assert file.suffix in task.formats and file.is_file()


def test_a_prompt_is_the_teachers_own_or_else_its_tasks() -> None:
    server = resolve(TeacherSettings(teacher="http://gpu:8000", space="qwen3-vl"))
    assert [server.prompt_for(t) for t in ("sat2", "vstar", "my-own")] == [
        "points", "visual-search", "points",
    ]  # fmt: skip
    assert resolve(TeacherSettings(teacher="nano")).prompt_for("vstar") == "nano"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "no prompt named 'nope'; there are: .*points, .*web-action"),
        ("no_such_package:a.txt", "the prompt 'no_such_package:a.txt' can't be read"),
        ("mcts:prompts/none.txt", "the prompt 'mcts:prompts/none.txt' can't be read"),
        ("mcts:data.py", r"has no \[user\] part with a {question} in it"),
    ],
)
def test_a_prompt_that_cannot_ask_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_prompt(name)


def test_every_prompt_file_can_ask() -> None:
    for file in files("mcts").joinpath("prompts").iterdir():
        prompt = load_prompt(file.name.removesuffix(".txt"))
        assert "{question}" in prompt.user and prompt.digest


def test_the_former_name_of_smoke_test_only_is_accepted() -> None:
    with pytest.warns(DeprecationWarning, match="plumbing is called smoke_test_only now"):
        task = Task("old", plumbing="it shows nothing")
    assert task.smoke_test_only == "it shows nothing"
    assert replace(task, title="renamed").smoke_test_only == "it shows nothing"
    assert Task("new", smoke_test_only="x").smoke_test_only == "x"

"""Names that are no names, and control characters on their way to a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.printing import Escaping, escape_controls, escaping
from flows.settings import BuildSettings
from flows.settings_base import FieldProblem
from mcts.names import LONGEST, check_name
from tests.support.project import Project
from training.errors import TrainingError
from training.recipes import load_recipe
from warehouse.models import ModelInfo, store_model
from warehouse.sources import ImportProblem
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse, WarehouseError

NO_NAMES = (
    "../../x", "a/b", "a\nb", "..", ".", "a..b", "\x1b[31mx", "-x", " ", "a b", "a\\b", "a\0",
    "é" * 60, "x" * 300, "a:b", "\ud800", "<b>",
)  # fmt: skip
NAMES = ("sat2", "web-grounding", "my_task", "v1.5", "MMMU", "任务", "x" * LONGEST, "2steps")
COMMANDS: dict[str, Sequence[str]] = {
    "import": ("import", "{}", "q.jsonl", "--columns", "question=q,image=i,answer=a"),
    "import a registered one": ("import", "{}", "q.jsonl"),
    "into": ("import", "reference-trees", "runs", "--into", "{}"),
    "build": ("build", "{}"),
    "curate": ("curate", "{}"),
    "judge": ("judge", "{}"),
    "evaluate": ("evaluate", "nano-base", "{}"),
    "grpo": ("train", "grpo", "nano-grpo", "--task", "{}"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_letters_digits_and_a_few_marks(name: str) -> None:
    assert check_name("task", name) == name


@pytest.mark.parametrize("command", COMMANDS)
def test_n7_no_command_takes_a_task_that_leads_elsewhere(project: Project, command: str) -> None:
    for name in ("../../x", "a\nb", "\x1b[31mx"):
        ran = project.run(*(word.format(name) for word in COMMANDS[command]))
        assert ran.status == 2
        assert "a task's name is letters, digits, - and _" in ran.err
        assert len(ran.text.splitlines()) == 1
        assert "\x1b" not in ran.text
    assert not project.home.exists()


@pytest.mark.parametrize("name", NO_NAMES)
def test_n7_what_is_no_name_is_refused_before_anything_is_written(
    project: Project, name: str
) -> None:
    with pytest.raises(FieldProblem, match=r"^task: "):
        BuildSettings.checked(task=name)
    with pytest.raises(ImportProblem, match="can't name a task"):
        import_questions(Warehouse.at(str(project.home)), name, project.data)
    assert not project.home.exists()


def test_n8_a_task_of_300_letters_is_refused_in_one_sentence(project: Project) -> None:
    ran = project.run("build", "x" * 300)
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    assert f"at most {LONGEST}" in ran.err
    assert len(ran.err) < 250
    assert "Errno" not in ran.err


@pytest.mark.parametrize("name", ["../x", "x" * 300, "a\x1b[31mb", "a..b"])
def test_a_dataset_has_no_such_name_either(project: Project, name: str) -> None:
    ran = project.run("dataset", "publish", name, "--sql", "SELECT trace_id FROM traces")
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    assert "can't name a dataset" in ran.err
    assert "\x1b" not in ran.err


def test_a_recipe_s_own_name_leads_nowhere(project: Project) -> None:
    recipe = project.write("r.yaml", "like: nano-sft\nname: ../../elsewhere\n")
    with pytest.raises(TrainingError, match="can't name a recipe"):
        load_recipe(str(recipe))


def test_a_model_s_name_leads_nowhere(project: Project) -> None:
    info = ModelInfo("../x", None, None, {}, None, {}, "run")  # type: ignore[arg-type]
    with pytest.raises(WarehouseError, match="can't name a model"):
        store_model(Warehouse.at(str(project.home)), project.data, info)


def test_escape_sequences_of_data_never_reach_the_terminal(project: Project) -> None:
    hostile = "Is \x1b[31mit\x1b]0;owned\x07 red?\x9b2J"
    added = project.add([{"q": hostile}, {"q": "x", "a": None}, {"q": "x", "img": "no\x1b[2J.png"}])
    assert added.status == 0, added.text
    shown = [
        project.run("sql", "SELECT text FROM questions"),
        project.run("sql", "SELECT text, * FROM questions"),
        project.run("sql", "SELECT text FROM questions", "--format", "json"),
        project.run("import", "mine", project.data / "q.jsonl", "--check", "--out",
                    project.folder / "look", "--split", "train",
                    "--columns", "question=q,image=img,answer=a"),
        project.run("sql", "SELECT 1 FROM \x1b[31mnothing"),
        project.run("import", "mine", "a\x1b[31mb", "--columns", "question=q,image=i,answer=b"),
    ]  # fmt: skip
    for ran in shown:
        assert not set(ran.text) & {"\x1b", "\x07", "\x9b"}, ran.text
    assert r"Is \u001b[31mit" in shown[0].out
    stored = project.sql("SELECT text FROM questions")
    assert stored == [{"text": hostile}]  # what is stored is what was written


def test_a_pipe_of_csv_gets_the_bytes_as_they_are() -> None:
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    Escaping(out).buffer.write(b"\x1b[31m")
    assert out.buffer.getvalue() == b"\x1b[31m"  # type: ignore[attr-defined]


@given(st.text(st.characters(), max_size=60))
def test_nothing_that_is_printed_holds_a_control_character(text: str) -> None:
    shown = escape_controls(text)
    shown.encode("utf-8")
    assert not any((ord(c) < 32 and c not in "\n\t\r") or 127 <= ord(c) < 160 for c in shown)
    assert escape_controls("Is 红 it\tred?\né") == "Is 红 it\tred?\né"


def test_the_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    before = sys.stdout
    with escaping():
        print("a\x1bb")
    assert sys.stdout is before
    assert capsys.readouterr().out == "a\\u001bb\n"

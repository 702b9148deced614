"""Commands in the documents exist, with the options they are shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from tests.docs.documents import DOCUMENTS, ROOT, blocks
from tests.support.command_reference import commands, reference


def lines_of(document: Path) -> list[str]:
    """The shell lines of a document's blocks, without comments; `\\` joins a line to the next."""
    text = "\n".join(block for kind, block in blocks(document) if kind in ("sh", "bash"))
    return [line.strip() for line in text.replace("\\\n", " ").split("\n") if line.strip()]


def typed(line: str, program: str) -> list[str] | None:
    """The arguments of a line that runs `program`, perhaps after variables."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words or Path(words[0]).name != program:
        return None
    return words[1:]


def test_the_command_reference_is_what_the_command_line_says() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == reference(), "run `python -m tests.support.command_reference > docs/commands.md`"


def test_documents_show_every_command() -> None:
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert [path for path, _ in commands() if path not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_vigorl_lines_are_accepted_by_the_command_line(document: Path) -> None:
    from flows.cli.app import app

    root = typer.main.get_command(app)
    for line in lines_of(document):
        if arguments := typed(line, "vigorl"):
            problem = refused(root, arguments)
            assert not problem, f"{document.name}: {line}\n{problem}"


def refused(command, arguments: list[str]) -> str | None:
    """Why the command line does not take these arguments; nothing runs."""
    context = None
    while hasattr(command, "list_commands"):
        context = typer.Context(command, parent=context, info_name=arguments[0])
        command = command.get_command(context, arguments.pop(0))
        if command is None:
            return "no such command"
    try:
        command.make_context(context.info_name, arguments, parent=context)
    except Exception as error:  # a usage error names the option or the argument
        return str(error)
    return None


def test_deployments_that_are_named_exist() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    known = {
        f"{d['entrypoint'].rpartition('.')[2].replace('_', '-')}/{d['name']}" for d in deployments
    }
    flows = "|".join(sorted({name.partition("/")[0] for name in known}))
    for document in DOCUMENTS:
        named = re.findall(rf"\b((?:{flows})/[\w-]+)", document.read_text(encoding="utf-8"))
        assert set(named) <= known, f"{document.name} names a deployment that is not there"


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        named = re.findall(r"(?:^\s*|`|&& )make ([a-z][a-z-]*)", text, re.MULTILINE)
        assert set(named) <= targets, f"{document.name} names a make target that is not there"


def test_modules_that_are_run_exist() -> None:
    for document in DOCUMENTS:
        for module in re.findall(r"python -m ([\w.]+)", document.read_text(encoding="utf-8")):
            path = ROOT / module.replace(".", "/")
            runs = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
            assert runs, f"{document.name} runs {module}, which is not there"

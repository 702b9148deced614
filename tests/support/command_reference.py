"""Writes docs/commands.md from the command line itself.

    python -m tests.support.command_reference > docs/commands.md

`tests/docs/test_commands.py` fails when the page is not what this prints.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer

HEAD = """\
# Commands

Made from the command line by `python -m tests.support.command_reference > docs/commands.md`;
`vigorl COMMAND --help` prints the same.

Exit status: 0 done; 1 something outside failed (a server, a disk), or a check found something;
2 the input is wrong, and nothing was written; 130 interrupted. What can be put right is one
sentence on stderr. A command that was stopped continues when it is typed again.
"""


def commands() -> Iterator[tuple[str, typer.Context]]:
    """Each command that does something, with its full name and a context to print it in."""
    from flows.cli.app import app

    root = typer.main.get_command(app)
    yield from _leaves(root, typer.Context(root, info_name="vigorl"))


def _leaves(command, context: typer.Context) -> Iterator[tuple[str, typer.Context]]:
    for name in getattr(command, "list_commands", lambda _: [])(context):
        child = command.get_command(context, name)
        if not child.hidden:
            yield from _leaves(child, typer.Context(child, parent=context, info_name=name))
    if not hasattr(command, "list_commands"):
        yield context.command_path, context


def reference() -> str:
    """The whole page."""
    found = list(commands())
    lines = [HEAD, "| command | does |", "|---|---|"]
    for path, context in found:
        anchor = path.replace(" ", "-")
        lines.append(f"| [`{path}`](#{anchor}) | {_cell(_paragraphs(context)[0])} |")
    for path, context in found:
        lines += ["", f"## {path}", "", *_section(path, context)]
    return "\n".join(lines) + "\n"


def _section(path: str, context: typer.Context) -> list[str]:
    usage = " ".join([path, *context.command.collect_usage_pieces(context)])
    lines = ["\n\n".join(_paragraphs(context)), "", "```text", usage, "```"]
    records = [
        record
        for parameter in context.command.get_params(context)
        if "--help" not in parameter.opts and (record := parameter.get_help_record(context))
    ]
    if records:
        lines += ["", "| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(name)}` | {_cell(meaning)} |" for name, meaning in records]
    return lines


def _paragraphs(context: typer.Context) -> list[str]:
    """The help text; an example, or lines to be kept as they are (after \\b), is shown as typed."""
    shown = []
    for paragraph in (context.command.help or "").strip().split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() == "\b":
            shown.append("\n".join(["```sh", *(line.strip() for line in lines[1:]), "```"]))
        elif lines[0].strip().startswith("vigorl "):
            shown.append("\n".join(["```sh", *(line.strip() for line in lines), "```"]))
        else:
            shown.append(" ".join(line.strip() for line in lines))
    return shown


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")

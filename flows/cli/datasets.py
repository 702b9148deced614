"""Commands about dataset versions: `vigorl dataset …`, `vigorl lineage`, `vigorl revoke`."""

from __future__ import annotations

import json
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.interrupts import personal_limits
from flows.cli.printing import Home, check_format
from flows.dataset_settings import ExportSettings, PublishSettings
from flows.parameters import takes
from flows.progress import report_to_stderr
from flows.settings_base import Problem

dataset = typer.Typer(
    help="Named, immutable versions of what was kept.", no_args_is_help=True, rich_markup_mode=None
)
Ref = Annotated[str, typer.Argument(help="name@vN, or name for the newest.")]


@dataset.command()
@takes(PublishSettings)
def publish(settings: PublishSettings) -> None:
    """Cut a new version from the warehouse with SQL; equal content is never published twice.

    vigorl dataset publish sat2-sft --sql "SELECT trace_id FROM kept_traces"
    """
    from warehouse.storage.home import Warehouse
    from warehouse.versions import versions

    warehouse = Warehouse.at(settings.home)
    version = versions.publish(
        warehouse, settings.name, settings.sql, response_style=settings.response_style,
        limits=personal_limits(settings.timeout),
    )  # fmt: skip
    print(f"{version.ref}: {version.n_rows} traces, content {version.content_hash[:16]}")
    print_revoked(version.ref, settings.home)


def print_revoked(ref: str, home: str | None) -> None:
    """Print what a version's statement chose and a revocation took out again."""
    from warehouse.storage.home import Warehouse
    from warehouse.versions.revocations import describe_revocation
    from warehouse.versions.versions import resolve

    for row in resolve(Warehouse.at(home), ref).card.get("revoked", ()):
        print(f"left out, because revoked: {describe_revocation(row)}")


@dataset.command("list")
def list_(home: Home = None) -> None:
    """List the versions there are.

    vigorl dataset list
    """
    from warehouse.storage.home import Warehouse
    from warehouse.versions import versions

    found = versions.list_versions(Warehouse.at(home))
    if not found:
        print("nothing has been published yet; `vigorl dataset publish NAME --sql ...` does")
    for version in found:
        print(f"{version.ref:<24} {version.n_rows:>8} traces  {version.content_hash[:16]}")


@dataset.command()
def show(ref: Ref, home: Home = None) -> None:
    """Print a version's card.

    vigorl dataset show sat2-sft
    """
    from warehouse.storage.home import Warehouse
    from warehouse.versions import versions

    print(versions.show(Warehouse.at(home), ref))


@dataset.command()
def diff(
    a: Ref,
    b: Ref,
    format_: Annotated[
        str, typer.Option("--format", help="table, or json with every row.")
    ] = "table",
    home: Home = None,
) -> None:
    """Show which rows two versions do not share, and why each is in one and not in the other.

    vigorl dataset diff sat2-sft@v1 sat2-sft@v2
    """
    check_format(format_, "table", "json")
    from warehouse.storage.home import Warehouse
    from warehouse.versions import diff as diffs
    from warehouse.versions.versions import resolve

    warehouse = Warehouse.at(home)
    found = diffs.diff(warehouse, resolve(warehouse, a), resolve(warehouse, b))
    if format_ == "json":
        whole = {
            "a": found.a.ref,
            "b": found.b.ref,
            "sentence": found.sentence(),
            "summary": found.summary(),
            "differences": [asdict(difference) for difference in found.differences],
        }
        print(json.dumps(whole, ensure_ascii=False, indent=1))
        return
    print(found.sentence())
    if summary := found.summary():
        import pyarrow as pa

        from flows.cli.printing import show_table

        show_table(pa.Table.from_pylist(summary))


@dataset.command()
@takes(ExportSettings)
def export(settings: ExportSettings) -> None:
    """Write a version in the format a trainer reads, points in the trained model's coordinates.

    vigorl dataset export sat2-sft --to llama-factory --space qwen2.5-vl --out export
    """
    from warehouse.exports import hub
    from warehouse.exports.export import export as export_version
    from warehouse.exports.export import read_notes

    push_to, out, style = settings.push_to, settings.out, settings.response_style
    if push_to:
        hub.check_name(push_to)
        hub.go_online()  # before `datasets` is imported
    from flows.teachers.spaces import limited_space, space_by_name
    from warehouse.storage.home import Warehouse
    from warehouse.tables.delta import try_record_run
    from warehouse.versions import versions

    space = space_by_name(settings.space) if settings.space else None
    if space:
        space = limited_space(space, settings.min_pixels, settings.max_pixels)
    warehouse = Warehouse.at(settings.home)
    version = versions.resolve(warehouse, settings.dataset)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch) / "export"
        try:
            export_version(
                warehouse, version, settings.to, folder, space=space, prompt=settings.prompt,
                files=settings.files, response_style=style, zoom_tool=settings.zoom_tool,
                observation_role=settings.observation_role,
            )  # fmt: skip
        except ValueError as error:  # no such prompt
            raise Problem(f"--prompt: {error}") from None
        resolved = {"dataset": version.ref, "out": str(out.absolute()) if out else None}
        run_id = f"export-{uuid.uuid4().hex[:12]}"
        if why := try_record_run(warehouse, run_id, "export", settings.params() | resolved):
            report_to_stderr(f"the export is whole, and is not noted in the warehouse: {why}")
        what = f"{version.ref} as {settings.to}" + (f", response style {style}" if style else "")
        if out:
            print(f"{what}: {folder} (load it with datasets.load_dataset({str(folder)!r}))")
        if push_to:
            tag = f"{version.name}-v{version.number}"
            url = hub.push(folder, push_to, message=what, tag=tag, public=settings.public)
            print(f"{what}: {url} (load it with datasets.load_dataset({push_to!r}))")
        for note in read_notes(folder):
            print(f"note: {note}")


def lineage(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of a model, dataset version, row (name@vN/trace), trace, tree, "
            "node (tree/number), response, question, image, run or source; "
            "the beginning of an id is enough.",
        ),
    ],
    format_: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    out: Annotated[
        Path | None,
        typer.Option(help="Write a Mermaid graph with images (.md), the graph (.mmd) or .json."),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Entities of a kind listed one by one at each distance.")
    ] = 6,
    home: Home = None,
) -> None:
    """Show where a thing comes from and what came of it, from a model down to the pixels.

    vigorl lineage sat2-sft@v1 --out lineage.md
    """
    check_format(format_, "text", "json")
    from flows.stages.lineage_view import check_suffix, load_lineage
    from warehouse.storage.home import Warehouse

    if out is not None:
        check_suffix(out)
    view = load_lineage(Warehouse.at(home), id_, most)
    print(view.text() if format_ == "text" else json.dumps(view.data(), ensure_ascii=False))
    if out is not None:
        view.write(out)


_ENOUGH = 8
"""Characters of an id of which the rest may be left out where it is revoked."""


def revoke(
    subject: Annotated[str, typer.Argument(help="source, question, run, image or trace.")],
    value: Annotated[str, typer.Argument(help="Its name or id.")],
    reason: Annotated[str, typer.Option(help="Why; it is shown wherever this is met later.")],
    home: Home = None,
) -> None:
    """Mark something as bad: show what came from it, and leave it out of versions from now on.

    Nothing takes a revocation back; look at its lineage first.

    vigorl revoke source web-scrape --reason "its licence was withdrawn"
    """
    from warehouse.lineage.lineage import Walker
    from warehouse.storage.home import Warehouse
    from warehouse.versions import revocations

    warehouse = Warehouse.at(home)
    if subject not in revocations.SUBJECTS:
        listed = ", ".join(revocations.SUBJECTS)
        raise Problem(f"{subject!r} can't be revoked; what can: {listed}")
    with Walker(warehouse) as walker:
        entity, _ = walker.find(value, (subject,))
        said = value.removeprefix(f"{subject}:")
        named = subject in ("source", "run") or len(said) < _ENOUGH
        if named and entity.id not in (value, said):  # nothing takes a revocation back
            raise Problem(f"no {subject} is called {value!r}; {entity.id} is: write its whole name")
        found = walker.lineage(entity, most=1_000_000)
    done = revocations.revoke(warehouse, subject, entity.id, reason)
    state = "is revoked" if done.new else f"was revoked before ({done.reason})"
    print(f"{subject} {entity.id} {state}: {found.total('trace')} traces came from it")
    for kind in ("dataset", "model"):
        for name in (e.id for e in found.descendants if e.kind == kind):
            print(f"{kind} {name}")
    if found.total("dataset"):
        print("published versions stay as they are; the next one leaves it out")
    else:
        print("no published version holds any of it")

"""What the commands of `flows.cli.datasets` do once their arguments are read."""

from __future__ import annotations

import json
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path

from flows.settings import Problem
from warehouse.storage.home import Warehouse


def export(
    ref: str,
    out: Path | None,
    to: str,
    variant: str | None,
    space: str | None,
    prompt: str | None,
    files: str,
    push_to: str | None,
    public: bool,
    home: str | None,
) -> None:
    """Write a version in a trainer's form, and put it on a hub where one is named."""
    if out is None and push_to is None:
        raise Problem("--out: name a folder to write into, or a repository with --push-to")
    from warehouse.exports import hub
    from warehouse.exports.export import export as export_version

    if push_to:
        hub.check_name(push_to)
        hub.go_online()  # before `datasets` is imported
    from flows.teachers.resolve import space_by_name
    from warehouse.tables.delta import record_run
    from warehouse.versions import versions

    chosen = space_by_name(space) if space else None
    warehouse = Warehouse.at(home)
    version = versions.resolve(warehouse, ref)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch) / "export"
        try:
            export_version(
                warehouse, version, to, folder, space=chosen, prompt=prompt, files=files,
                variant=variant,
            )  # fmt: skip
        except ValueError as error:  # no such prompt
            raise Problem(f"--prompt: {error}") from None
        record_run(
            warehouse, f"export-{uuid.uuid4().hex[:12]}", "export",
            params={"dataset": version.ref, "to": to, "variant": variant, "push_to": push_to,
                    "out": str(out.absolute()) if out else None},
        )  # fmt: skip
        told = f"{version.ref} as {to}" + (f", told {variant}" if variant else "")
        if out:
            print(f"{told}: {folder} (load it with datasets.load_dataset({str(folder)!r}))")
        if push_to:
            tag = f"{version.name}-v{version.number}"
            url = hub.push(folder, push_to, message=told, tag=tag, public=public)
            print(f"{told}: {url} (load it with datasets.load_dataset({push_to!r}))")


def diff(a: str, b: str, format_: str, home: str | None) -> None:
    """Print a sentence and a table by reason, or everything as JSON."""
    if format_ not in ("table", "json"):
        raise Problem(f"--format: it is table or json, not {format_!r}")
    from warehouse.versions import diff as diffs
    from warehouse.versions.versions import resolve

    warehouse = Warehouse.at(home)
    found = diffs.diff(warehouse, resolve(warehouse, a), resolve(warehouse, b))
    if format_ == "json":
        told = {
            "a": found.a.ref,
            "b": found.b.ref,
            "sentence": found.sentence(),
            "summary": found.summary(),
            "differences": [asdict(difference) for difference in found.differences],
        }
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    print(found.sentence())
    if summary := found.summary():
        import pyarrow as pa

        from flows.cli.commands import show_table

        show_table(pa.Table.from_pylist(summary))


def lineage(text: str, format_: str, out: Path | None, most: int, home: str | None) -> None:
    """Print a lineage, and draw it where a file is named."""
    if format_ not in ("text", "json"):
        raise Problem(f"--format: it is text or json, not {format_!r}")
    if out is not None and out.suffix not in (".png", ".svg"):
        raise Problem(f"--out: {out.name} is drawn as .png or .svg")
    from flows.stages.lineage_view import trace_back

    told = trace_back(Warehouse.at(home), text, most)
    print(told.text() if format_ == "text" else json.dumps(told.data(), ensure_ascii=False))
    if out is not None:
        told.draw(out)


def revoke(subject: str, value: str, reason: str, home: str | None) -> None:
    """Revoke something and print what came from it."""
    from warehouse.lineage.lineage import Walker
    from warehouse.versions import revocations as revoked

    warehouse = Warehouse.at(home)
    if subject not in revoked.SUBJECTS:
        listed = ", ".join(revoked.SUBJECTS)
        raise Problem(f"{subject!r} can't be revoked; what can: {listed}")
    with Walker(warehouse) as walker:
        thing, _ = walker.find(value, (subject,))
        found = walker.lineage(thing, most=1_000_000)
    done = revoked.revoke(warehouse, subject, thing.id, reason)
    told = "is revoked" if done.new else f"was revoked before ({done.reason})"
    print(f"{subject} {thing.id} {told}: {found.total('trace')} traces came from it")
    for kind in ("dataset", "model"):
        for name in (t.id for t in found.down if t.kind == kind):
            print(f"{kind} {name}")
    if found.total("dataset"):
        print("published versions stay as they are; the next one leaves it out")
    else:
        print("no published version holds any of it")

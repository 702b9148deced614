"""Dataset versions: `name@vN`, cut from the warehouse with SQL and never changed afterwards.

    version = publish(warehouse, "sat2-sft", "SELECT trace_id FROM kept_traces")
    version = resolve(warehouse, "sat2-sft@v1")            # or "sat2-sft" for the newest
    print(show(warehouse, "sat2-sft"))
    with open_version(warehouse, version) as folder: …    # rows.parquet, images.parquet, card.json

A version is a folder `datasets/<name>/vN/` that holds copies of all it needs, images included:
no later change of the tables can reach it. It appears whole or not at all, publishing equal content
again returns the existing version, and the same statement on the same rows has the same
content hash on any machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcts.data import ResponseStyle
from warehouse.query.limits import Limits, limited
from warehouse.query.run_query import connect, table_versions
from warehouse.storage.home import Warehouse, WarehouseError, code_revision
from warehouse.storage.objects import sync
from warehouse.tables.delta import insert_new
from warehouse.tables.schema import TABLES
from warehouse.versions.bundle import write_images, write_rows
from warehouse.versions.certificate import certificate
from warehouse.versions.dataset_card import make_card, readme, write_card, write_samples
from warehouse.versions.response_styles import Restyler, response_style_of
from warehouse.versions.revocations import describe_revocation, remove_revoked, revoked_since
from warehouse.versions.selection import choose, names_for

_NAME = re.compile(r"[a-z0-9](?!.*\.\.)[a-z0-9._-]{0,99}")
_REF = re.compile(r"(?P<name>[^@]+)(?:@v(?P<number>[1-9]\d*))?")
_FILES = ("rows.parquet", "images.parquet", "README.md", "card.json")  # the card last: it is proof
_SAMPLES = "sample-*.png"
ROWS = ("rows.parquet",)
"""The file of a version that has its rows without their images."""


@dataclass(frozen=True, slots=True)
class Version:
    """One published version."""

    name: str
    number: int
    card: dict[str, Any]

    @property
    def ref(self) -> str:
        """Its full name, `name@vN`."""
        return f"{self.name}@v{self.number}"

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of its rows, images included."""
        return str(self.card["content_hash"])

    @property
    def n_rows(self) -> int:
        """Traces in it."""
        return int(self.card["rows"])

    @property
    def response_style(self) -> ResponseStyle | None:
        """The style that all its rows were written in; None if they are as they were searched."""
        return response_style_of(self.card)

    @property
    def prefix(self) -> str:
        """The key prefix of its files among the warehouse's objects."""
        return f"datasets/{self.name}/v{self.number}"


def publish(
    warehouse: Warehouse,
    name: str,
    sql: str,
    *,
    response_style: ResponseStyle | None = None,
    run_id: str | None = None,
    limits: Limits | None = None,
) -> Version:
    """Cut a version of the traces whose trace_id a SELECT gives, or return an existing equal one.

    Args:
        name: lower-case letters, digits, `.`, `_` and `-`.
        sql: a SELECT with a column trace_id; other columns, and the order, do not matter.
        response_style: rewrite each trace in this style; those that can't be are left out.
        limits: of time and memory for the statement.

    Raises:
        WarehouseError: the name is not valid, or the statement chose nothing, or what it chose is
            incomplete, or some of it was revoked meanwhile.
        QueryError: the statement can't be run, or is not repeatable.
    """
    if not _NAME.fullmatch(name):
        raise WarehouseError(
            f"{name[:100]!a} can't name a dataset: use lower-case letters, digits, '.', '_' and "
            "'-', at most 100"
        )
    restyle = Restyler(response_style) if response_style else None
    versions = table_versions(warehouse)
    opened = connect(warehouse, versions, names_for(sql), limits)
    with opened as con, _staging_folder(warehouse) as folder:
        with limited(con, limits or Limits()):
            choose(con, sql)
        revoked = remove_revoked(con)
        rows = write_rows(con, folder, restyle)
        if same := _find_equal(list_versions(warehouse, name), rows.content_hash):
            _record(warehouse, same)
            return same
        write_images(warehouse, rows, folder)
        about = {
            "name": name,
            "sql": sql.strip(),
            **({"response_style": str(response_style)} if response_style else {}),
            "table_versions": {k: v for k, v in versions.items() if v is not None},
            "revision": code_revision(),
            "run_id": run_id,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "revoked": revoked,
            "samples": write_samples(folder),
        }
        about["decontamination"] = certificate(warehouse, con, versions)
        version = _add(warehouse, make_card(con, rows, about), folder)
    _record(warehouse, version)
    return version


def list_versions(warehouse: Warehouse, name: str | None = None) -> list[Version]:
    """Every version, or every version of one name, by name and number."""
    prefix = f"datasets/{name}" if name else "datasets"
    cards = [key for key in warehouse.objects.keys(prefix) if key.endswith("/card.json")]
    found = [_read(warehouse, key) for key in cards]
    return sorted(found, key=lambda version: (version.name, version.number))


def resolve(warehouse: Warehouse, ref: str) -> Version:
    """The version `name@vN`, or the newest of `name`.

    Raises:
        WarehouseError: there is none, with what there is.
    """
    match = _REF.fullmatch(ref)
    if not match or not _NAME.fullmatch(match["name"]):
        raise WarehouseError(f"{ref!r} is not a dataset version; write name@v1, or name")
    published = list_versions(warehouse, match["name"])
    matching = [v for v in published if match["number"] in (None, str(v.number))]
    if not matching:
        others = published or list_versions(warehouse)
        listed = ", ".join(version.ref for version in others) or "nothing is published yet"
        raise WarehouseError(f"there is no dataset {ref}; there are: {listed}")
    return matching[-1]


def show(warehouse: Warehouse, ref: str) -> str:
    """Format a version's card as Markdown, after what was revoked of it since.

    Its images have their paths, if they are on this disk.
    """
    version = resolve(warehouse, ref)
    with open_version(warehouse, version, ROWS) as folder:
        since = revoked_since(warehouse, folder)
    notes = [f"> Revoked since: {describe_revocation(row)}\n" for row in since]
    text = readme(version.card).split("---\n\n", 1)[-1]  # without the front matter
    if not warehouse.is_s3:
        text = text.replace("](sample-", f"]({warehouse.root}/{version.prefix}/sample-")
    return "\n".join([*notes, text])


@contextmanager
def open_version(
    warehouse: Warehouse, version: Version, files: Sequence[str] = _FILES
) -> Iterator[Path]:
    """Open a local folder with the version's files, read-only.

    Args:
        files: those that are needed; from an object store no others are fetched.
    """
    if not warehouse.is_s3:
        yield Path(warehouse.root) / version.prefix
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            with warehouse.objects.local_path(f"{version.prefix}/{file}") as path:
                shutil.move(path, Path(folder) / file)
        yield Path(folder)


def read_tables(version: Version) -> dict[str, int | None]:
    """The version of each table that a dataset version was cut from; None: it did not exist yet."""
    return {name: version.card["table_versions"].get(name) for name in TABLES}


@contextmanager
def _staging_folder(warehouse: Warehouse) -> Iterator[Path]:
    """A temporary folder, on the warehouse's own file system where it has one."""
    if warehouse.is_s3:
        folder = Path(tempfile.mkdtemp())
    else:
        folder = Path(warehouse.root) / ".partial" / uuid.uuid4().hex
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _add(warehouse: Warehouse, card: dict[str, Any], folder: Path) -> Version:
    """Publish the prepared files under the next free number, in one step."""
    name = card["name"]
    number = 0
    while True:
        # Taking number N + 1 only succeeds if N was still the last, so no equal version can have
        # been published in between.
        published = list_versions(warehouse, name)
        if same := _find_equal(published, card["content_hash"]):
            return same
        number = max(number, published[-1].number if published else 0) + 1
        version = Version(name, number, {**card, "version": number})
        write_card(version.card, folder)
        if warehouse.is_s3 and (uploaded := _upload(warehouse, version, folder)):
            return uploaded
        if not warehouse.is_s3 and _move(warehouse, version, folder):
            return version


def _move(warehouse: Warehouse, version: Version, folder: Path) -> bool:
    """Rename the prepared folder to the version's; False if its number is taken."""
    target = Path(warehouse.root) / version.prefix
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.chmod(0o444)
        sync(file)
    _ensure_unrevoked(warehouse, folder)
    try:
        os.rename(folder, target)  # fails on a folder that is not empty
    except OSError:
        if not target.exists():
            raise
        return False
    sync(target.parent)
    return True


def _upload(warehouse: Warehouse, version: Version, folder: Path) -> Version | None:
    """Put the prepared files; return the version, or None if the number is another content's.

    The claim says which content has the number; the card, put last, makes it a version. Of two
    processes that publish the same at once, both put what is not there yet. One that dies in
    between leaves a number to whoever publishes that content again.
    """
    claim, content = f"{version.prefix}/claim", version.content_hash.encode()
    if not warehouse.objects.put(claim, content) and (
        warehouse.objects.get(claim) != content
        or warehouse.objects.exists(f"{version.prefix}/deleted")
    ):
        return None
    for file in (*sorted(path.name for path in folder.glob(_SAMPLES)), *_FILES):
        if file == _FILES[-1]:
            try:
                _ensure_unrevoked(warehouse, folder)
            except WarehouseError:
                for key in warehouse.objects.keys(version.prefix):
                    if key != claim:
                        warehouse.objects.delete(key)
                raise
        warehouse.objects.put_file(f"{version.prefix}/{file}", folder / file)
    return _read(warehouse, f"{version.prefix}/card.json")


def _ensure_unrevoked(warehouse: Warehouse, folder: Path) -> None:
    """Check, right before prepared files become a version, that none of their rows was revoked
    since their statement ran: a deleted source would come back in them."""
    if since := revoked_since(warehouse, folder):
        raise WarehouseError(
            "nothing was published, since some of it was revoked meanwhile: "
            f"{describe_revocation(since[0])}; give the same command again"
        )


def _find_equal(versions: list[Version], content_hash: str) -> Version | None:
    return next((version for version in versions if version.content_hash == content_hash), None)


def _read(warehouse: Warehouse, key: str) -> Version:
    card = json.loads(warehouse.objects.get(key))
    return Version(card["name"], card["version"], card)


def _record(warehouse: Warehouse, version: Version) -> None:
    """Insert the row that shows a version in SQL; its folder is the source of truth."""
    card = version.card
    row = {
        "name": version.name,
        "version": version.number,
        "n_rows": card["rows"],
        "n_images": card["images"],
        "table_versions": json.dumps(card["table_versions"], sort_keys=True),
        "card": json.dumps(card, sort_keys=True),
        **{column: card[column] for column in ("content_hash", "sql", "run_id", "revision")},
    }
    insert_new(warehouse, "dataset_versions", [row])

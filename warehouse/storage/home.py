"""The location of a warehouse: a folder, or `s3://bucket/prefix`; all paths come from here.

    warehouse = Warehouse()                        # $VIGORL_HOME, or ./vigorl-data
    warehouse = Warehouse("s3://bucket/vigorl")    # credentials from the environment, as for boto3
    warehouse.table_uri("traces")                  # handed to Delta Lake
    warehouse.objects.put("images/ab/…", data)     # everything that is not a table

Nothing is created before something is written.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from warehouse.storage.objects import LocalObjects, Objects, S3Objects, region

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{1,3}")
_MISREAD = re.compile(r"[*?\[\]\\]|%[0-9A-Fa-f]{2}")


class WarehouseError(Exception):
    """Something the warehouse cannot do, in one sentence for the user."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Warehouse:
    """The root of everything stored."""

    root: str = field(default_factory=lambda: os.environ.get("VIGORL_HOME") or "./vigorl-data")
    """A folder (made absolute) or `s3://bucket/prefix`."""

    def __post_init__(self) -> None:
        if not self.is_s3 and (scheme := _SCHEME.match(self.root)):
            raise WarehouseError(
                f"{self.root}: a warehouse is a folder or s3://bucket/prefix, not at {scheme[0]}"
            )
        root = self.root.rstrip("/") if self.is_s3 else str(Path(self.root).expanduser().resolve())
        if found := _MISREAD.search(root):
            raise WarehouseError(
                f"{root}: {found[0]} in the path of a warehouse is read as a pattern or an escape "
                "by the libraries that store tables; name a folder without it"
            )
        object.__setattr__(self, "root", root)

    def __reduce__(self) -> tuple[type[Warehouse], tuple[str]]:
        return Warehouse, (self.root,)  # another process opens its own connection to a store

    @classmethod
    def at(cls, home: str | None) -> Warehouse:
        """The warehouse given to a command or a deployment; by default $VIGORL_HOME's."""
        return cls(home) if home else cls()

    @property
    def is_s3(self) -> bool:
        return self.root.startswith("s3://")

    def table_uri(self, name: str) -> str:
        """The address of the Delta table `name`."""
        return f"{self.root}/tables/{name}"

    @cached_property
    def objects(self) -> Objects:
        """Images, dataset bundles, reports, checkpoints: everything that is not a table."""
        if self.is_s3:
            bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
            return S3Objects(bucket, prefix)
        return LocalObjects(Path(self.root))

    def ensure_writable(self) -> None:
        """Check before a table is written that its commits would be safe.

        Raises:
            UnsafeStore: they would not be.
        """
        if isinstance(self.objects, S3Objects):
            self.objects.ensure_safe()

    @property
    def journal_store(self) -> Objects | None:
        """Where a build's journal is besides `journal_dir`: on S3, for other machines; None where
        the folder itself is shared as the warehouse is."""
        return self.objects if self.is_s3 else None

    @property
    def journal_dir(self) -> Path:
        """Local folder for journals: they are appended and synced line by line, so never on S3."""
        if not self.is_s3:
            return Path(self.root) / "journal"
        name = self.root.removeprefix("s3://").replace("/", "_")
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache_home) / "vigorl" / name / "journal"

    def arrow_filesystem(self, name: str) -> Any:
        """The folder of table `name` for pyarrow."""
        return self.arrow_folder(f"tables/{name}")

    def arrow_folder(self, folder: str) -> Any:
        """A folder below the root for pyarrow.

        pyarrow's own file systems, not the one deltalake brings: that one calls back into Python
        from reader threads, and a thread that does so while the process ends aborts it.
        """
        import pyarrow.fs

        whole = f"{self.root}/{folder}"
        if not self.is_s3:
            return pyarrow.fs.SubTreeFileSystem(whole, pyarrow.fs.LocalFileSystem())
        options = self.storage_options or {}
        s3 = pyarrow.fs.S3FileSystem(
            region=options["aws_region"], endpoint_override=options.get("aws_endpoint")
        )
        return pyarrow.fs.SubTreeFileSystem(whole.removeprefix("s3://"), s3)

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What Delta Lake needs to reach the tables; None for a folder."""
        if not self.is_s3:
            return None
        # Commits are conditional puts: two writers of one version can never both succeed.
        options = {"aws_conditional_put": "etag"}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options["aws_endpoint"] = endpoint
            options["aws_allow_http"] = str(endpoint.startswith("http://")).lower()
        options["aws_region"] = region() or "us-east-1"
        return options


@cache
def code_revision() -> str:
    """The revision of this code: VIGORL_REVISION, the checkout's commit, or the installed version.

    A commit with uncommitted changes in tracked files ends in `+changes`.
    """
    if revision := os.environ.get("VIGORL_REVISION"):
        return revision
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        # Only a checkout of this very package counts, not some repository it is installed inside.
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", "home.py"], capture_output=True, timeout=10
        )
        if tracked.returncode == 0:
            head = subprocess.run(
                [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
            )
            changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], timeout=30)
            return head.stdout.strip() + ("+changes" if changed.returncode else "")
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return metadata.version("vigorl")
    except metadata.PackageNotFoundError:
        return "unknown"

"""Object storage: named bytes in a folder or on S3, behind one interface.

    objects.put("images/ab/abcd…", data)     # True if stored, False if the name was taken
    objects.get("images/ab/abcd…")

Images, bundles, reports and checkpoints are objects. An object is put whole or not at all: on disk
through a temporary file, fsync and a link that fails if the name exists; on S3 through a
conditional put. It changes only where `replace` says so. A key is a relative path with forward
slashes; anything that would leave the root is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

WRITERS = 8  # threads for many puts: each mostly waits for the disk or the network
LARGEST_PUT = 1 << 30
"""Bytes; S3 takes at most 5 GB at once. A larger file is uploaded in parts."""
PART = 64 << 20
"""Bytes of a part: 10,000 of them are 640 GB."""
CONFLICT_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Between tries of a put that another one is in the way of."""


class Objects(Protocol):
    """Named bytes. `get` raises KeyError for a name that is not there."""

    def put(self, key: str, data: bytes) -> bool:
        """Store `data` under `key` unless the key is taken; whether it was stored."""

    def put_file(self, key: str, path: Path, replace: bool = False) -> bool:
        """Store a local file under `key`; whether it was stored: not if the key is taken, unless
        `replace`."""

    def get(self, key: str) -> bytes:
        """The bytes of `key`."""

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""

    def delete(self, key: str) -> None:
        """Delete `key` if it is there; only for what must not be kept."""

    def keys(self, prefix: str) -> list[str]:
        """Every key below the folder `prefix`, sorted."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size in bytes of every key below the folder `prefix`, or of all keys; sorted."""

    def versions(self, prefix: str = "") -> dict[str, str]:
        """What differs once another file has taken a key, of each key of `sizes`."""

    def local_path(self, key: str) -> Any:
        """A context manager: a local file with the bytes of `key`, read-only."""


def image_key(image_id: str) -> str:
    """The key of an image's bytes, fanned out so that no folder grows too large."""
    return f"images/{image_id[:2]}/{image_id}"


def put_images(objects: Objects, images: Iterable[bytes]) -> None:
    """Store encoded images under their hashes, in parallel; stored ones are skipped."""

    def store(data: bytes) -> None:
        key = image_key(hashlib.sha256(data).hexdigest())
        if not objects.exists(key):
            objects.put(key, data)

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(store, images):
            pass


def _checked(key: str) -> str:
    path = PurePosixPath(key)
    if not key or path.is_absolute() or ".." in path.parts or "\\" in key or str(path) != key:
        raise ValueError(f"not an object key: {key!r}")
    return key


class LocalObjects:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> bool:
        return self._place(key, lambda handle: handle.write(data))

    def put_file(self, key: str, path: Path, replace: bool = False) -> bool:
        def copy(handle: Any) -> None:
            with path.open("rb") as source:
                while block := source.read(1 << 20):
                    handle.write(block)

        return self._place(key, copy, replace)

    def get(self, key: str) -> bytes:
        try:
            return (self.root / _checked(key)).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(key) from None

    def exists(self, key: str) -> bool:
        return (self.root / _checked(key)).is_file()

    def delete(self, key: str) -> None:
        (self.root / _checked(key)).unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        return list(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        folder = self.root / _checked(prefix) if prefix else self.root
        return {key: status.st_size for key, status in self._listed(folder)}

    def versions(self, prefix: str = "") -> dict[str, str]:
        folder = self.root / _checked(prefix) if prefix else self.root
        return {key: f"{s.st_size} {s.st_mtime_ns}" for key, s in self._listed(folder)}

    def _listed(self, folder: Path) -> list[tuple[str, os.stat_result]]:
        """Return every file below a folder with its status, sorted by key."""
        found = []
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # a temporary file that is gone again
                if path.is_file():
                    found.append((path.relative_to(self.root).as_posix(), path.stat()))
        return sorted(found, key=itemgetter(0))

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        if not self.exists(key):
            raise KeyError(key)
        yield self.root / key

    def _place(self, key: str, write: Any, replace: bool = False) -> bool:
        target = self.root / _checked(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The temporary file is outside every folder that is listed, on the same file system.
        partial = self.root / ".partial"
        partial.mkdir(exist_ok=True)
        temporary = partial / uuid.uuid4().hex
        try:
            with temporary.open("xb") as handle:
                write(handle)
                handle.flush()
                os.fsync(handle.fileno())
            if replace:
                os.replace(temporary, target)
                sync(target.parent)
                return True
            try:
                os.link(temporary, target)  # unlike rename, fails when the name is taken
            except FileExistsError:
                return False
            sync(target.parent)
            return True
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk is told without a name
            raise
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk, so that it survives a power cut."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


SINGLE_WRITER = "VIGORL_UNSAFE_SINGLE_WRITER"
"""Environment variable: set to 1, a store without conditional puts is written all the same."""


def region() -> str | None:
    """Return the region that the environment names, under either of its names.

    boto3 alone would read only the second, and a table's own client the first.
    """
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


class UnsafeStore(Exception):
    """An object store that would let two writers overwrite each other."""


def is_single_writer() -> bool:
    """Return whether a person has promised that no two commands write at once."""
    return os.environ.get(SINGLE_WRITER, "") not in ("", "0")


_probing = threading.Lock()
_safe: set[tuple[str, str]] = set()  # stores that were probed, by address and place


class S3Objects:
    """Objects in a bucket, under a prefix. The only user of boto3."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket, self.prefix = bucket, prefix.strip("/")

    @cached_property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", region_name=region(), config=Config(max_pool_connections=2 * WRITERS)
        )

    def ensure_safe(self) -> None:
        """Find out, once a process, whether the store holds conditional puts to what they promise.

        Raises:
            UnsafeStore: it does not, and nothing says that there is only one writer.
        """
        place = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        with _probing:
            if (self.client.meta.endpoint_url, place) not in _safe:
                self._probe(place)
            _safe.add((self.client.meta.endpoint_url, place))

    def _probe(self, place: str) -> None:
        from botocore.exceptions import ClientError

        name = {"Bucket": self.bucket, "Key": self._name(f"probe/{uuid.uuid4().hex}")}
        conditional = False
        try:
            self.client.put_object(**name, Body=b"1")
            conditional = True
            self.client.put_object(**name, Body=b"2", IfNoneMatch="*")
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            code = error.response["Error"].get("Code", status)
            if conditional and status in (409, 412):
                return
            if not conditional or (status not in (405, 501) and code != "NotImplemented"):
                error.place = place
                raise
            raise UnsafeStore(
                f"{place}: the object store does not support conditional puts (it answers {code} "
                "to PutObject with If-None-Match), which tables are written with: use another "
                "store, or a folder"
            ) from None
        finally:
            with suppress(ClientError):
                self.client.delete_object(**name)
        if not is_single_writer():
            raise UnsafeStore(
                f"{place}: the object store does not support conditional puts (PutObject with "
                "If-None-Match puts an object over another one), so two writers would overwrite "
                f"each other's rows: use another store, or a folder; or set {SINGLE_WRITER}=1 and "
                "never let two commands write at once"
            )

    def put(self, key: str, data: bytes) -> bool:
        return self._put(key, partial(self._send, data))

    def put_file(self, key: str, path: Path, replace: bool = False) -> bool:
        if path.stat().st_size <= LARGEST_PUT:
            return self._put(key, partial(self._send_file, path), replace)
        if not replace and self.exists(key):
            return False  # found out before all of it is sent
        return self._put(key, partial(self._send_parts, path), replace)

    def _send(self, body: Any, name: dict[str, str], unless: dict[str, str]) -> None:
        self.client.put_object(**name, Body=body, **unless)

    def _send_file(self, path: Path, name: dict[str, str], unless: dict[str, str]) -> None:
        with path.open("rb") as body:
            self._send(body, name, unless)

    def _send_parts(self, path: Path, name: dict[str, str], unless: dict[str, str]) -> None:
        upload = {**name, "UploadId": self.client.create_multipart_upload(**name)["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            with path.open("rb") as body:
                while data := body.read(PART):
                    number = len(parts) + 1
                    sent = self.client.upload_part(**upload, PartNumber=number, Body=data)
                    parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            self.client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, **unless
            )
        except BaseException:
            with suppress(Exception):  # else the store keeps parts that nobody can see
                self.client.abort_multipart_upload(**upload)
            raise

    def get(self, key: str) -> bytes:
        try:
            response = self.client.get_object(Bucket=self.bucket, Key=self._name(key))
            return bytes(response["Body"].read())
        except self.client.exceptions.NoSuchKey:
            raise KeyError(key) from None

    def exists(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client.head_object(Bucket=self.bucket, Key=self._name(key))
            return True
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def keys(self, prefix: str) -> list[str]:
        return list(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        return {key: int(item["Size"]) for key, item in self._listed(prefix).items()}

    def versions(self, prefix: str = "") -> dict[str, str]:
        listed = self._listed(prefix)
        return {key: f"{item['ETag']} {item['LastModified']}" for key, item in listed.items()}

    def _listed(self, prefix: str) -> dict[str, Any]:
        """Return what the store says of every key below the folder `prefix`, sorted by key."""
        start = self._name(prefix) if prefix else self.prefix
        start = f"{start}/" if start else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=start
        )
        found = (item for page in pages for item in page.get("Contents", ()))
        strip = len(self.prefix) + 1 if self.prefix else 0
        return {item["Key"][strip:]: item for item in sorted(found, key=itemgetter("Key"))}

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(key).name
            try:
                self.client.download_file(self.bucket, self._name(key), str(path))
            except self.client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    raise KeyError(key) from None
                raise
            yield path

    def clock(self) -> float:
        """Return the store's time in Unix seconds, to the second."""
        answer = self.client.head_bucket(Bucket=self.bucket)["ResponseMetadata"]
        return parsedate_to_datetime(answer["HTTPHeaders"]["date"]).timestamp()

    def _put(self, key: str, send: Callable[..., None], replace: bool = False) -> bool:
        """Store what `send` sends under `key`, as `Objects.put` does."""
        from botocore.exceptions import ClientError

        self.ensure_safe()
        if is_single_writer() and not replace:
            if self.exists(key):
                return False
            replace = True
        unless = {} if replace else {"IfNoneMatch": "*"}
        for pause in (*CONFLICT_PAUSES_S, None):
            try:
                send({"Bucket": self.bucket, "Key": self._name(key)}, unless)
                return True
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412:  # the name is taken
                    return False
                if status != 409 or pause is None:
                    error.place = f"s3://{self.bucket}/{self._name(key)}"
                    raise
                time.sleep(pause)  # another put of it is under way, which may fail: ask again
        raise AssertionError("the last try returns or raises")

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{_checked(key)}" if self.prefix else _checked(key)


def remove_stale(paths: Iterable[Path], older_than_s: float) -> int:
    """Remove files and folders in which nothing has changed for so many seconds, as what a killed
    writer left; return how many."""
    removed = 0
    for left in paths:
        files = [left, *(left.rglob("*") if left.is_dir() else ())]
        with suppress(FileNotFoundError):  # its writer is done with it
            if time.time() - max(file.stat().st_mtime for file in files) > older_than_s:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
                removed += 1
    return removed

"""Reads an image however a dataset stores it: bytes, base64, or a name below known folders.

    files = ImageFiles((folder,))
    files.get(value)                       # bytes; Unusable with the reason where there are none

Hugging Face's Parquet holds `{"bytes": …, "path": …}`, either of them possibly null; other files
hold a name, and VLMEvalKit's TSV base64. A name in a dataset is not to be trusted: one that leads
out of the folders (by `..`, as an absolute one, through a link) is refused, and nothing is ever
fetched from a network.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mcts.image_io import UnreadableImage, upright_size
from warehouse.sources.reading.drafts import Unusable

_LONGEST_NAME = 1024  # characters; a longer text is base64
_SHORTEST_BASE64 = 60
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
_MISSING = "there is no such file below the image root"


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The folders in which the images of one file are looked for, in this order."""

    folders: tuple[Path, ...] = ()
    given: bool = False
    """Whether the user named the folder; else a reason says how to."""

    def get(self, value: Any, field: str = "image") -> bytes:
        """Read the encoded bytes of one image.

        Raises:
            Unusable: there is none, or its name leads nowhere or out of the folders.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray):
            if not value:
                raise Unusable(field, "the image has no bytes")
            return bytes(value)
        if not isinstance(value, str) or not value.strip():
            raise Unusable(field, "there is no image")
        text = value.strip()
        if text.startswith("data:"):
            text = text.partition("base64,")[2]
            return from_base64(text, field)
        if len(text) > _LONGEST_NAME or _is_base64(text):
            return from_base64(text, field)
        return self.read_named(text, field)

    def read_named(self, name: str, field: str = "image") -> bytes:
        """Read the file of that name below one of the folders.

        A name may also be written as on Windows, percent-encoded, with its suffix in the other
        case, or with accents apart from their letters, where no file has it as it is.
        """
        for spelling in _spellings(name):
            for folder in self.folders:
                found = _read_below(folder.resolve(), spelling)
                if isinstance(found, bytes):
                    return found
                if found != _MISSING:
                    raise Unusable(field, f"{name}: {found}")
        hint = "" if self.given else "; --image-root says where the images are"
        raise Unusable(field, f"{name}: {_MISSING}{hint}")


def is_no_image(value: Any) -> bool:
    """Whether a cell holds no image: null, NaN, an empty text, or a struct of nothing."""
    if isinstance(value, dict):  # no bytes at all are missing, and none in a file are damage
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _spellings(name: str) -> Iterator[str]:
    """The name, and what else it may mean."""
    yield name
    others = dict.fromkeys([name.replace("\\", "/"), unquote(name)])
    others |= dict.fromkeys([unquote(name.replace("\\", "/"))])
    for other in others:
        if other != name and "://" not in other:
            yield other
    for plain in (name, *others):
        stem, dot, suffix = plain.rpartition(".")
        for cased in (suffix.lower(), suffix.upper()):
            if dot and "/" not in suffix and cased != suffix:
                yield f"{stem}.{cased}"
    if not name.isascii():
        for form in ("NFC", "NFD"):
            if (composed := unicodedata.normalize(form, name)) != name:
                yield composed


def _is_base64(text: str) -> bool:
    """Whether a text as short as a name is an image all the same."""
    if len(text) < _SHORTEST_BASE64 or not _BASE64.fullmatch(text):
        return False
    begin = base64.b64decode("".join(text.split())[:16], validate=True)
    return begin.startswith(_BEGINNINGS)


def _blobs(root: Path) -> Iterator[Path]:
    """Where a download from the hub keeps the files: `snapshots/` holds links to them."""
    for folder in (root, *root.parents):
        if folder.name == "snapshots" and (folder.parent / "blobs").is_dir():
            yield folder.parent / "blobs"


def _read_below(root: Path, name: str) -> bytes | str:
    """The bytes of a file below `root`, which is resolved, or a clause that says why not."""
    if "://" in name:
        return "addresses are not fetched; give files or bytes"
    if "\0" in name or ".." in Path(name).parts:
        return "the name leads out of the image root"
    path = root / name
    try:
        found = path.resolve()
        if Path(name).is_absolute() and not found.is_relative_to(root):
            return "the name leads out of the image root"
        if not any(found.is_relative_to(folder) for folder in (root, *_blobs(root))):
            return "the name leads out of the image root through a link"
        return path.read_bytes() if path.is_file() else _MISSING
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a name of no file system
        return f"the file can't be read: {error}"


def from_base64(text: str, field: str = "image") -> bytes:
    """Decode a base64 text; Unusable if it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(field, f"this is neither a file's name nor base64: {text[:40]}…") from None


def image_size(data: bytes, field: str = "image") -> tuple[int, int]:
    """Width and height of an encoded image as displayed, upright; by its head if that says it.

    Raises:
        Unusable: it can't be decoded.
    """
    try:
        return upright_size(data)
    except UnreadableImage as error:
        raise Unusable(field, f"the image {error}") from None

"""A picture however a data set holds it: bytes, base64, or a name below known folders.

    found = PictureFiles((folder,))
    found.get(value)                       # bytes; Unusable with the reason where there are none

What Hugging Face's Parquet holds is `{"bytes": …, "path": …}`, either of them possibly null; other
files hold a name, and VLMEvalKit's TSV base64. A name that leads out of the folders (`..`,
absolute, through a link) is refused, and nothing is ever fetched from a network.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from warehouse.sources.reading.drafts import Unusable
from warehouse.sources.reading.safe_path import NO_SUCH_FILE, picture_below

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Decoders that only decode: Pillow also knows formats that start other programs."""
ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 lie on their side
_LONGEST_NAME = 1024  # characters; a longer text is base64


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """The folders in which the pictures of one file are looked for, first things first."""

    folders: tuple[Path, ...] = ()
    told: bool = False
    """Whether somebody named the folder; else a reason says how that is done."""

    def get(self, value: Any, field: str = "image") -> bytes:
        """The encoded bytes of one picture.

        Raises:
            Unusable: there is none, or its name leads nowhere or out of the folders.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray):
            if not value:
                raise Unusable(field, "the picture has no bytes")
            return bytes(value)
        if not isinstance(value, str) or not value.strip():
            raise Unusable(field, "there is no image")
        text = value.strip()
        if text.startswith("data:"):
            text = text.partition("base64,")[2]
            return from_base64(text, field)
        if len(text) > _LONGEST_NAME:
            return from_base64(text, field)
        return self.named(text, field)

    def named(self, name: str, field: str = "image") -> bytes:
        """The bytes of the file of that name below one of the folders."""
        for folder in self.folders:
            found = picture_below(folder.resolve(), name)
            if isinstance(found, bytes):
                return found
            if found != NO_SUCH_FILE:
                raise Unusable(field, f"{name}: {found}")
        hint = "" if self.told else "; --image-root says where the images are"
        raise Unusable(field, f"{name}: {NO_SUCH_FILE}{hint}")


def from_base64(text: str, field: str = "image") -> bytes:
    """The bytes that a base64 text stands for; Unusable if it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(field, f"this is neither a file's name nor base64: {text[:40]}…") from None


def size_of(data: bytes, field: str = "image") -> tuple[int, int]:
    """Width and height of an encoded picture as it is seen, upright; its pixels are not decoded.

    Raises:
        Unusable: it can't be decoded.
    """
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            # Of a PNG, Pillow decodes everything to look for EXIF behind the pixels.
            may_turn = picture.format != "PNG" or b"eXIf" in data
            turned = may_turn and int(picture.getexif().get(ORIENTATION) or 1) in (5, 6, 7, 8)
    except Exception as error:  # damaged bytes make decoders fail in many ways
        reason = str(error).strip() or type(error).__name__
        raise Unusable(field, f"the image can't be decoded: {reason}") from None
    return (height, width) if turned else (width, height)

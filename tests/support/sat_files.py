"""Small question files and pictures for the tests of import and of data set versions."""

from __future__ import annotations

import csv
import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as PILImage

SAT2 = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("correct_answer", pa.string()),
        ("question_type", pa.string()),
    ]
)


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (56, 42), **save: Any) -> bytes:
    data = io.BytesIO()
    noise = hashlib.shake_128(str(seed).encode()).digest(size[0] * size[1] * 3)
    PILImage.frombytes("RGB", size, noise).save(data, kind, **save)
    return data.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A few bytes of PNG that claim to be enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def row(seed: int = 0, *images: bytes, **changed: Any) -> dict[str, Any]:
    pictures = images or (picture(seed),)
    return {
        "images": [{"bytes": data, "path": None} for data in pictures],
        "question": f"Is the cup left of lamp {seed}?",
        "answers": ["left", "right"],
        "correct_answer": "left",
        "question_type": "left_right",
        **changed,
    }


def sat2(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, SAT2), path)
    return path


def rejects(path: str | None) -> list[tuple[str, int, str, str]]:
    assert path
    with open(path, newline="") as handle:
        return [(r["file"], int(r["row"]), r["field"], r["reason"]) for r in csv.DictReader(handle)]

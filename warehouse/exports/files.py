"""The files of an export: rows as Parquet or JSON lines, pictures in the rows or beside them.

    with Pictures(folder / "images.parquet") as pictures: …      # encoded bytes by image id
    counts = write_rows(rows, out, columns, "parquet", pictures)    # {"train": 1040}

Files are named as the hub names them, `data/train-00000-of-00001.parquet`. In Parquet a picture is
`{bytes, path}`, which `datasets` shows as an image; in JSON lines it is a path below the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.data import Observation, Point, content_id
from mcts.zoom import render_crop
from warehouse.storage.home import WarehouseError
from warehouse.tables.schema import Row

FILES = ("parquet", "jsonl")
_ROWS_A_FILE, _ROWS_A_GROUP = 2000, 100
_CUT_KEPT = 256  # regions, of a hundred kilobytes or so
_REGIONS_KEPT = 20 * _ROWS_A_FILE  # more than the rows of one file call for
_GROUPS_KEPT = 64  # of 64 pictures each
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


class Pictures:
    """A version's encoded pictures by id, read from its images.parquet a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.group_of = {
            image_id: group
            for group in range(self.file.num_row_groups)
            for image_id in self.file.read_row_group(group, ["image_id"])["image_id"].to_pylist()
        }
        self.loaded: dict[int, dict[str, tuple[bytes, str]]] = {}
        self.regions: dict[str, tuple[str, Observation, Point | None]] = {}
        self.cut: dict[str, bytes] = {}

    def region(self, image_id: str, seen: Observation, at: Point | None) -> str:
        """The id of a region of a picture, which is cut out when its bytes are asked for."""
        name = content_id(image_id, asdict(seen), at and [at.x, at.y])
        self.regions[name] = (image_id, seen, at)
        if len(self.regions) > _REGIONS_KEPT:
            self.regions.pop(next(iter(self.regions)))
        return name

    def __getitem__(self, image_id: str) -> tuple[bytes, str]:
        """The picture's bytes and a file name for it."""
        if image_id in self.regions:
            whole, seen, at = self.regions[image_id]
            if image_id not in self.cut:  # chains of one tree share their first calls
                if len(self.cut) >= _CUT_KEPT:
                    self.cut.pop(next(iter(self.cut)))
                self.cut[image_id] = render_crop(self[whole][0], seen, at)
            return self.cut[image_id], f"{image_id}.jpg"
        group = self.group_of[image_id]
        if group not in self.loaded:
            if len(self.loaded) >= _GROUPS_KEPT:
                self.loaded.pop(next(iter(self.loaded)))
            rows = self.file.read_row_group(group, ["image_id", "format", "bytes"]).to_pylist()
            self.loaded[group] = {
                row["image_id"]: (
                    row["bytes"],
                    f"{row['image_id']}.{_ENDINGS.get(row['format'], 'img')}",
                )
                for row in rows
            }
        return self.loaded[group][image_id]

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def write_rows(
    rows: Iterator[Row], out: Path, columns: Mapping[str, Any], files: str, pictures: Pictures
) -> dict[str, int]:
    """Write rows below `out/data`, a folder a split; return how many rows each split has.

    Args:
        rows: each with the `columns`, `split`, and `images` as image ids.
        columns: `datasets` features by name, `images` left out.
        files: parquet or jsonl.

    Raises:
        WarehouseError: there is no row.
    """
    write = _parquet if files == "parquet" else _json_lines
    counts: dict[str, int] = {}
    paths: dict[str, list[Path]] = {}
    while some := list(islice(rows, _ROWS_A_FILE)):
        for split in sorted({row["split"] or "train" for row in some}):
            members = [row for row in some if (row["split"] or "train") == split]
            number = len(paths.setdefault(split, []))
            path = out / "data" / split / f"{split}-{number:05d}.{files}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(members, path, columns, pictures, out)
            paths[split].append(path)
            counts[split] = counts.get(split, 0) + len(members)
    if not counts:
        raise WarehouseError("nothing of this version can be told in that form")
    for some_paths in paths.values():
        for path in some_paths:
            name = f"{path.stem}-of-{len(some_paths):05d}{path.suffix}"
            path.rename(path.with_name(name))
    return counts


def _parquet(
    rows: list[Row], path: Path, columns: Mapping[str, Any], pictures: Pictures, out: Path
) -> None:
    from datasets import Features, Image, List

    # The schema's metadata tells `datasets` that these bytes are images.
    schema = Features({**columns, "images": List(Image())}).arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), _ROWS_A_GROUP):  # pictures of so many are in memory
            told = [
                {
                    **{column: row[column] for column in columns},
                    "images": [{"bytes": pictures[i][0], "path": None} for i in row["images"]],
                }
                for row in rows[start : start + _ROWS_A_GROUP]
            ]
            writer.write_table(pa.Table.from_pylist(told, schema))


def _json_lines(
    rows: list[Row], path: Path, columns: Mapping[str, Any], pictures: Pictures, out: Path
) -> None:
    (out / "images").mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            told = {column: row[column] for column in columns}
            told["images"] = [_placed(i, pictures, out) for i in row["images"]]
            _line(file, told)


def _placed(image_id: str, pictures: Pictures, out: Path) -> str:
    """Write a picture once; its path below the export's folder."""
    data, name = pictures[image_id]
    path = out / "images" / name
    if not path.exists():
        path.write_bytes(data)
    return f"images/{name}"


def _line(file: TextIO, value: Row) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")

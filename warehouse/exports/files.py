"""Writes the files of an export: rows as Parquet or JSON lines, images in the rows or beside them.

    with BundleImages(folder / "images.parquet") as images: …      # encoded bytes by image id
    counts = write_rows(rows, out, columns, "parquet", images)     # {"train": 1040}

Files are named as the hub names them, `data/train-00000-of-00001.parquet`. In Parquet an image is
`{bytes, path}`, which `datasets` shows as an image; in JSON lines it is a path below the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.data import Observation, ZoomCall
from mcts.image_io import UnreadableImage, canonical, suffix, upright_size
from mcts.zoom.render import crop_id, render_crop
from warehouse.storage.home import WarehouseError
from warehouse.tables.schema import Row

FILES = ("parquet", "jsonl")
_FILE_ROWS, _GROUP_ROWS = 2000, 100
_MAX_CROPS = 256  # in memory, of a hundred kilobytes or so
_MAX_NAMED_CROPS = 20 * _FILE_ROWS  # more than the rows of one file have
_MAX_GROUPS = 64  # in memory, of 64 images each


class BundleImages:
    """A version's encoded images by id, read from its images.parquet a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.group_of = {
            image_id: group
            for group in range(self.file.num_row_groups)
            for image_id in self.file.read_row_group(group, ["image_id"])["image_id"].to_pylist()
        }
        self.names: dict[str, str] = {}
        """The path below the export of each image that was written there."""
        self._groups: dict[int, dict[str, bytes]] = {}
        self._changed: dict[str, bytes] = {}
        self._crops: dict[str, tuple[str, Observation, ZoomCall | None]] = {}
        self._rendered: dict[str, bytes] = {}
        self.crop_sizes: set[tuple[int, int]] = set()
        """Width and height of the crops that were read."""

    def crop(self, image_id: str, observation: Observation, call: ZoomCall | None) -> str:
        """The id of a crop of an image, which is rendered when its bytes are read."""
        name = crop_id(image_id, observation, call)
        self._crops.pop(name, None)  # so that what is named again is dropped last
        self._crops[name] = (image_id, observation, call)
        if len(self._crops) > _MAX_NAMED_CROPS:
            self._crops.pop(next(iter(self._crops)))
        return name

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height of every image, upright, by its id."""
        rows = self.file.read(["image_id", "width", "height"]).to_pylist()
        return {
            row["image_id"]: (row["width"], row["height"])
            for row in rows
            if row["width"] and row["height"]
        }

    def exported(self, image_id: str) -> bytes:
        """The image's bytes as any plain opener sees the right pixels in them.

        Raises:
            WarehouseError: it can't be decoded.
        """
        if image_id not in self._changed:
            data = self[image_id]
            try:
                seen = canonical(data)
            except UnreadableImage as error:
                raise WarehouseError(f"image {image_id} {error}") from None
            if seen is data:  # nearly all
                return data
            if len(self._changed) >= _MAX_CROPS:
                self._changed.pop(next(iter(self._changed)))
            self._changed[image_id] = seen
        return self._changed[image_id]

    def __getitem__(self, image_id: str) -> bytes:
        """The image's bytes as stored."""
        if image_id in self._crops:
            whole, observation, call = self._crops[image_id]
            if image_id not in self._rendered:  # chains of one tree share their first calls
                if len(self._rendered) >= _MAX_CROPS:
                    self._rendered.pop(next(iter(self._rendered)))
                self._rendered[image_id] = crop = render_crop(self[whole], observation, call)
                self.crop_sizes.add(upright_size(crop))
            return self._rendered[image_id]
        group = self.group_of[image_id]
        if group not in self._groups:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.pop(next(iter(self._groups)))
            rows = self.file.read_row_group(group, ["image_id", "bytes"]).to_pylist()
            self._groups[group] = {row["image_id"]: row["bytes"] for row in rows}
        return self._groups[group][image_id]

    def __enter__(self) -> BundleImages:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def split_name(split: str | None) -> str:
    """Return a split's name as `datasets` takes it: letters, digits and underscores."""
    words = re.findall(r"\w+", split or "")
    return "_".join(words) or "train"


def write_rows(
    rows: Iterator[Row],
    out: Path,
    columns: Mapping[str, Any],
    files: str,
    images: BundleImages,
    left_out: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Write rows below `out/data`, a folder per split; return how many rows each split has.

    Args:
        rows: each with the `columns`, `split`, and `images` as image ids.
        columns: `datasets` features by name, `images` left out.
        files: parquet or jsonl.
        left_out: counts by reason of what yields no row, for the sentence that there is none.

    Raises:
        WarehouseError: there is no row.
    """
    write = _parquet if files == "parquet" else _json_lines
    counts: dict[str, int] = {}
    paths: dict[str, list[Path]] = {}
    while batch := list(islice(rows, _FILE_ROWS)):
        for split in sorted({split_name(row["split"]) for row in batch}):
            members = [row for row in batch if split_name(row["split"]) == split]
            number = len(paths.setdefault(split, []))
            path = out / "data" / split / f"{split}-{number:05d}.{files}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(members, path, columns, images, out)
            paths[split].append(path)
            counts[split] = counts.get(split, 0) + len(members)
    if not counts:
        reasons = ", ".join(f"{n} {reason}" for reason, n in (left_out or {}).items())
        raise WarehouseError(
            "no row of this version can be written in that format"
            + (f"; left out: {reasons}" if reasons else "")
        )
    for split_paths in paths.values():
        for path in split_paths:
            name = f"{path.stem}-of-{len(split_paths):05d}{path.suffix}"
            path.rename(path.with_name(name))
    return counts


def json_lines_info(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `dataset_info` of a README by which `datasets` knows the columns of JSON lines.

    Without it each file's first rows tell, and where all are null or empty they tell another type
    than the next file's.
    """
    from datasets import DatasetInfo, Features, List, Value
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    info = DatasetInfo(features=Features({**columns, "images": List(Value("string"))}))
    card = DatasetCardData()
    DatasetInfosDict({"default": info}).to_dataset_card_data(card)
    told: dict[str, Any] = card.to_dict()["dataset_info"]
    return told


def _parquet(
    rows: list[Row], path: Path, columns: Mapping[str, Any], images: BundleImages, out: Path
) -> None:
    from datasets import Features, Image, List

    # The schema's metadata tells `datasets` that these bytes are images.
    schema = _for_old_readers(Features({**columns, "images": List(Image())}).arrow_schema)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), _GROUP_ROWS):  # images of so many are in memory
            exported = [
                {
                    **{column: row[column] for column in columns},
                    "images": [{"bytes": images.exported(i), "path": None} for i in row["images"]],
                }
                for row in rows[start : start + _GROUP_ROWS]
            ]
            writer.write_table(pa.Table.from_pylist(exported, schema))


def _for_old_readers(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose lists are named so that `datasets` before 4.0 knows them too."""
    metadata = dict(schema.metadata)
    about = json.loads(metadata[b"huggingface"])
    about["info"]["features"] = _plain_lists(about["info"]["features"])
    return schema.with_metadata({**metadata, b"huggingface": json.dumps(about).encode()})


def _plain_lists(feature: Any) -> Any:
    if isinstance(feature, list):
        return [_plain_lists(inner) for inner in feature]
    if not isinstance(feature, dict):
        return feature
    if feature.get("_type") == "List":
        return [_plain_lists(feature["feature"])]
    return {name: _plain_lists(inner) for name, inner in feature.items()}


def _json_lines(
    rows: list[Row], path: Path, columns: Mapping[str, Any], images: BundleImages, out: Path
) -> None:
    (out / "images").mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            exported = {column: row[column] for column in columns}
            exported["images"] = [_write_image(i, images, out) for i in row["images"]]
            file.write(json.dumps(exported, ensure_ascii=False) + "\n")


def _write_image(image_id: str, images: BundleImages, out: Path) -> str:
    """Write an image once; return its path below the export's folder."""
    if image_id not in images.names:
        data = images.exported(image_id)
        images.names[image_id] = f"images/{image_id}.{suffix(data)}"
        (out / images.names[image_id]).write_bytes(data)
    return images.names[image_id]

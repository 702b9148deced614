"""A data set version in the form a trainer reads, points in the trained model's own coordinates.

    export(warehouse, version, "trl", Path("out"))          # out/data/train-00000-of-00001.parquet
    datasets.load_dataset("out", split="train")             # messages, images, trace_id, …

TRL's form: `messages` (role, content as plain text; TRL puts the images before the first user turn
itself, so the text must hold no `<image>` mark) and `images` (encoded bytes). The user turn is the
prompt the search asks with, the assistant turn is the trace. `export.json` beside the data says in
which coordinate space the numbers are: the trainer's processor must resize exactly so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.coordinates import CoordinateSpace, Frame, SpaceKind
from mcts.parsing import render
from mcts.prompts import build_messages, load_prompt
from warehouse.bundle import question_of, read_rows
from warehouse.home import Warehouse, WarehouseError
from warehouse.rows import step_from

if TYPE_CHECKING:
    from warehouse.versions import Version

Row = dict[str, Any]

_ROWS_A_FILE = 2000
_KEPT = ("trace_id", "question_id", "task", "kind", "family")


def export(
    warehouse: Warehouse,
    version: Version,
    to: str,
    out: Path,
    *,
    space: CoordinateSpace | None = None,
    prompt: str = "points",
    min_thoughts: int = 3,
) -> Path:
    """Write a version into the empty or new folder `out`; return the folder.

    Args:
        to: the form: `trl`.
        space: the coordinates of the model to be trained; by default the teacher's.
        prompt: which prompt asks the question, as in a search.
        min_thoughts: the most steps that prompt demands; a shorter trace's demands what it has.

    Raises:
        WarehouseError: the form is unknown, the folder is not empty, or no space was given and the
            teachers spoke several.
    """
    if to not in _FORMS:
        raise WarehouseError(f"there is no export to {to!r}; there are: {', '.join(_FORMS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WarehouseError(f"{out} is there already and not empty: export into a new folder")
    space = space or _teachers_space(version)
    load_prompt(prompt)  # a wrong name is said before anything is written
    from warehouse.versions import open_version  # which offers this function too

    with open_version(warehouse, version) as folder:
        (out / "data").mkdir(parents=True)
        pictures = _Pictures(folder / "images.parquet")
        rows = (
            _FORMS[to](row, space, prompt, min_thoughts, pictures)
            for row in read_rows(folder / "rows.parquet")
        )
        counts = _write(rows, out / "data")
    about = {
        "dataset": version.ref,
        "content_hash": version.content_hash,
        "form": to,
        "space": asdict(space),
        "prompt": prompt,
        "prompt_hash": load_prompt(prompt).digest,
        "min_thoughts": min_thoughts,
        "rows": counts,
    }
    (out / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return out


def _trl(
    row: Row, space: CoordinateSpace, prompt: str, min_thoughts: int, pictures: _Pictures
) -> Row:
    """One conversation in TRL's form."""
    question = question_of(row)
    steps = [step_from(step) for step in row["steps"] or ()]
    if any(step.observation for step in steps):
        raise WarehouseError(f"trace {row['trace_id']} zooms: its crops can't be exported yet")
    # What the prompt demands, the answer must show, or the student learns to ignore it.
    demanded = min(min_thoughts, len(steps))
    asked = build_messages(load_prompt(prompt), question, space, demanded)
    messages = [{"role": message.role, "content": message.text} for message in asked]
    told = render(steps, row["answer"], Frame(space, question.images))
    messages.append({"role": "assistant", "content": told})
    return {
        "messages": messages,
        "images": [{"bytes": pictures[i], "path": None} for i in row["image_ids"]],
        **{column: row[column] for column in _KEPT},
        "split": row["split"],
    }


_FORMS: dict[str, Callable[[Row, CoordinateSpace, str, int, _Pictures], Row]]


def _teachers_space(version: Version) -> CoordinateSpace:
    found = {
        (t["space"], t["min_pixels"], t["max_pixels"], t["factor"])
        for t in version.card["teachers"]
        if t["space"]
    }
    if len(found) != 1:
        raise WarehouseError(
            f"{version.ref} has teachers of {len(found)} coordinate spaces: say with --space which "
            "one the model to be trained speaks"
        )
    kind, *rest = found.pop()
    return CoordinateSpace(SpaceKind(kind), *rest)


class _Pictures:
    """Encoded pictures by id, read from images.parquet a row group at a time."""

    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.group_of = {
            image_id: group
            for group in range(self.file.num_row_groups)
            for image_id in self.file.read_row_group(group, ["image_id"])["image_id"].to_pylist()
        }
        self.loaded: dict[int, dict[str, bytes]] = {}

    def __getitem__(self, image_id: str) -> bytes:
        group = self.group_of[image_id]
        if group not in self.loaded:
            if len(self.loaded) >= 64:  # of 64 pictures each
                self.loaded.pop(next(iter(self.loaded)))
            rows = self.file.read_row_group(group, ["image_id", "bytes"]).to_pylist()
            self.loaded[group] = {row["image_id"]: row["bytes"] for row in rows}
        return self.loaded[group][image_id]


def _write(rows: Iterator[Row], folder: Path) -> dict[str, int]:
    """Write rows into one series of Parquet files a split, named as the hub names them."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    features = Features(
        {
            "messages": List({"role": text, "content": text}),
            "images": List(Image()),
            **dict.fromkeys(_KEPT, text),
        }
    )
    counts: dict[str, int] = {}
    files: dict[str, list[Path]] = {}
    while some := list(islice(rows, _ROWS_A_FILE)):
        for split in sorted({row["split"] or "train" for row in some}):
            members = [row for row in some if (row["split"] or "train") == split]
            # The schema's metadata tells `datasets` that these bytes are images.
            table = pa.Table.from_pylist(members, features.arrow_schema)
            path = folder / f"{split}-{len(files.setdefault(split, [])):05d}.parquet"
            pq.write_table(table, path, row_group_size=100)
            files[split].append(path)
            counts[split] = counts.get(split, 0) + len(members)
    for paths in files.values():
        for path in paths:
            path.rename(path.with_name(f"{path.stem}-of-{len(paths):05d}.parquet"))
    return counts


_FORMS = {"trl": _trl}

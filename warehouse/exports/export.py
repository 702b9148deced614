"""A dataset version in the format a trainer reads, points in the trained model's own coordinates.

    export(warehouse, version, "trl", Path("out"))          # out/data/train/train-00000-of-00001.…
    datasets.load_dataset("out", split="train")             # messages, images, trace_id, …
    export(warehouse, version, "trl", Path("twin"),
           response_style=ResponseStyle.UNGROUNDED)

Formats: `trl` and `llama-factory` (SFT), `grpo` (TRL's), `verl` and `easyr1` (prompts for GRPO),
`dpo` (preference pairs), `prm` (valued steps); `warehouse.exports.formats` says what a row of each
holds. `export.json` beside the data says in which coordinate space the numbers are: the trainer's
processor must resize exactly so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation.render.markdown import render_markdown
from mcts.coordinates import CoordinateSpace, Dialect, SpaceKind
from mcts.data import ResponseStyle, TraceKind
from mcts.prompts import load_prompt
from warehouse.exports.dialogues import ConversationRenderer, box_trees
from warehouse.exports.files import FILES, BundleImages, json_lines_info, write_rows
from warehouse.exports.formats import FORMATS, ExportFormat, features, zoom_columns
from warehouse.exports.trainer_files import (
    LongestRow,
    check_format,
    write_json,
    write_trainer_files,
)
from warehouse.query.read_back import read_dialects, read_pass_rates
from warehouse.query.run_query import UNREADABLE
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import remove_stale
from warehouse.tables.schema import Row
from warehouse.versions.bundle import read_rows
from warehouse.versions.response_styles import PROMPTS, Restyler
from warehouse.versions.versions import Version, open_version, read_tables


def export(
    warehouse: Warehouse,
    version: Version,
    to: str,
    out: Path,
    *,
    space: CoordinateSpace | None = None,
    prompt: str | None = None,
    min_thoughts: int = 3,
    files: str = "parquet",
    response_style: ResponseStyle | None = None,
    zoom_tool: str | None = None,
    observation_role: str | None = None,
) -> Path:
    """Write a version into the empty or new folder `out`; return the folder.

    Args:
        to: the format, one of `warehouse.exports.formats.FORMATS`.
        space: the coordinates of the model to be trained; by default the teacher's.
        prompt: its file, as in a search; by default the response style's, or each task's own.
        min_thoughts: the most steps that it demands; a shorter trace's demands what it has.
        files: parquet with the images inside, or jsonl with the images beside it.
        response_style: rewrite each trace in this style; those that can't be are left out.
        zoom_tool: the tool that dialogues call; by default the one that the search called.
        observation_role: the turn of their crops, `user` or `tool`; see `_role`.

    Raises:
        WarehouseError: the format or kind of file is unknown, the folder holds something, the style
            or role can't be had, or the teachers spoke several spaces and none was given.
    """
    _check_arguments(to, files, out)
    style = _response_style(version, to, response_style)
    if prompt := prompt or (PROMPTS[style] if style else None):
        load_prompt(prompt)  # a wrong name fails before anything is written
    format_, zooms = FORMATS[to], _zooms(version, style)
    columns = _columns(to, zooms)
    with open_version(warehouse, version) as folder:
        file = folder / "rows.parquet"
        space = space or _teachers_space(warehouse, version, file)
        role = _role(to, space, observation_role)
        with BundleImages(folder / "images.parquet") as images, _in_place_of(out) as work:
            renderer = ConversationRenderer(
                warehouse, space, prompt, min_thoughts, images=images, zooms=zooms,
                zoom_tool=zoom_tool, observation_role=role,
                rates=_pass_rates(warehouse, version, format_),
                box_trees=box_trees(warehouse, file) if zooms else set(),
            )  # fmt: skip
            check_format(to, files, space, sizes := images.sizes())
            left_out, longest = renderer.left_out, LongestRow(to, space, sizes)
            rows = format_.rows(_rows(version, style, file, left_out), renderer)
            counts = write_rows(longest.measured(rows), work, columns, files, images, left_out)
            crops = sorted(images.crop_sizes)
            about = _about(style, left_out)
            about["notes"] += write_trainer_files(
                work, version, to, files, space, counts, [*sizes.values(), *crops],
                longest.tokens(crops),
            )  # fmt: skip
            _describe(work, version, to, files, renderer, counts, about, columns)
    return out


_OF_TRL = ("trl", "dpo")
_WORK = ".export-"
"""Begins the names of folders in which exports are made."""
_STALE_S = 24 * 3600.0
"""An export whose folder holds nothing newer was killed."""
_TOOLS_NOTE = (
    "The prompt zoom holds the schema of a dialogue's tool; the column tools has it too, for chat "
    "templates that write it themselves: take it out of the system turn then"
)


def _zooms(version: Version, style: ResponseStyle | None) -> bool:
    """Return whether a row may be a dialogue."""
    by_kind, dialogues = version.card["by_kind"], version.card.get("dialogues")
    return style is ResponseStyle.ZOOM or TraceKind.ZOOM in by_kind or bool(dialogues)


def _role(to: str, space: CoordinateSpace, wanted: str | None) -> str:
    """Return the turn in which a crop comes, `user` or `tool`.

    Chat templates of models that count pixels (Qwen2.5-VL) have no turn for what a tool returns,
    and TRL puts no image into one.
    """
    if to in _OF_TRL and wanted == "tool":
        raise WarehouseError(
            "TRL puts no image into a tool's turn: export with --observation-role user, or to "
            "llama-factory"
        )
    by_user = to in _OF_TRL or space.kind is SpaceKind.ABSOLUTE_RESIZED
    return wanted or ("user" if by_user else "tool")


def _about(style: ResponseStyle | None, left_out: Counter[str]) -> dict[str, Any]:
    about: dict[str, Any] = {"notes": [f"{n} left out, {reason}" for reason, n in left_out.items()]}
    if style:
        about |= {"response_style": str(style), "left_out": left_out.total()}
    return about


def _columns(to: str, zooms: bool) -> dict[str, Any]:
    shapes = {**FORMATS[to].columns, **(zoom_columns(to) if zooms else {})}
    return {name: features(shape) for name, shape in shapes.items()}


def _rows(
    version: Version, style: ResponseStyle | None, file: Path, left_out: Counter[str]
) -> Iterator[Row]:
    """Read a version's rows in that style; count in `left_out` those that can't be."""
    rows = read_rows(file)
    if style and style is not version.response_style:
        return Restyler(style, left_out)(rows)
    return rows


def read_notes(out: Path) -> list[str]:
    """Return what a person must know who trains on the export in a folder."""
    notes: list[str] = json.loads((out / "export.json").read_text(encoding="utf-8"))["notes"]
    return notes


def _check_arguments(to: str, files: str, out: Path) -> None:
    if to not in FORMATS:
        raise WarehouseError(f"there is no export to {to!r}; there are: {', '.join(FORMATS)}")
    if files not in FILES:
        raise WarehouseError(f"there are no {files!r} files; there are: {', '.join(FILES)}")
    if out.exists() and (not out.is_dir() or set(out.iterdir()) - set(_work_folders(out))):
        raise WarehouseError(f"{out} is there already and not empty: export into a new folder")


def _work_folders(folder: Path) -> list[Path]:
    """What `_in_place_of` works in, or a killed export left; nothing else of a like name."""
    named = re.compile(re.escape(_WORK) + r"[0-9a-f]{8}")
    return [path for path in folder.glob(f"{_WORK}*") if named.fullmatch(path.name)]


@contextmanager
def _in_place_of(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end, or nothing if it fails."""
    there = out.is_dir()  # where it may be somebody's current folder, a link or a mount
    beside = out if there else out.parent
    beside.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # somebody else's, perhaps
        remove_stale(_work_folders(beside), _STALE_S)
    work = beside / f"{_WORK}{uuid.uuid4().hex[:8]}"
    work.mkdir()
    try:
        yield work
        if there:
            for made in sorted(work.iterdir(), key=lambda path: path.name == "export.json"):
                os.rename(made, out / made.name)
        else:
            os.rename(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _describe(
    out: Path,
    version: Version,
    to: str,
    files: str,
    renderer: ConversationRenderer,
    counts: dict[str, int],
    more: dict[str, Any],
    columns: dict[str, Any],
) -> None:
    """Write what lies beside the data: how it was made, and what its trainer must be told."""
    if renderer.zooms:
        more["observation_role"] = renderer.observation_role
        more["notes"] += [_TOOLS_NOTE]
    about = {
        "dataset": version.ref,
        "content_hash": version.content_hash,
        "format": to,
        "space": asdict(renderer.space),
        "prompts": renderer.used,
        "min_thoughts": renderer.min_thoughts,
        "rows": counts,
        **more,
    }
    write_json(out / "export.json", about)
    values: dict[str, Any] = {"version": version, "to": to, "files": files, "counts": counts}
    info = json_lines_info(columns) if files == "jsonl" else None  # Parquet says it itself
    values |= {"notes": more["notes"], "info": info}
    readme = render_markdown("warehouse.exports", "README.md.jinja", **values)
    (out / "README.md").write_text(readme, encoding="utf-8")


def _response_style(
    version: Version, to: str, wanted: ResponseStyle | None
) -> ResponseStyle | None:
    """Return the style to write rows in: the wanted one, or the one that the version is in."""
    held = version.response_style
    if wanted is None:
        return held
    if to in ("dpo", "prm"):
        raise WarehouseError(f"an export to {to} is made from trees, and has no response style")
    if held and held is not wanted:
        raise WarehouseError(
            f"{version.ref} was published with response style {held}: the version it came from can "
            "be exported with others"
        )
    return wanted


def _pass_rates(
    warehouse: Warehouse, version: Version, format_: ExportFormat
) -> dict[str, tuple[float, str]]:
    """Return pass rates and bands as when the version was cut, for a format that has them."""
    if "pass_rate" not in str(format_.columns):
        return {}
    try:
        return read_pass_rates(warehouse, tables=read_tables(version))
    except UNREADABLE:
        return {}  # a copied bundle, or tables that a deletion has shortened: they are not known


def _teachers_space(warehouse: Warehouse, version: Version, file: Path) -> CoordinateSpace:
    """Return the one space, with its dialect, of the teachers whose rows a file has."""
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
    trees = pq.read_table(file, columns=["tree_id"])["tree_id"].unique().drop_null().to_pylist()
    try:
        dialects = read_dialects(warehouse, trees)
    except UNREADABLE:
        dialects = set()  # of a copied bundle they are not known
    if len(dialects) > 1:
        raise WarehouseError(
            f"{version.ref} has teachers that write places in the dialects "
            f"{', '.join(sorted(dialects))}: say with --space which one the model to be trained "
            "speaks"
        )
    kind, least, most, factor = found.pop()
    dialect = dialects.pop() if dialects else Dialect.PAIRS
    return CoordinateSpace(SpaceKind(kind), least, most, factor, dialect)

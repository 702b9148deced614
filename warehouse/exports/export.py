"""A data set version in the form a trainer reads, points in the trained model's own coordinates.

    export(warehouse, version, "trl", Path("out"))          # out/data/train/train-00000-of-00001.…
    datasets.load_dataset("out", split="train")             # messages, images, trace_id, …
    export(warehouse, version, "trl", Path("twin"), variant="ungrounded")

Forms: `trl` and `llama-factory` (SFT), `grpo` (TRL's), `verl` and `easyr1` (prompts for GRPO),
`dpo` (preference pairs), `prm` (valued steps); `warehouse.exports.formats` says what a row of each
holds. `export.json` beside the data says in which coordinate space the numbers are: the trainer's
processor must resize exactly so.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
from deltalake.exceptions import DeltaError

from mcts.coordinates import CoordinateSpace, SpaceKind
from mcts.prompts import load_prompt
from warehouse.exports.dialogues import BLOCKS, Telling
from warehouse.exports.files import FILES, Pictures, write_rows
from warehouse.exports.formats import FORMS, features
from warehouse.query.catalog import connect
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.bundle import read_rows
from warehouse.versions.card import front_matter
from warehouse.versions.variants import PROMPTS, Teller, check_variant
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
    variant: str | None = None,
) -> Path:
    """Write a version into the empty or new folder `out`; return the folder.

    Args:
        to: the form, one of `export_forms.FORMS`.
        space: the coordinates of the model to be trained; by default the teacher's.
        prompt: which prompt asks the question, as in a search; by default the variant's, or else
            each task's own.
        min_thoughts: the most steps that prompt demands; a shorter trace's demands what it has.
        files: parquet with the pictures inside, or jsonl with the pictures beside it.
        variant: a form that each trace is told in, one of `curation.traces.variants.VARIANTS`.

    Raises:
        WarehouseError: the form, the variant or the kind of file is unknown, the folder is not
            empty, the version or the form has no variants, or no space was given and the teachers
            spoke several.
    """
    if to not in FORMS:
        raise WarehouseError(f"there is no export to {to!r}; there are: {', '.join(FORMS)}")
    if files not in FILES:
        raise WarehouseError(f"there are no {files!r} files; there are: {', '.join(FILES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WarehouseError(f"{out} is there already and not empty: export into a new folder")
    variant = _variant(version, to, variant)
    space = space or _teachers_space(version)
    prompt = prompt or PROMPTS.get(variant or "")
    if prompt:
        load_prompt(prompt)  # a wrong name is said before anything is written

    form = FORMS[to]
    zooms = variant == "zoom" or "zoom" in version.card["by_kind"]
    shapes = form.columns
    if zooms and to == "trl":
        shapes = {**shapes, "messages": BLOCKS}
    columns = {name: features(shape) for name, shape in shapes.items()}
    with _in_place_of(out) as work:
        with (
            open_version(warehouse, version) as folder,
            Pictures(folder / "images.parquet") as pictures,
        ):
            rates = pass_rates(warehouse, version) if "pass_rate" in str(form.columns) else {}
            telling = Telling(
                warehouse, space, prompt, min_thoughts, pictures=pictures, zooms=zooms, rates=rates
            )
            rows = read_rows(folder / "rows.parquet")
            tell = None
            if variant and variant != version.card.get("variant"):
                tell = Teller(variant)
                rows = tell(rows)
            counts = write_rows(form.rows(rows, telling), work, columns, files, pictures)
        about = {"variant": variant, "left_out": tell.left_out if tell else 0} if variant else {}
        _describe(work, version, to, files, telling, counts, about)
    return out


@contextmanager
def _in_place_of(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` at the end, or nothing if it fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}-{uuid.uuid4().hex[:8]}"
    work.mkdir()
    try:
        yield work
        os.rename(work, out)  # also onto an empty folder
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _describe(
    out: Path,
    version: Version,
    to: str,
    files: str,
    telling: Telling,
    counts: dict[str, int],
    told_as: dict[str, Any],
) -> None:
    """What lies beside the data: how it was made, and where trainers find it."""
    about = {
        "dataset": version.ref,
        "content_hash": version.content_hash,
        "form": to,
        "space": asdict(telling.space),
        "prompts": telling.used,
        "min_thoughts": telling.min_thoughts,
        "rows": counts,
        **told_as,
    }
    _write_json(out / "export.json", about)
    (out / "README.md").write_text(_readme(version, to, files, counts), encoding="utf-8")
    if to == "llama-factory":
        _write_json(out / "dataset_info.json", _dataset_info(version, counts))


def _variant(version: Version, to: str, variant: str | None) -> str | None:
    """The form that the rows are told in: what is asked for, or what the version holds."""
    held = version.card.get("variant")
    if variant is None:
        return str(held) if held else None
    check_variant(variant)
    if to in ("dpo", "prm"):
        raise WarehouseError(f"an export to {to} is made from trees, and has no variants")
    if held and held != variant:
        raise WarehouseError(
            f"{version.ref} holds its traces told as {held!r}: the version it came from has the "
            "others"
        )
    return variant


def pass_rates(warehouse: Warehouse, version: Version) -> dict[str, tuple[float, str]]:
    """Pass rate and band of each question that was searched, as when the version was cut; of
    several models the one whose searches say most."""
    try:
        with connect(warehouse, read_tables(version), names=["grpo_prompts"]) as con:
            rows = con.sql(
                "SELECT question_id, pass_rate, band FROM grpo_prompts "
                "QUALIFY row_number() OVER (PARTITION BY question_id ORDER BY outcomes DESC, model)"
                " = 1"
            ).to_arrow_table()
    except (DeltaError, duckdb.Error, OSError):
        return {}  # a copied bundle, or tables that a deletion has shortened: nobody can say
    return {r["question_id"]: (r["pass_rate"], r["band"]) for r in rows.to_pylist()}


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


def _dataset_info(version: Version, counts: dict[str, int]) -> dict[str, Any]:
    """What LLaMA-Factory reads to find a data set: run it with `dataset_dir` at the folder."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system"}
    return {
        version.name if split == "train" else f"{version.name}-{split}": {
            "file_name": f"data/{split}",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": tags,
        }
        for split in counts
    }


def _readme(version: Version, to: str, files: str, counts: dict[str, int]) -> str:
    """The front matter by which `datasets` and the hub find the splits, and a line for people."""
    found = [f"  - {{split: {split}, path: data/{split}/*.{files}}}" for split in counts]
    configs = ["- config_name: default", "  data_files:", *found]
    return "\n".join(
        [
            *front_matter(version.card["licences"], configs),
            f"# {version.ref} for {to}",
            "",
            f"{sum(counts.values())} rows, made from the data set version with the content hash "
            f"`{version.content_hash}`. The coordinates' frame is in `export.json`.",
            "",
        ]
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

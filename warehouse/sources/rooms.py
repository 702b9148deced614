"""The embedded sample: rendered rooms with questions, in exactly SAT-v2's published schema.

    python -m warehouse.sources.rooms --out warehouse/sources/sample    # the committed files

Each split is a fixed function of its seed. Beside the questions lies the truth about the pictures,
`rooms-*.objects.parquet`: for each stored picture (by the SHA-256 of its bytes) the visible extent
of each object in pixels, x2 and y2 exclusive. Within a split the answers are balanced by family,
by position among the options and by the kinds of objects a question names, so that the words alone
answer nothing. `rooms_scene` says what a room is, `rooms_draw` draws it, `rooms_questions` asks.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.sources.rooms_questions import (
    CHANGE,
    FAMILIES,
    Balance,
    Frame,
    RoomQuestion,
    Take,
    ask,
    sample_take,
)

SPLITS = {"train": (20_251, 162), "test": (20_252, 480)}  # seed, number of questions
QUESTIONS_PER_TAKE = 3
JPEG_QUALITY = 90

QUESTION_SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("correct_answer", pa.string()),
        ("question_type", pa.string()),
    ]
)
_BOX = [("label", pa.string()), *((edge, pa.float64()) for edge in ("x1", "y1", "x2", "y2"))]
OBJECT_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.string()),
        ("objects", pa.list_(pa.struct(_BOX))),
    ]
)


def encode(frame: Frame) -> bytes:
    """The picture as it is stored: JPEG, its bytes a fixed function of its pixels."""
    out = io.BytesIO()
    frame.image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return out.getvalue()


def sample(seed: int, size: int) -> Iterator[tuple[Take, list[RoomQuestion]]]:
    """Takes with their questions until there are `size`, the same number of each family.

    Each take is drawn for the families that still lack most questions.
    """
    rng = np.random.default_rng(seed)
    balance, left = Balance(), {family: size // len(FAMILIES) for family in FAMILIES}
    while any(left.values()):
        order = sorted(FAMILIES, key=lambda f: (-left[f], rng.random()))
        change = next((CHANGE[f] for f in order[:3] if f in CHANGE), None)
        take = sample_take(rng, 2, 5, change)
        questions: list[RoomQuestion] = []
        for family in order:
            if left[family] == 0 or len(questions) == QUESTIONS_PER_TAKE:
                continue
            question = ask(rng, take, family, balance)
            if question:
                questions.append(question)
                left[family] -= 1
        if questions:
            yield take, questions


def write_split(out: Path, split: str, seed: int, size: int) -> dict[str, int]:
    """Writes one split's two files; counts its questions, its pictures and the files' bytes."""
    rows, truth = [], {}
    for number, (take, questions) in enumerate(sample(seed, size)):
        stored = [encode(frame) for frame in take.frames]
        for question in questions:
            images = []
            for i in question.frames:
                digest = hashlib.sha256(stored[i]).hexdigest()
                images.append({"bytes": stored[i], "path": f"rooms-{split}-{number:04d}-{i}.jpg"})
                boxes = take.frames[i].boxes.items()
                truth[digest] = [
                    {"label": name, **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
                    for name, box in boxes
                ]
            rows.append(
                {
                    "images": images,
                    "question": question.text,
                    "answers": list(question.options),
                    "correct_answer": question.answer,
                    "question_type": question.family,
                }
            )
    files = {
        out / f"rooms-{split}.parquet": pa.Table.from_pylist(rows, QUESTION_SCHEMA),
        out / f"rooms-{split}.objects.parquet": pa.Table.from_pylist(
            [{"image_sha256": k, "objects": v} for k, v in truth.items()], OBJECT_SCHEMA
        ),
    }
    for path, table in files.items():
        # A picture that several questions share is stored once: the dictionary holds them all.
        pq.write_table(
            table,
            path,
            compression="zstd",
            dictionary_pagesize_limit=64 << 20,
            data_page_size=64 << 20,
            row_group_size=len(table),
        )
    size_in_bytes = sum(path.stat().st_size for path in files)
    return {"questions": len(rows), "pictures": len(truth), "bytes": size_in_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the embedded sample of rendered rooms.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for split, (seed, size) in SPLITS.items():
        counts = write_split(out, split, seed, size)
        print(f"{split}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()

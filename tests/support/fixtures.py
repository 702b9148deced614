"""Small real files in the published formats, drawn on the spot."""

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SAT_SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("correct_answer", pa.string()),
        ("question_type", pa.string()),
    ]
)


def picture(seed: int, size: tuple[int, int] = (56, 56)) -> bytes:
    """A PNG with two boxes whose places depend on `seed`."""
    image = Image.new("RGB", size, (230, 225, 215))
    draw = ImageDraw.Draw(image)
    x = 4 + seed * 7 % (size[0] // 2)
    draw.rectangle((x, 10, x + 12, 22), fill="red")
    draw.rectangle((size[0] - 16, 30 + seed % 10, size[0] - 6, 42 + seed % 10), fill="blue")
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def sat_rows(n: int) -> list[dict]:
    """Questions in SAT-v2's schema; every third shows two images."""
    return [
        {
            "images": [
                {"bytes": picture(2 * i + j), "path": f"{i}-{j}.png"}
                for j in range(2 if i % 3 == 0 else 1)
            ],
            "question": f"Is the red box left or right of the blue box in scene {i}?",
            "answers": ["left", "right"],
            "correct_answer": "left" if i % 2 else "right",
            "question_type": "left_right",
        }
        for i in range(n)
    ]


def unlike_rows(n: int) -> list[dict]:
    """Questions unlike those of `sat_rows` in words and images, so that no filter confuses them."""
    rows = []
    for i, row in enumerate(sat_rows(n)):
        data = io.BytesIO()
        noise = random.Random(i).randbytes(56 * 56 * 3)
        Image.frombytes("RGB", (56, 56), noise).save(data, "PNG")
        text = f"Seen from window {i}, which way does the corridor turn?"
        images = [{"bytes": data.getvalue(), "path": f"{i}.png"}]
        rows.append({**row, "question": text, "images": images})
    return rows


def write_sat(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, SAT_SCHEMA), path)
    return path

"""Preview of an import: the first rows are drawn with their gold, and wrong units are reported."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.render.question_card import draw_question
from curation.render.text_layout import BLUE
from flows.cli import app as cli
from mcts.data import Box, Point
from tests.support.sat_files import picture, row, sat2
from warehouse.sources import preview
from warehouse.sources.importing import ImportProblem
from warehouse.sources.preview import preview_import
from warehouse.sources.reading.box_units import BoxUnits
from warehouse.sources.reading.columns import Columns

WIDTH, HEIGHT = 1920, 1080


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), (240, 240, 240)).save(folder / "a.png")
    return folder


def looked(shots: Path, boxes: list[Any], form: str = "xyxy", **how: Any) -> Any:
    file = shots / "train.jsonl"
    rows = [{"q": f"where is thing {i}?", "i": "a.png", "b": box} for i, box in enumerate(boxes)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    columns = Columns.parsed("question=q,image=i,box=b", form)
    return preview_import("mine", file, out=shots.parent / "look", columns=columns, **how)


@pytest.fixture(autouse=True)
def few_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "DRAWN", 2)


PLACES = [(61 * i % 1500, 37 * i % 900) for i in range(1, 41)]
PIXELS = [[x, y, x + 120, y + 40] for x, y in PLACES]


def test_boxes_in_pixels_are_drawn_and_no_warning_is_given(shots: Path) -> None:
    found = looked(shots, PIXELS)
    assert (found.read, found.rejects, found.warnings) == (40, (), ())
    assert len(found.files) == len(found.lines) == 2
    assert found.lines[0] == "train.jsonl row 1: where is thing 0? -> (61, 37, 181, 77)"
    assert len(looked(shots, PIXELS, limit=3).files) == 3


@pytest.mark.parametrize(
    ("boxes", "printed"),
    [
        ([[x / WIDTH, y / HEIGHT, (x + 120) / WIDTH, (y + 40) / HEIGHT] for x, y in PLACES],
         "40 of 40 gold boxes have no number over 1: they look like shares"),
        ([[x * 1000 // WIDTH, y * 1000 // HEIGHT, (x + 120) * 1000 // WIDTH,
           (y + 40) * 1000 // HEIGHT] for x, y in PLACES],
         "none of 40 gold boxes on large images has a number over 1000: they look like"),
        ([[x, y, 120, 40] for x, y in PLACES],
         "gold boxes end left of or above where they begin: they look like a corner with width"),
        ([[2 * n for n in box] for box in PIXELS], "gold boxes lie outside their image"),
        ([[0, 0, WIDTH, HEIGHT - 1]] * 5, "5 of 5 gold boxes cover nearly all of their image"),
    ],
)  # fmt: skip
def test_a_wrong_frame_is_reported(boxes: list[list[float]], printed: str, shots: Path) -> None:
    assert printed in "; ".join(looked(shots, boxes).warnings)


def test_the_advice_that_a_warning_gives_is_right(shots: Path) -> None:
    """Read as the warning says, the same numbers give the boxes that were meant, and no warning."""
    thousandths = [[x * 1000 / WIDTH, y * 1000 / HEIGHT, (x + 120) * 1000 / WIDTH,
                    (y + 40) * 1000 / HEIGHT] for x, y in PLACES]  # fmt: skip
    for boxes, form in [
        (thousandths, "xyxy/1000"), ([[x, y, 120, 40] for x, y in PLACES], "xywh"),
    ]:  # fmt: skip
        wrong = looked(shots, boxes)
        assert any(f"--boxes {form}" in warning for warning in wrong.warnings)
        assert looked(shots, boxes, form).warnings == ()


def test_few_boxes_are_not_judged_together() -> None:
    frames = BoxUnits()
    frames.add([Box(10, 10, 90, 40)], [(1920, 1080)])
    frames.add([Box(0, 0, 1, 1)], [None])  # a picture that can't be read says nothing
    assert frames.boxes == 1 and frames.warnings() == []


def blue_at(png: bytes) -> list[tuple[int, int]]:
    """Where a card has the colour in which gold is drawn, below its last word left out."""
    card = Image.open(io.BytesIO(png)).convert("RGB")
    wanted = tuple(int(BLUE[i : i + 2], 16) for i in (1, 3, 5))
    pixels = card.load()
    picture = range(0, card.height - 220)
    return [(x, y) for y in picture for x in range(card.width) if pixels[x, y] == wanted]


def test_gold_is_drawn_where_its_numbers_are() -> None:
    data = picture(1, size=(660, 400))  # twice as large on the card, 40 pixels from its corner
    drawn = blue_at(draw_question("?", (), (), [Box(100, 50, 200, 100)], [Point(400, 300)], [data]))
    box = [(x, y) for x, y in drawn if x < 600]
    assert (min(box), max(box)) == ((236, 136), (444, 244))
    ring = [(x, y) for x, y in drawn if x > 600]
    assert sum(x for x, _ in ring) / len(ring) == pytest.approx(840, abs=1)
    assert sum(y for _, y in ring) / len(ring) == pytest.approx(640, abs=1)


def test_a_box_beside_its_image_is_drawn_beside_it() -> None:
    data = picture(1, size=(600, 400))
    card = draw_question("?", (), (), [Box(650, 100, 700, 150)], (), [data])
    scale = (1400 - 80) / 700  # the picture and a hundred pixels of margin fill the card
    places = blue_at(card)
    assert min(x for x, _ in places) == pytest.approx(40 + 650 * scale, abs=6)
    far = draw_question("?", (), (), [Box(6500, 100, 7000, 150)], (), [data])
    assert Image.open(io.BytesIO(far)).width == 1400


def test_an_image_or_a_row_that_is_bad_is_drawn_as_well(tmp_path: Path) -> None:
    rows = [row(0), row(1, b"not a picture"), row(2, correct_answer="behind")]
    file = sat2(tmp_path / "train.parquet", rows)
    found = preview_import("sat2", file, out=tmp_path / "look", limit=3)
    assert [reject.row for reject in found.rejects] == [2, 3]
    assert len(found.files) == 3
    assert found.lines[2].endswith(
        "[answer: the answer 'behind' is none of the choices: left, right]"
    )
    with pytest.raises(ImportProblem, match="is empty"):
        preview_import("sat2", sat2(tmp_path / "train2.parquet", []), out=tmp_path / "look")
    with pytest.raises(ImportProblem, match="is not a folder"):
        preview_import("sat2", file, out=file)


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["vigorl", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_the_command_looks_and_stores_nothing(
    shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked(shots, [[x, y, 120, 40] for x, y in PLACES])
    home, out = tmp_path / "home", tmp_path / "cards"
    base = ["import", "mine", str(shots / "train.jsonl"), "--home", str(home)]
    columns = ["--columns", "question=q,image=i,box=b"]
    assert run([*base, *columns, "--check", "--out", str(out), "--limit", "2"], monkeypatch) == 0
    printed = capsys.readouterr()
    first = f"{out}/001.png  train.jsonl row 1: where is thing"
    assert printed.out.splitlines()[0].startswith(first)
    assert "2 rows read, 1 of them would be rejected; nothing was stored" in printed.out
    assert sorted(file.name for file in out.iterdir()) == ["001.png", "002.png"]
    assert not home.exists()
    assert run([*base, *columns, "--boxes", "xywh"], monkeypatch) == 0
    assert capsys.readouterr().out.startswith("40 rows read: 40 questions added")
    assert run([*base, *columns], monkeypatch) == 2
    assert "so nothing was imported" in capsys.readouterr().err
    assert run([*base, "--boxes", "xywh"], monkeypatch) == 2
    assert "--boxes: it belongs to --columns" in capsys.readouterr().err
    assert run(base, monkeypatch) == 2
    assert "no task named 'mine'" in capsys.readouterr().err


def test_an_import_warns_as_well(
    shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked(shots, [[x / WIDTH, y / HEIGHT, (x + 120) / WIDTH, 0.9] for x, y in PLACES])
    file, home = str(shots / "train.jsonl"), str(tmp_path / "home")
    columns = ["--columns", "question=q,image=i,box=b"]
    assert run(["import", "mine", file, *columns, "--home", home], monkeypatch) == 0
    assert "warning: 40 of 40 gold boxes have no number over 1" in capsys.readouterr().err

"""One image, the same pixels for everybody; and what is no image is called by its name."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.render.trace_card import open_image
from mcts.image_io import decode
from tests.support.project import Project, thinking
from training.examples import decode_image

CUP = thinking("<think>The cup is at {p}.</think>")
TAGGED = ("WEBP", "JPEG", "PNG", "TIFF", "AVIF")
CLEAR = ("RGBA", "LA", "P")
READ = ("TIFF", "AVIF", "JPEG2000", "GIF", "BMP", "PPM")
RAMP = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)


def sent(body: dict[str, Any]) -> Image.Image:
    """The image of a request, as a server sees it that pays no attention to tags."""
    (url,) = [part["image_url"]["url"] for message in body["messages"]
              if isinstance(message["content"], list)
              for part in message["content"] if part["type"] == "image_url"]  # fmt: skip
    head, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == "data:" + Image.MIME[image.format or ""]
    return image.convert("RGB")


@dataclass(frozen=True)
class Seen:
    """What each reader saw of each image."""

    project: Project
    served: dict[str, Image.Image]

    def arrays(self, name: str) -> list[np.ndarray]:
        """One image as the server, the local teacher, the trainer and the gallery see it."""
        data = (self.project.data / name).read_bytes()
        images = (self.served[name], decode(data), decode_image(data), open_image(data))
        return [np.asarray(image) for image in images]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    project = Project(tmp_path_factory.mktemp("images"))
    exif = Image.Exif()
    exif[0x112] = 6
    ramp = Image.linear_gradient("L").convert("RGB")
    for kind in TAGGED:
        project.image(f"side.{kind}", ramp.resize((120, 90)), format=kind, exif=exif)
    clear = Image.new("RGBA", (200, 150), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (50, 50, 100, 100))
    for mode in CLEAR:
        project.image(f"clear.{mode}", clear.convert(mode), format="PNG")
    project.image("deep", Image.fromarray(RAMP), format="PNG")
    for kind in READ:
        project.image(f"read.{kind}", ramp, format=kind)
    names = sorted(path.name for path in project.data.iterdir())
    ran, requests = project.ask([{"img": name, "q": f"Is it <{name}>?"} for name in names], CUP)
    assert ran.status == 0, ran.text
    served = {}
    for body in requests:
        (name,) = re.findall(r"Is it <(.+?)>\?", json.dumps(body["messages"]))
        served[name] = sent(body)
    assert sorted(served) == names
    return Seen(project, served)


@pytest.mark.parametrize("kind", TAGGED)
def test_f07_a_picture_on_its_side_is_sent_upright_in_every_format(seen: Seen, kind: str) -> None:
    first, *others = seen.arrays(f"side.{kind}")
    assert first.shape == (120, 90, 3)
    assert all(np.array_equal(first, other) for other in others)
    stored = seen.project.sql(f"SELECT width, height FROM images WHERE format = '{kind}'")
    assert {"width": 90, "height": 120} in stored


@pytest.mark.parametrize("mode", CLEAR)
def test_s08_black_words_on_a_transparent_ground_are_on_white_for_all(
    seen: Seen, mode: str
) -> None:
    expected = np.full((150, 200, 3), 255, np.uint8)
    expected[50:100, 50:100] = 0
    for array in seen.arrays(f"clear.{mode}"):
        assert np.array_equal(array, expected)


def test_f43_sixteen_bits_of_grey_are_scaled_and_not_cut_off(seen: Seen) -> None:
    expected = np.floor(RAMP / 257 + 0.5).astype(np.uint8)[..., None].repeat(3, 2)
    for array in seen.arrays("deep"):
        assert np.array_equal(array, expected)


@pytest.mark.parametrize("kind", READ)
def test_f45_what_pillow_reads_is_taken_and_sent_as_a_picture_that_servers_read(
    seen: Seen, kind: str
) -> None:
    first, *others = seen.arrays(f"read.{kind}")
    assert all(np.array_equal(first, other) for other in others)
    assert seen.project.sql(f"SELECT count(*) AS n FROM images WHERE format = '{kind}'")[0]["n"]


BROKEN = {
    "html": (b"<html><body>404</body></html>", "HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    "empty": (b"", "empty"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "pdf": (b"%PDF-1.4 x", "PDF"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
    "junk": (bytes(range(128, 250)), "80 81 82"),
}


def test_f45_s50_what_is_no_picture_is_named_and_the_same_rejects_make_the_same_file(
    project: Project,
) -> None:
    project.image("ok.png")
    rows = [{"img": "ok.png", "q": "Is it good?"}]
    for name, (data, _) in BROKEN.items():
        project.write(f"{name}.jpg", data)
        rows.append({"img": f"{name}.jpg", "q": f"Is it {name}?"})
    cut = project.image("whole.png", Image.effect_noise((64, 64), 60)).read_bytes()
    project.write("cut.png", cut[:-60])
    rows.append({"img": "cut.png", "q": "Is it cut?"})
    for _ in range(3):
        ran = project.add(rows)
        assert ran.status == 0, ran.text
    (report,) = [path for path in (project.home / "rejects").rglob("*") if path.is_file()]
    with report.open(newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert len(reasons) == len(BROKEN) + 1
    for (name, (_, says)), reason in zip(BROKEN.items(), reasons, strict=False):
        assert says in reason, (name, reason)
        assert name == "empty" or "PNG, JPEG, WebP" in reason
    assert "a PNG file that is damaged or cut off" in reasons[-1]
    assert "0x" not in report.read_text() and "BytesIO" not in report.read_text()


@pytest.mark.parametrize(("top", "white"), [
    (1, 255), (200, 255), (399, 511), (4095, 4095), (40_000, 65_535), (100_000, 100_000),
])  # fmt: skip
def test_f43_grey_of_32_bits_is_never_all_but_black(top: int, white: int) -> None:
    ramp = np.linspace(0, top, 400).reshape(20, 20)
    for kind in (np.int32, np.float32):
        data = io.BytesIO()
        Image.fromarray(ramp.astype(kind)).save(data, "TIFF")
        brightest = int(np.asarray(decode(data.getvalue())).max())
        assert brightest == round(255 * (1 if kind is np.float32 and top == 1 else top / white))

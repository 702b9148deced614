"""One image, the same pixels for everybody: whatever its file says of them, and wherever."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.filters.image_hash import phash
from curation.render.trace_card import open_image
from mcts.image_io import (
    READ,
    UnreadableImage,
    as_rgb,
    canonical,
    decode,
    examine,
    media_type,
    suffix,
    upright_size,
)
from training.examples import decode_image

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 13, 7
MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F",
         "LA", "La", "PA", "I;16", "I;16B")  # fmt: skip
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
TAGGED = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "AVIF")
NOT_READ_BACK = {("YCbCr", "TIFF")}  # Pillow writes it, and can't read it itself
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What each EXIF orientation does to the array of the stored pixels."""


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        image.save(out, kind, **options)
    return out.getvalue()


def plainly(data: bytes) -> np.ndarray:
    """As an opener sees a file that pays no attention to anything."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shown(data: bytes) -> np.ndarray:
    return np.asarray(decode(data))


def to_lab(image: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, rgb, lab, outputMode="LAB")


@cache
def drawn(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    if mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        base.putalpha(Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)))
        if mode == "PA":
            return base.convert("RGB").convert("P").convert("PA")
        return base.convert("LA").convert("La") if mode == "La" else base.convert(mode)
    if mode in ("I", "I;16", "I;16B"):
        grey = Image.fromarray(rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16))
        return grey if mode == "I;16" else grey.convert("I").convert(mode)
    if mode == "F":
        return Image.fromarray(rng.random((HEIGHT, WIDTH)).astype(np.float32))
    if mode == "LAB":
        return to_lab(base)
    return base.convert(mode)


def files(kind: str) -> Iterator[tuple[str, int, bytes]]:
    """Every mode in every orientation that can be written in a format."""
    for mode in MODES:
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            try:
                data = encoded(drawn(mode), kind, exif=exif)
            except (OSError, ValueError, KeyError, RuntimeError):
                continue
            if (mode, kind) not in NOT_READ_BACK:
                yield mode, orientation, data


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(drawn("RGB"), "PNG", exif=exif)
    assert examine(data).orientation == 1
    assert upright_size(data) == (WIDTH, HEIGHT)
    assert np.array_equal(shown(data), np.asarray(drawn("RGB")))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_mode_and_orientation_is_one_array_for_all(kind: str) -> None:
    seen = 0
    for mode, orientation, data in files(kind):
        array, sent = shown(data), canonical(data)
        name = f"{mode} {orientation}"
        for reader in (plainly(sent), np.asarray(decode_image(data)), np.asarray(open_image(data))):
            assert np.array_equal(array, reader), name
        plain = np.asarray(decode(sent))
        assert np.array_equal(array, plain) and canonical(sent) == sent, name
        assert Image.open(io.BytesIO(sent)).mode in ("RGB", "L")
        size = (array.shape[1], array.shape[0])
        found = examine(data)
        assert upright_size(data) == size == (found.width, found.height), name
        turned = orientation in (5, 6, 7, 8) and kind in TAGGED
        assert size == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT)), name
        assert found.orientation == (orientation if kind in TAGGED else 1), name
        assert media_type(sent) == Image.MIME[Image.open(io.BytesIO(sent)).format.replace(
            "MPO", "JPEG")]  # fmt: skip
        assert phash(data) is None or (phash(data) ^ phash(sent)).bit_count() <= 2, name
        seen += 1
    assert seen >= 8


@pytest.mark.parametrize("kind", TAGGED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tag_turns_the_pixels_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.linear_gradient("L").resize((48, 24)).convert("RGB")
    smooth.paste("red", (0, 0, 12, 12))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    expected = TURNED[orientation](np.asarray(smooth)).astype(int)
    found = shown(encoded(smooth, kind, exif=exif, **lossless)).astype(int)
    loss = np.abs(found - expected).mean()
    assert loss == 0 if kind in ("PNG", "WEBP", "TIFF") else loss < 8


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + crc


def test_a_png_is_turned_wherever_its_tag_lies() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(drawn("RGB"))
    raw = exif.tobytes()
    hexed = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunks = {
        "eXIf": chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")),
        "zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed)),
        "tEXt": chunk(b"tEXt", b"Raw profile type exif\0" + hexed),
        "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }
    expected = TURNED[6](np.asarray(drawn("RGB")))
    for name, extra in chunks.items():
        for at in (33, len(plain) - 12):  # behind the head; behind the pixels
            data = plain[:at] + extra + plain[at:]
            assert np.array_equal(shown(data), expected), (name, at)
            assert np.array_equal(plainly(canonical(data)), expected), (name, at)
            assert upright_size(data) == (HEIGHT, WIDTH), (name, at)


def test_a_jpeg_is_turned_wherever_its_tag_lies() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    plain = encoded(drawn("RGB"), "JPEG", quality=95)
    raw = exif.tobytes()
    raw = raw if raw.startswith(b"Exif") else b"Exif\0\0" + raw
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='8' tiff:Orientation=\"8\"/>"
    comment = b"\xff\xfe" + (60002).to_bytes(2, "big") + b"c" * 60000  # the tag is far behind
    expected = TURNED[8](plainly(plain))
    for extra in (raw, xmp):
        app1 = b"\xff\xe1" + (len(extra) + 2).to_bytes(2, "big") + extra
        scan = plain.index(b"\xff\xda")
        for data in (plain[:2] + comment + app1 + plain[2:], plain[:scan] + app1 + plain[scan:]):
            assert np.array_equal(shown(data), expected)
            assert np.array_equal(plainly(canonical(data)), expected)


def test_what_is_transparent_is_white_in_every_way_of_saying_so() -> None:
    ground = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    ground.paste((0, 0, 0, 255), (0, 0, 20, 20))
    expected = np.asarray(Image.new("RGB", (40, 20), "white")).copy()
    expected[:, :20] = 0
    keyed = Image.new("RGB", (40, 20), (9, 0, 0))
    keyed.paste((0, 0, 0), (0, 0, 20, 20))
    grey = Image.new("L", (40, 20), 77)
    grey.paste(0, (0, 0, 20, 20))
    deep = Image.fromarray(np.where(np.arange(40) < 20, 0, 999)[None].repeat(20, 0).astype("u2"))
    palette = grey.convert("P")
    cases = {
        "RGBA": encoded(ground),
        "LA": encoded(ground.convert("LA")),
        "WebP": encoded(ground, "WEBP", lossless=True),
        "TIFF": encoded(ground, "TIFF"),
        "GIF": encoded(ground, "GIF"),
        "P, bytes": encoded(ground.convert("P")),
        "P, one": encoded(palette, transparency=palette.getpixel((39, 0))),
        "RGB key": encoded(keyed, transparency=(9, 0, 0)),
        "L key": encoded(grey, transparency=77),
        "I;16 key": encoded(deep, transparency=999),
    }
    for name, data in cases.items():
        assert np.array_equal(shown(data), expected), name
        assert np.array_equal(plainly(canonical(data)), expected), name


def raw_png(depth: int, colour: int, row: bytes, key: bytes) -> bytes:
    """A PNG of two pixels, one row, and a transparent colour."""
    head = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tRNS", key)
    return data + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def test_a_transparent_colour_of_few_or_many_bits_is_found() -> None:
    grey4 = raw_png(4, 0, b"\x38", b"\0\x08")  # the greys 3 and 8 of 15
    assert shown(grey4)[0, :, 0].tolist() == [51, 255]
    grey2 = raw_png(2, 0, b"\x60", b"\0\x02")  # 1 and 2 of 3
    assert shown(grey2)[0, :, 0].tolist() == [85, 255]
    one_bit = raw_png(1, 0, b"\x40", b"\0\0")  # black and white, and black is transparent
    assert shown(one_bit)[0, :, 0].tolist() == [255, 255]
    colours = b"\x10\x20" * 3 + b"\x80\x90" * 3
    rgb16 = raw_png(16, 2, colours, b"\x80\x90" * 3)
    assert shown(rgb16)[0].tolist() == [[16, 16, 16], [255, 255, 255]]
    for data in (grey4, grey2, one_bit, rgb16):
        assert np.array_equal(plainly(canonical(data)), shown(data))


def test_a_decoder_that_tells_where_its_memory_is_is_not_quoted_on_that() -> None:
    class Broken(Image.Image):
        def load(self) -> None:
            raise OSError("cannot read <_io.BytesIO object at 0x7f3a5c>, nor <x.Y object at 0x1F>")

    data = encoded(drawn("RGB"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: Broken())
        with pytest.raises(UnreadableImage) as caught:
            decode(data)
    assert "0x" not in str(caught.value) and "cannot read, nor" in str(caught.value)


def test_sixteen_bits_are_scaled_and_half_a_shade_is_no_white() -> None:
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    expected = np.floor(ramp / 257 + 0.5).astype(int)
    image = Image.fromarray(ramp)
    for kind in ("PNG", "TIFF", "JPEG2000", "PPM"):
        found = shown(encoded(image, kind)).astype(int)
        assert np.abs(found - expected[..., None]).max() <= (1 if kind == "JPEG2000" else 0), kind
    big_endian = encoded(image.convert("I").convert("I;16B"), "TIFF")
    assert np.array_equal(shown(big_endian)[..., 0], expected)
    fractions = encoded(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF")
    assert np.abs(shown(fractions)[..., 0] - expected).max() <= 1
    whole = encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF")
    assert np.array_equal(shown(whole)[..., 0], expected)


def test_a_scan_whose_zero_is_white_is_not_shown_as_its_negative() -> None:
    image = Image.fromarray(np.array([[0, 65535, 257 * 60]], np.uint16))
    found = shown(encoded(image, "TIFF", tiffinfo={262: 0}))
    assert found[0, :, 0].tolist() == [255, 0, 195]


def test_inks_and_other_colours_are_turned_into_light() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    for kind, mode in (("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "LAB"), ("JPEG", "YCbCr")):
        image = to_lab(red) if mode == "LAB" else red.convert(mode)
        found = shown(encoded(image, kind)).reshape(-1, 3).mean(0)
        assert np.abs(found - (200, 30, 30)).max() < 6, (kind, mode)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_pictures_the_first_is_meant(kind: str) -> None:
    first, second = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert (np.abs(shown(data).astype(int) - (255, 0, 0)) < 4).all()
    assert np.array_equal(plainly(canonical(data)), shown(data))
    if kind != "MPO":
        assert getattr(Image.open(io.BytesIO(canonical(data))), "n_frames", 1) == 1
    assert examine(data).format == {"MPO": "JPEG"}.get(kind, kind)
    assert suffix(canonical(data)) == ("jpg" if kind == "MPO" else "png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive JPEG", "WEBP", "lossless WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_file_is_passed_on_and_never_decoded(
    mode: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *how, kind = kind.split()
    data = encoded(drawn(mode), kind, **dict.fromkeys(how, True))
    monkeypatch.setattr(Image, "open", None)
    assert canonical(data) is data


def test_filling_between_the_parts_of_a_jpeg_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = encoded(drawn("RGB"), "JPEG")
    filled = plain[:2] + b"\xff\xff\xff" + plain[2:]
    assert np.array_equal(shown(filled), shown(plain))
    monkeypatch.setattr(Image, "open", None)
    assert canonical(filled) is filled


def test_a_camera_that_says_upright_costs_no_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "maker"
    for kind in ("JPEG", "WEBP", "PNG"):
        data = encoded(drawn("RGB"), kind, exif=exif)
        assert canonical(data) is data, kind


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_tags_are_no_reason_to_refuse_a_picture() -> None:
    plain = encoded(drawn("RGB"), "JPEG")
    for body in (b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        app1 = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
        data = plain[:2] + app1 + plain[2:]
        assert np.array_equal(shown(data), plainly(plain))
        assert examine(data).orientation == 1 and canonical(data) == data


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_off_is_refused(kind: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 60), kind)
    for end in (len(data) // 2, 12):
        with pytest.raises(UnreadableImage, match="can't be decoded: it is") as caught:
            examine(data[:end])
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize(("data", "says"), [
    (b"", "empty file"),
    (b"<html>", "HTML page"),
    (b"\n\n<!DOCTYPE HTML>", "HTML page"),
    (b"\xef\xbb\xbf<!doctype html>", "HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git LFS pointer"),
    (b"<svg xmlns=''/>", "SVG"),
    (b"<?xml version='1.0'?><!-- x --><svg/>", "SVG"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "XML"),
    (b"%PDF-1.7", "PDF"),
    (b"\x1f\x8b\x08\0", "gzip"),
    (b"PK\x03\x04", "ZIP"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
    (b"RIFF\x04\0\0\0AVI LIST", "a video (AVI)"),
    (b"RIFF\x04\0\0\0WAVEfmt ", "a RIFF file, such as sound"),
    (b"\xff\x0a\x01", "JPEG XL"),
    (b"iVBORw0KGgoAAAANSUhEUgAA", "base64"),
    (b"https://host/a.png", "address"),
    (b'{"error": "not found"}', "JSON"),
    (b"no picture here", "a text: 'no picture here'"),
    (bytes(99), "all zero"),
    (bytes(range(150, 250)), "starts with the bytes 96 97"),
])  # fmt: skip
def test_what_is_no_image_is_called_by_its_name(data: bytes, says: str) -> None:
    reasons = set()
    for read in (decode, canonical, examine, upright_size):
        with pytest.raises(UnreadableImage) as caught:
            read(data)
        reasons.add(str(caught.value))
    (reason,) = reasons
    assert says in reason and READ in reason and "0x" not in reason


def test_a_picture_of_several_brands_is_called_by_the_one_that_is_read() -> None:
    for brands, says in ((b"mif1avif", "an AVIF file that is damaged"), (b"mif1heic", "is HEIC")):
        with pytest.raises(UnreadableImage, match=says):
            decode(b"\0\0\0\x18ftypmif1\0\0\0\0" + brands)


def test_formats_that_start_programs_are_not_opened() -> None:
    with pytest.raises(UnreadableImage, match="PostScript"):
        decode(encoded(Image.new("RGB", (8, 8)), "EPS"))


def test_a_bomb_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="too large"):
        decode(encoded(Image.new("RGB", (99, 99))))
    monkeypatch.undo()
    with pytest.raises(UnreadableImage, match="is 99x99 pixels large, over 50"):
        examine(encoded(Image.new("RGB", (99, 99))), 50)


def test_an_opened_image_is_seen_as_its_file_is() -> None:
    for mode, orientation, data in files("PNG"):
        with Image.open(io.BytesIO(data)) as image:
            seen = as_rgb(image)
        assert np.array_equal(np.asarray(seen), shown(data)), (mode, orientation)
        assert not seen.info and seen.mode == "RGB"


_DECODING = re.compile(r"Image\.open\(|Pillow\.open\(|exif_transpose|\.convert\(\s*[\"']RGBA?[\"']")


def test_nobody_else_decodes_images() -> None:
    """Two decoders differ sooner or later, and then a model learns from pixels nobody showed it."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("mcts", "curation", "warehouse", "training", "flows")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "image_io.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if _DECODING.search(line)
    ]
    assert not found

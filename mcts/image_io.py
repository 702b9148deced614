"""What the pixels of an encoded image are, for everybody who looks at it: one answer.

image = decode(data)          # Pillow, RGB with 8 bits, upright, on white
data = canonical(data)        # bytes that any plain opener decodes to that same array
width, height = upright_size(data)        # of those pixels, from the file's head

A file can lie about its pixels: an EXIF tag demands that they are turned, a channel or one colour
is transparent, values have 16 bits, ink is stored instead of light, frames follow. Viewers,
servers and trainers each treat some of that and not the rest, so that a model learns from other
pixels than its teacher saw. Nobody else decodes an image: teachers, trainers, cards, hashes and
exports ask here. The common file, 8-bit RGB or grey and upright, is known by its head alone and
passed on as it is.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from mcts.image_kinds import what_it_is

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Decoders that only decode: Pillow also knows formats that start other programs."""
READ = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 and PNM"
"""The formats that are read, for messages."""

_ORIENTATION = 0x0112  # EXIF
_PNG, _JPEG, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"
_LYING = (5, 6, 7, 8)  # orientations that swap width and height
_ADDRESS = re.compile(r"\s*<[\w.]+ object at 0x[0-9a-fA-F]+>|\s*\bat 0x[0-9a-fA-F]+")


class UnreadableImage(OSError):
    """An image that can't be decoded; its text is a clause, `can't be decoded: it is …`."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a file that was decoded to its last pixel is."""

    format: str
    """As Pillow names it; MPO, which cameras write as .jpg, is JPEG."""
    width: int
    """Upright, as `height`."""
    height: int
    orientation: int
    """The EXIF orientation, 1 to 8."""


def decode(data: bytes, at_most: tuple[int, int] | None = None) -> Any:
    """Decode an image to what everybody sees, a Pillow image: upright, on white, in 8-bit RGB.

    Args:
        at_most: decode a JPEG no larger than needed for that size, which is quicker; others whole.

    Raises:
        UnreadableImage: it can't be decoded.
    """
    with _Opened(data) as image:
        if at_most:
            image.draft("RGB", at_most)
        return as_rgb(image, data)


def as_rgb(image: Any, data: bytes = b"") -> Any:
    """Return an opened Pillow image as everybody sees it, without its tags.

    Args:
        data: the file it was opened from, which knows more of its values than Pillow keeps.
    """
    image.load()  # before the tags: some lie behind the pixels, and Pillow itself turns a TIFF
    turn = _turn(_orientation(image))
    seen = _on_white(image, data)
    seen = seen if turn is None else seen.transpose(turn)
    seen.info = {}
    return seen


def canonical(data: bytes) -> bytes:
    """Return bytes that any plain opener decodes to what `decode` gives; the same ones if they do.

    What must be changed becomes a PNG: it loses nothing.

    Raises:
        UnreadableImage: it would have to be changed, and can't be decoded.
    """
    head = _head(data)
    if head is _Head.PLAIN:
        return data
    with _Opened(data) as image:
        if head is _Head.TAGGED:  # many cameras write the tag, and that it is upright
            if image.format == "PNG":
                image.load()
            if _orientation(image) == 1:
                return data
        out = io.BytesIO()
        as_rgb(image, data).save(out, "PNG")
    return out.getvalue()


def upright_size(data: bytes) -> tuple[int, int]:
    """Return width and height as `decode` gives them; pixels are decoded only if they must be.

    Raises:
        UnreadableImage: it can't be opened.
    """
    with _Opened(data) as image:
        head = _head(data)
        if head is _Head.PLAIN:
            return _size(image, 1)
        if image.format == "TIFF" or (image.format == "PNG" and head is _Head.TAGGED):
            image.load()
        return _size(image, _orientation(image))


def examine(data: bytes, most_pixels: int | None = None) -> Examined:
    """Decode a file to its last pixel.

    Raises:
        UnreadableImage: it can't be decoded, or has more than `most_pixels`.
    """
    with _Opened(data) as image:
        width, height = image.size
        if most_pixels and width * height > most_pixels:
            raise UnreadableImage(f"is {width}x{height} pixels large, over {most_pixels:,}")
        image.verify()  # checksums, and that the file has its end
    with _Opened(data) as image:
        # Before it is loaded, for that is when Pillow forgets a TIFF's.
        orientation = 1 if image.format == "PNG" else _orientation(image)
        seen = as_rgb(image, data)
        orientation = _orientation(image) if image.format == "PNG" else orientation
        kind = "JPEG" if image.format == "MPO" else image.format or ""
    return Examined(kind, seen.width, seen.height, orientation)


def media_type(data: bytes) -> str:
    """Return the media type of `canonical` bytes, such as `image/jpeg`."""
    if data.startswith(_JPEG):
        return "image/jpeg"
    return "image/webp" if data.startswith(_WEBP) else "image/png"


def suffix(data: bytes) -> str:
    """Return the ending of a file name for `canonical` bytes: jpg, png or webp."""
    kind = media_type(data).partition("/")[2]
    return "jpg" if kind == "jpeg" else kind


def _problem_of(error: BaseException) -> str:
    """Return what a decoder complains of, without addresses, which differ from run to run."""
    return _ADDRESS.sub("", str(error)).strip() or type(error).__name__


class _Opened:
    """An image that Pillow has opened; every error is an UnreadableImage that says what it is."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.image: Any = None

    def __enter__(self) -> Any:
        from PIL import Image

        try:
            self.image = Image.open(io.BytesIO(self.data), formats=FORMATS)
        except Exception as error:  # damaged bytes make decoders fail in many ways
            raise self._unreadable(error) from None
        return self.image

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.image.close()
        if isinstance(error, Exception) and not isinstance(error, UnreadableImage):
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UnreadableImage:
        return UnreadableImage(_explain(self.data, _problem_of(error)))


def _explain(data: bytes, problem: str) -> str:
    """Return a clause: what these bytes are that can't be decoded, and what can be."""
    if "decompression bomb" in problem:
        return f"can't be decoded: it is too large, {problem.partition(',')[0]}"
    known, what = what_it_is(data)
    if not known:
        return f"can't be decoded: it {what}; the formats that are read are {READ}"
    if "cannot identify" in problem:
        problem = "its head can't be read"
    return f"can't be decoded: it {what} that is damaged or cut off ({problem})"


def _size(image: Any, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation in _LYING else (width, height)


def _orientation(image: Any) -> int:
    """Return the EXIF orientation; 1 where there is none, or one that nobody could read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged tags: viewers pay no attention to them
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(orientation: int) -> Any:
    from PIL.Image import Transpose

    names = ("", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270",
             "TRANSVERSE", "ROTATE_90")  # fmt: skip
    return Transpose[names[orientation - 1]] if orientation > 1 else None


def _on_white(image: Any, data: bytes) -> Any:
    """Return a loaded image in 8-bit RGB, on white where it is transparent."""
    from PIL import Image

    mode = image.mode
    if mode.startswith(("I", "F")):
        image = _scaled(image, data)
    elif mode == "LAB":
        image = _from_lab(image)
    elif mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif "transparency" in image.info and mode in ("1", "L", "RGB"):
        image.info["transparency"] = _in_8_bits(image.info["transparency"], mode, data)
    if not image.has_transparency_data:
        return image.convert("RGB")  # a copy, where it is RGB already
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")


def _scaled(image: Any, data: bytes) -> Any:
    """Return grey values of 16 bits, 32 bits or fractions as LA or L of 8 bits.

    Values of 16 bits are shares of 65,535. Others say nowhere what is white: 1 for fractions up to
    1, or else the most that the fewest of 8 to 16 bits hold which hold every value, such as 4,095;
    above that their largest value.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(image if image.mode == "F" else image.convert("I"), dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16"):
        bits = (getattr(image, "tag_v2", None) or {}).get(258, (16,))
        white = float((1 << (bits[0] if isinstance(bits, tuple) else bits)) - 1)
    else:
        top = float(values.max(initial=0.0))
        known = [1.0] if image.mode == "F" else []
        known += [float((1 << bits) - 1) for bits in range(8, 17)]
        white = next((most for most in known if top <= most), top)
    if _photometric(image) == 0:
        values = white - values
    eight = np.floor(np.clip(values / white, 0, 1) * 255 + 0.5).astype(np.uint8)
    grey = Image.fromarray(eight, "L")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8), "L"))
    return grey


def _photometric(image: Any) -> Any:
    """Return a TIFF's PhotometricInterpretation where Pillow has not turned white to black yet."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(262) if tags and image.mode.startswith("I;16") else None


def _in_8_bits(clear: Any, mode: str, data: bytes) -> Any:
    """Return a PNG's transparent colour, which has the file's bits, in the 8 bits of its pixels."""
    bits = data[24] if data.startswith(_PNG) and len(data) > 25 else 8
    if isinstance(clear, tuple):
        return tuple(value >> 8 if bits == 16 else value for value in clear)
    if mode == "1" or bits == 8 or not isinstance(clear, int):
        return clear
    return clear >> 8 if bits == 16 else clear * 255 // ((1 << bits) - 1)


def _from_lab(image: Any) -> Any:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")


class _Head(Enum):
    """What a file's head says of its pixels."""

    PLAIN = auto()
    """Any opener sees the right ones."""
    TAGGED = auto()
    """So too, unless a tag demands that they are turned."""
    OTHER = auto()


def _head(data: bytes) -> _Head:
    try:
        if data.startswith(_PNG):
            return _png_head(data)
        if data.startswith(_JPEG):
            return _jpeg_head(data)
        if data.startswith(_WEBP) and data[8:12] == b"WEBP":
            return _webp_head(data)
    except (struct.error, IndexError):
        pass  # cut off in its head
    return _Head.OTHER


def _png_head(data: bytes) -> _Head:
    depth, colour = data[24], data[25]
    if depth != 8 or colour not in (0, 2):
        return _Head.OTHER
    at, found = len(_PNG), _Head.PLAIN
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"tRNS", b"acTL"):
            return _Head.OTHER
        name = data[at + 8 : at + 48] if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        if kind == b"eXIf" or name.startswith((b"Raw profile type exif", b"XML:com.adobe.xmp")):
            found = _Head.TAGGED
        at += 12 + length
    return found


def _jpeg_head(data: bytes) -> _Head:
    at, found, seen = 2, _Head.PLAIN, False
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # filling
            at += 1
        marker, start = data[at + 1], at + 4
        if data[at] != 0xFF:
            return _Head.OTHER
        if marker == 0xDA:  # the pixels start
            return found if seen else _Head.OTHER
        if marker == 0xE1 and data.startswith((b"Exif\0", b"http://ns.adobe.com/xap"), start):
            found = _Head.TAGGED
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            seen = data[start] == 8 and data[start + 5] in (1, 3)
            if not seen:
                return _Head.OTHER
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _webp_head(data: bytes) -> _Head:
    kind = data[12:16]
    if kind == b"VP8 ":
        return _Head.PLAIN
    if kind == b"VP8L":
        return _Head.OTHER if data[24] & 0x10 else _Head.PLAIN  # has an alpha channel
    if kind != b"VP8X" or data[20] & 0x12:  # alpha, animation
        return _Head.OTHER
    return _Head.TAGGED if data[20] & 0x0C else _Head.PLAIN  # EXIF, XMP

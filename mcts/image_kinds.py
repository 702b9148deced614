"""What a file is by its first bytes, for the sentence about one that is no image.

known, what = what_it_is(data)      # (False, "is an HTML page, as a server sends for an error")

`known` says whether it is of a format that is read, so that it is damaged if it can't be decoded.
"""

from __future__ import annotations

import re

_READ = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_OTHERS = (
    (b"%PDF", "is a PDF document"),
    (b"\x1f\x8b", "is gzip data: unpack it"),
    (b"PK\x03\x04", "is a ZIP archive: unpack it"),
    (b"BZh", "is bzip2 data: unpack it"),
    (b"\xfd7zXZ\0", "is xz data: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is zstandard data: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"8BPS", "is a Photoshop document"),
    (b"%!PS", "is PostScript"),
    (b"\xc5\xd0\xd3\xc6", "is PostScript"),
    (b"\0\0\x01\0", "is a Windows icon (ICO)"),
    (b"icns", "is an Apple icon (ICNS)"),
    (b"\xff\x0a", "is JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "is JPEG XL"),
    (b"II\xbc", "is JPEG XR"),
    (b"PAR1", "is a Parquet file"),
    (b"\x93NUMPY", "is a NumPy array"),
    (b"\x76\x2f\x31\x01", "is OpenEXR"),
    (b"#?RADIANCE", "is Radiance HDR"),
    (b"DDS ", "is a DDS texture"),
    (b"qoif", "is QOI"),
    (b"gimp xcf", "is a GIMP document"),
    (b"\xd7\xcd\xc6\x9a", "is Windows metafile (WMF)"),
    (b"\x1aE\xdf\xa3", "is a video (Matroska or WebM)"),
    (b"OggS", "is an Ogg file"),
    (b"ID3", "is an MP3 file"),
    (b"SIMPLE  =", "is FITS"),
    (b"\x89HDF", "is HDF5"),
)
_BASE64 = re.compile(rb"\s*(?:data:image/|iVBORw0KGgo|/9j/|R0lGOD|UklGR)")
_LFS = b"version https://git-lfs"


def what_it_is(data: bytes) -> tuple[bool, str]:
    """Return whether the bytes are of a format that is read, and a clause that says what it is."""
    if not data:
        return False, "is an empty file"
    for head, name in _READ:
        if data.startswith(head):
            return True, f"is a {name} file"
    if data[:4] == b"RIFF":
        return _riff(data)
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF") and data[2:3].isspace():
        return True, "is a PNM file"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return True, "is a BMP file"
    for head, clause in _OTHERS:
        if data.startswith(head):
            return False, clause
    if not data.strip(b"\0"):
        return False, f"is {len(data):,} bytes that are all zero"
    return False, _text(data) or f"is of no known format: it starts with the bytes {_hex(data)}"


def _riff(data: bytes) -> tuple[bool, str]:
    kind = data[8:12]
    if kind == b"WEBP":
        return True, "is a WebP file"
    return False, "is a video (AVI)" if kind == b"AVI " else "is a RIFF file, such as sound"


def _iso_media(data: bytes) -> tuple[bool, str]:
    brand = data[8:12]
    if brand in (b"avif", b"avis"):
        return True, "is an AVIF file"
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        if b"avif" in data[16:64]:
            return True, "is an AVIF file"
        return False, "is HEIC, as iPhones write: convert it to JPEG or PNG"
    return False, "is a video (MP4 or QuickTime)"


def _text(data: bytes) -> str:
    """Return a clause about a text; empty if it is none."""
    head = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip()
    low = head[:1024].lower()
    if head.startswith(_LFS):
        return "is a git LFS pointer instead of the file: run `git lfs pull` where it is from"
    if low.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "is an HTML page, as a server sends for an error, instead of the file"
    if low.startswith(b"<svg") or (low.startswith((b"<?xml", b"<!")) and b"<svg" in low):
        return "is an SVG drawing, which has no pixels: render it"
    if low.startswith(b"<?xml"):
        return "is XML, as a server sends for an error, instead of the file"
    if _BASE64.match(head):
        return "is an image as base64 text: decode it"
    if low.startswith((b"http://", b"https://", b"s3://")):
        return "is an address instead of the file: nothing is fetched"
    if head[:1] in (b"{", b"["):
        return "is JSON, as a server sends for an error, instead of the file"
    try:
        text = data[:256].decode("utf-8")
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8") if error.start > 250 else ""
    if text and all(char.isprintable() or char.isspace() for char in text):
        return f"is a text: {' '.join(text.split())[:40]!r}"
    return ""


def _hex(data: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in data[:8])

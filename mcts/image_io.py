"""Encoded images as a model must see them: rotated as their EXIF orientation tag demands.

data = upright(data)        # unchanged unless the tag demands a rotation
"""

from __future__ import annotations

import io

_ORIENTATION = 0x0112


def upright(data: bytes) -> bytes:
    """Apply the EXIF orientation of an encoded image to its pixels.

    Sizes and points are those of the upright image, and not every server reads the tag.
    """
    if b"Exif" not in data[:4096] and b"eXIf" not in data[:4096]:
        return data  # decided without decoding: few images have the tag
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return data
        out = io.BytesIO()
        ImageOps.exif_transpose(image).save(out, "PNG")
    return out.getvalue()

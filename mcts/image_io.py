"""A stored picture as a model must see it: turned upright where its EXIF tag says that it lies.

data = upright(data)        # unchanged unless the tag asks for turning
"""

from __future__ import annotations

import io

_ORIENTATION = 0x0112


def upright(data: bytes) -> bytes:
    """Encoded picture bytes whose pixels need no turning.

    Sizes and points are those of the upright picture, and not every server looks at the tag.
    """
    if b"Exif" not in data[:4096] and b"eXIf" not in data[:4096]:
        return data  # decided without decoding: few pictures have the tag
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as picture:
        if picture.getexif().get(_ORIENTATION, 1) == 1:
            return data
        turned = ImageOps.exif_transpose(picture)
        out = io.BytesIO()
        turned.save(out, "PNG")
    return out.getvalue()

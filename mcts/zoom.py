"""What a model is shown when it zooms: a region of the picture enlarged, and a sentence about it.

    data = enlarged(picture, observation, point)     # JPEG, as large as the observation says
    told(observation)                                # "<observation>Here is the region …"

Which region that is was decided by whoever made the observation; nothing here moves or clips it.
"""

from __future__ import annotations

import io

from mcts.data import Observation, Point
from mcts.image_io import upright

_DOT, _RIM = 7, 2  # pixels of the picture shown: radius of the dot that marks a point, and its rim


def enlarged(data: bytes, seen: Observation, at: Point | None = None) -> bytes:
    """The region of an encoded picture that an observation shows, as a JPEG hardly anybody can tell
    from it: an enlargement gains nothing from being kept to the bit.

    Args:
        at: the point that was called for, in original pixels; drawn where the observation says so.

    Raises:
        OSError: the picture cannot be decoded.
    """
    from PIL import Image, ImageDraw

    crop = seen.crop
    with Image.open(io.BytesIO(upright(data))) as picture:
        region = (crop.x1, crop.y1, crop.x2, crop.y2)
        shown = picture.convert("RGB").resize(
            (seen.width, seen.height), Image.Resampling.LANCZOS, box=region
        )
    if seen.marked and at is not None:
        x = (at.x - crop.x1) * seen.width / (crop.x2 - crop.x1)
        y = (at.y - crop.y1) * seen.height / (crop.y2 - crop.y1)
        draw = ImageDraw.Draw(shown)
        for radius, colour in ((_DOT + _RIM, "white"), (_DOT, "red")):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def told(seen: Observation) -> str:
    """What is said with the region."""
    dot = " A red dot marks that place." if seen.marked else ""
    return f"<observation>Here is the region around that place, enlarged.{dot}</observation>"

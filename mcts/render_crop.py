"""The crop that a zoom call shows, as an enlarged image and the sentence that goes with it.

    data = render_crop(image_bytes, observation, point)   # JPEG, in the observation's size
    observation_text(observation)                         # "<observation>Here is the region …"

The observation determines the region; nothing here moves or clips it. How large a region is, is a
task's lens (`curation.traces.zoom_dialogues`).
"""

from __future__ import annotations

import io

from mcts.data import Observation, Point
from mcts.image_io import decode

_DOT, _RIM = 7, 2  # pixels of the crop: radius of the dot that marks a point, and its rim


def render_crop(data: bytes, observation: Observation, point: Point | None = None) -> bytes:
    """Crop and enlarge an encoded image as an observation shows it.

    Returns:
        A JPEG of high quality: an enlargement gains nothing from lossless storage.

    Args:
        point: where the zoom call pointed, in original pixels; drawn if `observation.marked`.

    Raises:
        OSError: the image cannot be decoded.
    """
    from PIL import Image, ImageDraw

    crop, size = observation.crop, (observation.width, observation.height)
    region = (crop.x1, crop.y1, crop.x2, crop.y2)
    shown = decode(data).resize(size, Image.Resampling.LANCZOS, box=region)
    if observation.marked and point is not None:
        x = (point.x - crop.x1) * size[0] / (crop.x2 - crop.x1)
        y = (point.y - crop.y1) * size[1] / (crop.y2 - crop.y1)
        draw = ImageDraw.Draw(shown)
        for radius, colour in ((_DOT + _RIM, "white"), (_DOT, "red")):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def observation_text(observation: Observation) -> str:
    """Return the text that accompanies the crop."""
    dot = " A red dot marks that place." if observation.marked else ""
    return f"<observation>Here is the region around that place, enlarged.{dot}</observation>"

"""The pixels of a crop, and its name.

    data = render_crop(image_bytes, observation, call)       # JPEG, in the observation's size
    name = crop_id(image_id, observation, call)

The observation determines the region; nothing here moves or clips it. Search, training, evaluation
and exports call this one function, so all of them see the same pixels.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any

from mcts.data import Observation, Point, ZoomCall, content_id
from mcts.image_io import decode

_DOT, _RIM = 7, 2  # pixels of the crop: radius of the dot that marks a point, and its rim


def render_crop(data: bytes, observation: Observation, call: ZoomCall | None = None) -> bytes:
    """Crop and enlarge an encoded image as an observation shows it.

    Returns:
        A JPEG of high quality: an enlargement gains nothing from lossless storage.

    Args:
        observation: what was shown; with a crop.
        call: the zoom call; its point is drawn if `observation.marked`.

    Raises:
        OSError: the image cannot be decoded.
    """
    from PIL import Image, ImageDraw

    crop, size = observation.crop, (observation.width, observation.height)
    assert crop is not None
    region = (crop.x1, crop.y1, crop.x2, crop.y2)
    shown = _DECODED.get(data).resize(size, Image.Resampling.LANCZOS, box=region)
    point = _marked(observation, call)
    if point is not None:
        x = (point.x - crop.x1) * size[0] / (crop.x2 - crop.x1)
        y = (point.y - crop.y1) * size[1] / (crop.y2 - crop.y1)
        draw = ImageDraw.Draw(shown)
        for radius, colour in ((_DOT + _RIM, "white"), (_DOT, "red")):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    out = io.BytesIO()
    shown.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


class _DecodedImages:
    """Decoded images, kept while they fit into `room` bytes: many crops are cut from one."""

    def __init__(self, room: int) -> None:
        self._images: OrderedDict[bytes, Any] = OrderedDict()
        self._room = room
        self._lock = threading.Lock()  # an engine's thread renders, too

    def get(self, data: bytes) -> Any:
        """Return an encoded image as a Pillow image, which nobody may change."""
        with self._lock:
            if data in self._images:
                self._images.move_to_end(data)
                return self._images[data]
            image = self._images[data] = decode(data)
            self._room -= 3 * image.width * image.height
            while self._room < 0 and self._images:
                _, oldest = self._images.popitem(last=False)
                self._room += 3 * oldest.width * oldest.height
            return image


_DECODED = _DecodedImages(2**28)


def crop_id(image_id: str, observation: Observation, call: ZoomCall | None = None) -> str:
    """Name a crop by what determines its pixels: the image, region, size and mark."""
    crop, point = observation.crop, _marked(observation, call)
    assert crop is not None
    region = [crop.x1, crop.y1, crop.x2, crop.y2]
    size = [observation.width, observation.height]
    return content_id("crop", image_id, region, size, [point.x, point.y] if point else None)


def _marked(observation: Observation, call: ZoomCall | None) -> Point | None:
    return call.point if observation.marked and call is not None else None

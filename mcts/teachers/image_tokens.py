"""How many tokens images are, by the model's patch grid; and whether a server counts the same.

    tokens = image_tokens(space, shown)           # of images as they are sent
    check = SizeCheck(space, "http://gpu:8000", report)
    check.compare(reply, shown, text_tokens)      # TeacherUnavailable: the server shrinks them

A Qwen2.5-VL model writes pixels of the image as its processor resized it. A server whose processor
has other limits than those declared gives points that are read in the wrong frame, and nothing in
its texts tells. Its count of prompt tokens does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mcts.coordinates import CoordinateSpace, SpaceKind, smart_resize
from mcts.teachers.base import Reply, TeacherUnavailable

_PATCH = 28
"""Pixels a token is wide where the space does not say."""

_USUAL_LIMITS = (256, 512, 576, 768, 1024, 1280, 1536, 2048, 2560, 4096, 5120, 8192, 12544, 16384)
"""Tokens of an image to which people limit processors."""

_TEXT_ERROR = 1 / 3
"""By how much an estimate of a text's tokens may be wrong."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Width and height in pixels, upright."""

    width: int
    height: int


def image_tokens(
    space: CoordinateSpace | None, shown: Iterable[ImageSize], max_pixels: int | None = None
) -> int:
    """Return how many tokens a model with these coordinates makes of the images."""
    return sum(_tokens(space, size, max_pixels) for size in shown)


def _tokens(space: CoordinateSpace | None, size: ImageSize, max_pixels: int | None) -> int:
    if space is not None and space.factor and space.min_pixels and space.max_pixels:
        most = max_pixels or space.max_pixels
        try:
            height, width = smart_resize(
                size.height, size.width, space.factor, min(space.min_pixels, most), most
            )
        except ValueError:  # too narrow: the model will say so
            return 1
        return height * width // space.factor**2
    return math.ceil(size.width / _PATCH) * math.ceil(size.height / _PATCH)


class SizeCheck:
    """Compares a server's count with the images once, where the frame depends on their size."""

    def __init__(
        self, space: CoordinateSpace | None, url: str, report: Callable[[str], None]
    ) -> None:
        relevant = space is not None and space.kind is SpaceKind.ABSOLUTE_RESIZED
        self._space = space if relevant else None
        self._url, self._report = url, report

    @property
    def is_due(self) -> bool:
        """Whether the sizes matter and were not compared yet."""
        return self._space is not None

    def compare(self, reply: Reply, sizes: Sequence[ImageSize], text_tokens: int) -> None:
        """Compare a reply whose tokens the server counted with what its prompt must have.

        Args:
            sizes: of the prompt's images.
            text_tokens: an estimate of its texts.

        Raises:
            TeacherUnavailable: the prompt has fewer tokens than its images alone.
        """
        space = self._space
        if space is None or not sizes:
            return
        expected = image_tokens(space, sizes)
        counted = reply.prompt_tokens + (reply.cached_tokens or 0)
        seen = reply.prompt_tokens - text_tokens
        slack = _TEXT_ERROR * text_tokens + 64
        if seen <= slack:
            return  # what hardly covers the text is no count of images
        self._space = None
        images = f"the image alone ({sizes[0].width}x{sizes[0].height})"
        if len(sizes) > 1:
            images = f"the {len(sizes)} images alone"
        if counted < expected:
            raise TeacherUnavailable(
                f"{self._url} resizes images: its prompt has {reply.prompt_tokens} tokens, and "
                f"{images} would have {expected} with --max-pixels {space.max_pixels}. Its points "
                f"would be misread; give --max-pixels {self._fitting(space, sizes, seen)}, which "
                "fits that count, or start it with the limits declared here.",
                permanent=True,
            )
        if seen > 1.25 * expected + slack:
            self._report(
                f"{self._url}: its prompts have {reply.prompt_tokens} tokens, and {images} should "
                f"have {expected}: if its processor has other limits than --min-pixels "
                f"{space.min_pixels} --max-pixels {space.max_pixels}, all points are misread"
            )

    def _fitting(self, space: CoordinateSpace, sizes: Sequence[ImageSize], seen: int) -> int:
        """Return the limit that gives about the tokens seen: a usual one if there is any."""
        patch = (space.factor or _PATCH) ** 2

        def error(tokens: int) -> float:
            return abs(image_tokens(space, sizes, tokens * patch) - seen)

        best = min(_USUAL_LIMITS, key=error)
        return (best if error(best) <= 0.15 * seen else max(1, seen // len(sizes))) * patch

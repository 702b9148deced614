"""Checks that a draft can be shown, asked and graded; the same checks for every reader.

    checker = Checker(task="sat2")
    accepted = checker.check(draft, split="train")       # Accepted, or Reject with field and reason

Every image is decoded to its last pixel, once: a truncated one fails here and not in the middle of
a training run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from curation.grading.actions import parse_action
from curation.grading.normalize import normalize, normalize_spaces
from mcts.data import AnswerKind, Box, Image, Question
from mcts.image_io import UnreadableImage, examine
from warehouse.sources import task_of
from warehouse.sources.reading.boxes import clip_box
from warehouse.sources.reading.drafts import Draft, DraftImage, Reject
from warehouse.sources.reading.gold_texts import gold_problem
from warehouse.sources.reading.image_marks import place_images

MAX_IMAGE_PIXELS = 64_000_000
"""Largest image accepted, in pixels; more is a decompression bomb or a mistake."""
MAX_IMAGE_BYTES = 64 << 20
MAX_ASPECT = 200
"""Longer side over shorter side; Qwen-VL processors refuse more."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Size, format and orientation of an image that decodes."""

    image: Image
    format: str
    orientation: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A question and its images, ready to be stored."""

    draft: Draft
    question: Question
    images: tuple[DecodedImage, ...]


class Checker:
    """Checks drafts of one task; caches the sizes of images it has decoded."""

    def __init__(self, task: str, source: str | None = None, licence: str | None = None) -> None:
        self.task, self.source, self.licence = task, source, licence
        self._counts_by = task_of(task).counts_by
        self._decoded: dict[bytes, DecodedImage | str] = {}

    def check(self, draft: Draft, split: str) -> Accepted | Reject:
        """A question of `split`, or of the split its row names, or why the draft can't be one."""

        def reject(field: str, reason: str) -> Reject:
            return Reject(draft.file, draft.row, field, reason)

        text = place_images(draft.text, len(draft.images))
        if not text:
            return reject("question", "the question is empty")
        texts = {"question": (text,), "choices": draft.choices, "answer": draft.answers}
        texts |= {"family": (draft.family,), "part_of": (draft.part_of,)}
        for field, values in texts.items():
            if not all(map(_is_utf8, values)):
                return reject(field, "it holds half a character (a lone surrogate)")
        if not draft.images:
            return reject("images", "there is no image")
        images: list[DecodedImage] = []
        for i, encoded in enumerate(draft.images, start=1):
            decoded = self.decode_image(encoded)
            if isinstance(decoded, str):
                return reject("images", f"image {i} {decoded}")
            images.append(decoded)
        shown = [decoded.image for decoded in images]
        boxes = tuple(_clipped(box, shown) for box in draft.boxes)
        seen = tuple(map(_with_clipped, draft.images, shown))
        draft = replace(draft, boxes=boxes, images=seen)
        problem = _answer_problem(draft) or _place_problem(draft, shown)
        if problem := problem or _object_problem(seen, shown):
            return reject(*problem)
        question = Question(
            task=self.task,
            text=text,
            images=tuple(decoded.image for decoded in images),
            answer_kind=draft.answer_kind,
            choices=draft.choices,
            answers=tuple(_as_choice(answer, draft.choices) for answer in draft.answers),
            boxes=draft.boxes,
            points=draft.points,
            tolerance=draft.tolerance,
            split=draft.split or split,
            family=draft.family,
            part_of=draft.part_of,
            source=self.source or draft.source or self.task,
            licence=self.licence or draft.licence,
            counted_as=self.counted_as(draft),
        )
        return Accepted(draft, question, tuple(images))

    def counted_as(self, draft: Draft) -> str:
        """What the task's benchmark counts a draft under; empty where equal ones count once."""
        return "/".join(filter(None, (getattr(draft, name) for name in self._counts_by)))

    def decode_all(self, drafts: Iterable[Draft | Reject]) -> None:
        """Decode the images of several drafts in parallel."""
        data = {
            hashlib.sha256(image.data).digest(): image.data
            for draft in drafts
            if isinstance(draft, Draft)
            for image in draft.images
        }
        new = [digest for digest in data if digest not in self._decoded]
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(lambda digest: decode(data[digest], digest.hex()), new)
            self._decoded.update(zip(new, decoded, strict=True))

    def decode_image(self, image: DraftImage) -> DecodedImage | str:
        """Decode an image, or say what is wrong with it."""
        digest = hashlib.sha256(image.data).digest()
        if digest not in self._decoded:
            self._decoded[digest] = decode(image.data, digest.hex())
        return self._decoded[digest]


def decode(data: bytes, image_id: str) -> DecodedImage | str:
    """Decode an image fully; return a clause that says what is wrong with it if it fails."""
    if len(data) > MAX_IMAGE_BYTES:
        return f"is a file of {len(data):,} bytes, over {MAX_IMAGE_BYTES:,}"
    try:
        found = examine(data, MAX_IMAGE_PIXELS)
    except UnreadableImage as error:
        return str(error)
    width, height = found.width, found.height
    if max(width, height) > MAX_ASPECT * min(width, height):
        return f"is {width}x{height} pixels: too narrow to be read"
    if (width, height) == (1, 1):
        return "is a single pixel, as servers send in place of an image"
    return DecodedImage(Image(image_id, width, height), found.format, found.orientation)


def _is_utf8(text: str) -> bool:
    """Whether a text can be stored as UTF-8: JSON can hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _answer_problem(draft: Draft) -> tuple[str, str] | None:
    """The field and reason why the gold answer can't be graded, or None."""
    if draft.answer_kind in (AnswerKind.TEXT, AnswerKind.ACTION):
        if not draft.answers or not all(answer.strip() for answer in draft.answers):
            return "answer", "there is no answer"
        if len(draft.choices) == 1:
            return "choices", f"there is one choice alone, {draft.choices[0]!r}"
        if problem := next(filter(None, map(gold_problem, draft.answers)), None):
            return "answer", problem
        if draft.answer_kind is AnswerKind.ACTION:
            for answer in draft.answers:
                if parse_action(answer) is None:
                    return "answer", f"the answer {answer!r} is not an action"
        elif draft.choices:
            for answer in draft.answers:
                if _choice_of(answer, draft.choices) is None:
                    listed = ", ".join(draft.choices)
                    same = normalize(answer) in {normalize(choice) for choice in draft.choices}
                    many = "is more than one" if same else "is none"
                    return "answer", f"the answer {answer!r} {many} of the choices: {listed}"
        return None
    if not (draft.boxes or draft.points):
        return "answer", "there is no gold box or point"
    return None


def _clipped(box: Box, images: list[Image]) -> Box:
    return _clip(box, images[box.image]) if 0 <= box.image < len(images) else box


def _clip(box: Box, image: Image) -> Box:
    return clip_box(box, (image.width, image.height))


def _place_problem(draft: Draft, images: list[Image]) -> tuple[str, str] | None:
    """The field and reason why a box or point can't be in its image, or None.

    Where the answer is a text, boxes are where what is asked about can be seen.
    """
    text = draft.answer_kind in (AnswerKind.TEXT, AnswerKind.ACTION)
    field, name = ("target", "target") if text else ("answer", "gold")
    places: list[Any] = [*draft.boxes, *draft.points]
    for place in places:
        if not 0 <= place.image < len(images):
            return field, f"the {name} place is in image {place.image + 1}, which is not there"
    for box in draft.boxes:
        if outside := _outside(box, images[box.image], f"the {name} box"):
            return field, outside
    for point in draft.points:
        shown = images[point.image]
        if not (0 <= point.x <= shown.width and 0 <= point.y <= shown.height):
            return field, f"the gold point ({point.x:g}, {point.y:g}) is outside its image"
    return None


def _with_clipped(picture: DraftImage, image: Image) -> DraftImage:
    if not picture.objects:
        return picture
    return replace(picture, objects=tuple(_clip(box, image) for box in picture.objects))


def _object_problem(pictures: Sequence[DraftImage], images: list[Image]) -> tuple[str, str] | None:
    """The field and reason why a box of what is visible can't be in its image, or None."""
    for picture, shown in zip(pictures, images, strict=True):
        for box in picture.objects or ():
            named = f" of {box.label!r}" if box.label else ""
            if outside := _outside(box, shown, "the box", named):
                return "objects", outside
    return None


def _outside(box: Box, image: Image, name: str, of: str = "") -> str:
    """Say that a box is not in its image; empty where it is."""
    if 0 <= box.x1 < box.x2 <= image.width and 0 <= box.y1 < box.y2 <= image.height:
        return ""
    corners = f"({box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g})"
    return f"{name} {corners}{of} is not in {image.width}x{image.height} pixels"


def _choice_of(answer: str, choices: tuple[str, ...]) -> str | None:
    """The one choice that an answer is by its text, never by its letter."""
    for read in (normalize_spaces, normalize):
        same = [choice for choice in choices if read(choice) == read(answer)]
        if len(same) == 1:
            return same[0]
    return None


def _as_choice(answer: str, choices: tuple[str, ...]) -> str:
    """The answer as the choice spells it."""
    return _choice_of(answer, choices) or answer

"""Is a draft a question that can be asked and graded? The same checks for every reader.

    checker = Checker(task="sat2")
    accepted = checker.check(draft, split="train")       # Accepted, or Reject with field and reason

Every picture is decoded to its last pixel, once: a truncated one fails here and not in the middle
of a training run.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image as Pillow

from curation.grading.actions import parse_action
from curation.grading.grade import as_written, normalize
from mcts.data import AnswerKind, Image, Question
from warehouse.sources.reading.drafts import Draft, Picture, Reject
from warehouse.sources.reading.image_files import FORMATS, ORIENTATION

MAX_IMAGE_PIXELS = 64_000_000
"""Largest picture taken, in pixels; more is a decompression bomb or a mistake."""
MAX_IMAGE_BYTES = 64 << 20
MAX_ASPECT = 200
"""Longer side over shorter side; Qwen-VL processors refuse more."""
_IMAGE_MARK = re.compile(r"\s*<image>\s*")


@dataclass(frozen=True, slots=True)
class Checked:
    """What decoding a picture told."""

    image: Image
    format: str
    orientation: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A question and the pictures it is about, ready to be stored."""

    draft: Draft
    question: Question
    images: tuple[Checked, ...]


class Checker:
    """Checks drafts of one task, and remembers the pictures it has decoded (their sizes only)."""

    def __init__(self, task: str, source: str | None = None, licence: str | None = None) -> None:
        self.task, self.source, self.licence = task, source, licence
        self._seen: dict[bytes, Checked | str] = {}

    def check(self, draft: Draft, split: str) -> Accepted | Reject:
        """A question of `split`, or why the draft can't be one."""

        def reject(field: str, reason: str) -> Reject:
            return Reject(draft.file, draft.row, field, reason)

        text = _IMAGE_MARK.sub(" ", draft.text).strip()
        if not text:
            return reject("question", "the question is empty")
        said = {"question": (text,), "choices": draft.choices, "answer": draft.answers}
        said |= {"family": (draft.family,), "part_of": (draft.part_of,)}
        for field, words in said.items():
            if any(not _writable(word) for word in words):
                return reject(field, "it holds half a character (a lone surrogate)")
        if not draft.images:
            return reject("images", "there is no image")
        images: list[Checked] = []
        for i, picture in enumerate(draft.images, start=1):
            checked = self.picture(picture)
            if isinstance(checked, str):
                return reject("images", f"image {i} {checked}")
            images.append(checked)
        if problem := _answer_problem(draft, [checked.image for checked in images]):
            return reject(*problem)
        question = Question(
            task=self.task,
            text=text,
            images=tuple(checked.image for checked in images),
            answer_kind=draft.answer_kind,
            choices=draft.choices,
            answers=tuple(_as_choice(answer, draft.choices) for answer in draft.answers),
            boxes=draft.boxes,
            points=draft.points,
            tolerance=draft.tolerance,
            split=split,
            family=draft.family,
            part_of=draft.part_of,
            source=self.source or draft.source or self.task,
            licence=self.licence or draft.licence,
        )
        return Accepted(draft, question, tuple(images))

    def decode_all(self, drafts: Iterable[Draft | Reject]) -> None:
        """Decode the pictures of several drafts at once: decoders run beside each other."""
        data = {
            hashlib.sha256(picture.data).digest(): picture.data
            for draft in drafts
            if isinstance(draft, Draft)
            for picture in draft.images
        }
        new = [digest for digest in data if digest not in self._seen]
        with ThreadPoolExecutor() as pool:
            decoded = pool.map(lambda digest: decode(data[digest], digest.hex()), new)
            self._seen.update(zip(new, decoded, strict=True))

    def picture(self, picture: Picture) -> Checked | str:
        """What is in an encoded picture, or what is wrong with it."""
        digest = hashlib.sha256(picture.data).digest()
        if digest not in self._seen:
            self._seen[digest] = decode(picture.data, digest.hex())
        return self._seen[digest]


def decode(data: bytes, image_id: str) -> Checked | str:
    """Decode a picture fully; what it is, or a clause that says what is wrong with it."""
    if len(data) > MAX_IMAGE_BYTES:
        return f"is a file of {len(data):,} bytes, over {MAX_IMAGE_BYTES:,}"
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                return f"is {width}x{height} pixels large, over {MAX_IMAGE_PIXELS:,}"
            if max(width, height) > MAX_ASPECT * min(width, height):
                return f"is {width}x{height} pixels: too narrow to be read"
            picture.verify()  # checksums, and that the file has its end
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            picture.load()  # every pixel
            orientation = int(picture.getexif().get(ORIENTATION) or 1)
            kind = picture.format or ""
    # Damaged bytes make decoders fail in many ways, and all of them mean the same here.
    except Exception as error:
        return f"can't be decoded: {str(error).strip() or type(error).__name__}"
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Checked(Image(image_id, width, height), kind, orientation)


def _writable(text: str) -> bool:
    """Whether a text can be stored: JSON can write half a surrogate pair, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _answer_problem(draft: Draft, images: list[Image]) -> tuple[str, str] | None:
    """The field and reason why the gold answer can't be graded, or None."""
    if draft.answer_kind in (AnswerKind.TEXT, AnswerKind.ACTION):
        if not draft.answers or not all(answer.strip() for answer in draft.answers):
            return "answer", "there is no answer"
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
    places: list[Any] = [*draft.boxes, *draft.points]
    if not places:
        return "answer", "there is no gold box or point"
    for place in places:
        if not 0 <= place.image < len(images):
            return "answer", f"the gold place is in image {place.image + 1}, which is not there"
    for box in draft.boxes:
        shown = images[box.image]
        if not (0 <= box.x1 < box.x2 <= shown.width and 0 <= box.y1 < box.y2 <= shown.height):
            corners = f"({box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g})"
            return "answer", f"the gold box {corners} is not in {shown.width}x{shown.height} pixels"
    for point in draft.points:
        shown = images[point.image]
        if not (0 <= point.x <= shown.width and 0 <= point.y <= shown.height):
            return "answer", f"the gold point ({point.x:g}, {point.y:g}) is outside its image"
    return None


def _choice_of(answer: str, choices: tuple[str, ...]) -> str | None:
    """The one choice that an answer is by its text, never by its letter."""
    for read in (as_written, normalize):
        same = [choice for choice in choices if read(choice) == read(answer)]
        if len(same) == 1:
            return same[0]
    return None


def _as_choice(answer: str, choices: tuple[str, ...]) -> str:
    """The answer as the choice spells it."""
    return _choice_of(answer, choices) or answer

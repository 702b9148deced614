"""Held-out questions with the truth about their pictures, and what an answer to one is worth.

    items = pick(load_items(parquet), limit=240, seed=0)     # the same number of each family
    verdict = judge(items[0].question, items[0].boxes, text)

Questions are rows of a Parquet file in SAT-v2's schema; the visible box of each object comes from
the `.objects.parquet` beside it. An answer is *grounded* when it is right and every step points
into the visible box of the object that it names, in the picture that it names.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image as Pictures

from curation.grading.grade import chosen, grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Image, Question
from mcts.parsing import parse
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import Message
from vigorl_nano.rooms.scene import COLOURS, KINDS

SAMPLE = Path(__file__).parents[2] / "warehouse" / "sources" / "sample" / "rooms-test.parquet"
# Thousandths of either side: the limits of the resize do not matter to it.
SPACE = CoordinateSpace.qwen3_vl()
STEPS = 3  # as many pointed steps are asked for, at least
EDGES = ("x1", "y1", "x2", "y2")
NAME = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b")

Box = tuple[float, float, float, float]
Boxes = Sequence[Mapping[str, Box]]
"""The visible extent of each object in each of a question's pictures: pixels, x2/y2 exclusive."""


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out question with its pictures and the boxes of what each shows."""

    question: Question
    images: Mapping[str, bytes]
    """Encoded pictures by image id, in the question's order."""
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one sampled answer is worth."""

    right: bool
    choice: int
    """The option that the answer names; -1 when it names none."""
    grounded: bool
    """Right, at least one step, and every step points into the box of the object it names."""
    formed: bool
    """Nothing wrong with the text, an option as the answer, as many pointed steps as asked."""
    steps: int
    hits: int
    """Steps that point into the box of the object they name."""
    errors: tuple[float, ...]
    """Distance of each such step's point from the middle of that box, as a share of the side;
    steps that name nothing in the picture have none."""


class Checkpoint:
    """A folder's `model` and `processor`, loaded the way any transformers program would."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        self.model.eval()


def load_items(parquet: Path = SAMPLE) -> list[Item]:
    """The questions of `parquet`, in its order.

    Raises:
        FileNotFoundError: the file or the truth beside it is missing.
        KeyError: a picture's truth is missing.
    """
    truth = {
        row["image_sha256"]: {o["label"]: tuple(o[edge] for edge in EDGES) for o in row["objects"]}
        for row in pq.read_table(parquet.with_suffix(".objects.parquet")).to_pylist()
    }
    sizes: dict[str, Image] = {}
    stored: dict[str, bytes] = {}
    items = []
    batches = pq.ParquetFile(parquet).iter_batches(256)  # one row group of pictures is too many
    for row in (row for batch in batches for row in batch.to_pylist()):
        ids = []
        for image in row["images"]:
            name = hashlib.sha256(image["bytes"]).hexdigest()
            if name not in sizes:
                stored[name] = image["bytes"]
                with Pictures.open(io.BytesIO(image["bytes"])) as picture:
                    sizes[name] = Image(name, *picture.size)
            ids.append(name)
        question = Question(
            task="sat2",
            text=row["question"],
            split="test",
            family=row["question_type"],
            images=tuple(sizes[i] for i in ids),
            answer_kind=AnswerKind.TEXT,
            choices=tuple(row["answers"]),
            answers=(row["correct_answer"],),
        )
        items.append(Item(question, {i: stored[i] for i in ids}, tuple(truth[i] for i in ids)))
    return items


def pick(items: Sequence[Item], limit: int, seed: int = 0) -> list[Item]:
    """A random subset spread evenly over the families; everything, shuffled, for limit 0."""
    families: dict[str, list[Item]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(items)):
        families[items[i].question.family].append(items[i])
    # Round after round, one of each family: any beginning of the list is spread evenly as well.
    rounds = range(max((len(some) for some in families.values()), default=0))
    spread = [some[n] for n in rounds for _, some in sorted(families.items()) if n < len(some)]
    return spread[: limit or None]


def messages(item: Item) -> tuple[Message, ...]:
    """The prompt: the question with its options, and how many steps at least."""
    return build_messages(load_prompt("nano"), item.question, SPACE, STEPS)


def blank(item: Item) -> Item:
    """The same question about grey pictures of the same sizes; the boxes stay."""
    return with_pictures(item, [_grey(i.width, i.height) for i in item.question.images])


def with_pictures(item: Item, pictures: Sequence[bytes]) -> Item:
    """The same question about other pictures of the same sizes, encoded; the boxes stay."""
    names = [hashlib.sha256(data).hexdigest() for data in pictures]
    images = tuple(
        replace(image, image_id=name)
        for image, name in zip(item.question.images, names, strict=True)
    )
    question = replace(item.question, images=images)
    return Item(question, dict(zip(names, pictures, strict=True)), item.boxes)


@cache
def _grey(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Pictures.new("RGB", (width, height), (128, 128, 128)).save(out, "PNG")
    return out.getvalue()


def judge(question: Question, boxes: Boxes, text: str) -> Verdict:
    """Hold an answer against the gold answer and its points against the boxes."""
    parsed = parse(text, Frame.of(SPACE, question))
    choice = None if parsed.answer is None else chosen(question, parsed.answer)
    right = grade(question, parsed.answer).score == 1.0
    hits, pointed, whole, errors = 0, 0, bool(parsed.steps), []
    for step in parsed.steps:
        pointed += bool(step.points)
        named = NAME.search(step.thought)
        on_it = bool(step.points) and named is not None
        for point in step.points:
            shown = 0 <= point.image < len(boxes)
            box = boxes[point.image].get(named[0]) if named and shown else None
            if box is None:
                on_it = False
                continue
            x1, y1, x2, y2 = box
            side = question.images[point.image].width
            gap = np.hypot(point.x - (x1 + x2) / 2, point.y - (y1 + y2) / 2) / side
            errors.append(float(gap))
            on_it &= x1 <= point.x <= x2 and y1 <= point.y <= y2
        hits += on_it
        whole &= on_it
    return Verdict(
        right=right,
        choice=-1 if choice is None else choice,
        grounded=right and whole,
        formed=not parsed.problems and choice is not None and pointed >= STEPS,
        steps=len(parsed.steps),
        hits=hits,
        errors=tuple(errors),
    )

"""Training examples: rows of a dataset version, rendered for one student.

    examples = sft_examples(warehouse, folder, "sat2-sft@v1", student, min_thoughts=3)
    examples.rows[0]["messages"]; examples.dataset()        # a `datasets.Dataset` with its images

Images are looked up when a row is read, never copied into the rows: hundreds of traces are about
one image. Points are written in the student's own coordinates, questions with its own prompt.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from curation.traces.response_styles import answer_only, without_points
from mcts.data import Question, ResponseStyle, Trace
from mcts.image_io import upright
from training.errors import TrainingError
from training.students import Student
from warehouse.exports.dialogues import ConversationRenderer
from warehouse.exports.files import Pictures
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, read_rows, trace_of

_DECODED_IMAGES_KEPT = 128


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows, and where their images are."""

    rows: list[Row]
    """Each with `image_ids` beside what a trainer reads."""
    read_image: Callable[[str], bytes]
    """An image's encoded bytes by its id."""
    left_out: dict[str, int]
    """How many rows were left out, by reason."""

    @property
    def left_out_text(self) -> str:
        """What was left out, as the end of a sentence; empty if nothing was."""
        return "".join(f"; {n} left out, {reason}" for reason, n in self.left_out.items())

    def dataset(self) -> Any:
        """Return a `datasets.Dataset` whose rows have `images`, decoded when they are read."""
        from datasets import Dataset

        return Dataset.from_list(self.rows).with_transform(AddImages(self.read_image))


class AddImages:
    """Adds `images` to rows as they are read."""

    def __init__(self, read_image: Callable[[str], bytes]) -> None:
        @lru_cache(maxsize=_DECODED_IMAGES_KEPT)
        def decoded(image_id: str) -> Any:
            return decode_image(read_image(image_id))

        self.decoded = decoded

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [[self.decoded(image_id) for image_id in ids] for ids in batch["image_ids"]]
        return {**batch, "images": images}

    def __reduce__(self) -> Any:  # `datasets` wants to hash what it applies; this has no content
        return (AddImages, ())


def decode_image(data: bytes) -> Any:
    """Decode an image as trainers take it: upright, in RGB."""
    from PIL import Image

    with Image.open(io.BytesIO(upright(data))) as image:
        return image.convert("RGB")


def sft_examples(
    warehouse: Warehouse, folder: Path, ref: str, student: Student, min_thoughts: int
) -> Examples:
    """Render the traces of a version's opened `folder` in the student's response style.

    Raises:
        TrainingError: it has none of the split `train`, or none that can be written in that style.
    """
    style = student.prompt_style.response_style
    renderer = ConversationRenderer(
        warehouse, student.space, student.prompt_style.prompt, min_thoughts
    )
    left_out: Counter[str] = Counter()
    rows: list[Row] = []
    for question, trace in _restyled(folder, style, left_out):
        messages = renderer.prompt(question, len(trace.steps) or None)
        completion = renderer.completion(trace.steps, trace.answer, question)
        rows.append(
            {
                "messages": [*messages, {"role": "assistant", "content": completion}],
                "image_ids": [image.image_id for image in question.images],
                "image_sizes": [[image.width, image.height] for image in question.images],
                "trace_id": trace.trace_id,
                "question_id": question.question_id,
            }
        )
    if not rows:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "it is empty"
        raise TrainingError(f"{ref} has nothing to train on: {reasons}")
    return Examples(rows, image_reader(folder), dict(left_out))


def _restyled(
    folder: Path, style: ResponseStyle, left_out: Counter[str]
) -> Iterator[tuple[Question, Trace]]:
    """Yield the training traces in that style; count in `left_out` why others are not there."""
    answers: set[str] = set()
    for row in read_rows(folder / "rows.parquet"):
        question, trace = question_of(row), trace_of(row)
        if question.split not in ("", "train"):
            left_out[f"of the split {question.split}"] += 1
        elif any(step.observation for step in trace.steps):
            left_out["zoom dialogues"] += 1
        elif style is ResponseStyle.GROUNDED:
            yield question, trace
        elif style is ResponseStyle.UNGROUNDED:
            if (ungrounded := without_points(trace)) is None:
                left_out["without words when their points are gone"] += 1
            else:
                yield question, ungrounded
        elif (answer := answer_only(trace)).trace_id not in answers:
            answers.add(answer.trace_id)  # a question counts once, however often it was solved
            yield question, answer


def image_reader(folder: Path) -> Callable[[str], bytes]:
    """Return a reader of the images in a version's opened folder."""
    images = Pictures(folder / "images.parquet")
    return lambda image_id: images[image_id][0]

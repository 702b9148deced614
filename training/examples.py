"""What a trainer reads: rows of a data set version, told as one student is to learn them.

    examples = traces_told(warehouse, folder, "sat2-sft@v1", student, min_thoughts=3)
    examples.rows[0]["messages"]; examples.dataset()        # a `datasets.Dataset` with its pictures

Pictures are looked up when a row is asked for, never copied into the rows: hundreds of traces are
about one picture. Points are told in the student's own coordinates, questions with its own prompt.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from curation.traces.variants import answer_only, without_points
from mcts.data import Question, Trace
from mcts.image_io import upright
from training.errors import TrainingError
from training.students import Student
from warehouse.exports.dialogues import Telling
from warehouse.exports.files import Pictures
from warehouse.storage.home import Warehouse
from warehouse.versions.bundle import question_of, read_rows, trace_of

Row = dict[str, Any]
_KEPT_PICTURES = 128


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows, and where their pictures are."""

    rows: list[Row]
    """Each with `image_ids` beside what a trainer reads."""
    picture: Callable[[str], bytes]
    """A picture's encoded bytes by its id."""
    left_out: dict[str, int]
    """How many rows were not taken, by the reason."""

    @property
    def left(self) -> str:
        """What was left out, as the end of a sentence; empty if nothing was."""
        return "".join(f"; {n} left out, {reason}" for reason, n in self.left_out.items())

    def dataset(self) -> Any:
        """A `datasets.Dataset` whose rows have `images`, decoded when they are read."""
        from datasets import Dataset

        return Dataset.from_list(self.rows).with_transform(Shown(self.picture))


class Shown:
    """Adds `images` to rows as they are read."""

    def __init__(self, picture: Callable[[str], bytes]) -> None:
        @lru_cache(maxsize=_KEPT_PICTURES)
        def opened(image_id: str) -> Any:
            return decoded(picture(image_id))

        self.opened = opened

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        shown = [[self.opened(image_id) for image_id in ids] for ids in batch["image_ids"]]
        return {**batch, "images": shown}

    def __reduce__(self) -> Any:  # `datasets` wants to hash what it applies; this has no content
        return (Shown, ())


def decoded(data: bytes) -> Any:
    """A picture as trainers take it: upright, in RGB."""
    from PIL import Image

    with Image.open(io.BytesIO(upright(data))) as picture:
        return picture.convert("RGB")


def traces_told(
    warehouse: Warehouse, folder: Path, ref: str, student: Student, min_thoughts: int
) -> Examples:
    """The traces of a version's opened `folder`, in the form that the student learns.

    Raises:
        TrainingError: it has none of the split `train`, or none that can be told in that form.
    """
    telling = Telling(warehouse, student.space, student.prompt_style.prompt, min_thoughts)
    left_out: dict[str, int] = {}
    rows: list[Row] = []
    for question, trace in _told_as(
        _traces(folder, left_out), student.prompt_style.response_style, left_out
    ):
        messages = telling.asked(question, len(trace.steps) or None)
        answer = telling.told(trace.steps, trace.answer, question)
        rows.append(
            {
                "messages": [*messages, {"role": "assistant", "content": answer}],
                "image_ids": [image.image_id for image in question.images],
                "image_sizes": [[image.width, image.height] for image in question.images],
                "trace_id": trace.trace_id,
                "question_id": question.question_id,
            }
        )
    if not rows:
        told = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "it is empty"
        raise TrainingError(f"{ref} has nothing to train on: {told}")
    return Examples(rows, version_picture(folder), left_out)


def _traces(folder: Path, left_out: dict[str, int]) -> Iterator[tuple[Question, Trace]]:
    for row in read_rows(folder / "rows.parquet"):
        if row["split"] not in (None, "", "train"):
            _count(left_out, f"of the split {row['split']}")
            continue
        trace = trace_of(row)
        if any(step.observation for step in trace.steps):
            _count(left_out, "zoom dialogues")
            continue
        yield question_of(row), trace


def _told_as(
    traces: Iterable[tuple[Question, Trace]], form: str, left_out: dict[str, int]
) -> Iterator[tuple[Question, Trace]]:
    seen: set[str] = set()
    for question, trace in traces:
        if form == "grounded":
            yield question, trace
        elif form == "ungrounded":
            if (twin := without_points(trace)) is None:
                _count(left_out, "without words when their points are gone")
            else:
                yield question, twin
        elif (alone := answer_only(trace)).trace_id not in seen:
            seen.add(alone.trace_id)  # a question counts once, however often it was solved
            yield question, alone


def version_picture(folder: Path) -> Callable[[str], bytes]:
    """Pictures of a version's opened folder."""
    pictures = Pictures(folder / "images.parquet")
    return lambda image_id: pictures[image_id][0]


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1

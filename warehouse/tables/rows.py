"""Converts the values of `mcts.data` to rows of the warehouse's tables, and back.

    row = question_row(question);  question = question_from(row, images)
    trace, steps = trace_rows(trace, task="sat2", …);  trace = trace_from(trace, steps)
    for question in read_questions(warehouse, "sat2", split="train", limit=100): …

There and back gives an equal value: what a dataclass holds, its rows hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow.dataset as pads

from mcts.data import (
    AnswerKind,
    Box,
    Image,
    Origin,
    Point,
    Question,
    Step,
    Trace,
    Verdict,
)
from mcts.zoom.rows import call_from, observation_from, zoom_columns
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import image_key
from warehouse.tables.delta import among, scan
from warehouse.tables.schema import Row


def image_row(image: Image) -> Row:
    return {"image_id": image.image_id, "width": image.width, "height": image.height}


def image_from(row: Mapping[str, Any]) -> Image:
    return Image(row["image_id"], row["width"], row["height"])


def question_row(question: Question) -> Row:
    return {
        "question_id": question.question_id,
        "task": question.task,
        "text": question.text,
        "image_ids": [image.image_id for image in question.images],
        "answer_kind": str(question.answer_kind),
        "choices": list(question.choices),
        "answers": list(question.answers),
        "boxes": [_box_row(box) for box in question.boxes],
        "points": [point_row(point) for point in question.points],
        "tolerance": question.tolerance,
        "split": question.split,
        "family": question.family,
        "part_of": question.part_of,
        "source": question.source,
        "licence": question.licence,
        "counted_as": question.counted_as or None,
    }


def question_from(row: Mapping[str, Any], images: Mapping[str, Image]) -> Question:
    """Raises KeyError when one of its images is not among `images` (by image_id)."""
    return Question(
        task=row["task"],
        text=row["text"],
        images=tuple(images[image_id] for image_id in row["image_ids"]),
        answer_kind=AnswerKind(row["answer_kind"]),
        choices=tuple(row["choices"] or ()),
        answers=tuple(row["answers"] or ()),
        boxes=tuple(Box(**box) for box in row["boxes"] or ()),
        points=tuple(Point(**point) for point in row["points"] or ()),
        tolerance=row["tolerance"] or 0.0,
        split=row["split"] or "",
        family=row["family"] or "",
        part_of=row.get("part_of") or "",  # rows of older code have none
        source=row["source"] or "",
        licence=row["licence"] or "",
        counted_as=row.get("counted_as") or "",
    )


def trace_rows(
    trace: Trace,
    *,
    task: str,
    text: str,
    model: str | None = None,
    grounded: Sequence[bool | None] = (),
    question: Question | None = None,
    shows_asked: Sequence[bool | None] = (),
) -> tuple[Row, list[Row]]:
    """The row of `traces` and the rows of `steps`.

    Args:
        text: the whole reasoning as text in original pixels.
        grounded: one a step, where it was checked.
        question: what it is about; names the crops of a trace that zooms.
        shows_asked: one a step, where it was checked: whether its crop shows what is asked for.
    """
    row = {
        "trace_id": trace.trace_id,
        "question_id": trace.question_id,
        "tree_id": trace.tree_id,
        "task": task,
        "origin": trace.origin,
        "kind": trace.kind,
        "text": text,
        "answer": trace.answer,
        "reward": trace.reward,
        "n_steps": len(trace.steps),
        "n_points": len(trace.points),
        "wrong_from": trace.wrong_from,
        "turns_back_at": trace.turns_back_at,
        "problems": list(trace.problems),
        "model": model,
        "linearizer": trace.maker or None,
    }
    steps = []
    for i, step in enumerate(trace.steps):
        origin = trace.origins[i] if trace.origins else Origin(None)
        point = step.point
        steps.append(
            {
                "trace_id": trace.trace_id,
                "step": i,
                "thought": step.thought,
                "x": point.x if point else None,
                "y": point.y if point else None,
                "image": point.image if point else None,
                "points": [point_row(p) for p in step.points],
                "n_points": len(step.points),
                "grounded": grounded[i] if grounded else None,
                **zoom_columns(step, question),
                "shows_asked": shows_asked[i] if shows_asked else None,
                "node_id": origin.node_id,
                "rollout_id": origin.rollout_id,
                "response_id": origin.response_id,
            }
        )
    return row, steps


def trace_from(row: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Trace:
    """`steps` in any order."""
    steps = sorted(steps, key=lambda step: step["step"])
    origins = tuple(Origin(s["node_id"], s["rollout_id"], s["response_id"]) for s in steps)
    unknown = all(origin == Origin(None) for origin in origins)
    trace = Trace(
        question_id=row["question_id"],
        steps=tuple(step_from(step) for step in steps),
        answer=row["answer"],
        reward=row["reward"],
        kind=row["kind"],
        origin=row["origin"],
        tree_id=row["tree_id"],
        origins=() if unknown else origins,
        wrong_from=row["wrong_from"],
        turns_back_at=row["turns_back_at"],
        problems=tuple(row["problems"] or ()),
        maker=row["linearizer"] or "",
    )
    if unknown and trace.trace_id != row.get("trace_id", trace.trace_id):
        return replace(trace, origins=origins)  # its origins were said to be unknown, step by step
    return trace


def step_from(row: Mapping[str, Any]) -> Step:
    """A step from a row of `steps`, or from a step struct of a published version."""
    points = tuple(Point(**point) for point in row["points"] or ())
    call, observation = call_from(row["call"]), observation_from(row["observation"])
    return Step(row["thought"], points, call, observation)


def verdict_row(trace_id: str, verdict: Verdict, version: int) -> Row:
    """`version` is that of the filters together."""
    return {
        "trace_id": trace_id,
        "filter": verdict.filter,
        "version": version,
        "keep": verdict.keep,
        "reason": verdict.reason,
        "score": verdict.score,
    }


def behavior_rows(trace_id: str, counts: Mapping[str, int | None], method: str) -> list[Row]:
    """The rows of `behaviors` for what one method counted in one trace."""
    shared = {"trace_id": trace_id, "method": method}
    return [{**shared, "behavior": name, "count": count} for name, count in counts.items()]


def verdict_from(row: Mapping[str, Any]) -> Verdict:
    return Verdict(row["filter"], row["keep"], row["reason"] or "", row["score"])


def read_images(warehouse: Warehouse, image_ids: Sequence[str]) -> dict[str, Image]:
    """Read images by id; those that are not stored are left out."""
    where = among("image_id", image_ids)
    rows = scan(warehouse, "images", ["image_id", "width", "height"], where).to_pylist()
    return {row["image_id"]: image_from(row) for row in rows}


def read_objects(
    warehouse: Warehouse, image_ids: Sequence[str]
) -> dict[str, tuple[Box, ...] | None]:
    """Read what is visible in each image, as boxes in its pixels; None where it is unknown."""
    if not image_ids:
        return {}
    where = among("image_id", image_ids)
    rows = scan(warehouse, "images", ["image_id", "objects"], where).to_pylist()
    return {
        row["image_id"]: None if row["objects"] is None else tuple(Box(**o) for o in row["objects"])
        for row in rows
    }


def read_image(warehouse: Warehouse, image_id: str) -> bytes:
    """Read the encoded bytes of an image; KeyError if they are not stored."""
    return warehouse.objects.get(image_key(image_id))


def read_questions(
    warehouse: Warehouse,
    task: str | None = None,
    *,
    split: str | None = None,
    family: str | None = None,
    limit: int | None = None,
    question_ids: Sequence[str] | None = None,
) -> Iterator[Question]:
    """Read questions in the order of their ids, which is the same after any re-import.

    An id is a hash, so the first `limit` are also a fair sample of the rest.
    """
    wanted = {"task": task, "split": split, "family": family}
    conditions = [pads.field(name) == value for name, value in wanted.items() if value is not None]
    missing = None if question_ids is None else set(question_ids)
    left = limit
    for question in _read_where(warehouse, conditions, missing):
        if left == 0:
            return
        left = None if left is None else left - 1
        if missing is not None:
            missing.discard(question.question_id)
        yield question
    if missing:
        # Older code hashed whole-numbered edges of gold boxes as integers, and then asked the
        # question under the hash of what it had read back: those rows have one id more.
        boxes = pads.field("answer_kind") == str(AnswerKind.BOX)
        for question in _read_where(warehouse, [*conditions, boxes], None):
            if question.question_id in missing and left != 0:
                left = None if left is None else left - 1
                missing.discard(question.question_id)
                yield question


def _read_where(
    warehouse: Warehouse, conditions: Sequence[pads.Expression], ids: Collection[str] | None
) -> Iterator[Question]:
    """Read the questions that meet all conditions, each once, in the order of their stored ids."""
    where = None
    if ids is not None:
        conditions = [*conditions, among("question_id", ids)]
    for condition in conditions:
        where = condition if where is None else where & condition
    seen: set[str] = set()
    table = scan(warehouse, "questions", where=where).sort_by("question_id")
    for batch in table.to_batches(max_chunksize=1000):
        rows = batch.to_pylist()
        images = read_images(warehouse, [i for row in rows for i in row["image_ids"]])
        for row in rows:
            try:
                question = question_from(row, images)
            except KeyError as lost:
                raise WarehouseError(
                    f"question {row['question_id']} of {row['source'] or row['task']} shows image "
                    f"{lost.args[0]}, which is not in the warehouse: import its file again"
                ) from None
            if question.question_id not in seen:
                seen.add(question.question_id)
                yield question


def point_row(point: Point) -> Row:
    return {"x": point.x, "y": point.y, "image": point.image}


def _box_row(box: Box) -> Row:
    return asdict(box)

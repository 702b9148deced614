"""Decides from ground-truth boxes whether what a trace looked at closer is what it was asked about.

    shows_asked(step.observation, asked_boxes(question, objects))    # True, False, or None: unknown
    # as a filter: curation.filters.grounding.PointsOnTheirObjects

The objects in question are the boxes that the question has: gold boxes where the answer is a point,
else what its source says it is about. Where it has none they are the known objects that it names,
or if it names none, its choices do (`naming.labels_in`). Where no box has a
label they are all the boxes: a benchmark that publishes boxes without names, as TreeBench does,
publishes those of what it asks about. A crop shows one when the middle of its box lies in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from curation.filters.naming import Objects, labels_in
from mcts.data import Box, Observation, Question


def asked_boxes(question: Question, objects: Objects) -> tuple[Box, ...]:
    """Return where the objects in question are; empty where it is not known.

    Args:
        objects: what is visible in each of the question's images; None where it is unknown.
    """
    if question.boxes:
        return question.boxes
    known = [
        Box(box.x1, box.y1, box.x2, box.y2, image, box.label)
        for image, seen in enumerate(objects)
        for box in seen or ()
    ]
    labels = sorted({box.label for box in known if box.label.strip()})
    if not labels:
        return tuple(known)
    named = labels_in(question.text, labels) or labels_in(". ".join(question.choices), labels)
    wanted = {label.casefold() for label in named}
    return tuple(box for box in known if box.label.casefold() in wanted)


def shows_asked(observation: Observation | None, asked: Sequence[Box]) -> bool | None:
    """Return whether a crop shows an object in question; None where that can't be known."""
    if observation is None or observation.crop is None or not asked:
        return None
    return any(observation.crop.contains(box.middle) for box in asked)

"""Lineage told and drawn: where a thing comes from and what came of it, as text, JSON or a picture.

    told = trace_back(warehouse, "sat2-sft@v1")
    print(told.text());  told.data();  told.draw(Path("lineage.png"))

What is made from what is `warehouse.lineage.lineage`; this module only says it. Below a drawing
stand the pictures it leads to, with the points in question on them: the proof down to the pixel.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from curation.render.layered_graph import LayerBox, lay_out
from curation.render.marks import Mark, arrange, marks_of
from curation.render.trace_card import draw_marks
from flows.settings import Problem
from mcts.data import Point, Question
from warehouse.lineage.lineage import MOST, Lineage, Thing, Walker
from warehouse.lineage.words import describe, steps_of
from warehouse.query.read_back import read_traces
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions

_PICTURES = 3  # below a drawing
_SHORT = 12  # characters of a hash that are shown; any beginning of an id is understood


@dataclass(frozen=True, slots=True)
class Told:
    """A lineage with the words to tell it."""

    warehouse: Warehouse
    lineage: Lineage
    words: dict[Thing, str]
    steps: list[dict[str, Any]]
    """Of a trace, its steps with their points, nodes and responses."""
    row_of: str | None = None
    """The data set version of which the trace is looked at as a row."""

    def text(self) -> str:
        """Two trees in text: what it was made from, and what was made from it."""
        lines = [self._line(self.lineage.focus)]
        if self.row_of:
            lines[0] += f", a row of {self.row_of}"
        for step in self.steps:
            lines.append(f"  step {step['step'] + 1}: {_step(step)}")
        for head, upward in (("made from", True), ("made into", False)):
            below = list(self._below(self.lineage.focus, upward, "", set()))
            lines += [f"{head}:", *(below or ["(nothing)"])]
        return "\n".join(lines)

    def _below(self, thing: Thing, upward: bool, indent: str, told: set[Thing]) -> Iterator[str]:
        nexts = self._next(thing, upward)
        for i, other in enumerate(nexts):
            last = i == len(nexts) - 1
            again = other in told and bool(self._next(other, upward))
            yield f"{indent}{'└─ ' if last else '├─ '}{self._line(other)}{' (as above)' * again}"
            if not again:
                told.add(other)
                yield from self._below(other, upward, indent + ("   " if last else "│  "), told)

    def _next(self, thing: Thing, upward: bool) -> list[Thing]:
        side = set(self.lineage.up if upward else self.lineage.down)
        if upward:
            return [a for a, b in self.lineage.edges if b == thing and a in side]
        return [b for a, b in self.lineage.edges if a == thing and b in side]

    def _line(self, thing: Thing, most: int = 110) -> str:
        words = self.words[thing]
        words = words if len(words) <= most else f"{words[: most - 1]}…"
        name = f"{thing.kind} {_short(thing.id)}" if thing.single else thing.kind
        return f"{name}  {words}" if words else name

    def data(self) -> dict[str, Any]:
        """The same for programs: things with whole ids, and the edges between them by number."""
        things = list(dict.fromkeys([self.lineage.focus, *self.lineage.up, *self.lineage.down]))
        number = {thing: n for n, thing in enumerate(things)}
        up, down = set(self.lineage.up), set(self.lineage.down)
        return {
            "focus": {"kind": self.lineage.focus.kind, "id": self.lineage.focus.id},
            "row_of": self.row_of,
            "things": [
                {
                    "kind": thing.kind,
                    "ids": list(thing.ids),
                    "words": self.words[thing],
                    "up": thing in up,
                    "down": thing in down,
                }
                for thing in things
            ],
            "edges": [[number[a], number[b]] for a, b in self.lineage.edges],
            "steps": self.steps,
        }

    def draw(self, out: Path) -> Path:
        """Write the drawing to a .png or .svg file; return it.

        Raises:
            Problem: the file's name ends otherwise.
        """
        if out.suffix not in (".png", ".svg"):
            raise Problem(f"--out: {out.name} is drawn as .png or .svg")
        columns = _columns(self.lineage)
        boxes = [
            LayerBox(
                f"{thing.kind} {thing.id}",
                thing.kind,
                _short(thing.id) if thing.single else f"{len(thing.ids)} more",
                self.words[thing] if thing.single else "",
                column,
                "focus"
                if thing is self.lineage.focus
                else "bad"
                if self.words[thing].startswith("REVOKED")
                else "plain",
            )
            for thing, column in columns.items()
        ]
        edges = [
            (f"{a.kind} {a.id}", f"{b.kind} {b.id}")
            for a, b in self.lineage.edges
            if columns[a] < columns[b]
        ]
        drawing = lay_out(boxes, edges)
        below = _pictures(self)
        if out.suffix == ".png":
            out.write_bytes(drawing.png(below))
        else:
            out.write_text(drawing.svg(below), encoding="utf-8")
        return out


def trace_back(warehouse: Warehouse, text: str, most: int = MOST) -> Told:
    """The lineage of what `text` names.

    Raises:
        WarehouseError: it names nothing, or several things.
    """
    with Walker(warehouse) as walker:
        focus, row_of = walker.find(text)
        found = walker.lineage(focus, most, row_of)
        words = describe(walker, [focus, *found.up, *found.down])
        steps = steps_of(walker, focus.id) if focus.kind == "trace" else []
        return Told(warehouse, found, words, steps, row_of)


def _columns(found: Lineage) -> dict[Thing, int]:
    """Each thing's column: right of all it is made from."""
    things = list(dict.fromkeys([found.focus, *found.up, *found.down]))
    column = dict.fromkeys(things, 0)
    for _ in things:  # as often as the longest way could be long
        moved = False
        for a, b in found.edges:
            if column[b] <= column[a] < len(things):
                column[b], moved = column[a] + 1, True
        if not moved:
            break
    # What is made from nothing stands next to what is made from it, not at the far left.
    begun = {b for _, b in found.edges}
    for thing in found.up:
        nexts = [column[b] for a, b in found.edges if a == thing]
        if nexts and thing not in begun:
            column[thing] = max(column[thing], min(nexts) - 1)
    return column


def _pictures(told: Told) -> list[Image.Image]:
    """The pictures the thing is about, with its points where it has some."""
    focus, side = told.lineage.focus, told.lineage.up
    questions = [t.id for t in (focus, *side, *told.lineage.down) if t.kind == "question"]
    if focus.kind == "trace":
        for trace, _ in read_traces(told.warehouse, [focus.id]):
            for question in read_questions(told.warehouse, question_ids=[trace.question_id]):
                return _marked(told.warehouse, question, marks_of(trace, question))
    if focus.kind == "image":
        return [draw_marks(_opened(told.warehouse, focus.id), [], side=520)]
    if focus.kind in ("node", "response", "tree", "question") and questions:
        for question in read_questions(told.warehouse, question_ids=questions[:1]):
            nodes = [t.id for t in (focus, *told.lineage.down) if t.kind == "node" and t.single]
            points = _points(told.warehouse, nodes) if focus.kind in ("node", "response") else []
            marks = arrange([Mark(str(n + 1), p) for n, p in enumerate(points)], question.images)
            return _marked(told.warehouse, question, marks)
    return []


def _marked(warehouse: Warehouse, question: Question, marks: list[Mark]) -> list[Image.Image]:
    return [
        draw_marks(
            _opened(warehouse, image.image_id), [m for m in marks if m.point.image == i], side=520
        )
        for i, image in enumerate(question.images[:_PICTURES])
    ]


def _points(warehouse: Warehouse, nodes: list[str]) -> list[Point]:
    with Walker(warehouse) as walker:
        rows = walker.rows(
            "SELECT x, y, image FROM nodes SEMI JOIN _ids ON tree_id || '/' || node_id = _ids.id "
            "WHERE x IS NOT NULL ORDER BY tree_id, node_id",
            nodes,
        )
    return [Point(row["x"], row["y"], row["image"]) for row in rows]


def _opened(warehouse: Warehouse, image_id: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(read_image(warehouse, image_id)))
    except KeyError:
        raise Problem(f"the bytes of image {image_id} are not stored any more") from None


def _step(step: dict[str, Any]) -> str:
    where = f"({step['x']:g}, {step['y']:g})" if step["x"] is not None else "no point"
    came = [f"image {step['image'] + 1}" if step["image"] is not None else ""]
    came.append(f"node {step['node_id']}" if step["node_id"] is not None else "")
    came.append(f"rollout {step['rollout_id']}" if step["rollout_id"] is not None else "")
    came.append(f"response {_short(step['response_id'])}" if step["response_id"] else "")
    return f"{where}, {', '.join(part for part in came if part)}: {step['thought']}"


def _short(name: str) -> str:
    """A long hash's beginning, which names it as well; other names whole."""
    return re.sub(rf"^([0-9a-f]{{{_SHORT}}})[0-9a-f]{{20,}}(?=$|[/.])", r"\1", name)

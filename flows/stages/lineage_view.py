"""Lineage for a reader: as text, JSON, a Mermaid graph, or Markdown with the images it leads to.

    view = load_lineage(warehouse, "sat2-sft@v1")
    print(view.text());  view.data();  view.mermaid()
    view.write(Path("lineage.md"))       # or .mmd, the graph alone; or .json

What is made from what is in `warehouse.lineage.lineage`; this module only formats it. The Markdown
shows the images with the points in question marked: the proof down to the pixel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from curation.render.marks import (
    Mark,
    Region,
    arrange,
    marks_of,
    region_of,
    regions_of,
    told_of,
)
from curation.render.trace_card import draw_marks
from flows.settings_base import Problem
from mcts.data import Point, Question
from mcts.image_io import UnreadableImage, decode
from mcts.zoom.rows import observation_from
from warehouse.lineage.lineage import MOST, Entity, Lineage, Walker
from warehouse.query.read_back import read_traces, rows_among
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions

SUFFIXES = (".md", ".mmd", ".json")
_IMAGES = 3  # below the graph
_SHORT = 12  # characters of a hash that are shown; any beginning of an id is understood
_MAX_EDGES = 500  # Mermaid refuses graphs with more
_STYLES = (
    "classDef focus fill:#e8f0fb,stroke:#1259c3,stroke-width:3px",
    "classDef revoked fill:#fdf0e9,stroke:#c2410c",
)


@dataclass(frozen=True, slots=True)
class LineageView:
    """A lineage with what is shown of each entity."""

    warehouse: Warehouse
    lineage: Lineage
    descriptions: dict[Entity, str]
    steps: list[dict[str, Any]]
    """Of a trace, its steps with their points, nodes and responses."""
    row_of: str | None = None
    """The dataset version of which the trace is shown as a row."""

    def text(self) -> str:
        """Two trees in text: what it was made from, and what was made from it."""
        lines = [self._line(self.lineage.focus)]
        if self.row_of:
            lines[0] += f", a row of {self.row_of}"
        for step in self.steps:
            lines.append(f"  step {step['step'] + 1}: {_step(step)}")
        for title, upward in (("made from", True), ("made into", False)):
            branches = list(self._branches(self.lineage.focus, upward, "", set()))
            lines += [f"{title}:", *(branches or ["(nothing)"])]
        return "\n".join(lines)

    def _branches(
        self, entity: Entity, upward: bool, indent: str, shown: set[Entity]
    ) -> Iterator[str]:
        neighbours = self._neighbours(entity, upward)
        for i, other in enumerate(neighbours):
            last = i == len(neighbours) - 1
            again = other in shown and bool(self._neighbours(other, upward))
            yield f"{indent}{'└─ ' if last else '├─ '}{self._line(other)}{' (as above)' * again}"
            if not again:
                shown.add(other)
                yield from self._branches(other, upward, indent + ("   " if last else "│  "), shown)

    def _neighbours(self, entity: Entity, upward: bool) -> list[Entity]:
        side = set(self.lineage.ancestors if upward else self.lineage.descendants)
        if upward:
            return [a for a, b in self.lineage.edges if b == entity and a in side]
        return [b for a, b in self.lineage.edges if a == entity and b in side]

    def _line(self, entity: Entity) -> str:
        words = _shortened(self.descriptions[entity], 110)
        return f"{_name(entity)}  {words}" if words else _name(entity)

    def data(self) -> dict[str, Any]:
        """The same for programs: entities with whole ids, and the edges between them by number."""
        entities = self.lineage.entities
        number = {entity: n for n, entity in enumerate(entities)}
        up, down = set(self.lineage.ancestors), set(self.lineage.descendants)
        return {
            "focus": {"kind": self.lineage.focus.kind, "id": self.lineage.focus.id},
            "row_of": self.row_of,
            "things": [
                {
                    "kind": entity.kind,
                    "ids": list(entity.ids),
                    "words": self.descriptions[entity],
                    "up": entity in up,
                    "down": entity in down,
                }
                for entity in entities
            ],
            "edges": [[number[a], number[b]] for a, b in self.lineage.edges],
            "steps": self.steps,
        }

    def mermaid(self) -> str:
        """The lineage as a Mermaid flowchart, ancestors left and descendants right.

        Raises:
            Problem: it has more edges than Mermaid draws.
        """
        if len(self.lineage.edges) > _MAX_EDGES:
            raise Problem(
                f"the graph has {len(self.lineage.edges)} edges, and Mermaid draws at most "
                f"{_MAX_EDGES}: list fewer with --most"
            )
        entities = self.lineage.entities
        number = {entity: n for n, entity in enumerate(entities)}
        lines = ["flowchart LR"]
        for entity, n in number.items():
            label = escape_label(_name(entity))
            if words := self.descriptions[entity]:
                label += f"<br/>{escape_label(_shortened(words, 80))}"
            revoked = words.startswith("REVOKED")
            style = ":::focus" if n == 0 else ":::revoked" if revoked else ""
            lines.append(f'    n{n}["{label}"]{style}')
        lines += [f"    n{number[a]} --> n{number[b]}" for a, b in self.lineage.edges]
        return "\n".join([*lines, *(f"    {style}" for style in _STYLES), ""])

    def write(self, out: Path) -> list[Path]:
        """Write Markdown, the Mermaid graph or JSON, by the file's suffix; return the files.

        Raises:
            Problem: the file's name ends otherwise, or the graph is too large.
        """
        check_suffix(out)
        if out.suffix == ".json":
            out.write_text(json.dumps(self.data(), ensure_ascii=False) + "\n", encoding="utf-8")
            return [out]
        graph = self.mermaid()
        if out.suffix == ".mmd":
            out.write_text(graph, encoding="utf-8")
            return [out]
        files = [out]
        title = escape_label(_name(self.lineage.focus))
        parts = [f"# Lineage of {title.replace('#', '&#')}", "", "```mermaid", graph + "```", ""]
        for n, image in enumerate(self._images(), 1):
            files.append(out.with_name(f"{out.stem}-{n}.png"))
            image.save(files[-1], "PNG")
            parts += [f"![image {n}]({quote(files[-1].name)})", ""]
        out.write_text("\n".join(parts), encoding="utf-8")
        return files

    def _images(self) -> list[Image.Image]:
        """The images that the entity is about, with its points where it has some."""
        focus, lineage = self.lineage.focus, self.lineage
        if focus.kind == "trace":
            for trace, _ in read_traces(self.warehouse, [focus.id]):
                for question in read_questions(self.warehouse, question_ids=[trace.question_id]):
                    return self._marked(question, marks_of(trace, question), regions_of(trace))
        if focus.kind == "image":
            return [draw_marks(self._image(focus.id), [])]
        questions = [entity.id for entity in lineage.entities if entity.kind == "question"]
        if focus.kind in ("node", "response", "crop", "tree", "question") and questions:
            for question in read_questions(self.warehouse, question_ids=questions[:1]):
                return self._marked(question, *self._node_marks(question))
        return []

    def _node_marks(self, question: Question) -> tuple[list[Mark], list[Region]]:
        """The points and crops of the node, or of the response's or crop's nodes; none for larger
        entities."""
        focus, descendants = self.lineage.focus, self.lineage.descendants
        if focus.kind not in ("node", "response", "crop"):
            return [], []
        nodes = [e.id for e in (focus, *descendants) if e.kind == "node" and e.single]
        sql = (
            "SELECT tree_id, node_id, tree_id || '/' || node_id AS id, x, y, image, observation "
            "FROM nodes WHERE x IS NOT NULL OR crop_id IS NOT NULL"
        )
        rows = rows_among(self.warehouse, f"({sql})", "id", nodes)
        looks = [observation_from(row["observation"]) for row in rows]
        points = [Point(row["x"], row["y"], row["image"]) for row in rows if row["x"] is not None]
        marks = [Mark(str(n), point) for n, point in enumerate(points, 1)]
        regions = [region_of(look, n) for n, look in enumerate(looks, 1) if look and look.crop]
        return arrange(marks, question.images), regions

    def _marked(
        self, question: Question, marks: list[Mark], regions: list[Region]
    ) -> list[Image.Image]:
        return [
            draw_marks(
                self._image(image.image_id),
                [mark for mark in marks if mark.point.image == i],
                [region for region in regions if region.box.image == i],
            )
            for i, image in enumerate(question.images[:_IMAGES])
        ]

    def _image(self, image_id: str) -> Image.Image:
        try:
            image: Image.Image = decode(read_image(self.warehouse, image_id))
        except KeyError:
            raise Problem(f"the bytes of image {image_id} are not stored any more") from None
        except UnreadableImage as error:
            raise Problem(f"image {image_id} {error}") from None
        return image


def load_lineage(warehouse: Warehouse, text: str, most: int = MOST) -> LineageView:
    """Load the lineage of what `text` names.

    Raises:
        WarehouseError: it names nothing, or several entities.
    """
    with Walker(warehouse) as walker:
        focus, row_of = walker.find(text)
        lineage = walker.lineage(focus, most, row_of)
        descriptions = walker.describe(lineage.entities)
        steps = walker.steps(focus.id) if focus.kind == "trace" else []
        return LineageView(warehouse, lineage, descriptions, steps, row_of)


def check_suffix(out: Path) -> None:
    """Raise Problem unless a lineage can be written to a file of that name."""
    if out.suffix in (".png", ".svg"):
        raise Problem(
            f"--out: a lineage is no longer drawn as {out.suffix}; write --out {out.stem}.md, a "
            "Mermaid graph with the images beside it"
        )
    if out.suffix not in SUFFIXES:
        raise Problem(f"--out: {out.name} should end in {', '.join(SUFFIXES)}")


def escape_label(text: str) -> str:
    """Escape a text for a Mermaid label in quotes: anything but letters and digits may be syntax,
    of Mermaid, of the Markdown in its labels, or of the HTML they become."""
    printable = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return "".join(c if c.isalnum() or c in " .,-" else f"#{ord(c)};" for c in printable)


def _name(entity: Entity) -> str:
    return f"{entity.kind} {_short_id(entity.id)}" if entity.single else entity.kind


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _step(step: dict[str, Any]) -> str:
    point = f"({step['x']:g}, {step['y']:g})" if step["x"] is not None else "no point"
    origin = [f"image {step['image'] + 1}" if step["image"] is not None else ""]
    origin.append(f"node {step['node_id']}" if step["node_id"] is not None else "")
    origin.append(f"rollout {step['rollout_id']}" if step["rollout_id"] is not None else "")
    origin.append(f"response {_short_id(step['response_id'])}" if step["response_id"] else "")
    look = observation_from(step["observation"])
    crop = f" (crop {_short_id(step['crop_id'])})" if step["crop_id"] else ""
    told = f" [{told_of(look)}{crop}]" if look else ""
    return f"{point}, {', '.join(part for part in origin if part)}: {step['thought']}{told}"


def _short_id(name: str) -> str:
    """The beginning of a long hash, which identifies it as well; other names whole."""
    return re.sub(rf"^([0-9a-f]{{{_SHORT}}})[0-9a-f]{{20,}}(?=$|[/.])", r"\1", name)

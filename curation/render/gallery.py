"""Traces and search trees as static pages a person can browse, straight from disk.

    index = write_gallery(Path("gallery"), entries, trees, title="sat2")    # open it in a browser

Nothing is fetched: pages, images and data lie in one folder and point to each other by relative
links. Images are named by their content and written once. Data goes into script files of a
hundred traces each, loaded when a page of cards needs them, so that `entries` may be a stream of
thousands: one trace at a time is held, beside a short row of each for the filters.

Every text comes from outside. The templates escape it, the data files hold no `<`, and the scripts
write text as text, never as HTML.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from curation.render.marks import (
    Mark,
    answer_places,
    arrange,
    format_point,
    marks_of,
    outward,
    role_of,
    told_of,
)
from mcts.data import Point, Question, Step, Trace, Verdict, content_id
from mcts.image_io import UnreadableImage, canonical, suffix
from mcts.places.decide import places
from mcts.tree import Tree

CHUNK = 100
"""Traces in one data file."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class GalleryTrace:
    """A trace with all that is shown of it."""

    question: Question
    trace: Trace
    verdicts: tuple[Verdict, ...]
    """The filters' verdicts; empty when the trace was never judged."""
    images: tuple[bytes, ...]
    """The question's encoded images, in order; no bytes for one that is lost."""


@dataclass(frozen=True, slots=True)
class FilterFunnel:
    """What the filters kept and dropped in the whole warehouse."""

    rows: tuple[dict[str, Any], ...]
    """Rows of the view `verdict_funnel`: filter, kept, dropped, dropped_by_it_alone."""
    judged: int
    """Traces that were judged at all."""
    kept: int
    """Traces that every filter keeps."""


@dataclass(frozen=True, slots=True)
class GalleryTree:
    """A search tree with its question's images."""

    tree: Tree
    images: tuple[bytes, ...]
    """The question's encoded images, in order; no bytes for one that is lost."""


def is_gallery(out: Path) -> bool:
    """Return whether a folder holds a gallery, or the beginning of one."""
    return (out / "assets" / "gallery.js").exists()


def write_gallery(
    out: Path,
    entries: Iterable[GalleryTrace],
    trees: Iterable[GalleryTree] = (),
    title: str = "Traces",
    funnel: FilterFunnel | None = None,
) -> Path:
    """Write the pages into `out`, in place of a gallery that is there, and return the first.

    Args:
        out: a folder; made when it is not there. Files that are not a gallery's stay untouched.
        funnel: what the filters dropped, to be shown first.
    """
    folder = _Folder(out)
    grown = [folder.tree(entry, title) for entry in trees]
    pages = {row["id"]: row["page"] for row in grown}
    rows: list[list[Any]] = []
    names = _Names()
    chunk: list[dict[str, Any]] = []
    for entry in entries:
        rows.append(names.row(entry))
        chunk.append(folder.trace(entry, pages))
        if len(chunk) == CHUNK:
            folder.data(f"traces-{len(rows) // CHUNK - 1:05}", chunk)
            chunk = []
    if chunk:
        folder.data(f"traces-{len(rows) // CHUNK:05}", chunk)
    index = {"rows": rows, "names": names.known, "chunk": CHUNK, "trees": grown}
    folder.data("index", index)
    counts: dict[str, Any] = {"traces": len(rows), "trees": len(grown)}
    return folder.page("index.html", title=title, funnel=funnel, **counts)


def write_asset(out: Path, name: str) -> None:
    """Write a style or a script of `templates/` into the pages' folder of assets."""
    asset = files("curation.render").joinpath("templates", name)
    (out / "assets" / name).write_bytes(asset.read_bytes())


class _Names:
    """Short rows for the filters: names by number, so that thousands of rows stay small."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {"kind": [], "family": [], "filter": []}

    def row(self, entry: GalleryTrace) -> list[Any]:
        """[trace id, kind, family, numbers of the filters that dropped it, 1 kept | 0 | null]."""
        dropped = [self._number("filter", v.filter) for v in entry.verdicts if not v.keep]
        kept = int(not dropped) if entry.verdicts else None
        kind = self._number("kind", entry.trace.kind)
        family = self._number("family", entry.question.family or entry.question.task)
        return [entry.trace.trace_id, kind, family, dropped, kept]

    def _number(self, group: str, name: str) -> int:
        if name not in self.known[group]:
            self.known[group].append(name)
        return self.known[group].index(name)


class _Folder:
    """Where a gallery's files go."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.written: dict[str, str] = {}  # image hash -> its path below `out`
        self.pages = Environment(
            loader=PackageLoader("curation.render"), autoescape=True, undefined=StrictUndefined
        )
        if is_gallery(out):  # a whole one, or one that was interrupted
            self._clear()
        for part in ("assets", "data", "images", "trees"):
            (out / part).mkdir(parents=True, exist_ok=True)
        for name in ("base.css", "gallery.css", "gallery.js", "index.js", "tree.js"):
            write_asset(out, name)

    def _clear(self) -> None:
        """Remove an earlier gallery, so that nothing revoked since stays on disk."""
        for pattern in ("data/*.js", "trees/*.html", "images/*", "funnel.png"):
            for old in self.out.glob(pattern):
                if re.fullmatch(
                    r"(index|(traces|tree)-.+)\.js|.+\.html|([0-9a-f]{64}|funnel)\.\w+", old.name
                ):
                    old.unlink()

    def page(self, name: str, template: str = "", **values: Any) -> Path:
        path = self.out / name
        text = self.pages.get_template(template or name).render(**values)
        path.write_text(text, encoding="utf-8", errors="replace")
        return path

    def data(self, name: str, value: Any) -> None:
        """Write `value` as a script; JSON with no `<`, so that nothing can end or open a tag."""
        text = json.dumps(value, separators=(",", ":"))
        for char in "<>&":
            text = text.replace(char, f"\\u{ord(char):04x}")
        script = f"gallery.take({json.dumps(name)},{text});\n"
        (self.out / "data" / f"{name}.js").write_text(script, encoding="ascii")

    def image(self, data: bytes) -> str | None:
        """Return an image's path below the folder, written at its first use; None if unreadable."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.written:
            self.written[digest] = self._store(digest, data)
        return self.written[digest] or None

    def _store(self, digest: str, data: bytes) -> str:
        try:
            data = canonical(data)
        except UnreadableImage:
            return ""
        name = f"images/{digest}.{suffix(data)}"
        (self.out / name).write_bytes(data)
        return name

    def images(self, question: Question, images: Sequence[bytes]) -> list[dict[str, Any]]:
        paths: list[str | None] = [self.image(data) for data in images[: len(question.images)]]
        paths += [None] * (len(question.images) - len(paths))
        return [
            {"src": path, "w": image.width, "h": image.height}
            for path, image in zip(paths, question.images, strict=True)
        ]

    def trace(self, entry: GalleryTrace, pages: dict[str, str]) -> dict[str, Any]:
        """Collect all that the cards and the opened view show of one trace."""
        trace, question = entry.trace, entry.question
        marks = marks_of(trace, question)
        kept = all(verdict.keep for verdict in entry.verdicts) if entry.verdicts else None
        return {
            "id": trace.trace_id,
            "tree": trace.tree_id,
            "page": pages.get(trace.tree_id or ""),
            "kind": trace.kind,
            "kept": kept,
            "answer": trace.answer,
            "answer_places": shown_places(trace.answer, answer_places(trace.answer, question)),
            "reward": trace.reward,
            "problems": list(trace.problems),
            "verdicts": [asdict(verdict) for verdict in entry.verdicts],
            "steps": [
                {
                    "n": str(i + 1),
                    "role": role_of(trace, i),
                    **shown_step(step, [m for m in marks if m.label == str(i + 1)], question),
                }
                for i, step in enumerate(trace.steps)
            ],
            "answer_marks": [shown_mark(m, question) for m in marks if m.label == "A"],
            **shown_question(question),
            "images": self.images(question, entry.images),
        }

    def tree(self, entry: GalleryTree, title: str) -> dict[str, Any]:
        """Write a tree's page and data; returns its row in the list of trees."""
        tree, question = entry.tree, entry.tree.question
        name = tree.tree_id if _SAFE_NAME.fullmatch(tree.tree_id) else content_id(tree.tree_id)
        images = self.images(question, entry.images)
        nodes = list(shown_nodes(tree))
        data = {"id": tree.tree_id, **shown_question(question), "images": images, "nodes": nodes}
        self.data(f"tree-{name}", {**data, "errors": list(tree.errors)})
        page = f"trees/{name}.html"
        self.page(page, "tree.html", title=title, question=question.text, data=f"tree-{name}")
        ends = tree.outcomes()
        counts = {"nodes": len(nodes), "ends": len(ends), "right": sum(r >= 1 for _, r in ends)}
        counts |= {"simulations": tree.simulations}
        row = {"id": tree.tree_id, "page": page, "q": question.text, "value": tree.root.value}
        return {**row, **counts, "family": question.family, "images": images}


# ---- what the scripts read: they draw, and whatever takes a decision is decided here ----------


def shown_question(question: Question) -> dict[str, Any]:
    """Return a question as the scripts read it."""
    gold = [*question.answers, *map(format_point, question.points)]
    return {
        "q": question.text,
        "question": question.question_id,
        "task": question.task,
        "family": question.family,
        "choices": list(question.choices),
        "gold": gold,
        "boxes": [asdict(box) for box in question.boxes],
    }


def shown_mark(mark: Mark, question: Question) -> dict[str, Any]:
    """Return a mark: its place as shares of the image, its badge's offset, the way outside."""
    i = mark.point.image
    there = 0 <= i < len(question.images)
    image = question.images[i] if there else None
    width, height = (image.width, image.height) if image else (1, 1)
    return {
        "n": mark.label,
        "role": mark.role,
        "image": i if there else None,
        "x": round(min(max(mark.point.x / width, 0.0), 1.0), 5),
        "y": round(min(max(mark.point.y / height, 0.0), 1.0), 5),
        "badge": [round(offset, 1) for offset in mark.badge],
        "out": mark.outside,
        "way": [round(part, 3) for part in outward(mark.point, width, height)],
    }


def shown_step(step: Step, marks: Sequence[Mark], question: Question) -> dict[str, Any]:
    where = shown_places(step.thought, step.points)
    shown = [shown_mark(m, question) for m in marks]
    return {"text": step.thought, "places": where, "marks": shown, "look": shown_look(step)}


def shown_look(step: Step) -> dict[str, Any] | None:
    """Return what a step's call showed: a region of an image, or why there is none; else None."""
    seen, point = step.observation, step.call.point if step.call else None
    if seen is None:
        return None
    marked = seen.crop is not None and seen.marked and point is not None
    return {
        "told": told_of(seen),
        "crop": asdict(seen.crop) if seen.crop else None,
        "number": None if seen.view is None else seen.view + 1,
        "dot": [point.x, point.y] if marked and point else None,
        "width": seen.width,
    }


def shown_places(text: str | None, points: Sequence[Point]) -> list[list[int]]:
    """Return where a text cites its points: start and end, as JavaScript counts characters."""
    if not text:
        return []

    def counted(end: int) -> int:
        return len(text[:end].encode("utf-16-le", "surrogatepass")) // 2

    return [[counted(place.start), counted(place.end)] for place in places(text, points)]


def shown_nodes(tree: Tree) -> Iterator[dict[str, Any]]:
    """Yield nodes, parents first; steps are numbered by depth, badges clear of those above."""
    placed: dict[int, list[Mark]] = {}

    def numbered(steps: Sequence[Step], first: int, above: list[Mark]) -> list[list[Mark]]:
        marks = [[Mark(str(first + i), p) for p in step.points] for i, step in enumerate(steps)]
        flat = iter(arrange([m for some in marks for m in some], tree.question.images, above))
        return [[next(flat) for _ in some] for some in marks]

    def shown(steps: Sequence[Step], first: int, marks: list[list[Mark]]) -> list[dict[str, Any]]:
        return [
            {"n": str(first + i), "role": "step", **shown_step(step, some, tree.question)}
            for i, (step, some) in enumerate(zip(steps, marks, strict=True))
        ]

    def places_of_answer(answer: str | None) -> list[list[int]]:
        return shown_places(answer, answer_places(answer, tree.question))

    for node in tree.root.walk():
        above = placed[node.parent.node_id] if node.parent else []
        steps = (node.step,) if node.step else ()
        marks = numbered(steps, node.depth, above)
        placed[node.node_id] = [*above, *(m for some in marks for m in some)]
        rollouts = []
        for rollout in node.rollouts:
            more = numbered(rollout.steps, node.depth + 1, placed[node.node_id])
            rollouts.append(
                {
                    "id": rollout.rollout_id,
                    "steps": shown(rollout.steps, node.depth + 1, more),
                    "answer": rollout.answer,
                    "answer_places": places_of_answer(rollout.answer),
                    "reward": rollout.reward,
                    "reason": rollout.reason,
                    "problems": list(rollout.problems),
                }
            )
        yield {
            "id": node.node_id,
            "parent": node.parent.node_id if node.parent else None,
            "step": next(iter(shown(steps, node.depth, marks)), None),
            "answer": node.answer,
            "answer_places": places_of_answer(node.answer),
            "visits": node.visits,
            "value": node.value,
            "reward": node.reward,
            "reason": node.reason,
            "discarded": node.discarded,
            "problems": list(node.problems),
            "rollouts": rollouts,
        }

"""How well a checkpoint answers the held-out rooms, with the picture and with a blank one.

    python -m training.nano.evaluate                     # the committed weights, 480 questions
    python -m training.nano.evaluate runs/nano/weights --limit 120

Two options a question, balanced: chance is 50%. Decoding is greedy, `Think in at least 3 steps.`
The intervals are 95% bootstrap intervals that resample pictures, not questions, because questions
about one picture share their luck. An answer that names no option counts as wrong; the share right
among those that do is what to hold against chance when the picture is blank. A point is held
against the visible box of the object that its sentence names.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image as Pictures
from transformers import AutoModelForImageTextToText, AutoProcessor

from curation.grading import chosen, grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Image, Question
from mcts.parsing import parse
from mcts.prompts import choices_line
from training.nano.config import SIDE
from warehouse.sources.rooms_scene import COLOURS, KINDS

WEIGHTS = Path(__file__).with_name("weights")
HELD_OUT = Path(__file__).parents[2] / "warehouse" / "sources" / "sample" / "rooms-test.parquet"
SPACE = CoordinateSpace.qwen3_vl(SIDE * SIDE, SIDE * SIDE)
NAME = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b")
STEPS = "Think in at least 3 steps."
EDGES = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class Item:
    """One held-out question with its pictures and the boxes of what each shows."""

    question: Question
    pictures: tuple[Pictures.Image, ...]
    boxes: tuple[dict[str, tuple[float, float, float, float]], ...]


@dataclass(slots=True)
class Result:
    family: str
    cluster: str  # the first picture: questions of one scene resample together
    right: bool
    option: bool  # does the answer name one of the options, right or wrong?
    formed: bool  # nothing wrong with the text, an answer, and a point in at least three steps
    steps: int
    errors: list[float] = field(default_factory=list)  # point to box centre, share of the side
    hits: list[bool] = field(default_factory=list)  # was the point in the named object's box?


def load_items(parquet: Path = HELD_OUT) -> list[Item]:
    truth = {
        row["image_sha256"]: {o["label"]: tuple(o[edge] for edge in EDGES) for o in row["objects"]}
        for row in pq.read_table(parquet.with_suffix(".objects.parquet")).to_pylist()
    }
    items = []
    for row in pq.read_table(parquet).to_pylist():
        stored = [image["bytes"] for image in row["images"]]
        pictures = tuple(Pictures.open(io.BytesIO(b)).convert("RGB") for b in stored)
        ids = [hashlib.sha256(b).hexdigest() for b in stored]
        question = Question(
            task="sat2",
            text=row["question"],
            split="test",
            family=row["question_type"],
            images=tuple(Image(i, *p.size) for i, p in zip(ids, pictures, strict=True)),
            answer_kind=AnswerKind.TEXT,
            choices=tuple(row["answers"]),
            answers=(row["correct_answer"],),
        )
        items.append(Item(question, pictures, tuple(truth[i] for i in ids)))
    return items


def pick(items: list[Item], limit: int, seed: int) -> list[Item]:
    """A random subset with the same number of each family; everything for limit 0."""
    if not limit:
        return items
    families = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(items)):
        families[items[i].question.family].append(items[i])
    return [item for rows in families.values() for item in rows[: limit // len(families)]]


class Checkpoint:
    """A folder's model and processor, loaded the way any transformers program would."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        self.model.eval()

    def prompt(self, question: Question, line: str = STEPS) -> str:
        text = f"{question.text}{choices_line(question.choices)}\n{line}"
        parts = [{"type": "image"} for _ in question.images] + [{"type": "text", "text": text}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )

    @torch.inference_mode()
    def write(self, items: Sequence[Item], blank: bool = False, line: str = STEPS) -> list[str]:
        pictures = [
            [Pictures.new("RGB", p.size, (128, 128, 128)) if blank else p for p in item.pictures]
            for item in items
        ]
        texts = [self.prompt(i.question, line) for i in items]
        batch = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        out = self.model.generate(**batch, max_new_tokens=160, do_sample=False)
        replies = self.processor.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :])
        return [r.split("<|im_end|>")[0].split("<|endoftext|>")[0] for r in replies]


def judge(item: Item, text: str) -> Result:
    question = item.question
    parsed = parse(text, Frame(SPACE, question.images))
    pointed = [(step.thought, step.point) for step in parsed.steps if step.point]
    result = Result(
        question.family,
        question.images[0].image_id,
        right=grade(question, parsed.answer).score == 1.0,
        option=parsed.answer is not None and chosen(question, parsed.answer) is not None,
        formed=not parsed.problems and parsed.answer is not None and len(pointed) >= 3,
        steps=len(parsed.steps),
    )
    for thought, point in pointed:
        named = NAME.search(thought)
        if not named or point.image >= len(item.boxes):
            continue
        box = item.boxes[point.image].get(named[0])
        if box is None:  # it named something that is not there
            result.hits.append(False)
            continue
        x1, y1, x2, y2 = box
        side = question.images[point.image].width
        gap = np.hypot(point.x - (x1 + x2) / 2, point.y - (y1 + y2) / 2) / side
        result.errors.append(float(gap))
        result.hits.append(x1 <= point.x <= x2 and y1 <= point.y <= y2)
    return result


def evaluate(
    folder: Path = WEIGHTS,
    limit: int = 0,
    seed: int = 0,
    blank: bool = False,
    parquet: Path = HELD_OUT,
    batch: int = 40,
) -> list[Result]:
    checkpoint, items = Checkpoint(folder), pick(load_items(parquet), limit, seed)
    items.sort(key=lambda i: len(i.pictures))  # alike lengths together: less padding
    texts: list[str] = []
    for start in range(0, len(items), batch):
        texts += checkpoint.write(items[start : start + batch], blank)
    return [judge(item, text) for item, text in zip(items, texts, strict=True)]


def interval(results: Sequence[Result], draws: int = 2000) -> tuple[float, float, float]:
    """Share right with its 95% interval, resampling pictures."""
    clusters = defaultdict(list)
    for r in results:
        clusters[r.cluster].append(r.right)
    right = np.array([sum(c) for c in clusters.values()])
    asked = np.array([len(c) for c in clusters.values()])
    picks = np.random.default_rng(0).integers(len(right), size=(draws, len(right)))
    shares = right[picks].sum(1) / asked[picks].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(right.sum() / asked.sum()), float(low), float(high)


def table(results: Sequence[Result], title: str = "with the picture") -> str:
    families = sorted({r.family for r in results})
    lines = [f"{title}: {len(results)} questions, {len({r.cluster for r in results})} scenes"]
    for family in ["all", *families]:
        rows = [r for r in results if family in ("all", r.family)]
        share, low, high = interval(rows)
        lines.append(f"  {family:<13} {share:6.1%}  [{low:.1%}, {high:.1%}]  of {len(rows)}")
    named = [r for r in results if r.option]
    share, low, high = interval(named)
    lines.append(
        f"  of the answers that name an option {share:.1%} [{low:.1%}, {high:.1%}] are right "
        f"({len(named)})"
    )
    errors = [e for r in results for e in r.errors]
    hits = [h for r in results for h in r.hits]
    formed = np.mean([r.formed for r in results])
    steps = np.mean([r.steps for r in results])
    lines.append(f"  format followed {formed:.1%}; {steps:.1f} steps each")
    if errors:
        near = np.mean(np.array(errors) < 0.06)
        lines.append(
            f"  points: median error {np.median(errors):.1%} of the side, {near:.0%} within 6%, "
            f"{np.mean(hits):.0%} on the named object ({len(hits)} points)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a checkpoint on the held-out rooms.")
    parser.add_argument("folder", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument("--limit", type=int, default=0, help="questions to ask; 0 for all")
    options = parser.parse_args()
    print(table(evaluate(options.folder, options.limit)))
    print(table(evaluate(options.folder, options.limit, blank=True), "with a blank picture"))


if __name__ == "__main__":
    main()

"""Whether a task's trees depend on their images: searched as they are, and with grey images.

    python -m vigorl_nano.task_control vstar web-grounding web-action

Each task's embedded sample is searched twice in temporary warehouses: as it is, and with every
image replaced by a grey one of its size. A tree with a right answer proves little where two or four
choices are guessed at a dozen times a tree; what only the image can tell is the difference between
the two. Where grey images do as well, or no trace is kept, a run is a smoke test only.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.settings import BuildSettings
from flows.stages import build as stages
from training.evaluation.controls import control_images, with_images
from warehouse.query.run_query import query
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import image_row, question_row, read_questions

_SEED, _RESAMPLES = 7, 2000
_LIMIT = 24

_ANSWERS = """
SELECT any_right, rewards, kept FROM (
    SELECT tree_id, avg(reward) AS rewards FROM rollouts GROUP BY tree_id
) JOIN trees USING (tree_id) LEFT JOIN (
    SELECT tree_id, count(*) AS kept FROM kept_traces GROUP BY tree_id
) USING (tree_id)
JOIN questions USING (question_id) ORDER BY text, question_id
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one search of a sample; one entry a tree, in the order of texts."""

    right: tuple[bool, ...]
    """Whether a tree found a right answer."""
    share: tuple[float, ...]
    """The share of its answers that are right."""
    kept: int
    """Traces that every filter keeps."""


def grey_questions(source: Warehouse, target: Warehouse, task: str, limit: int) -> int:
    """Put a task's first questions into `target`, each about grey images; return how many."""
    questions = list(read_questions(source, task, split="train", limit=limit))
    grey = control_images(questions, "blank", 0, lambda name: b"")
    rows, images = [], []
    encoded: list[bytes] = []
    for question in questions:
        about, data = with_images(question, grey(question))
        rows.append({**question_row(about), "run_id": "control"})
        images += [{**image_row(image), "run_id": "control"} for image in about.images]
        encoded += data.values()
    put_images(target.objects, encoded)
    insert_new(target, "images", images)
    return insert_new(target, "questions", rows)


def search_sample(warehouse: Warehouse, task: str, limit: int, teacher: dict[str, str]) -> Measured:
    """Search a task's questions and measure the trees."""
    settings = BuildSettings.checked(task=task, limit=limit, home=warehouse.root, **teacher)
    asyncio.run(stages.build(settings))
    rows = query(warehouse, _ANSWERS).to_pylist()
    return Measured(
        tuple(bool(row["any_right"]) for row in rows),
        tuple(float(row["rewards"] or 0.0) for row in rows),
        sum(row["kept"] or 0 for row in rows),
    )


def run_control(task: str, limit: int, teacher: dict[str, str]) -> tuple[Measured, Measured]:
    """Search the task's sample with its images, and with grey ones."""
    with tempfile.TemporaryDirectory(prefix="vigorl-control-") as folder:
        seen, grey = (Warehouse.at(str(Path(folder) / name)) for name in ("seen", "grey"))
        if import_sample(seen, task) is None:
            raise SystemExit(f"{task} has no embedded sample")
        grey_questions(seen, grey, task, limit)
        return search_sample(seen, task, limit, teacher), search_sample(grey, task, limit, teacher)


def difference(seen: Sequence[float], grey: Sequence[float]) -> tuple[float, float, float]:
    """Measure what images add to the share of right answers, with a 95% interval over questions.

    The two need not be the same questions in the same order: each is resampled by itself.
    """
    rng = random.Random(_SEED)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    drawn = sorted(
        mean(rng.choices(seen, k=len(seen))) - mean(rng.choices(grey, k=len(grey)))
        for _ in range(_RESAMPLES if seen and grey else 0)
    ) or [0.0]
    low, high = drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn))]
    return mean(seen) - mean(grey), low, high


def format_result(task: str, teacher: str, seen: Measured, grey: Measured) -> str:
    """Format the figures as lines of text."""

    def row(what: str, one: float, other: float) -> str:
        return f"  {what:<34}{one:>10.1%}{other:>10.1%}"

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    by, low, high = difference(seen.share, grey.share)
    sees = low > 0 and bool(seen.kept)
    verdict = "the images count" if sees else "smoke test only: nothing here shows that it sees"
    added = f"{100 * by:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return "\n".join(
        [
            f"{task}, {len(seen.right)} questions of its sample, teacher {teacher}",
            f"  {'':<34}{'images':>10}{'grey':>10}",
            row("trees with a right answer", mean(seen.right), mean(grey.right)),
            row("answers that are right", mean(seen.share), mean(grey.share)),
            # Nothing is known to be in a grey image, so its points are not checked.
            f"  {'traces kept':<34}{seen.kept:>10}",
            f"  images add {added}: {verdict}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Search samples with and without their images.")
    parser.add_argument("tasks", nargs="+", help="tasks with an embedded sample")
    parser.add_argument("--limit", type=int, default=_LIMIT, help="questions of each")
    parser.add_argument("--teacher", default="nano", help="as `vigorl build` names it")
    parser.add_argument("--space", help="coordinates of a served teacher")
    args = parser.parse_args()
    teacher = {"teacher": args.teacher} | ({"space": args.space} if args.space else {})
    for task in args.tasks:
        print(
            format_result(task, args.teacher, *run_control(task, args.limit, teacher)), flush=True
        )


if __name__ == "__main__":
    main()

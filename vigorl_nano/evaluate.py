"""Measures checkpoints on held-out rooms: what they answer, and how much of it they can see.

    make nano-eval                                     # base and teacher, every question: hours
    python -m vigorl_nano.evaluate --quick             # 240 questions: minutes
    python -m vigorl_nano.evaluate --folders runs/nano/base/weights --limit 600 --json table.json

Each question is asked several times at temperature 1, about its images and about grey ones, by the
code of `vigorl evaluate`: the same grader and journal, so an interrupted evaluation continues, and
a finished one prints at once. Added here is what only rendered rooms allow: how far guessing gets,
how often an answer is right *and* points at what every step names, and whether blind answers are as
good as guesses (two one-sided tests). What pass@8 has over pass@1 is what training on a model's own
good answers can reach for. Tables go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from curation.scores.bootstrap import Estimate, clusters, mean_of
from curation.scores.prediction import Prediction
from flows.progress import report_to_stderr
from flows.settings import EvaluateSettings
from flows.stages.evaluate import evaluate
from mcts.data import Question
from mcts.teachers.base import TeacherUnavailable
from training.evaluation.report import EvaluationReport, cell
from vigorl_nano import BASE, TEACHER
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

TASK = "sat2"
HELD_OUT = Path("runs/rooms/rooms-held-out.parquet")
RUNS = Path("runs/nano/evaluations")
QUESTIONS, QUICK = 4200, 240
WORKERS = 2  # processes of one thread: with the images, and with grey ones
TEMPERATURE = 1.0
MARGIN = 0.03  # blind success within this of chance counts as equal to it

COLUMNS = {
    "pass@1": "right at once (pass@1)",
    "pass@k": "right in one of k (pass@k)",
    "majority": "right by majority of k",
    "chance": "chance",
    "grounded pass@1": "grounded pass@1",
    "grounded pass@k": "grounded pass@k",
    "on object": "steps that point at what they name",
    "format": "format followed",
    "blank pass@1": "blank images: pass@1",
    "blank pass@k": "blank images: pass@k",
    "guessing": "guessing alone: pass@k",
}
"""Figures by name, with their titles in the tables; k becomes the number of samples."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one checkpoint."""

    name: str
    samples: int
    figures: dict[str, dict[str, Estimate]]
    """By family, and `all`: the figures of `COLUMNS`."""
    gap: Estimate
    """Blind pass@1 minus chance, with the 90% interval of two one-sided tests at 5%."""


def measure_checkpoint(
    folder: Path, parquet: Path, home: Path, samples: int, limit: int | None = None
) -> Measurement:
    """Ask a checkpoint the questions of `parquet`, with their images and with grey ones.

    Args:
        parquet: questions in SAT-v2's schema, with the truth about their images beside them.
        home: warehouse folder for questions, journal and evaluations.
        samples: answers to each question.
        limit: most questions; by default all.

    Raises:
        TeacherUnavailable: there is no checkpoint in the folder.
    """
    import_questions(Warehouse.at(str(home)), TASK, parquet, split="test")
    settings = [
        EvaluateSettings.checked(
            model=str(folder), benchmark=TASK, split="test", limit=limit, home=str(home),
            temperature=TEMPERATURE, samples=samples, control=control,
        )
        for control in (None, "blank")
    ]  # fmt: skip
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        seen, blank = pool.map(_evaluate, settings)
    return make_measurement(seen, blank, samples)


def _evaluate(settings: EvaluateSettings) -> EvaluationReport:
    """Run one evaluation, in a process of its own."""
    return asyncio.run(evaluate(settings, report=report_to_stderr)).report


def make_measurement(seen: EvaluationReport, blank: EvaluationReport, samples: int) -> Measurement:
    """Join the evaluation with images and the one with grey images."""
    figures = {}
    for family in seen.figures:
        some = [q for q in seen.questions if family in ("all", q.family)]
        own, blind = seen.figures[family], blank.figures[family]
        row = {
            "pass@1": own["accuracy"], "pass@k": own.get("pass@k", own["accuracy"]),
            "majority": own.get("majority", own["accuracy"]), "format": own["format"],
            "blank pass@1": blind["accuracy"],
            "blank pass@k": blind.get("pass@k", blind["accuracy"]),
        }  # fmt: skip
        scenes = clusters([[image.image_id for image in q.images] for q in some])
        values = [_shares(q, seen.predictions[q.question_id]) for q in some]
        row |= {name: mean_of([v[name] for v in values], scenes) for name in values[0]}
        figures[family] = {name: row[name] for name in COLUMNS}
    scores, scenes = (
        blank.scores,
        clusters([[i.image_id for i in q.images] for q in seen.questions]),
    )
    gaps = [scores[q.question_id] - 1 / len(q.choices) for q in seen.questions]
    gap = mean_of(gaps, scenes, level=0.9)
    return Measurement(seen.model_id, samples, figures, gap)


def _shares(question: Question, predictions: Sequence[Prediction]) -> dict[str, float]:
    """Compute a question's part of each figure that `training.evaluation` does not have.

    An answer is grounded when it is right and each of its steps points at what it names.
    """
    chance, n = 1 / len(question.choices), len(predictions)
    grounded = [p.score == 1.0 and bool(p.grounded) and all(p.grounded) for p in predictions]
    steps = [on_object is True for p in predictions for on_object in p.grounded]
    return {
        "chance": chance,
        "guessing": 1 - (1 - chance) ** n,
        "grounded pass@1": sum(grounded) / n,
        "grounded pass@k": float(any(grounded)),
        "on object": sum(steps) / max(1, len(steps)),
    }


def markdown(found: Measurement) -> str:
    """Render one checkpoint: a row a family, and whether it guesses when it sees nothing."""
    n = found.figures["all"]["pass@1"].n
    scenes = found.figures["all"]["pass@1"].clusters
    rows = [
        [family, str(row["pass@1"].n), *map(cell, row.values())]
        for family, row in found.figures.items()
    ]
    return "\n".join(
        [
            f"### {found.name}",
            "",
            f"{n} questions about {scenes} scenes, {found.samples} samples each at "
            f"T = {TEMPERATURE}; in %, with 95% bootstrap intervals over scenes.",
            "",
            *table(["family", "questions", *_titles(found.samples)], rows),
            "",
            blind_sentence(found.gap),
        ]
    )


def side_by_side(found: Sequence[Measurement]) -> str:
    """Render every checkpoint over all questions, a column each."""
    rows = [
        [title, *(cell(one.figures["all"][name]) for one in found)]
        for name, title in zip(COLUMNS, _titles(found[0].samples), strict=True)
    ]
    heads = ["in %, with 95% intervals", *(one.name.partition("@")[0] for one in found)]
    return "\n".join(table(heads, rows))


def _titles(samples: int) -> list[str]:
    return [
        title.replace("@k", f"@{samples}").replace("of k", f"of {samples}")
        for title in COLUMNS.values()
    ]


def blind_sentence(gap: Estimate) -> str:
    """Say whether answers without the images are as good as guesses (two one-sided tests)."""
    verdict = "lies" if gap.low >= -MARGIN and gap.high <= MARGIN else "does not lie"
    return (
        f"With blank images pass@1 minus chance is {100 * gap.value:+.1f} points, 90% interval "
        f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], which {verdict} within "
        f"±{100 * MARGIN:.0f} points; answers that name no option count as wrong."
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Render a Markdown table; all columns but the first are aligned to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def make_questions(parquet: Path) -> None:
    """Draw the held-out questions where they are expected and missing."""
    command = [
        sys.executable, "-m", "vigorl_nano.rooms",
        "--split", "held-out", "--questions", str(QUESTIONS), "--out", str(parquet.parent),
    ]  # fmt: skip
    print(f"drawing {QUESTIONS} held-out questions into {parquet.parent} ...", file=sys.stderr)
    subprocess.run(command, check=True)


def home_of(parquet: Path) -> Path:
    """Return the warehouse for the questions of `parquet`: one for each content of the file."""
    with parquet.open("rb") as file:
        return RUNS / hashlib.file_digest(file, "sha256").hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure checkpoints on the held-out rooms.")
    parser.add_argument(
        "--folders", type=Path, nargs="+", default=(BASE, TEACHER), help="checkpoints"
    )
    parser.add_argument("--parquet", type=Path, default=HELD_OUT, help="questions, truth beside")
    parser.add_argument("--limit", type=int, default=0, help="questions to ask; 0 for all")
    parser.add_argument("--quick", action="store_true", help=f"the same as --limit {QUICK}")
    parser.add_argument("--samples", type=int, default=8, help="answers to each question")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--markdown", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    if options.parquet == HELD_OUT and not HELD_OUT.exists():
        make_questions(HELD_OUT)
    limit = options.limit or (QUICK if options.quick else None)
    home, found = home_of(options.parquet), []
    for folder in options.folders:
        try:
            found.append(measure_checkpoint(folder, options.parquet, home, options.samples, limit))
        except TeacherUnavailable as error:
            sys.exit(str(error))
        print(markdown(found[-1]), end="\n\n", flush=True)
    if len(found) > 1:
        print(side_by_side(found), flush=True)
    if options.json:
        plain: list[dict[str, Any]] = [asdict(one) for one in found]
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text("\n\n".join(map(markdown, found)) + "\n")


if __name__ == "__main__":
    main()

"""How well checkpoints answer the held-out rooms, and how much of that a student could still gain.

    make nano-eval                                     # both checkpoints, every question: hours
    python -m vigorl_nano.evaluation.headroom --quick           # 240 questions: minutes
    python -m vigorl_nano.evaluation.headroom --folders runs/nano/weights --limit 600 --json
    table.json

Each question is sampled several times (`asking`), with its picture and with a grey one; what
pass@8 has over pass@1 is what training on the model's own good answers can reach for. *Grounded*
success also needs every step's point in the visible box of the object the step names (`items`).
Tables go to stdout, a comparison of the checkpoints last, and progress to stderr; those of a
finished evaluation come at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcts.teachers.base import TeacherUnavailable
from mcts.teachers.local.teacher import checkpoint_identity
from vigorl_nano import BASE, TEACHER
from vigorl_nano.evaluation.asking import Asking, Done, ask
from vigorl_nano.evaluation.figures import MARGIN, Asked, Figure, clusters, measure
from vigorl_nano.evaluation.items import judge

FOLDERS = (BASE, TEACHER)
HELD_OUT = Path("runs/rooms/rooms-held-out.parquet")
QUESTIONS, QUICK = 4200, 240

# Column titles and figures. `n` becomes the number of samples.
COLUMNS = {
    "Answers, in %": {
        "pass@1": "pass@1", "pass@n": "pass@n", "majority@n": "majority", "chance": "chance",
        "blank pass@1": "blank pass@1", "blank pass@n": "blank pass@n",
        "guessing pass@n": "blank chance@n",
    },
    "Grounded answers, in %": {
        "pass@1": "grounded pass@1", "pass@n": "grounded pass@n",
        "majority@n": "grounded majority", "steps on their object": "on object",
        "median error, of the side": "pointing error", "format followed": "format",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured of one checkpoint."""

    checkpoint: str
    """Name and hash."""
    questions: dict[str, int]
    """By family, and `all`."""
    scenes: int
    samples: int
    figures: dict[str, dict[str, Figure]]
    """By family, and `all`; see `figures.shares` for the names."""

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it: shares, not per cent."""
        return asdict(self)


def report(wanted: Asking, progress: Callable[[Done], None] | None = None) -> Report:
    """Ask what has not been asked yet, judge all of it, and measure.

    Raises:
        TeacherUnavailable: there is no checkpoint in the folder.
    """
    kept = ask(wanted, progress)
    asked = []
    for item in wanted.items():
        question = item.question
        seen, blind = (
            [judge(question, item.boxes, text) for text in kept[question.question_id, grey]]
            for grey in (False, True)
        )
        images = tuple(image.image_id for image in question.images)
        gold = question.choices.index(question.answers[0])
        asked.append(Asked(question.family, images, len(question.choices), gold, seen, blind))
    figures = measure(asked)
    counts = {f: sum(f in ("all", one.family) for one in asked) for f in figures}
    return Report(
        checkpoint_identity(wanted.folder),
        counts,
        len(set(clusters([one.images for one in asked]))),
        wanted.samples,
        figures,
    )


def markdown(found: Report) -> str:
    """The tables of one checkpoint."""
    n = str(found.samples)
    lines = [
        f"### {found.checkpoint}",
        "",
        f"{found.questions['all']} questions about {found.scenes} scenes, {n} samples each at "
        "T = 1.0; 95% bootstrap intervals over scenes.",
    ]
    for title, columns in COLUMNS.items():
        heads = [head.replace("@n", f"@{n}") for head in columns]
        rows = [
            [family, str(found.questions[family]), *(cell(row[name]) for name in columns.values())]
            for family, row in found.figures.items()
        ]
        lines += ["", f"**{title}**", "", *_grid(["family", "questions", *heads], rows)]
    return "\n".join([*lines, "", blind_sentence(found.figures["all"])])


# What the comparison of several checkpoints shows of all questions.
COMPARED = {
    "right at once (pass@1)": "pass@1",
    "right in one of n (pass@n)": "pass@n",
    "right by majority of n": "majority",
    "chance": "chance",
    "grounded pass@1": "grounded pass@1",
    "grounded pass@n": "grounded pass@n",
    "grounded majority of n": "grounded majority",
    "steps that point at what they name": "on object",
    "median pointing error, of the side": "pointing error",
    "format followed": "format",
    "blank picture: pass@1": "blank pass@1",
    "blank picture: pass@n": "blank pass@n",
    "guessing alone: pass@n": "blank chance@n",
}

BY_FAMILY = ("pass@1", "grounded pass@1")


def side_by_side(found: Sequence[Report]) -> str:
    """Two short tables: every checkpoint over all questions, and its pass@1 by family."""
    names = [one.checkpoint.partition("@")[0] for one in found]
    n = str(found[0].samples)

    def of(title: str) -> str:
        return title.replace("@n", f"@{n}").replace("of n", f"of {n}")

    rows = [
        [of(title), *(cell(one.figures["all"][name]) for one in found)]
        for title, name in COMPARED.items()
    ]
    heads = ["in %, with 95% intervals", *names]
    lines = _grid(heads, rows)
    families = [family for family in found[0].figures if family != "all"]
    rows = [
        [
            family,
            cell(found[0].figures[family]["chance"]),
            *(cell(one.figures[family][name]) for one in found for name in BY_FAMILY),
        ]
        for family in families
    ]
    heads = ["family", "chance", *(f"{one} {name}" for one in names for name in BY_FAMILY)]
    return "\n".join([*lines, "", *_grid(heads, rows)])


def cell(figure: Figure) -> str:
    """`61.2 [58.0, 64.4]`, in per cent; without a spread only the value."""
    value, low, high = (100 * v for v in (figure.value, figure.low, figure.high))
    if value != value:
        return "-"
    return f"{value:.1f}" if high - low < 1e-6 else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def blind_sentence(row: dict[str, Figure]) -> str:
    """Whether answers without the picture are as good as guesses (two one-sided tests)."""
    gap, lost = row["blank - chance"], row["blank no option"]
    verdict = "lies" if gap.near_zero else "does not lie"
    return (
        f"With a blank picture pass@1 minus chance is {100 * gap.value:+.1f} points, 90% interval "
        f"[{100 * gap.low90:+.1f}, {100 * gap.high90:+.1f}], which {verdict} within "
        f"±{100 * MARGIN:.0f} points; {100 * lost.value:.1f}% of those answers name no option and "
        "count as wrong."
    )


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return [line(heads), line(rule), *map(line, rows)]


def show(name: str) -> Callable[[Done], None]:
    """Progress on one line of stderr; on lines of their own, now and then, when it is no screen."""
    every = 1 if sys.stderr.isatty() else 100

    def tell(done: Done) -> None:
        if done.requests % every and done.requests != done.of:
            return
        left = int(done.remaining or 0)
        end = "\n" if every > 1 or done.requests == done.of else "\r"
        print(
            f"{name}: {done.requests} of {done.of} requests, "
            f"{done.tokens / done.seconds:.0f} tokens a second, "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} to go   ",
            end=end, file=sys.stderr, flush=True,
        )  # fmt: skip

    return tell


def make_questions(parquet: Path) -> None:
    """Draw the held-out questions where they are expected and missing."""
    command = [
        sys.executable, "-m", "vigorl_nano.rooms.rooms",
        "--split", "held-out", "--questions", str(QUESTIONS), "--out", str(parquet.parent),
    ]  # fmt: skip
    print(f"drawing {QUESTIONS} held-out questions into {parquet.parent} ...", file=sys.stderr)
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure checkpoints on the held-out rooms.")
    parser.add_argument("--folders", type=Path, nargs="+", default=FOLDERS, help="checkpoints")
    parser.add_argument("--parquet", type=Path, default=HELD_OUT, help="questions, truth beside")
    parser.add_argument("--limit", type=int, default=0, help="questions to ask; 0 for all")
    parser.add_argument("--quick", action="store_true", help=f"the same as --limit {QUICK}")
    parser.add_argument("--samples", type=int, default=8, help="answers to each question")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--markdown", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    if options.parquet == HELD_OUT and not HELD_OUT.exists():
        make_questions(HELD_OUT)
    limit = options.limit or (QUICK if options.quick else 0)
    found = []
    for folder in options.folders:
        wanted = Asking(folder, options.parquet, limit, options.samples)
        try:
            found.append(report(wanted, show(folder.name)))
        except TeacherUnavailable as error:
            sys.exit(str(error))
        print(markdown(found[-1]), end="\n\n", flush=True)
    if len(found) > 1:
        print(side_by_side(found), flush=True)
    if options.json:
        options.json.write_text(json.dumps([one.plain() for one in found], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text("\n\n".join(map(markdown, found)) + "\n")


if __name__ == "__main__":
    main()

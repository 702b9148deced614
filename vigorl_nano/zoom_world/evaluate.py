"""Measures a model that zooms on the signs: with its crops, without, and with what is no crop.

    python -m vigorl_nano.zoom_world.evaluate                    # nano-zoom on the test sample
    python -m vigorl_nano.zoom_world.evaluate --model runs/nano/zoom/weights --limit 40 --samples 4

Each question is asked several times at temperature 1, by the code of `vigorl evaluate`, so an
interrupted evaluation continues. Guessing alone is right about once in ten: answers are free, and
eight or ten numbers are as likely. The table goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from curation.scores.bootstrap import Estimate
from flows.progress import report_to_stderr
from flows.settings import EvaluateSettings
from flows.stages.evaluate import evaluate
from training.evaluation.report import cell
from vigorl_nano.evaluate import table
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse

TASK = "vstar"
ROWS: dict[str, dict[str, str]] = {
    "zoom": {},
    "zoom, grey pictures": {"control": "blank"},
    "zoom, noise for crops": {"control": "noise"},
    "zoom, crops of elsewhere": {"control": "elsewhere"},
    "no zoom, grounded steps": {"response_style": "grounded"},
    "no zoom, answer only": {"response_style": "answer_only"},
}
"""What is measured, with the settings in which it differs."""


def measure(
    model: str, home: Path, samples: int, limit: int | None
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Evaluate a model in every way of `ROWS`: figures by family, and `all`, for each."""
    import_sample(Warehouse.at(str(home)), TASK)
    found = {}
    for title, given in ROWS.items():
        settings = EvaluateSettings.checked(
            model=model, benchmark=TASK, split="test", limit=limit, home=str(home),
            temperature=1.0, samples=samples, **given,
        )  # fmt: skip
        found[title] = asyncio.run(evaluate(settings, report=report_to_stderr)).report.figures
    return found


def render(found: dict[str, dict[str, dict[str, Estimate]]], samples: int) -> str:
    """Render a table of the ways of asking, and one of the kinds of question with zoom."""

    def cells(row: dict[str, Estimate]) -> list[str]:
        return [cell(row["accuracy"]), cell(row.get("pass@k", row["accuracy"]))]

    heads = ["right at once (pass@1)", f"right in one of {samples}"]
    ways = [[title, *cells(figures["all"])] for title, figures in found.items()]
    kinds = [[family, *cells(row)] for family, row in found["zoom"].items()]
    return "\n".join(
        [*table(["in %, with 95% intervals", *heads], ways), "", *table(["kind", *heads], kinds)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model that zooms on the signs.")
    parser.add_argument("--model", default="nano-zoom", help="a registered model or a folder")
    parser.add_argument("--home", type=Path, default=Path("runs/nano/zoom-evaluations"))
    parser.add_argument("--samples", type=int, default=8, help="answers to each question")
    parser.add_argument("--limit", type=int, help="questions to ask; all when left out")
    options = parser.parse_args()
    print(
        render(
            measure(options.model, options.home, options.samples, options.limit), options.samples
        )
    )


if __name__ == "__main__":
    main()

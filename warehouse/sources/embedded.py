"""The questions that come with vigorl, read by the same reader as published ones.

    report = import_sample(warehouse, "sat2")        # None for a task without a sample

They are rendered rooms in SAT-v2's schema (`warehouse.sources.rooms`), a train and a held-out test
file, so that everything can be tried without a download.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warehouse.home import Warehouse
from warehouse.sources.importing import ImportReport, import_questions

FOLDER = Path(__file__).resolve().parent / "sample"
SAMPLES = {"sat2": {"train": FOLDER / "rooms-train.parquet", "test": FOLDER / "rooms-test.parquet"}}
SOURCE, LICENCE = "vigorl-rooms", "Apache-2.0"


def import_sample(warehouse: Warehouse, task: str) -> ImportReport | None:
    """Import every split of a task's sample; again adds nothing."""
    total: ImportReport | None = None
    for split, path in SAMPLES.get(task, {}).items():
        report = import_questions(
            warehouse, task, path, split=split, source=SOURCE, licence=LICENCE
        )
        if total is not None:
            report = replace(
                report,
                read=total.read + report.read,
                added=total.added + report.added,
                already_there=total.already_there + report.already_there,
            )
        total = report
    return total

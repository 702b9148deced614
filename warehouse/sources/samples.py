"""The questions that come with vigorl, read by the same readers as published ones.

    report = import_sample(warehouse, "sat2")        # None for a task without a sample

Which files a task's sample is, the task says (`warehouse.sources.tasks.Sample`), so that every task
can be tried without a download.
"""

from __future__ import annotations

from dataclasses import replace

from warehouse.sources import task_of
from warehouse.sources.importing import ImportReport, import_questions
from warehouse.storage.home import Warehouse


def import_sample(warehouse: Warehouse, task: str) -> ImportReport | None:
    """Import every split of a task's sample; again adds nothing."""
    total: ImportReport | None = None
    sample = task_of(task).sample
    if sample is None:
        return None
    for split, path in sample.files.items():
        report = import_questions(
            warehouse, task, path, split=split, source=sample.source, licence=sample.licence
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

"""The registry of tasks: this package's and those of other packages' entry points.

tasks()                  # every task by its name
find_task("sat2")        # ImportProblem, with the known names, for an unknown one
task_of("my-own")        # never fails: an unregistered task has the defaults
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from warehouse.sources.reading.drafts import Draft, DraftImage, ImportProblem, ReadContext, Reject
from warehouse.sources.tasks import Sample, Task

__all__ = [
    "Draft",
    "DraftImage",
    "ImportProblem",
    "ReadContext",
    "Reject",
    "Sample",
    "Task",
    "find_task",
    "task_of",
    "tasks",
]

MODULES = (
    "sat",
    "vstar",
    "web_grounding",
    "web_action",
    "blink",
    "robospatial",
    "vstar_bench",
    "hr_bench",
    "visual_probe",
    "tree_bench",
    "screenspot",
    "visualwebarena",
    "pope",
    "gqa",
    "ai2d",
    "realworldqa",
    "mathvision",
    "wemath",
    "mmmu",
)
"""Modules of `benchmarks/` that have `TASKS`; a new one is added here."""
GROUP = "vigorl.tasks"


@cache
def _builtin() -> dict[str, Task]:
    modules = [import_module(f"warehouse.sources.benchmarks.{name}") for name in MODULES]
    return {task.name: task for module in modules for task in module.TASKS}


def tasks() -> dict[str, Task]:
    """Every task by its name. An outside package cannot replace one of this package's.

    Raises:
        ImportProblem: what an outside package registered can't be loaded, or is not a task.
    """
    outside = {name: _registered(name) for name in sorted(entry_points(group=GROUP).names)}
    return {**{name: task for name, task in outside.items() if task is not None}, **_builtin()}


def find_task(name: str) -> Task:
    """The task of that name; ImportProblem if there is none."""
    found = _builtin().get(name) or _registered(name)
    if found is None:
        known = ", ".join(sorted({*_builtin(), *entry_points(group=GROUP).names}))
        raise ImportProblem(
            f"no task named {name!r}; there are: {known}; any other is read with --columns"
        )
    return found


def task_of(name: str) -> Task:
    """The task of that name, with every default where none is registered."""
    return _builtin().get(name) or _registered(name) or Task(name)


def _registered(name: str) -> Task | None:
    """What another package registered under this name."""
    for point in entry_points(group=GROUP, name=name):
        try:
            found = point.load()
        except Exception as error:  # that package's code may raise anything
            raise ImportProblem(
                f"the task {name!r} of {point.value} can't be loaded: {error}"
            ) from error
        if not isinstance(found, Task) or found.name != name:
            raise ImportProblem(f"{point.value} is registered as the task {name!r} and is not it")
        return found
    return None

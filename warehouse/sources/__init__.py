"""The tasks there are: each says what reads its questions and how they are asked.

tasks()                  # every task: this package's, then those other packages add
find_task("sat2")        # ImportProblem, with the names there are, for an unknown one
task_of("my-own")        # never fails: a task nobody registered has the defaults
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from warehouse.sources.reading.drafts import Draft, ImportProblem, Picture, ReadContext, Reject
from warehouse.sources.tasks import Sample, Task

__all__ = [
    "Draft",
    "ImportProblem",
    "Picture",
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
"""Files of this package that have `TASKS`; a new one is added here."""
GROUP = "vigorl.tasks"


@cache
def _own() -> dict[str, Task]:
    modules = [import_module(f"warehouse.sources.benchmarks.{name}") for name in MODULES]
    return {task.name: task for module in modules for task in module.TASKS}


def tasks() -> dict[str, Task]:
    """Every task by its name. An outside package cannot replace one of this package's.

    Raises:
        ImportProblem: what an outside package registered can't be loaded, or is no task.
    """
    outside = {name: _outside(name) for name in sorted(entry_points(group=GROUP).names)}
    return {**{name: task for name, task in outside.items() if task is not None}, **_own()}


def find_task(name: str) -> Task:
    """The task of that name; ImportProblem if there is none."""
    found = _own().get(name) or _outside(name)
    if found is None:
        there = ", ".join(sorted({*_own(), *entry_points(group=GROUP).names}))
        raise ImportProblem(
            f"no task named {name!r}; there are: {there}; any other is read with --columns"
        )
    return found


def task_of(name: str) -> Task:
    """The task of that name, with every default where nobody registered one."""
    return _own().get(name) or _outside(name) or Task(name)


def _outside(name: str) -> Task | None:
    """What another package registered under this name."""
    for point in entry_points(group=GROUP, name=name):
        try:
            found = point.load()
        except Exception as error:  # whatever that package does
            raise ImportProblem(
                f"the task {name!r} of {point.value} can't be loaded: {error}"
            ) from error
        if not isinstance(found, Task) or found.name != name:
            raise ImportProblem(f"{point.value} is registered as the task {name!r} and is not it")
        return found
    return None

"""Readers of benchmark formats, by task.

readers()                # every reader: this package's, then those other packages add
find_reader("sat2")      # ImportProblem, with the names there are, for an unknown task
"""

from __future__ import annotations

from importlib.metadata import entry_points

from warehouse.sources.drafts import Draft, ImportProblem, Picture, ReadContext, Reader, Reject

__all__ = [
    "Draft",
    "ImportProblem",
    "Picture",
    "ReadContext",
    "Reader",
    "Reject",
    "find_reader",
    "readers",
]


def readers() -> dict[str, Reader]:
    """Every reader by its task. An outside package cannot replace one of this package's."""
    from warehouse.sources import reference, sat

    own = [
        Reader(
            "sat2",
            "SAT: spatial questions (Parquet of SAT-v2 or SAT v1, or reference JSONL)",
            {".parquet": sat.read, ".jsonl": reference.read},
        ),
        Reader("vstar", "visual search (reference JSONL)", {".jsonl": reference.read}),
        Reader(
            "web-grounding", "gold boxes on screens (reference JSONL)", {".jsonl": reference.read}
        ),
        Reader("web-action", "next browser actions (reference JSONL)", {".jsonl": reference.read}),
    ]
    outside = [point.load() for point in entry_points(group="vigorl.readers")]
    return {reader.task: reader for reader in [*reversed(outside), *own]}


def find_reader(task: str) -> Reader:
    """The reader of a task; ImportProblem if there is none."""
    known = readers()
    if task not in known:
        raise ImportProblem(f"no reader named {task!r}; there are: {', '.join(sorted(known))}")
    return known[task]

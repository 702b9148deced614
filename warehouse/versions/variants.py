"""A version's rows told in another form: without points, as answers alone, as dialogues that zoom.

    tell = Teller("ungrounded")
    for row in tell(rows): …               # rows of a rows.parquet in, and out

A row keeps its chain's `trace_id`, so its way back to the pixels stays open; `kind` and
`linearizer` say what it has become.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from curation.traces.variants import VARIANTS
from curation.traces.zoom_dialogues import zoomed
from mcts.data import Trace
from warehouse.sources import task_of
from warehouse.storage.home import WarehouseError
from warehouse.tables.rows import observation_row, point_row
from warehouse.versions.bundle import question_of, trace_of

Row = dict[str, Any]

PROMPTS = {"ungrounded": "thoughts", "answers": "answer", "zoom": "zoom"}
"""The prompt that asks for each form; a chain as it was made is asked for by its task's own."""


def check_variant(name: str) -> None:
    """WarehouseError for a name that no form has."""
    if name not in VARIANTS:
        raise WarehouseError(f"there is no variant {name!r}; there are: {', '.join(VARIANTS)}")


class Teller:
    """Tells rows in the form `name`, batch after batch."""

    def __init__(self, name: str) -> None:
        check_variant(name)
        self.name = name
        self.left_out = 0
        """Rows that have no such form, or say what one before them said."""
        self._said: set[str] = set()

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows in that form."""
        for row in rows:
            trace, question = trace_of(row), question_of(row)
            if self.name == "zoom" and trace.kind == "direct":
                made = zoomed(trace, question, task_of(question.task).lens)
            else:
                made = VARIANTS[self.name](trace, question)
            if made is not None and self.name == "answers":
                # All chains of a question that agree are one answer: the first stands for them.
                made = None if made.trace_id in self._said else made
                self._said |= {made.trace_id} if made else set()
            if made is None:
                self.left_out += 1
            else:
                yield row | _told(made)


def _told(trace: Trace) -> Row:
    steps = [
        {
            "thought": step.thought,
            "points": [point_row(point) for point in step.points],
            "call": point_row(step.call) if step.call else None,
            "observation": observation_row(step.observation) if step.observation else None,
        }
        for step in trace.steps
    ]
    return {
        "kind": trace.kind,
        "linearizer": trace.maker or None,
        "steps": steps or None,
        "wrong_from": trace.wrong_from,
        "turns_back_at": trace.turns_back_at,
    }

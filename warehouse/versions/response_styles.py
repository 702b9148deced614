"""A version's rows in another response style: without points, answers alone, zoom dialogues.

    restyle = Restyler(ResponseStyle.UNGROUNDED)
    for row in restyle(rows): …            # rows of a rows.parquet in, and out
    response_style_of(version.card)        # the style all its rows are in, or None

A row keeps its chain's `trace_id`, so its way back to the pixels stays open; `kind` and
`linearizer` say what it has become.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from curation.traces.response_styles import CONVERTERS
from curation.traces.zoom_dialogues import zoom_dialogue
from mcts.data import ResponseStyle, Trace, TraceKind
from mcts.teachers.checkpoints import GENERAL
from mcts.zoom.rows import call_row, observation_row
from warehouse.sources import task_of
from warehouse.storage.home import WarehouseError
from warehouse.tables.rows import point_row
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, trace_of

PROMPTS = {**GENERAL.prompts, ResponseStyle.ZOOM: "zoom"}
"""The prompt file for each style; None for the one of the question's task."""


def parse_response_style(name: str) -> ResponseStyle:
    """Return the response style of that name; former names are understood.

    Raises:
        WarehouseError: there is none.
    """
    try:
        return ResponseStyle(name)
    except ValueError:
        raise WarehouseError(
            f"there is no response style {name!r}; there are: {', '.join(ResponseStyle)}"
        ) from None


def response_style_of(card: Mapping[str, Any]) -> ResponseStyle | None:
    """Return the style that all rows of a version were written in; None if they are as searched."""
    found = card.get("response_style") or card.get("variant")  # its key in cards before 0.1.0
    return parse_response_style(found) if found else None


class Restyler:
    """Rewrites rows in one response style, batch after batch."""

    def __init__(self, style: ResponseStyle, left_out: Counter[str] | None = None) -> None:
        self.style = style
        self.left_out: Counter[str] = Counter() if left_out is None else left_out
        """Rows that can't be written in this style, or that repeat an answer, by reason."""
        self._answers: set[str] = set()

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows in that style."""
        for row in rows:
            trace = self._rewrite(row)
            if trace is None:
                self.left_out[self._reason(trace_of(row))] += 1
            else:
                yield row | _restyled_columns(trace)

    def _rewrite(self, row: Row) -> Trace | None:
        trace, question = trace_of(row), question_of(row)
        if self.style is ResponseStyle.ZOOM and trace.kind == TraceKind.DIRECT:
            return zoom_dialogue(trace, question, task_of(question.task).lens)
        made = CONVERTERS[self.style](trace, question)
        if made is not None and self.style is ResponseStyle.ANSWER_ONLY:
            # All chains of a question that agree are one answer: the first stands for them.
            if made.trace_id in self._answers:
                return None
            self._answers.add(made.trace_id)
        return made

    def _reason(self, trace: Trace) -> str:
        """Return why a trace is left out, as the end of "3 left out, …"."""
        if self.style is ResponseStyle.ANSWER_ONLY:
            return "with an answer that another chain of the question gave"
        if self.style is ResponseStyle.ZOOM:
            if trace.kind != TraceKind.DIRECT:
                return f"{trace.kind} chains, of which no dialogue is made"
            return "without a point that a call could show"
        if trace.zooms:
            return "zoom dialogues"
        return "without words when their points are gone"


def _restyled_columns(trace: Trace) -> Row:
    steps = [
        {
            "thought": step.thought,
            "points": [point_row(point) for point in step.points],
            "call": call_row(step.call),
            "observation": observation_row(step.observation),
        }
        for step in trace.steps
    ]
    return {
        "kind": str(trace.kind),
        "linearizer": trace.maker or None,
        "steps": steps or None,
        "wrong_from": trace.wrong_from,
        "turns_back_at": trace.turns_back_at,
    }

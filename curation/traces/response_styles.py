"""Rewrites one trace in another response style, for ablations and baselines.

    ungrounded = without_points(trace)       # the same words, no coordinates; None if none are left
    row = answer_only(trace)                 # question and answer, no reasoning (ViGoRL, table 1)
    rewritten = CONVERTERS[ResponseStyle.ZOOM](trace, question)

A rewritten trace is not a trace of its own: it is made from the chosen rows when a version is
published or exported, and no table of the warehouse holds it. So an ablation compares the same
chains, chosen by the same statement and kept by the same filters, and differs in nothing but the
style. Its row keeps the `trace_id` of the chain it was made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from curation.traces.strip_points import without_coordinates
from curation.traces.zoom_dialogues import zoom_dialogue
from mcts.data import Question, ResponseStyle, Step, Trace, TraceKind

VERSION = 1
MAKER = f"variants/{VERSION}"
"""Stored in `linearizer` and hashed into trace ids: keep the word."""


def without_points(trace: Trace) -> Trace | None:
    """Remove a chain's points: the paper's "no grounding" ablation (ViGoRL, table 4).

    Steps stay apart where they were, so that both chains are laid out alike; a step that held
    nothing but a coordinate goes. The answer stays as it is: where it is a point, the question
    asks for one. None when no words are left, or none of the attempt that it turns back from, or
    where the trace zooms.
    """
    if trace.zooms:
        return None
    steps: list[Step] = []
    kept: list[int] = []
    for i, step in enumerate(trace.steps):
        thought = without_coordinates(step.thought, step.points)
        if thought:
            steps.append(Step(thought))
            kept.append(i)
    moved = [sum(k < mark for k in kept) for mark in range(len(trace.steps) + 1)]
    wrong, turn = trace.wrong_from, trace.turns_back_at
    wrong = None if wrong is None else moved[wrong]
    turn = None if turn is None else moved[turn]
    if not steps or (turn is not None and wrong == turn):
        return None
    return replace(
        trace,
        steps=tuple(steps),
        kind=TraceKind.UNGROUNDED,
        origins=tuple(trace.origins[i] for i in kept) if trace.origins else (),
        wrong_from=wrong,
        turns_back_at=turn,
        maker=MAKER,
    )


def answer_only(trace: Trace) -> Trace:
    """Return the trace's answer without any reasoning: the paper's SFT baseline.

    It forgets which chain it came from: all chains of a question that agree give one and the same
    row, with one `trace_id`. Keep each id once, or a question counts as often as it was solved.
    """
    return Trace(
        question_id=trace.question_id,
        steps=(),
        answer=trace.answer,
        reward=trace.reward,
        kind=TraceKind.ANSWER,
        origin=trace.origin,
        maker=MAKER,
    )


Converter = Callable[[Trace, Question], Trace | None]

CONVERTERS: dict[ResponseStyle, Converter] = {
    ResponseStyle.GROUNDED: lambda trace, question: trace if without_points(trace) else None,
    ResponseStyle.UNGROUNDED: lambda trace, question: without_points(trace),
    ResponseStyle.ANSWER_ONLY: lambda trace, question: answer_only(trace),
    ResponseStyle.ZOOM: lambda trace, question: (
        trace if trace.zooms else zoom_dialogue(trace, question)
    ),
}
"""One function a style; it returns None where a trace can't be written in that style. `grounded`
is the chain itself if it can also be written without points: so both versions hold the same
chains. A trace that zooms has neither: its words tell what only the crops show."""

"""One chain in other forms, for ablations and baselines: without its points, or only its answer.

    twin = without_points(trace)             # the same words, no coordinates; None if none are left
    row = answer_only(trace)                 # question and answer, no reasoning (ViGoRL, table 1)
    for pair in twins(traces): …             # Twin(grounded, ungrounded): both or neither
    made = VARIANTS["ungrounded"](trace, question)

These are forms of a trace, not traces of their own: they are made from the chosen rows when a
version is published or exported, and no table of the warehouse holds them. So an ablation compares
the same chains, chosen by the same statement and judged by the same filters, and differs in nothing
but the form. What links a form to its chain is the chain's `trace_id`, which its row keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from curation.traces.strip_points import without_coordinates
from curation.traces.zoom_dialogues import zoomed
from mcts.data import Question, Step, Trace

VERSION = 1
MAKER = f"variants/{VERSION}"


@dataclass(frozen=True, slots=True)
class Twin:
    """One chain told with and without its points."""

    grounded: Trace
    ungrounded: Trace


def twins(traces: Iterable[Trace]) -> Iterator[Twin]:
    """Each chain with its twin; chains that have none are left out, so that both sides are equal
    in number and in what they are about."""
    for trace in traces:
        ungrounded = without_points(trace)
        if ungrounded is not None:
            yield Twin(trace, ungrounded)


def without_points(trace: Trace) -> Trace | None:
    """The chain without its points: the paper's "no grounding" ablation (ViGoRL, table 4).

    Steps stay apart where they were, so that both twins are laid out alike; a step that said
    nothing but a coordinate goes. The answer stays as it is: where it is a point, the question
    asks for one. None when nothing is left to say, or of the attempt it turns back from.
    """
    steps: list[Step] = []
    kept: list[int] = []
    for i, step in enumerate(trace.steps):
        thought = without_coordinates(step.thought)
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
        kind="ungrounded",
        origins=tuple(trace.origins[i] for i in kept) if trace.origins else (),
        wrong_from=wrong,
        turns_back_at=turn,
        maker=MAKER,
    )


def answer_only(trace: Trace) -> Trace:
    """The question's answer without any reasoning: the paper's SFT baseline.

    It forgets which chain it came from: all chains of a question that agree give one and the same
    row, with one `trace_id`. Keep each id once, or a question counts as often as it was solved.
    """
    return Trace(
        question_id=trace.question_id,
        steps=(),
        answer=trace.answer,
        reward=trace.reward,
        kind="answer",
        origin=trace.origin,
        maker=MAKER,
    )


Variant = Callable[[Trace, Question], Trace | None]

VARIANTS: dict[str, Variant] = {
    "grounded": lambda trace, question: trace if without_points(trace) else None,
    "ungrounded": lambda trace, question: without_points(trace),
    "answers": lambda trace, question: answer_only(trace),
    "zoom": lambda trace, question: trace if trace.kind == "zoom" else zoomed(trace, question),
}
"""Each form by the name it is asked for with; None where a trace has no such form. `grounded` is
the chain itself, if it has an ungrounded twin: so both versions hold the same chains."""

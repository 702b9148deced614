"""A direct chain written as a dialogue that zooms: each place is requested, and then shown.

    dialogue = zoom_dialogue(trace, question)              # None if there is nothing to zoom into
    dialogue = zoom_dialogue(trace, question, lens=WEB_LENS, most_calls=4)

A step cites its point, calls for a closer look at it, and is shown the crop; the next thought
comes after that. So an observation never stands before the call that caused it, and the last
thought, which leads to the answer, is never cut away or replaced.

What such a dialogue is, and is not: its words were written without the crops (as those of the
reference implementation are). It teaches the form: when a call is made, what comes back, that
reasoning goes on behind it. It can't teach to use what only the crop shows. Dialogues whose words
were written with the crops in view come from trees that hold observations; `linearize` keeps them,
under the same kind `zoom`. They differ in `Trace.maker`, by which the two are compared.
"""

from __future__ import annotations

from dataclasses import replace

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, Trace, ZoomCall
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens, default_lens
from mcts.zoom.observe import observe

VERSION = 2
MAKER = f"zoom_dialogues/{VERSION}"


def zoom_dialogue(
    trace: Trace, question: Question, lens: Lens | None = None, most_calls: int = 4
) -> Trace | None:
    """The dialogue made of a direct chain, with at most `most_calls` calls; without a lens, with
    one that fits the images.

    Steps whose point was shown already, lies outside its image, or comes when the calls are used
    up are written without a call. The last step has none, so that a thought always leads to the
    answer. None if no step is left to call, or the trace is not a direct chain.
    """
    if trace.kind != "direct":
        return None
    zoom = ZoomConfig(lens or default_lens(question), max_calls=most_calls, max_turns=most_calls)
    frame = Frame.of(CoordinateSpace.original(), question)
    steps: list[Step] = []
    calls = 0
    for step in trace.steps[:-1]:
        if step.point is not None and calls < most_calls:
            call = ZoomCall(step.point, step.point.image)
            shown = observe(frame, steps, call, zoom)
            if shown.crop is not None:
                step = replace(step, call=call, observation=shown)
                calls += 1
        steps.append(step)
    if not calls:
        return None
    return replace(trace, steps=(*steps, trace.steps[-1]), kind="zoom", maker=MAKER)

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
under the same kind `zoom`. They differ in `Trace.maker`.
"""

from __future__ import annotations

from dataclasses import replace

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Observation, Point, Question, Step, Trace, ZoomCall
from mcts.zoom.lenses import Lens, default_lens

VERSION = 1
MAKER = f"zoom_dialogues/{VERSION}"

SHOWN_RADIUS = 0.01
"""Share of the image's longer side: what was seen enlarged this near is not called for again."""


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
    lens = lens or default_lens(question)
    frame = Frame.of(CoordinateSpace.original(), question)
    seen: list[Point] = []
    steps: list[Step] = []
    for step in trace.steps[:-1]:
        point = step.point
        if (
            point is None
            or len(seen) == most_calls
            or not frame.inside(point)
            or any(frame.same_place(point, other, SHOWN_RADIUS) for other in seen)
        ):
            steps.append(step)
            continue
        seen.append(point)
        crop, size = lens.region(point, question.images[point.image])
        shown = Observation(crop, *size, marked=lens.marked)
        steps.append(replace(step, call=ZoomCall(point, point.image), observation=shown))
    if not seen:
        return None
    return replace(trace, steps=(*steps, trace.steps[-1]), kind="zoom", maker=MAKER)

"""Dialogues that zoom, as rows for SFT: every turn, and each crop where it was shown.

    student = with_zoom(student, recipe, shown_lens(pairs), called_tool(pairs))
                                               # what its calls show, here and later
    dialogues = Dialogues(student, min_thoughts=3)
    row = dialogues.row(question, trace)       # or a DialogueProblem: why it can't be trained on
    read = dialogues.reader(read_image)        # encoded bytes of an image or a crop, by its id

A student learns from what it will be shown: the turns are those that a search or an evaluation
sends (`mcts.prompts.build_messages`), the crops are rendered by the same function from the original
image, and a dialogue whose crops the student's own calls would not show is left out. A turn whose
call showed nothing stays in sight, but is not trained on: nobody should learn to write it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from curation.traces import zoom_dialogues
from mcts.coordinates import Frame
from mcts.data import Observation, Question, Step, Trace, TraceKind, ZoomCall
from mcts.parsing import render
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import ImagePart, Message
from mcts.teachers.checkpoints import observation_role
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL
from mcts.zoom.crops import crop_of
from mcts.zoom.episode import replay
from mcts.zoom.lenses import HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS, Lens
from mcts.zoom.observe import observe
from mcts.zoom.render import render_crop
from mcts.zoom.tools import BoxesCalled, calls_boxes, for_tool
from training.errors import TrainingError
from training.recipe_sections import Zoom
from training.recipes import DpoRecipe, GrpoRecipe, PrmRecipe, Recipe, SftRecipe
from training.students import Student
from warehouse.sources import task_of
from warehouse.tables.schema import Row
from warehouse.versions.bundle import ANSWER_FORCED

_NEAR = 0.05
"""Pixels by which a crop's edge may differ from the one that a rounded lens shows."""

Dialogue = tuple[Question, Trace]
R = TypeVar("R", SftRecipe, DpoRecipe, PrmRecipe, GrpoRecipe)


class DialogueProblem(Exception):
    """Why a dialogue is left out, as the end of a sentence."""


def with_zoom(student: Student, recipe: Recipe, lens: Lens, tool: str | None = None) -> Student:
    """Return the student with what its calls show, as its `vigorl.json` will say.

    Args:
        lens: where the recipe names none.
        tool: that the prompt offers where the recipe names none; the student's own when left out.
    """
    role = observation_role(student.folder)
    zoom = (recipe.zoom or Zoom.model_validate({})).config(lens, role)
    if recipe.zoom is None and student.zoom is not None:
        zoom = replace(student.zoom, lens=lens, role=role)
    if recipe.zoom is None or not recipe.zoom.names_tool:
        tool = tool or (student.zoom.tool if student.zoom else zoom.tool)
        zoom = replace(zoom, tool=tool)
    return replace(student, zoom=zoom)


def as_taught(recipe: R, student: Student) -> R:
    """Return the recipe with the tool that the student is offered, where it names none: what is
    recorded of a training is what was learned in it."""
    if recipe.zoom is None or student.zoom is None or recipe.zoom.tool == student.zoom.tool:
        return recipe
    zoom = recipe.zoom.model_copy(update={"tool": student.zoom.tool})
    return recipe.model_copy(update={"zoom": zoom})


def called_tool(dialogues: Iterable[Dialogue]) -> str | None:
    """Return the tool that dialogues call; None if none of them calls.

    Where some call for points and some for boxes it is the one for boxes, as which all can be
    written.
    """
    called: str | None = None
    for _, trace in dialogues:
        if calls_boxes(trace.steps):
            return BOX_TOOL
        if any(step.call is not None and step.call.point is not None for step in trace.steps):
            called = POINT_TOOL
    return called


def shown_lens(dialogues: Iterable[Dialogue]) -> Lens:
    """Read off the crops of dialogues what a call shows.

    Crops of calls with a box, or made in another crop, say nothing of it.

    Raises:
        TrainingError: they were made with several lenses.
    """
    pixels: Counter[Lens] = Counter()
    shares: Counter[Lens] = Counter()
    known: Lens | None = None
    for question, trace in dialogues:
        known = known or task_of(question.task).lens
        for step in trace.steps:
            call, shown = step.call, step.observation
            if call is None or call.box or call.view >= len(question.images):
                continue
            if shown is None or shown.crop is None:
                continue
            crop, image = shown.crop, question.images[shown.crop.image]
            half = max(crop.x2 - crop.x1, crop.y2 - crop.y1) / 2
            side, longest = max(shown.width, shown.height), max(image.width, image.height)
            if 2 * half < longest:  # else a larger lens would show as much
                pixels[Lens(round(half, 3), side, shown.marked)] += 1
                shares[Lens(round(half / longest, 6), side, shown.marked, share=True)] += 1
    for found in (pixels, shares) if known else (shares, pixels):
        if len(found) == 1:
            return next(iter(found))
    if not pixels:
        return known or Lens(HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS.shown_side, share=True)
    told = " and ".join(
        f"{lens.half_width:g} shown at {lens.shown_side}{', marked' * lens.marked}"
        for lens, _ in pixels.most_common(2)
    )
    raise TrainingError(
        f"its dialogues zoom with several lenses (half widths in pixels: {told}) and a student has "
        "one: choose rows of one task, or name the lens to train with, `zoom.lens` in the recipe"
    )


@dataclass(slots=True)
class Dialogues:
    """Writes dialogues as a student reads and writes them, and knows their crops."""

    student: Student
    """With `zoom`."""
    min_thoughts: int
    wrong_attempts: bool = True
    """Whether looks of a corrected dialogue before it turns back are trained on."""
    crops: dict[str, tuple[str, Observation, ZoomCall | None]] = field(default_factory=dict)
    """Of each crop's id: its image's, what was shown, and the call."""

    def row(self, question: Question, trace: Trace) -> Row:
        """Return a dialogue's messages as texts, and its images with the turns they stand in.

        `untrained` counts the model's turns, from 0, that are not trained on.

        Raises:
            DialogueProblem: it can't be trained on.
        """
        frame = Frame.of(self.student.space, question)
        steps = self.as_shown(frame, trace.steps)
        begun = _begun(steps)
        demanded = min(self.min_thoughts, len(steps) or self.min_thoughts)
        answer = render(steps[begun:], trace.answer, frame, before=steps[:begun])
        looks = [(i, step.observation) for i, step in enumerate(steps) if step.observation]
        wrong = range(0) if self.wrong_attempts else _wrong_attempt(trace)
        untrained = [turn for turn, (i, shown) in enumerate(looks) if shown.problem or i in wrong]
        if ANSWER_FORCED in trace.problems:
            untrained.append(len(looks))
        if len(untrained) > len(looks):
            raise DialogueProblem("of which no turn may be trained on")
        conversation = self._conversation(question, steps[:begun], demanded, answer)
        return {**conversation, "untrained": untrained}

    def next_turn(
        self, question: Question, steps: Sequence[Step], more: Sequence[Step], answer: str | None
    ) -> Row:
        """Return the turn in which a dialogue goes on behind `steps`, as `row` returns dialogues.

        The turn ends in the first call among `more`, or has all of them and the answer. It alone is
        trained on, with what `steps` say behind their last crop.

        Raises:
            DialogueProblem: it can't be trained on.
        """
        called = next((i for i, step in enumerate(more, 1) if step.observation is not None), None)
        frame = Frame.of(self.student.space, question)
        shown = self.as_shown(frame, [*steps, *more[:called]])
        begun = _begun(shown[: len(steps)])
        said = render(
            shown[begun:], answer if called is None else None, frame, before=shown[:begun]
        )
        row = self._conversation(question, shown[:begun], self.min_thoughts, said)
        turns = sum(message["role"] == "assistant" for message in row["messages"])
        return {**row, "untrained": list(range(turns - 1))}

    def _conversation(
        self, question: Question, steps: Sequence[Step], demanded: int, last: str
    ) -> Row:
        """Return the question, the turns of `steps`, and the `last` turn; know the crops."""
        turns = self._turns(question, steps, demanded)
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        places = [
            (i, part.image_id)
            for i, turn in enumerate(turns)
            for part in turn.parts
            if isinstance(part, ImagePart)
        ]
        sizes = [[image.width, image.height] for image in question.images]
        for step in steps:
            if step.observation is not None and (crop := step.observation.crop) is not None:
                whole = question.images[crop.image].image_id
                self.crops[crop_of(question, step)] = (whole, step.observation, step.call)
                sizes.append([step.observation.width, step.observation.height])
        return {
            "messages": [*messages, {"role": "assistant", "content": last}],
            "image_ids": [image_id for _, image_id in places],
            "image_turns": [i for i, _ in places],
            "image_sizes": sizes,
        }

    def turns_before(self, question: Question, steps: Sequence[Step]) -> list[str]:
        """Return what a student wrote, turn by turn, up to the crop that `steps` end with.

        Raises:
            DialogueProblem: its own calls would show something else, one showed nothing, or the
                steps end in none.
        """
        frame, zoom = Frame.of(self.student.space, question), self.student.zoom
        assert zoom is not None
        shown = self.as_shown(frame, steps)
        if not shown or shown[-1].observation is None:
            raise DialogueProblem("that end before a call")
        if any(step.observation and step.observation.crop is None for step in shown):
            raise DialogueProblem("in which a call showed nothing")
        turns = self._turns(question, shown, self.min_thoughts)
        texts = [turn.text for turn in turns if turn.role == "assistant"]
        again = replay([(text, "stop") for text in texts], frame, zoom, ())
        looks = [step.observation for step in again if step.observation is not None]
        crops = [step.observation for step in shown if step.observation is not None]
        if len(looks) != len(texts) or len(looks) != len(crops) or not all(
            map(_same_look, looks, crops)
        ):  # fmt: skip
            raise DialogueProblem("whose turns, written again, call for other crops")
        return texts

    def _turns(
        self, question: Question, steps: Sequence[Step], demanded: int
    ) -> tuple[Message, ...]:
        """Return the question and the turns of `steps`, as the student is asked."""
        style, zoom = self.student.prompt_style, self.student.zoom
        prompt = load_prompt(style.prompt or task_of(question.task).prompt)
        return build_messages(prompt, question, self.student.space, demanded, steps, zoom=zoom)

    def as_shown(self, frame: Frame, steps: Sequence[Step]) -> list[Step]:
        """Return the steps with calls of the student's own tool, and observations as those would
        bring them.

        Raises:
            DialogueProblem: they would bring others, or the tool can't call so.
        """
        zoom = self.student.zoom
        assert zoom is not None
        try:
            steps = for_tool(steps, zoom.tool)
        except BoxesCalled:
            raise DialogueProblem(f"that ask for boxes, which {zoom.tool} can't") from None
        seen: list[Step] = []
        for step in steps:
            if step.observation is None or step.call is None:
                seen.append(replace(step, call=None, observation=None))
                continue
            if any(before.observation and before.observation.last for before in seen):
                raise DialogueProblem("with more looks than `zoom` in the recipe allows")
            own = observe(frame, seen, step.call, zoom)
            if not _same_look(own, step.observation):
                raise DialogueProblem("with other crops than the student's own calls would show")
            shown = replace(step.observation, view=own.view, last=own.last)
            seen.append(replace(step, observation=shown))
        return seen

    def reader(self, read_image: Callable[[str], bytes]) -> Callable[[str], bytes]:
        """Return a reader of images and crops; a crop is rendered when it is read."""

        def read(image_id: str) -> bytes:
            if image_id not in self.crops:
                return read_image(image_id)
            whole, shown, call = self.crops[image_id]
            return render_crop(read_image(whole), shown, call)

        return read


def _begun(steps: Sequence[Step]) -> int:
    """Return how many steps stand in front of the last turn."""
    return max((i for i, step in enumerate(steps, 1) if step.observation), default=0)


def _wrong_attempt(trace: Trace) -> range:
    """Return which steps a corrected dialogue turns back from; none of another one."""
    if trace.wrong_from is None or trace.turns_back_at is None:
        return range(0)
    return range(trace.wrong_from, trace.turns_back_at)


def zooms(trace: Trace) -> bool:
    """Return whether a trace is a dialogue that zooms, or that could have."""
    return trace.kind == TraceKind.ZOOM or any(step.observation for step in trace.steps)


def post_hoc(trace: Trace) -> bool:
    """Return whether a dialogue's words were written without its crops."""
    return trace.maker == zoom_dialogues.MAKER


def _same_look(one: Observation, other: Observation) -> bool:
    if one.crop is None or other.crop is None:
        return one.crop is other.crop and one.problem == other.problem
    a, b = one.crop, other.crop
    edges = ((a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2))
    return (
        a.image == b.image
        and all(abs(mine - theirs) <= _NEAR for mine, theirs in edges)
        and max(one.width, one.height) == max(other.width, other.height)
        and one.marked == other.marked
    )

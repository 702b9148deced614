"""Dialogues as rows, without a model: the lens they were made with, and what the student sees."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, Trace, ZoomCall
from mcts.image_io import decode
from mcts.teachers.checkpoints import GENERAL
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import crop_of
from mcts.zoom.lenses import HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS, Lens
from mcts.zoom.observe import observe
from mcts.zoom.tools import for_tool
from mcts.zoom.turns import read_turn
from training.errors import TrainingError
from training.recipes import SftRecipe, load_recipe
from training.students import Student
from training.zoom_rows import (
    DialogueProblem,
    Dialogues,
    as_taught,
    called_tool,
    post_hoc,
    shown_lens,
    with_zoom,
    zooms,
)

LARGE, SMALL = Image("a" * 64, 1000, 800), Image("b" * 64, 400, 300)
QUESTION = Question("mine", "Which digit?", (LARGE, SMALL), AnswerKind.TEXT, answers=("7",))
SPACE = CoordinateSpace.original()
FRAME = Frame.of(SPACE, QUESTION)
LENS = Lens(50, 100)


def looks(*places: tuple[float, float, int], lens: Lens = LENS, **zoom: int) -> tuple[Step, ...]:
    """Steps that look at these places; the last is a remark."""
    steps: tuple[Step, ...] = ()
    for x, y, image in places:
        call = ZoomCall(Point(x, y, image), image)
        seen = observe(FRAME, steps, call, ZoomConfig(lens, **zoom))
        steps = (*steps, Step(f"A sign ({x:g}, {y:g}).", (Point(x, y, image),), call, seen))
    return (*steps, Step("It is a 7."))


def dialogue(steps: tuple[Step, ...], **changed: Any) -> Trace:
    return Trace(QUESTION.question_id, steps, "7", 1.0, "zoom", **changed)


def dialogues(tmp_path: Path, lens: Lens = LENS, least: int = 1, **zoom: Any) -> Dialogues:
    style = replace(GENERAL, prompts={**GENERAL.prompts, "grounded": "zoom"})
    return Dialogues(Student(tmp_path, "m@1", SPACE, style, ZoomConfig(lens, **zoom)), least)


# ---- the lens -----------------------------------------------------------------------------------


def test_the_lens_is_read_off_in_shares_or_pixels_as_the_task_has_it() -> None:
    one = dialogue(looks((500, 400, 0)))
    assert shown_lens([(QUESTION, one)]) == Lens(0.05, 100, share=True)
    two = dialogue(looks((500, 400, 0), (200, 150, 1)))
    assert shown_lens([(QUESTION, two)]) == LENS, "of two sizes only pixels are the same"
    task = replace(QUESTION, task="vstar")
    assert shown_lens([(task, one)]) == LENS
    marked = dialogue(looks((500, 400, 0), lens=replace(LENS, marked=True)))
    assert shown_lens([(task, marked)]) == replace(LENS, marked=True)


def test_crops_that_say_nothing_of_the_lens_are_passed_over() -> None:
    base = looks((500, 400, 0))
    first, remark = base
    assert first.call is not None and first.observation is not None
    box = replace(first, call=replace(first.call, box=Box(0, 0, 9, 9)))
    inside = replace(first, call=replace(first.call, view=2))
    lost = replace(first, observation=Observation(None, 0, 0, problem="malformed"))
    whole = replace(first, observation=Observation(Box(0, 0, 1000, 800), 7, 5))
    for odd in (box, inside, lost, whole, replace(first, call=None)):
        assert shown_lens([(QUESTION, dialogue((odd, remark)))]) == Lens(
            HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS.shown_side, share=True
        ), "what a task without a lens is shown"
        task = replace(QUESTION, task="vstar")
        assert shown_lens([(task, dialogue((odd, remark)))]) == VISUAL_SEARCH_LENS
        assert shown_lens([(task, dialogue((odd, first, remark)))]) == LENS


def test_dialogues_of_several_lenses_are_refused_with_the_commonest() -> None:
    made = [(QUESTION, dialogue(looks((500, 400, 0), (200, 150, 1), lens=lens)))
            for lens in (LENS, LENS, Lens(80, 200, marked=True), Lens(30, 60))]  # fmt: skip
    with pytest.raises(TrainingError) as caught:
        shown_lens(made)
    assert "(half widths in pixels: 50 shown at 100 and 80 shown at 200, marked)" in str(
        caught.value
    )


def test_the_lens_is_as_wide_as_the_longer_side_of_a_crop() -> None:
    """A crop is shorter only where the image is."""
    line = replace(QUESTION, images=(replace(LARGE, height=60),), task="vstar")
    call = ZoomCall(Point(500, 30))
    seen = observe(Frame.of(SPACE, line), (), call, ZoomConfig(LENS))
    assert seen.crop is not None and seen.crop.y2 - seen.crop.y1 == 60
    trace = dialogue((Step("A sign (500, 30).", (), call, seen), Step("It is a 7.")))
    assert shown_lens([(line, trace)]) == LENS
    shares = shown_lens([(replace(line, task="mine"), trace)])
    assert shares == Lens(0.05, 100, share=True)


# ---- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "demanded"), [(1, 1), (2, 2), (9, 3)])
def test_a_prompt_demands_no_more_thoughts_than_there_are(
    tmp_path: Path, least: int, demanded: int
) -> None:
    row = dialogues(tmp_path, least=least).row(
        QUESTION, dialogue(looks((500, 400, 0), (200, 150, 1)))
    )
    assert f"at least {demanded} steps before" in row["messages"][0]["content"]


def test_a_row_shows_each_image_in_its_turn_and_trains_on_what_is_the_models(
    tmp_path: Path,
) -> None:
    made = dialogues(tmp_path)
    steps = looks((500, 400, 0), (200, 150, 1))
    row = made.row(QUESTION, dialogue(steps))
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    crops = [crop_of(QUESTION, step) for step in steps[:2]]
    assert row["image_ids"] == [LARGE.image_id, SMALL.image_id, *crops]
    assert row["image_turns"] == [1, 1, 3, 5]
    assert row["image_sizes"] == [[1000, 800], [400, 300], [100, 100], [100, 100]]
    assert row["untrained"] == []
    assert row["messages"][-1]["content"].endswith("<answer>7</answer>")
    assert "It is a 7." in row["messages"][-1]["content"]
    assert set(made.crops) == set(crops)


@pytest.mark.parametrize(
    ("second", "problems", "untrained"),
    [
        ((500, 400, 0), (), [1]),  # shown already
        ((5000, 400, 0), (), [1]),  # outside
        ((200, 150, 1), ("answer_forced",), [2]),
        ((200, 150, 1), ("unclosed_answer",), []),
        ((500, 400, 0), ("answer_forced",), [1, 2]),
    ],
)
def test_a_turn_that_failed_or_was_forced_is_not_trained_on(
    tmp_path: Path,
    second: tuple[float, float, int],
    problems: tuple[str, ...],
    untrained: list[int],
) -> None:
    trace = dialogue(looks((500, 400, 0), second), problems=problems)
    assert dialogues(tmp_path).row(QUESTION, trace)["untrained"] == untrained


@pytest.mark.parametrize(("trained", "untrained"), [(True, []), (False, [1])])
def test_what_a_corrected_dialogue_turns_back_from_may_be_only_in_sight(
    tmp_path: Path, trained: bool, untrained: list[int]
) -> None:
    steps = looks((500, 400, 0), (200, 150, 1), (700, 200, 0))
    trace = dialogue(steps, wrong_from=1, turns_back_at=2)
    made = replace(dialogues(tmp_path), wrong_attempts=trained)
    assert made.row(QUESTION, trace)["untrained"] == untrained
    assert made.row(QUESTION, dialogue(steps))["untrained"] == []


def test_a_dialogue_of_which_nothing_may_be_learned_is_left_out(tmp_path: Path) -> None:
    trace = dialogue(looks((5000, 400, 0)), problems=("answer_forced",))
    with pytest.raises(DialogueProblem, match="of which no turn may be trained on"):
        dialogues(tmp_path).row(QUESTION, trace)


def test_a_dialogue_is_left_out_where_the_student_would_see_another(tmp_path: Path) -> None:
    steps = looks((500, 400, 0), (200, 150, 1))
    mine = dialogues(tmp_path)
    assert mine.as_shown(FRAME, steps) == list(steps)
    with pytest.raises(DialogueProblem, match="more looks than `zoom` in the recipe allows"):
        dialogues(tmp_path, max_calls=1).as_shown(FRAME, steps)
    fewer = dialogues(tmp_path, max_calls=2).as_shown(FRAME, steps)
    assert [step.observation.last for step in fewer if step.observation] == [False, True]
    other = "other crops than the student's own calls would show"
    first = steps[0].observation
    assert first is not None and first.crop is not None
    near, far = (
        replace(first.crop, x2=first.crop.x2 + 0.05),
        replace(first.crop, y1=first.crop.y1 - 0.06),
    )
    for crop, same in ((near, True), (far, False), (replace(first.crop, image=1), False)):
        shown = (replace(steps[0], observation=replace(first, crop=crop)), *steps[1:])
        if same:
            mine.as_shown(FRAME, shown)
            continue
        with pytest.raises(DialogueProblem, match=other):
            mine.as_shown(FRAME, shown)
    for changed in (
        {"marked": True}, {"width": 101, "height": 101}, {"crop": None},
        {"crop": None, "problem": "malformed"},
    ):  # fmt: skip
        with pytest.raises(DialogueProblem, match=other):
            mine.as_shown(FRAME, (replace(steps[0], observation=replace(first, **changed)),))
    mine.as_shown(FRAME, (replace(steps[0], observation=replace(first, width=99)),))


def test_a_row_calls_the_tool_that_its_prompt_offers(tmp_path: Path) -> None:
    steps = looks((500, 400, 0), (500, 401, 0), (1000, 801, 0))
    offers = dialogues(tmp_path, tool=BOX_TOOL)
    row = offers.row(QUESTION, dialogue(steps))
    texts = [message["content"] for message in row["messages"]]
    assert all(POINT_TOOL not in text for text in texts) and BOX_TOOL in texts[0]
    assert '"bbox_2d": [450, 350, 550, 450]' in texts[2]
    assert row["untrained"] == [1, 2]
    asked = tuple(offers.as_shown(FRAME, steps))
    assert tuple(offers.as_shown(FRAME, asked)) == asked
    with pytest.raises(DialogueProblem, match="that ask for boxes, which search_coordinate"):
        dialogues(tmp_path).row(QUESTION, dialogue(asked))


def test_a_call_for_a_place_in_a_crop_shows_what_the_same_call_for_a_box_does() -> None:
    line = replace(QUESTION, images=(Image("c" * 64, 160, 120),))
    frame, steps = Frame.of(SPACE, line), tuple[Step, ...]()
    for x, view in ((80, 0), (85, 1), (87, 2)):
        call = ZoomCall(Point(x, 60), view)
        seen = observe(frame, steps, call, ZoomConfig(Lens(26, 100)))
        steps = (*steps, Step(f"A sign ({x}, 60).", (Point(x, 60),), call, seen))
    written = for_tool(steps, BOX_TOOL)
    for i, step in enumerate(written):
        assert step.call is not None and step.call.box is not None
        crop = observe(frame, written[:i], step.call, ZoomConfig(Lens(26, 100))).crop
        assert step.observation is not None and crop == step.observation.crop is not None
    sides = [s.observation.crop.x2 - s.observation.crop.x1 for s in steps]  # type: ignore
    assert sides == [52, 28, 28]


def test_the_tool_is_read_off_the_calls_where_the_recipe_names_none(tmp_path: Path) -> None:
    points, silent = dialogue(looks((500, 400, 0))), dialogue((Step("It is a 7."),))
    boxes = dialogue(for_tool(points.steps, BOX_TOOL))
    assert called_tool([(QUESTION, silent)]) is None
    assert called_tool([(QUESTION, silent), (QUESTION, points)]) == POINT_TOOL
    assert called_tool([(QUESTION, points), (QUESTION, boxes)]) == BOX_TOOL
    student = dialogues(tmp_path).student
    taught = replace(student, zoom=ZoomConfig(LENS, tool=BOX_TOOL))
    untaught = replace(student, zoom=None)

    def offered(student: Student, tool: str | None, *overrides: str) -> tuple[str, str | None]:
        recipe = load_recipe("nano-zoom-sft", list(overrides))
        assert isinstance(recipe, SftRecipe)
        told = with_zoom(student, recipe, LENS, tool)
        assert told.zoom is not None
        recorded = as_taught(recipe, told).zoom
        return told.zoom.tool, recorded.tool if recorded else None

    some, point, box = "zoom.max_calls=3", f"zoom.tool={POINT_TOOL}", f"zoom.tool={BOX_TOOL}"
    assert offered(untaught, BOX_TOOL, some) == (BOX_TOOL, BOX_TOOL)
    assert offered(untaught, None, some) == (POINT_TOOL, POINT_TOOL)
    assert offered(taught, None, some) == (BOX_TOOL, BOX_TOOL)
    assert offered(taught, POINT_TOOL, some) == (POINT_TOOL, POINT_TOOL)
    assert offered(taught, BOX_TOOL, point) == (POINT_TOOL, POINT_TOOL)
    assert offered(untaught, POINT_TOOL, box) == (BOX_TOOL, BOX_TOOL)


def test_a_call_without_an_answer_is_no_call(tmp_path: Path) -> None:
    first, remark = looks((500, 400, 0))
    for half in (replace(first, observation=None), replace(first, call=None)):
        assert dialogues(tmp_path).as_shown(FRAME, (half, remark)) == [
            replace(first, call=None, observation=None), remark,
        ]  # fmt: skip


def test_a_crop_is_rendered_when_it_is_read(tmp_path: Path) -> None:
    made = dialogues(tmp_path)
    row = made.row(QUESTION, dialogue(looks((500, 400, 0))))
    data = io.BytesIO()
    PILImage.new("RGB", (1000, 800), "red").save(data, "PNG")
    asked: list[str] = []

    def stored(image_id: str) -> bytes:
        asked.append(image_id)
        return data.getvalue()

    read = made.reader(stored)
    assert read(SMALL.image_id) == data.getvalue()
    assert decode(read(row["image_ids"][-1])).size == (100, 100)
    assert asked == [SMALL.image_id, LARGE.image_id]


def test_what_zooms_is_told_by_its_kind_or_its_looks() -> None:
    plain = Trace(QUESTION.question_id, (Step("It is a 7."),), "7", 1.0, "direct")
    assert not zooms(plain) and zooms(replace(plain, kind="zoom"))
    assert zooms(replace(plain, steps=looks((500, 400, 0))))
    assert not post_hoc(dialogue(()))


# ---- the next turn alone ------------------------------------------------------------------------


def test_the_next_turn_ends_in_its_first_call_and_stands_behind_what_was_shown(
    tmp_path: Path,
) -> None:
    first, second, remark = looks((500, 400, 0), (200, 150, 0))
    writer = dialogues(tmp_path)
    row = writer.next_turn(QUESTION, (first,), (second, remark), "7")
    *before, last = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
    assert len(before) == 1 and row["untrained"] == [0] and len(row["image_ids"]) == 3
    assert last.startswith("<think>") and last.count("<tool_call>") == 1
    assert "It is a 7." not in last and "<answer>" not in last
    told = writer.next_turn(QUESTION, (first, second), (remark,), "7")
    assert told["messages"][-1]["content"].endswith("<answer>7</answer>")
    assert told["untrained"] == [0, 1] and len(told["image_ids"]) == 4
    begun = writer.next_turn(QUESTION, (first, Step("Not here.")), (second,), None)
    assert begun["messages"][-1]["content"].startswith("<think>Not here.</think>")
    assert begun["messages"][:-1] == row["messages"][:-1]


def test_a_next_turn_whose_call_cannot_be_read_is_as_it_was_written(tmp_path: Path) -> None:
    writer = dialogues(tmp_path)
    text = '<think>I look.</think>\n<tool_call>{"name": "search_coordinate", oops}</tool_call>'
    turn = read_turn(text, FRAME, ZoomConfig(LENS), ())
    row = writer.next_turn(QUESTION, (), turn.steps, None)
    assert row["messages"][-1]["content"] == text and row["image_ids"] == [
        image.image_id for image in QUESTION.images
    ]


def test_a_next_turn_that_nobody_could_write_is_refused(tmp_path: Path) -> None:
    first, second, _ = looks((500, 400, 0), (200, 150, 0))
    with pytest.raises(DialogueProblem, match="with other crops than"):
        dialogues(tmp_path, Lens(80, 100)).next_turn(QUESTION, (first,), (second,), None)

"""The zoom protocol: how calls are read and written, what they show, and how a turn ends."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, ZoomCall
from mcts.image_io import decode
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import ImagePart
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL, read_call, tool_schema, write_call
from mcts.tool_calls.views import Views
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import CropImages, crop_of
from mcts.zoom.lenses import WEB_LENS, Lens
from mcts.zoom.observe import observation_text, observe
from mcts.zoom.render import render_crop
from mcts.zoom.turns import read_turn

LARGE, SMALL = Image("large", 2000, 1000), Image("small", 100, 400)
SPACE = CoordinateSpace.qwen3_vl()
QUESTION = Question("vstar", "Which letter?", (LARGE, SMALL), AnswerKind.TEXT, answers=("a",))
FRAME = Frame.of(SPACE, QUESTION)
ZOOM = ZoomConfig(Lens(100, 400), max_calls=3, max_turns=5)


def call(x=500, y=500, **more):
    arguments = {"coordinate": [x, y], **more}
    return json.dumps({"name": POINT_TOOL, "arguments": arguments})


def turn(content, thought="<think>A sign (500, 500).</think>", before=(), **options):
    return read_turn(f"{thought}<tool_call>{content}</tool_call>", FRAME, ZOOM, before, **options)


def looked(*places):
    """Return steps that looked at these places, in thousandths of the first image."""
    steps = ()
    for x, y in places:
        steps += turn(call(x, y), before=steps).steps
    return steps


@pytest.mark.parametrize("mention", ['"<tool_call>"', "<tool_call>", "`<tool_call>`"])
def test_a_thought_may_speak_of_calls(mention):
    thought = f"<think>I need no {mention} here, the cup at (412, 630) is red.</think>"
    told = read_turn(f"{thought}<answer>red</answer>", FRAME, ZOOM)
    assert told.answer == "red" and not told.called
    (step,) = told.steps
    assert len(step.points) == 1 and "is red" in step.thought


@pytest.mark.parametrize("behind", ["\n<answer>red</answer>", "<|im_end|>", "</s>", ""])
def test_a_call_that_is_not_closed_ends_at_the_next_tag(behind):
    told = read_turn(f"<think>A sign (500, 500).</think><tool_call>{call()}{behind}", FRAME, ZOOM)
    assert told.called and told.answer is None
    assert told.steps[-1].call.point == Point(1000, 500)
    assert told.problems == (("text_after_call",) if "answer" in behind else ())


# ---- calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "point"),
    [
        (call(), Point(1000, 500)),
        (call(500.0, 250.5), Point(1000, 250.5)),
        (call("500", "500"), Point(1000, 500)),
        (call(image=2), Point(50, 200, 1)),
        ('{"name": "crop", "arguments": {"coordinate": "(500, 500)"}}', Point(1000, 500)),
        ('{"name": "x", "arguments": "{\\"coordinate\\": [500, 500]}"}', Point(1000, 500)),
    ],
)
def test_a_call_is_read_however_its_numbers_are_written(content, point):
    assert read_call(content, Views(FRAME)).point == point


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{nope",
        "[1, 2]",
        '{"arguments": {"coordinate": [1]}}',
        '{"arguments": {"coordinate": [1, 2, 3]}}',
        '{"arguments": {"coordinate": [true, false]}}',
        '{"arguments": {"coordinate": ["left", "top"]}}',
        '{"arguments": {"coordinate": [NaN, 1]}}',
        '{"arguments": {"coordinate": [1e999, 1]}}',
        '{"arguments": {"bbox_2d": [1, 2]}}',
        '{"arguments": "{"}',
        '{"arguments": {"coordinate": {"x": 1}}}',
        "[" * 100_000,
    ],
)
def test_a_call_that_cannot_be_read_keeps_its_words_and_is_answered_so(content):
    found = turn(content)
    assert found.steps[-1].call == ZoomCall(None, text=content)
    assert found.steps[-1].observation.problem == "malformed"
    assert "call_malformed" in found.problems
    assert "can't be read" in observation_text(found.steps[-1].observation)
    assert write_call(found.steps[-1].call, Views(FRAME)) == content


def test_a_call_of_an_image_that_is_not_there_keeps_its_words_and_a_number_that_fits():
    for number, view in ((4, 3), (99, 3), (0, -1), (-7, -1)):
        content = call(image=number)
        found = read_call(content, Views(FRAME, (Observation(Box(0, 0, 9, 9), 9, 9),)))
        assert found == ZoomCall(None, view, text=content)


def test_shares_are_no_place_and_are_told_as_such():
    problems = []
    content = call(0.5, 0.25)
    assert read_call(content, Views(FRAME), problems) == ZoomCall(None, text=content)
    assert problems == ["unread_shares"]
    assert read_call(content, Views(FRAME)).point is None
    frame = Frame.of(CoordinateSpace.original(), QUESTION)
    assert read_call(call(0.5, 0.25), Views(frame)).point == Point(0.5, 0.25), "in pixels it is one"
    read_call(call(), Views(FRAME), problems)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("box", "read"),
    [([0, 0, 0.5, 0.6], False), ([0.1, 0.2, 1, 1], False), ([0, 0, 0.5, 300], True),
     ([0.5, 0.5, 400, 400], True), ([0, 0, 500, 500], True)],
)  # fmt: skip
def test_a_box_counts_shares_where_both_corners_do(box, read):
    problems = []
    content = json.dumps({"name": BOX_TOOL, "arguments": {"bbox_2d": box, "label": ""}})
    assert (read_call(content, Views(FRAME), problems).point is not None) is read
    assert problems == ([] if read else ["unread_shares"])


def test_numbers_in_a_text_may_begin_with_their_point():
    shares = json.dumps({"arguments": {"coordinate": "(.5, .7)"}})
    frame = Frame.of(CoordinateSpace.original(), QUESTION)
    assert read_call(shares, Views(frame)).point == Point(0.5, 0.7)
    assert read_call(shares, Views(FRAME)).point is None, "in thousandths they are shares"
    units = json.dumps({"arguments": {"coordinate": "(-.5, 250.5)"}})
    assert read_call(units, Views(frame)).point == Point(-0.5, 250.5)


@pytest.mark.parametrize("name", ["image", "img_idx", "bbox_2d"])
def test_a_null_is_as_good_as_left_out(name):
    content = json.dumps({"arguments": {"coordinate": [500, 500], name: None}})
    assert read_call(content, Views(FRAME)) == read_call(call(500, 500), Views(FRAME))


def test_where_an_image_is_named_by_either_tool():
    box = {"bbox_2d": [0, 0, 500, 500]}
    for named, image in (
        ({}, 0), ({"img_idx": 1}, 1), ({"image": 1}, 0), ({"image": "2"}, 1),
        ({"image": None, "img_idx": 1}, 1),
    ):  # fmt: skip
        found = read_call(json.dumps({"arguments": {**box, **named}}), Views(FRAME))
        assert found.view == image and found.point.image == image
    for label, kept in (("a sign", "a sign"), (5, ""), (None, ""), ("\ud800", "?")):
        found = read_call(json.dumps({"arguments": {**box, "label": label}}), Views(FRAME))
        assert found.label == kept


@pytest.mark.parametrize("numbers", [[True, 5], [5, False], [1e7, 1], [1, -1e7], [1]])
def test_what_is_no_number_of_a_place_is_no_call(numbers):
    assert read_call(json.dumps({"arguments": {"coordinate": numbers}}), Views(FRAME)).point is None


def test_a_call_with_a_box_shows_that_box_and_is_written_as_one():
    content = {"name": BOX_TOOL, "arguments": {"bbox_2d": [600, 300, 500, 200], "label": "sign"}}
    found = read_call(json.dumps(content), Views(FRAME))
    assert found == ZoomCall(Point(1100, 250), 0, Box(1000, 200, 1200, 300), "sign")
    seen = observe(FRAME, (), found, replace(ZOOM, lens=WEB_LENS))
    assert seen.crop == Box(1000, 200, 1200, 300)
    assert (seen.width, seen.height) == (512, 256) and not seen.marked
    written = json.loads(write_call(found, Views(FRAME)))
    assert written["arguments"] == {"bbox_2d": [500, 200, 600, 300], "label": "sign"}


def test_a_box_without_area_still_shows_something():
    content = json.dumps({"arguments": {"bbox_2d": [500, 500, 500, 500]}})
    seen = observe(FRAME, (), read_call(content, Views(FRAME)), ZOOM)
    assert seen.crop == Box(986, 486, 1014, 514) and not seen.problem


def test_a_place_in_a_crop_means_a_place_of_the_original_image():
    steps = looked((500, 500))  # shows (900, 400) to (1100, 600)
    nested = turn(call(250, 750, image=3), before=steps).steps[-1]
    assert nested.call == ZoomCall(Point(950, 550), view=2)
    assert nested.observation.crop == Box(900, 500, 1000, 600), "half the crop, around the place"
    assert nested.observation.view == 3
    assert json.loads(write_call(nested.call, Views.of(FRAME, steps)))["arguments"] == {
        "coordinate": [250, 750],
        "image": 3,
    }


@pytest.mark.parametrize(
    ("x", "y", "shown"),
    [
        (900, 400, True), (1100, 600, True), (1000, 500, True),
        (899.9991, 399.9991, True),  # as much as rounding may lose
        (899.998, 500, False), (1100.002, 500, False), (1000, 399.998, False),
        (1000, 600.002, False), (0, 500, False), (1000, 0, False),
    ],
)  # fmt: skip
def test_a_place_lies_in_a_crop_edges_and_rounding_included(x, y, shown):
    views = Views(FRAME, (Observation(Box(900, 400, 1100, 600), 400, 400, view=2),))
    assert views.inside(Point(x, y), 2) is shown
    assert views.inside(Point(x, y), 0), "of the whole image it always is"
    assert not views.inside(Point(50, 50), 1) and views.inside(Point(50, 50, 1), 1)


def test_a_view_that_is_not_there_is_an_index_error():
    views = Views(FRAME, (Observation(Box(900, 400, 1100, 600), 400, 400),))
    assert len(views) == 3 and views.crop(1) is None and views.crop(2).x1 == 900
    for view in (-1, 3):
        with pytest.raises(IndexError):
            views.crop(view)


@given(
    st.floats(0, 1000), st.floats(0, 1000), st.sampled_from(["qwen3_vl", "qwen25_vl", "original"])
)
def test_a_call_in_a_crop_is_read_back_as_it_was_written(x, y, kind):
    frame = Frame.of(getattr(CoordinateSpace, kind)(), QUESTION)
    crop = Observation(Box(900, 400, 1100, 600), 400, 400, view=2)
    views = Views(frame, (crop,))
    made = ZoomCall(Point(900 + x / 5, 400 + y / 5), 2)
    again = read_call(write_call(made, views), views)
    unit = 200 / views.frame.space.size(Image("", 400, 400))[0]
    assert abs(again.point.x - made.point.x) <= unit and abs(again.point.y - made.point.y) <= unit
    if kind != "original":
        assert write_call(again, views) == write_call(made, views)


def test_both_tools_are_described_in_the_models_own_units():
    for tool in (POINT_TOOL, BOX_TOOL):
        schema = tool_schema(tool, SPACE)["function"]
        assert schema["name"] == tool and "thousandths" in json.dumps(schema)
        assert set(schema["parameters"]["required"]) <= set(schema["parameters"]["properties"])
    point, box = (tool_schema(t, SPACE)["function"]["parameters"] for t in (POINT_TOOL, BOX_TOOL))
    assert (point["required"], box["required"]) == (["coordinate"], ["bbox_2d", "label"])
    for numbers, count in (("coordinate", 2), ("bbox_2d", 4)):
        found = (point | {"properties": point["properties"] | box["properties"]})["properties"]
        assert (found[numbers]["minItems"], found[numbers]["maxItems"]) == (count, count)
    assert set(point["properties"]) == {"coordinate", "image"}
    assert set(box["properties"]) == {"bbox_2d", "label", "image"}


# ---- observations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (call(image=4), "no_such_image"),
        (call(image=0), "no_such_image"),
        (call(1200, 500), "point_outside_image"),
        (call(502, 500), "shown_already"),
        ('{"arguments": {"coordinate": [0.5, 0.5]}}', "malformed"),
    ],
)
def test_a_call_that_shows_nothing_is_answered_with_the_reason(content, problem):
    found = turn(content, before=looked((500, 500)))
    seen = found.steps[-1].observation
    assert (seen.problem, seen.crop, seen.view) == (problem, None, None)
    assert f"call_{problem}" in found.problems
    assert observation_text(seen).startswith("<observation>T")


def test_the_same_place_enlarged_further_is_something_new():
    steps = looked((500, 500))
    assert turn(call(500, 500, image=3), before=steps).steps[-1].observation.crop


@pytest.mark.parametrize(
    ("at", "image", "crop", "shown"),
    [
        ((10, 990), Image("i", 1000, 1000), (0, 800, 200, 1000), (400, 400)),
        ((10, 20), Image("i", 400, 100), (0, 0, 200, 100), (400, 200)),
        ((0.5, 0.5), Image("i", 1, 1), (0, 0, 1, 1), (400, 400)),
    ],
)
def test_a_region_is_moved_into_the_image_and_never_squeezed(at, image, crop, shown):
    assert ZOOM.lens.region(Point(*at), image) == (Box(*crop), shown)


def test_a_lens_may_be_a_share_of_the_image():
    crop, _ = Lens(0.1, 400, share=True).region(Point(1000, 500), LARGE)
    assert crop == Box(800, 300, 1200, 700)


def test_the_last_crop_asks_for_the_answer_and_a_further_call_is_not_answered():
    steps = looked((100, 100), (500, 500), (900, 900))
    assert [step.observation.last for step in steps] == [False, False, True]
    assert observation_text(steps[-1].observation).endswith("Now give your answer.</observation>")
    late = turn(call(300, 300), before=steps)
    assert late.steps[-1].call is None and not late.called
    assert "call_after_limit" in late.problems


def test_calls_that_show_nothing_use_up_turns_but_no_crops():
    steps = looked(*[(2000, 2000)] * 5)
    assert [step.observation.last for step in steps] == [False] * 4 + [True]


def test_crops_end_where_their_tokens_are_used_up():
    crops = replace(ZOOM, crop_tokens=2 * 12 * 12)
    steps = turn(call(100, 100)).steps
    seen = observe(FRAME, steps, read_call(call(500, 500), Views(FRAME)), crops)
    assert seen.last and not steps[-1].observation.last


def test_of_an_image_that_is_a_line_a_piece_is_shown():
    frame = replace(FRAME, images=(Image("line", 1, 5000),))
    call = ZoomCall(Point(0.5, 2500))
    seen = observe(frame, (), call, replace(ZOOM, lens=Lens(182, 672), crop_tokens=900))
    assert seen.crop == Box(0, 2450, 1, 2550) and (seen.width, seen.height) == (7, 672)
    assert not seen.last


@pytest.mark.parametrize(
    "wrong", [{"max_calls": 0}, {"max_turns": 2}, {"tool": "crop"}, {"role": "system"}]
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^zoom:"):
        replace(ZOOM, **wrong)


# ---- turns ------------------------------------------------------------------------------------


def test_what_is_written_behind_a_call_was_written_blind_and_is_dropped():
    text = (
        f"<think>A (500, 500).</think><tool_call>{call()}</tool_call>"
        f"<observation>an A</observation><think>It is a.</think><answer>a</answer>"
    )
    found = read_turn(text, FRAME, ZOOM)
    assert found.answer is None and found.called
    assert "text_after_call" in found.problems


@pytest.mark.parametrize("behind", ["<answer>7</answer>", f"<tool_call>{call()}</tool_call>", ""])
def test_an_observation_that_the_model_makes_up_ends_the_turn(behind):
    text = (
        "<think>I look at (500, 500).</think><observation>Image 2: the region.</observation>"
        f"<think>It reads 7.</think>{behind}"
    )
    found = read_turn(text, FRAME, ZOOM)
    assert [step.thought for step in found.steps] == ["I look at (1000, 500)."]
    assert (found.answer, found.called) == (None, False)
    assert found.problems == ("observation_written",)


def test_a_call_inside_an_answer_is_no_step():
    found = read_turn(
        f"<think>A (500, 500).</think><answer>red<tool_call>{call()}</tool_call>", FRAME, ZOOM
    )
    assert [step.call for step in found.steps] == [None] and not found.called


def test_of_two_calls_in_a_turn_the_first_counts():
    found = turn(f"{call()}</tool_call>\n<tool_call>{call(100, 100)}")
    assert [step.call for step in found.steps] == [ZoomCall(Point(1000, 500))]
    assert "text_after_call" in found.problems


def test_an_answer_before_a_call_ends_the_line():
    found = read_turn(
        f"<think>A (500, 500).</think><answer>a</answer><tool_call>{call()}</tool_call>",
        FRAME,
        ZOOM,
    )
    assert found.answer == "a" and not found.called
    assert found.problems == ("call_after_answer",)


def test_a_call_cut_off_in_the_middle_is_malformed():
    cut = "<think>A (500, 500).</think><tool_call>" + call()[:30]
    found = read_turn(cut, FRAME, ZOOM, finish_reason="length")
    assert found.steps[-1].observation.problem == "malformed"
    assert "unclosed_tool_call" in found.problems


def test_a_server_that_leaves_the_stop_string_out_loses_no_call():
    found = read_turn(f"<think>A (500, 500).</think><tool_call>{call()}", FRAME, ZOOM)
    assert found.called and found.steps[-1].observation.crop and not found.problems


def test_a_call_without_a_thought_is_answered_and_noted():
    found = turn(call(), thought="")
    assert found.called and found.problems == ("call_without_thought",)
    messages = build_messages(load_prompt("zoom"), QUESTION, SPACE, 1, found.steps, zoom=ZOOM)
    assert messages[2].text == f"<tool_call>{call()}</tool_call>"


def test_what_a_crop_shows_may_be_told_without_a_point():
    found = read_turn("<think>It is a.</think><answer>a</answer>", FRAME, ZOOM, looked((9, 9)))
    assert found.problems == () and found.steps == (Step("It is a."),)


def test_a_thought_cut_off_is_left_out():
    found = read_turn("<think>A (500, 500).", FRAME, ZOOM, finish_reason="length")
    assert found.steps == () and found.answer is None


@pytest.mark.parametrize(
    ("end", "finish_reason", "answer"),
    [
        ("<answer>a</answer>", "stop", "a"),
        ("<answer>a</answer>", "length", "a"),
        ("<answer>a", "stop", "a"),  # some servers leave the stop out
        ("<answer>a", "length", None),  # its end is missing
        ("", "stop", None),
    ],
)
def test_an_answer_counts_where_it_was_written_to_its_end(end, finish_reason, answer):
    text = f"<think>A (500, 500).</think>{end}"
    found = read_turn(text, FRAME, ZOOM, finish_reason=finish_reason)
    assert found.answer == answer
    # A thought that something follows, or that a stop ended, is whole.
    whole = bool(end) or finish_reason == "stop"
    assert len(found.steps) == whole


@pytest.mark.parametrize("text", ["a", "a</answer>", "a</answer> and more"])
def test_behind_an_opened_answer_tag_there_is_an_answer_only(text):
    found = read_turn(text, FRAME, ZOOM, answer_opened=True)
    assert (found.answer, found.steps) == ("a", ())


@given(st.text(alphabet='<>/{}[]",.:01 \n') | st.text())
def test_no_text_is_a_crash(noise):
    for text in (
        noise,
        f"<tool_call>{noise}",
        f"<think>{noise}</think><tool_call>{noise}</tool_call>",
    ):
        found = read_turn(text, FRAME, ZOOM, looked((500, 500)))
        assert found.called == bool(found.steps and found.steps[-1].observation)


# ---- conversations ----------------------------------------------------------------------------


def test_a_conversation_holds_each_crop_behind_its_call_and_only_grows():
    prompt = load_prompt("zoom")
    steps = looked((100, 100), (500, 500))
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    before = ()
    for n in range(3):
        messages = build_messages(prompt, QUESTION, SPACE, 3, steps[:n], zoom=ZOOM)
        assert [m.role for m in messages] == roles[: 2 * n + 2]
        assert messages[: len(before)] == before
        before = messages
    assert messages[5].parts[0] == ImagePart(crop_of(QUESTION, steps[1]))
    assert "Image 4: the region" in messages[5].text
    more = Step("It is a.")
    asked = build_messages(prompt, QUESTION, SPACE, 3, (*steps, more), True, zoom=ZOOM)
    assert asked[-1].role == "assistant" and asked[-1].text == "<think>It is a.</think>\n<answer>"
    as_tool = build_messages(
        prompt, QUESTION, SPACE, 3, steps, zoom=replace(ZOOM, role="tool", tool=BOX_TOOL)
    )
    assert as_tool[-1].role == "tool" and BOX_TOOL in as_tool[0].text


def test_one_crop_has_one_name_and_is_rendered_once():
    images = {"large": picture((2000, 1000)), "small": picture((100, 400))}
    crops = CropImages(images)
    names = crops.add(QUESTION, looked((100, 100), (500, 500)))
    assert names == crops.add(QUESTION, looked((100, 100), (500, 500))) and len(set(names)) == 2
    assert crops[names[0]] is crops[names[0]]
    assert decode(crops[names[0]]).size == (400, 400)
    assert crops["large"] == images["large"] and "other" not in crops and names[1] in crops


def test_a_crop_is_cut_from_the_upright_image():
    stored = PILImage.new("RGB", (40, 80), "white")  # shown turned: 80 x 40
    stored.paste("red", (0, 0, 40, 40))
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turn clockwise: the upper half comes to the right
    data = io.BytesIO()
    stored.save(data, "PNG", exif=exif)
    right = Observation(Box(60, 10, 70, 20), 20, 20)
    left = Observation(Box(10, 10, 20, 20), 20, 20)
    assert decode(render_crop(data.getvalue(), right)).getpixel((10, 10))[1] < 40
    assert decode(render_crop(data.getvalue(), left)).getpixel((10, 10))[1] > 200


def picture(size):
    data = io.BytesIO()
    PILImage.effect_noise(size, 50).convert("RGB").save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("written", ["3.14", "The number is 3.14", "3.14</answer>"])
def test_a_forced_answer_that_was_cut_off_is_none(written):
    cut = read_turn(written, FRAME, ZOOM, finish_reason="length", answer_opened=True)
    ended = read_turn(written, FRAME, ZOOM, answer_opened=True)
    whole = written.endswith("</answer>")
    assert ended.answer == written.removesuffix("</answer>")
    assert cut.answer == (ended.answer if whole else None)

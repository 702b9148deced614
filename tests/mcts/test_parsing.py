"""Texts become steps and steps become texts without loss; malformed texts become problems."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Image, Point, Question, Step, ZoomCall
from mcts.parsing import parse, points_in, render, revisits

IMAGES = (Image("a", 320, 240), Image("b", 1000, 500))
THOUSANDTHS = Frame(CoordinateSpace.qwen3_vl(), IMAGES)
PIXELS = Frame(CoordinateSpace.original(), IMAGES)


def kinds(parsed):
    return [problem.kind for problem in parsed.problems]


def test_a_response_becomes_a_step_in_original_pixels():
    parsed = parse("<think>The red box is at (500, 250).</think>", THOUSANDTHS)
    assert parsed.steps == (Step("The red box is at (160, 60).", (Point(160.0, 60.0),)),)
    assert parsed.answer is None and parsed.problems == ()


def test_one_block_and_a_block_a_step_are_the_same_steps():
    one = "<think>Box at (10, 20). It is red. Ball at (30, 40)!</think><answer>left</answer>"
    many = (
        "<think>Box at (10, 20).</think>\n<think>It is red. Ball at (30, 40)!</think>\n"
        "<answer>left</answer>"
    )
    assert [s.points for s in parse(one, PIXELS).steps] == [
        s.points for s in parse(many, PIXELS).steps
    ]
    assert parse(many, PIXELS).steps == (
        Step("Box at (10, 20).", (Point(10, 20),)),
        Step("It is red. Ball at (30, 40)!", (Point(30, 40),)),
    )


def test_a_sentence_with_two_points_is_one_step():
    (step,) = parse("<think>From (1, 2) to (3, 4) is far.</think>", PIXELS).steps
    assert step.points == (Point(1, 2), Point(3, 4)) and step.point == Point(1, 2)


def test_a_point_may_name_its_image():
    parsed = parse("<think>It moved from (500, 500) to (250, 500) in image 2.</think>", THOUSANDTHS)
    assert parsed.steps[0].points == (Point(160, 120, 0), Point(250, 250, 1))
    assert render(parsed.steps, None, THOUSANDTHS) == (
        "<think>It moved from (500, 500) to (250, 500) in image 2.</think>"
    )


def test_decimals_do_not_end_a_sentence():
    (step,) = parse("<think>At (1.5, 2.25) is it. </think>", PIXELS).steps
    assert step == Step("At (1.5, 2.25) is it.", (Point(1.5, 2.25),))


def test_a_point_answer_is_converted_as_well():
    parsed = parse("<think>There (100, 100).</think><answer>(500, 500)</answer>", THOUSANDTHS)
    assert parsed.answer == "(160, 120)"
    assert render((), parsed.answer, THOUSANDTHS) == "<answer>(500, 500)</answer>"


def test_a_zoom_call_belongs_to_the_step_before_it():
    call = '{"name": "search_coordinate", "arguments": {"coordinate": [500, 250]}}'
    text = f"<think>Small at (500, 250).</think>\n<tool_call>{call}</tool_call>"
    parsed = parse(text, THOUSANDTHS)
    assert parsed.steps[0].call == ZoomCall(Point(160, 60)) and not parsed.problems
    assert render(parsed.steps, None, THOUSANDTHS) == text
    seen = text + "<observation>Here is the crop.</observation><think>A cat (500, 250).</think>"
    assert [s.call for s in parse(seen, THOUSANDTHS).steps] == [ZoomCall(Point(160, 60)), None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<think>half a thought (1, 2)", "unclosed_think"),
        ("no tags at all (1, 2).", "text_outside_tags"),
        ("<think></think>", "empty_think"),
        ("<answer></answer>", "empty_answer"),
        ("<answer>left", "unclosed_answer"),
        ("<answer>a</answer><answer>b</answer>", "text_after_answer"),
        ("<think>out (2000, 3).</think>", "point_outside_image"),
        ("<think>where (2, 3) in image 7.</think>", "no_such_image"),
        ("<think>x (1, 1).</think><tool_call>{nope</tool_call>", "bad_tool_call"),
        ('<tool_call>{"arguments": {"coordinate": [1, 2]}}</tool_call>', "call_without_thought"),
    ],
)
def test_what_is_wrong_with_a_text_is_a_value(text, problem):
    assert problem in kinds(parse(text, PIXELS))


def test_an_answer_that_was_cut_off_is_no_answer():
    assert parse("<answer>lef", PIXELS).answer is None


def test_an_opened_answer_needs_only_its_end():
    assert parse("left</answer>", PIXELS, inside="answer").answer == "left"
    assert parse("left", PIXELS, inside="answer").answer is None


def test_a_point_outside_is_kept_where_it_was_put():
    (step,) = parse("<think>out (1500, -10).</think>", THOUSANDTHS).steps
    assert step.points == (Point(480.0, -2.4),)


@given(st.text(alphabet="<>/thinkanswer_ol(),.0129 \n{}[]", max_size=200))
def test_no_text_crashes_the_parser_and_what_it_reads_it_can_write(text):
    parsed = parse(text, PIXELS)
    again = parse(render(parsed.steps, parsed.answer, PIXELS), PIXELS)
    if "<" not in "".join(step.thought for step in parsed.steps) + (parsed.answer or ""):
        assert (again.steps, again.answer) == (parsed.steps, parsed.answer)


words = st.sampled_from(
    ["the", "red", "box", "stands", "left", "of", "a", "blue", "ball,", "I", "see;", "so"]
)
units = st.integers(0, 1000)


@st.composite
def traces(draw):
    """Steps as a model that speaks thousandths can have written them."""
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        image = draw(st.integers(0, 1))
        point = THOUSANDTHS.to_point(draw(units), draw(units), image)
        where = f"({point.x:g}, {point.y:g})" + (" in image 2" if image else "")
        thought = f"{' '.join(draw(st.lists(words, min_size=1)))} at {where}."
        call = ZoomCall(point, point.image) if draw(st.booleans()) else None
        steps.append(Step(thought, points_in(thought), call))
    return tuple(steps), draw(st.none() | words)


@given(traces(), st.sampled_from([PIXELS, THOUSANDTHS]), st.booleans())
def test_parse_undoes_render(trace, frame, one_block):
    steps, answer = trace
    parsed = parse(render(steps, answer, frame, one_block=one_block), frame)
    assert (parsed.steps, parsed.answer) == (steps, answer)
    assert parsed.problems == ()


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("Looking again, the box is at (1, 2).", True),
        ("Wait, that seems off.", True),
        ("Let me verify the ball (1, 2).", True),
        ("WAIT: the ball (1, 2).", True),
        ("Again: the café (1, 2).", True),
        ("The box is at (1, 2). But wait, it is blue.", True),
        ("Hmm, wait: the “café” (1, 2).", True),
        ("No wait that is the other one (1, 2).", True),
        ("I check the lamp (1, 2).", True),
        ("Let me check (1, 2).", True),
        ("Checking the lamp at (1, 2).", True),
        ("Check that it is red (1, 2).", True),
        ("There is check the purple shelf at (1, 2).", True),
        ("I double-check it at (1, 2).", True),
        ("I have checked the left (1, 2).", True),
        ("To confirm, the ball is at (1, 2).", True),
        ("This is confirmed at (1, 2).", True),
        ("The box is against the wall (1, 2).", False),
        ("I can see the box (1, 2).", False),
        ("Two people wait at the bus stop (1, 2).", False),
        ("Wait for the bus is written at (1, 2).", False),
        ("A man in a check shirt (1, 2).", False),
        ("The café's guest in a checked shirt (1, 2).", False),
        ("A check mark is at (1, 2).", False),
        ("Check shirts hang at (1, 2).", False),
        ("A woman checks her phone (1, 2).", False),
        ("The 'Confirm' button is at (1, 2).", False),
        ("I click the confirm button (1, 2).", False),
        ("The verified badge is at (1, 2).", False),
    ],
)
def test_a_step_says_when_it_looks_again(thought, expected):
    assert revisits(thought) is expected


@pytest.mark.parametrize(
    "text",
    [
        f"<think>at ({'9' * 400}, 1).</think>",
        f"<think>at (1, 2) in image {'9' * 5000}.</think>",
        "<think>a (1, 1).</think><tool_call>" + "[" * 100_000 + "</tool_call>",
        '<think>a (1, 1).</think><tool_call>{"arguments": {"coordinate": [1, 2], "image": 1e999}}'
        "</tool_call>",
        '<think>a (1, 1).</think><tool_call>{"arguments": {"coordinate": [1, 2], "image": 0}}'
        "</tool_call>",
    ],
)
def test_absurd_numbers_are_no_crash_and_no_point(text):
    parsed = parse(text, THOUSANDTHS)
    assert all(0 <= p.image < 2 for step in parsed.steps for p in step.points)
    assert all(step.call is None for step in parsed.steps)


def test_a_thought_without_a_point_is_noted():
    parsed = parse("<think>Hm.</think><think>Box (1, 2). Red.</think>", PIXELS)
    assert kinds(parsed) == ["thought_without_point"]


@pytest.mark.parametrize(
    ("kind", "text", "meant"),
    [
        (AnswerKind.TEXT, "(3, 4)", "(3, 4)"),
        (AnswerKind.ACTION, "type [3] [(500, 250)]", "type [3] [(500, 250)]"),
        (AnswerKind.BOX, "(500, 250)", "(160, 60)"),
        (AnswerKind.POINT, "(500, 250)", "(160, 60)"),
    ],
)
def test_numbers_in_an_answer_are_a_place_only_where_the_question_asks_for_one(kind, text, meant):
    question = Question("any", "What is it?", IMAGES, kind)
    frame = Frame.of(CoordinateSpace.qwen3_vl(), question)
    parsed = parse(f"<think>Here (500, 250).</think><answer>{text}</answer>", frame)
    assert parsed.steps[0].points == (Point(160.0, 60.0),)
    assert parsed.answer == meant
    assert f"<answer>{text}</answer>" in render(parsed.steps, parsed.answer, frame)


def test_a_bracket_before_thousands_of_spaces_is_words_and_spaced_tags_are_tags():
    text = "<" + " " * 40_000 + "a"
    assert parse(f"<think>Red (1, 2).</think><answer>{text}</answer>", PIXELS).answer == text
    spaced = parse("< think >Red (1, 2).< / think ><answer>left</ answer>", PIXELS)
    assert (len(spaced.steps), spaced.answer) == (1, "left")

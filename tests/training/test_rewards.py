"""What a completion earns: by part, response style and answer kind, in a student's coordinates."""

from dataclasses import replace

import pytest

from curation.filters.rules import REPEAT_RADIUS
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Question, ResponseStyle, Step
from mcts.parsing import points_in, render
from training.rewards.completions import LONGEST, text_of, turns_of
from training.rewards.question_column import question_column, read_question
from training.rewards.rewards import PRESETS, RewardSpec, make_rewards

IMAGES = (Image("a", 640, 480), Image("b", 500, 500))
QUESTION = Question(
    "sat2", "Is the lamp left of the box?", IMAGES, AnswerKind.TEXT,
    choices=("left", "right"), answers=("left",),
)  # fmt: skip
OBJECTS = (
    (Box(40, 40, 80, 80, label="red lamp"), Box(300, 200, 400, 300, label="blue box")),
    (Box(100, 100, 150, 150, label="red lamp"),),
)
SPACE = CoordinateSpace.qwen3_vl()
GOOD = ("I see the red lamp at (94, 125).", "Here is the blue box at (547, 521).")


def text(*thoughts, answer="left"):
    blocks = [f"<think>{thought}</think>" for thought in thoughts]
    return "\n".join([*blocks, f"<answer>{answer}</answer>"])


def parts(completion, spec="grounded", question=QUESTION, objects=OBJECTS, space=SPACE, **columns):
    rewards = make_rewards(PRESETS[spec] if isinstance(spec, str) else spec, space)
    columns["question"] = [question_column(question, objects)]
    scores = [f([""], [completion], **columns)[0] for f in rewards.functions]
    found = dict(zip(rewards.names, scores, strict=True))
    return found | {"total": rewards.total([""], [completion], **columns)[0]}


def test_a_question_and_its_boxes_survive_the_column():
    graded = read_question(question_column(QUESTION, OBJECTS))
    assert graded.question == QUESTION and tuple(graded.objects) == OBJECTS
    assert read_question(question_column(QUESTION)).objects == [None, None]
    with pytest.raises(ValueError, match="column question"):
        read_question('{"text": "no images"}')


def test_a_right_pointed_answer_earns_everything_and_a_wrong_one_only_its_form():
    assert parts(text(*GOOD)) == {"correctness": 1, "format": 1, "grounding": 1, "total": 1}
    wrong = parts(text(*GOOD, answer="right"))
    assert wrong["correctness"] == 0 and wrong["total"] == pytest.approx(0.3)
    assert parts("<answer>left</answer>")["total"] == pytest.approx(0.7)


def test_chat_messages_earn_what_their_text_earns():
    messages = [{"role": "assistant", "content": [{"type": "text", "text": text(*GOOD)}]}]
    assert parts(messages)["total"] == 1
    assert parts([{"role": "assistant", "content": text(*GOOD)}])["total"] == 1
    assert parts([])["total"] == 0


@pytest.mark.parametrize(
    "completion",
    [
        text(*GOOD) + " So it is left.",
        "Well. " + text(*GOOD),
        text(*GOOD).replace("</think>\n<think>", "</think> and <think>", 1),
        text(GOOD[0], "  ", GOOD[1]),
        text(GOOD[0], GOOD[0]),
        text(*GOOD).replace("</think>", "", 1),
        text(f"<think>{GOOD[0]}</think>", GOOD[1]),
        text(*GOOD, "See <point>(3, 4)</point> there."),
        text(*(f"I see thing number {i} at ({i * 20}, 50)." for i in range(40))),
        text(GOOD[0] + " and so on" * 200, GOOD[1]),
        text("(94, 125)", GOOD[1]),
        text(*GOOD) + "<|im_end|>",
    ],
)
def test_what_breaks_the_form_earns_nothing_for_form_or_points(completion):
    found = parts(completion)
    assert found["format"] == 0 and found["grounding"] == 0


def test_a_comparison_sign_is_no_tag():
    assert parts(text("The lamp at (94, 125) is < 3 m away, 2 < 3 > 1."))["total"] == 1


def test_as_many_thoughts_as_were_asked_for():
    assert parts(text(*GOOD), min_thoughts=[2])["format"] == 1
    assert parts(text(*GOOD), min_thoughts=[3])["format"] == 0


@pytest.mark.parametrize(
    ("thoughts", "score"),
    [
        (GOOD, 1),
        ((GOOD[0], "I see the blue box there."), 0),
        ((GOOD[0], "Here is the blue box at (1047, 521)."), 0),
        ((GOOD[0], "Here is the blue box at (94, -5)."), 0),
        ((GOOD[0], "Here is the blue box at (94, 125) in image 3."), 0),
        ((GOOD[0], "Here is the blue box at (94, 125) in image 2."), 1),
        ((GOOD[0], "Here is the blue box at (95, 126)."), 0),
        ((GOOD[0], "Looking again, I see the red lamp at (95, 126)."), 1),
        ((GOOD[0], "Looking again, the lamp at (95, 126).", "I check the lamp at (94, 125)."), 0),
        (("I see (1, 2) and (300, 4) and (5, 600) and (700, 700) here.",), 0),
        (("The box at (94, 125) is beside (9999999, 9999999).",), 0),
        (("The box at (94, 125) is beside one at (9, 9) in image 3.",), 0),
        (("The box at (94, 125) is beside one at (9, 9) in image 2.",), 1),
    ],
)
def test_every_step_points_inside_at_a_place_of_its_own(thoughts, score):
    assert parts(text(*thoughts))["grounding"] == score


def test_naming_everything_is_no_hit():
    objects = ((*OBJECTS[0], Box(0, 0, 20, 20, label="green chair")), OBJECTS[1])

    def earned(thought):
        return parts(text(thought), "verified", objects=objects)["verified"]

    assert earned("The red lamp is left of the blue box (94, 125).") == 1
    assert earned("The red lamp, the blue box and the green chair: one is at (94, 125).") == 0


def test_verified_steps_point_at_what_they_name():
    def earned(*thoughts, **more):
        return parts(text(*thoughts), "verified", **more)["verified"]

    beside, vague = "Here is the blue box at (900, 900).", "Something is at (547, 521)."
    third = "In the second picture, the red lamp is at (250, 250) in image 2."
    assert earned(*GOOD) == 1 and earned(*GOOD, third) == 1
    assert earned(GOOD[0], beside) == 0 and earned(GOOD[0], vague) == 0
    assert earned(*GOOD, beside) == pytest.approx(1 / 3)
    assert earned(GOOD[0], beside, objects=None) == 1, "without boxes it is the plain part"


def test_a_second_look_is_paid_where_it_corrects_something():
    def earned(*thoughts, part="corrected", **more):
        return parts(text(*thoughts), part, **more)[part]

    missed = "Here is the blue box at (900, 900)."
    lamp, again = GOOD[0], "Wait, looking again, the blue box is at (547, 521)."
    other = "Wait, looking again, the red lamp is at (94, 125)."
    assert earned(lamp, missed, again) == 1 > earned(lamp, missed, again, part="verified")
    assert earned(lamp, missed) == 0 and earned(lamp, again) == 1
    assert earned(lamp, missed, "The blue box is at (547, 521).") < 1, "it says no second look"
    assert earned(lamp, missed, other) < 1, "it is about another object"
    assert earned(lamp, missed, "Wait, looking again, the blue box is at (800, 900).") == 0
    both = (missed, "Here is the blue box at (800, 100).")
    assert earned(lamp, *both, again) == pytest.approx(1 / 3), "one look makes good one miss"
    assert earned(lamp, again, missed) < 1, "what comes before corrects nothing"
    idle = (lamp, missed, other)
    assert earned(*idle) == 0 < earned(*idle, part="verified"), "what is said again is no hit more"
    assert earned(lamp, missed, again, objects=None) == 1, "without boxes it is the plain part"


def test_evidence_is_paid_for_right_grounded_answers_within_its_bounds():
    def earned(gain, *thoughts, answer="left"):
        return parts(text(*thoughts, answer=answer), "evidence", evidence=[gain])["evidence"]

    assert earned(0.4, *GOOD) == 0.4
    assert [earned(gain, *GOOD) for gain in (-0.4, 7.0, None, float("nan"))] == [0, 1, 0, 0]
    assert earned(0.4, *GOOD, answer="right") == 0, "a wrong answer"
    assert earned(0.4, GOOD[0], GOOD[0]) == 0, "no grounded one"
    with pytest.raises(ValueError, match="column `evidence`"):
        parts(text(*GOOD), "evidence")


def test_other_forms():
    plain = ("I see the red lamp.", "Here is the blue box.")
    assert parts(text(*plain), "ungrounded")["total"] == 1
    assert parts(text(*GOOD), "ungrounded")["format"] == 0
    assert parts("<answer>left</answer>", "answer_only")["total"] == 1
    assert parts(text(*plain), "answer_only")["format"] == 0


@pytest.mark.parametrize(
    "space", [SPACE, CoordinateSpace.qwen25_vl(3136, 50_000), CoordinateSpace.original()]
)
def test_an_answer_that_is_a_point_is_read_in_the_students_coordinates(space):
    question = Question(
        "web", "Where is the box?", IMAGES[:1], AnswerKind.BOX, boxes=(Box(300, 200, 400, 300),)
    )
    frame = Frame(space, question.images)
    for gold, score in (("(350, 250)", 1), ("(410, 250)", 0)):
        thought = "I see the blue box at (350, 250)."
        completion = render((Step(thought, points_in(thought)),), gold, frame)
        found = parts(completion, "verified", question, OBJECTS[:1], space)
        assert found["correctness"] == score and found["verified"] == 1


@pytest.mark.parametrize(
    ("weights", "style", "sentence"),
    [
        ({"correctness": 0.5, "format": 0.5}, "grounded", "over 0.5"),
        ({"correctness": 0.7, "format": 0.7}, "grounded", "sum to 1.4"),
        ({"correctness": 1.2, "format": -0.2}, "grounded", "between 0 and 1"),
        ({"correctness": 1.2}, "grounded", "between 0 and 1"),
        ({"correctness": 0.9, "charm": 0.1}, "grounded", "no part 'charm'"),
        ({"correctness": 0.9, "grounding": 0.1}, "ungrounded", "needs response style grounded"),
        ({"correctness": 0.9, "looks": 0.1}, "grounded", "looks needs response style zoom"),
    ],
)
def test_a_spec_that_form_could_win_is_refused(weights, style, sentence):
    with pytest.raises(ValueError, match=sentence):
        RewardSpec(weights, ResponseStyle(style))


def test_a_missing_question_column_is_a_sentence():
    with pytest.raises(ValueError, match="column `question`"):
        make_rewards(PRESETS["grounded"], SPACE).functions[0]([""], [""])


# ---- where the limits lie -----------------------------------------------------------------------


def spots(count):
    return [
        f"I see thing {chr(97 + i)}{chr(97 + i)} at ({50 * i}, {50 * i})." for i in range(count)
    ]


def long_thought(characters):
    start = "I see the red lamp at (94, 125). "
    return start + "o" * (characters - len(start))


@pytest.mark.parametrize(
    ("completion", "earned"),
    [
        (text(*spots(16)), 1),
        (text(*spots(17)), 0),
        (text(long_thought(1000)), 1),
        (text(long_thought(1001)), 0),
        (text("Lamp here (94, 125)."), 1),
        (text("Lamp (94, 125)."), 0),  # one word
        (text("I a (94, 125)."), 1),
        (text("X b (94, 125)."), 0),  # letters are no words
        (text("See lamp (94, 125).", "see  LAMP (94, 125)."), 0),
        (text("See lamp (94, 125).", "See lamps (194, 125)."), 1),
    ],
)
def test_the_form_ends_where_it_says(completion, earned):
    assert parts(completion)["format"] == earned


@pytest.mark.parametrize(
    ("thought", "score"),
    [
        ("The lamp (94, 125) beside the box (547, 521).", 1),
        ("The lamp (94, 125), the box (547, 521), the bed (900, 900).", 0),
    ],
)
def test_a_thought_points_at_two_places_at_most(thought, score):
    assert parts(text(thought))["grounding"] == score


def test_places_are_of_one_place_within_the_radius_that_filters_have():
    apart = REPEAT_RADIUS * 1000
    for gap, score in ((apart - 2, 0), (apart + 2, 1)):
        further = f"There is a box at ({94 + gap:.0f}, 125)."
        question = Question("t", "?", (Image("a", 1000, 1000),), AnswerKind.TEXT, answers=("left",))
        found = parts(text("See the lamp at (94, 125).", further), question=question, objects=None)
        assert found["grounding"] == score


def test_as_few_thoughts_as_one_are_demanded_where_nothing_is_said():
    for least in ({}, {"min_thoughts": None}, {"min_thoughts": [0]}, {"min_thoughts": [None]}):
        assert parts(text(GOOD[0]), **least)["format"] == 1
        assert parts("<answer>left</answer>", **least)["format"] == 0


def test_an_answer_alone_has_no_thoughts_and_one_end():
    for completion, earned in (
        ("<answer>left</answer>", 1),
        (" \n<answer>left</answer>\n", 1),
        ("<think></think><answer>left</answer>", 0),
        ("<answer>left</answer><answer>left</answer>", 0),
        ("<answer>left", 0),
        ("left</answer>", 0),
        ("<answer>le<b>ft</answer>", 0),
    ):
        assert parts(completion, "answer_only")["format"] == earned


def test_a_completion_too_long_to_read_earns_nothing():
    whole = "<answer>left</answer>"
    for length, score in ((LONGEST, 1), (LONGEST + 1, 0)):
        completion = "x" * (length - len(whole)) + whole
        assert parts(completion)["correctness"] == score


@pytest.mark.parametrize(
    ("shares", "score"),
    [((3, 0), 1), ((2, 1), 1 / 3), ((1, 1), 0), ((1, 2), 0), ((3, 1), 0.5)],
)
def test_half_of_the_steps_on_what_they_name_is_worth_nothing(shares, score):
    right = [
        "I see the red lamp at (94, 125).", "Here is the blue box at (547, 521).",
        "In the second picture, the red lamp is at (250, 250) in image 2.",
    ]  # fmt: skip
    wrong = ["There is a blue box at (900, 900).", "And a red lamp at (900, 100)."]
    thoughts = right[: shares[0]] + wrong[: shares[1]]
    assert parts(text(*thoughts), "verified")["verified"] == pytest.approx(score)


def test_a_question_of_which_one_image_is_unknown_earns_the_plain_part():
    some = (OBJECTS[0], None)
    beside = text(GOOD[0], "Here is the blue box at (900, 900).")
    assert parts(beside, "verified", objects=some)["verified"] == 1
    assert read_question(question_column(QUESTION, some)).objects == [OBJECTS[0], None]


def test_presets_weigh_as_they_always_did():
    told = {name: (dict(spec.weights), str(spec.response_style)) for name, spec in PRESETS.items()}
    assert told == {
        "grounded": ({"correctness": 0.7, "format": 0.15, "grounding": 0.15}, "grounded"),
        "verified": ({"correctness": 0.7, "format": 0.1, "verified": 0.2}, "grounded"),
        "corrected": ({"correctness": 0.7, "format": 0.1, "corrected": 0.2}, "grounded"),
        "evidence": ({"correctness": 0.7, "grounding": 0.15, "evidence": 0.15}, "grounded"),
        "ungrounded": ({"correctness": 0.7, "format": 0.3}, "ungrounded"),
        "answer_only": ({"correctness": 0.7, "format": 0.3}, "answer_only"),
        "zoom": ({"correctness": 0.6, "format": 0.25, "looks": 0.15}, "zoom"),
        "zoom_no_bonus": ({"correctness": 0.6, "format": 0.4}, "zoom"),
    }


def test_a_part_without_weight_is_no_part_and_none_stays_none():
    rewards = make_rewards(RewardSpec({"correctness": 1.0, "format": 0.0}), SPACE)
    assert (rewards.names, rewards.weights) == (["correctness"], [1.0])
    assert [f.__name__ for f in rewards.functions] == ["correctness"]
    assert RewardSpec({"correctness": 0.51, "format": 0.49})
    ungraded = replace(QUESTION, answers=("behind",))  # is none of its choices
    found = parts(text(*GOOD), question=ungraded)
    assert (found["correctness"], found["format"], found["total"]) == (None, 1, None)


def test_what_an_environment_took_apart_is_put_together():
    message = {"role": "assistant", "content": None, "reasoning_content": "I see."}
    assert text_of([message]) == "<think>I see.</think>\n"
    call = {"name": "f", "arguments": {"a": "é"}}
    called = {"role": "assistant", "content": "x", "tool_calls": [{"function": call}] * 2}
    said = '<tool_call>{"name": "f", "arguments": {"a": "é"}}</tool_call>'
    assert turns_of([{"role": "user", "content": "no"}, called]) == ("x" + 2 * said,)
    image = [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert turns_of([{"role": "assistant", "content": image}]) == ("ab",)
    assert turns_of(None) == () and turns_of("a") == ("a",)

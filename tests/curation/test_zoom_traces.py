"""Trees that look closer become dialogues: in the order in which things were seen."""

import json
from dataclasses import replace

import pytest

from curation.filters.base import Context, apply_filters
from curation.filters.config import DEFAULT_FILTERS, trace_filters
from curation.filters.crops import asked_boxes, shows_asked
from curation.traces.linearize import MAKER, TURNING_BACK, linearize
from curation.traces.preferences import preference_pairs
from curation.traces.response_styles import CONVERTERS
from curation.traces.step_values import step_values
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Box, Observation, Origin, Point, ResponseStyle, Step, Trace, ZoomCall
from mcts.parsing import THOUGHT_BREAK, render
from mcts.prompts import build_messages, load_prompt
from mcts.zoom.observe import observation_text, observe
from tests.support.grown import FORK, grow
from tests.support.scripted import QUESTION
from tests.support.zoom_trees import ZOOM, grow_looks, look, tell

PIXELS = Frame(CoordinateSpace.original(), QUESTION.images)


def shown(trace):
    """What each observation says, with the corner of its crop."""
    seen = [step.observation for step in trace.steps if step.observation]
    return [(o.view, o.crop and (o.crop.x1, o.crop.y1)) for o in seen]


def corrected(tree):
    (trace,) = [trace for trace in linearize(tree) if trace.kind == "corrected"]
    return trace


def test_a_line_of_a_tree_that_zooms_is_a_dialogue_whether_it_looked_or_not():
    tree = grow_looks({("0", "rollout", 0): tell("So it is right.", "right")})
    traces = linearize(tree)
    assert [trace.kind for trace in traces] == ["zoom", "zoom", "corrected"]
    assert [shown(trace) for trace in traces[:2]] == [
        [(1, (50, 50))],
        [(1, (750, 750)), (2, (775, 775))],
    ]
    blind = grow_looks({("", "expand", 0): tell("A sign is at (100, 100).", "left")}, children=1)
    (trace,) = linearize(blind)
    assert (trace.kind, shown(trace)) == ("zoom", [])
    assert {t.kind for t in linearize(grow(FORK, simulations=1, children=2))} == {
        "direct", "corrected",
    }  # fmt: skip


def test_each_step_of_a_dialogue_names_the_response_of_its_own_turn():
    (_, trace, _) = linearize(grow_looks())
    assert trace.origins == (
        Origin(2, None, "/expand/1"),
        Origin(2, 0 + 1, "1/rollout/0"),
        Origin(2, 1, "1/turn/1"),
    )


def test_a_remark_stays_before_the_call_that_it_led_to():
    remark = {("", "expand", 1): look(800, 800, "A sign is at ({x}, {y}). It is far.")}
    (_, trace, _) = linearize(grow_looks(remark))
    assert [(s.thought, s.call is not None) for s in trace.steps[:2]] == [
        ("A sign is at (800, 800).", False), ("It is far.", True),
    ]  # fmt: skip


def test_a_thought_that_tells_what_a_crop_shows_stays_apart_from_the_next():
    told = "<think>Image 2 shows a tree.</think>\n"
    look_on = {("1", "rollout", 0): told + look(300, 300, "Another sign is at ({x}, {y}).")}
    (_, trace, _) = linearize(grow_looks(look_on))
    step = trace.steps[1]
    assert step.thought.split(THOUGHT_BREAK) == [
        "Image 2 shows a tree.", "Another sign is at (300, 300).",
    ]  # fmt: skip
    assert step.observation is not None and trace.maker == "linearize/7"
    turn = render([step], None, PIXELS, before=trace.steps[:1])
    assert turn.startswith(told + "<think>Another sign is at (300, 300).</think>\n<tool_call>")


def test_a_call_that_nothing_answers_is_left_out():
    (_, trace) = linearize(grow_looks({("1", "rollout", 0): tell("A 7.", "left")}, zoom=None))[:2]
    assert trace.kind == "direct" and all(step.call is None for step in trace.steps)


def test_a_corrected_dialogue_looks_again_behind_the_turn_back():
    trace = corrected(grow_looks())
    assert (trace.wrong_from, trace.turns_back_at, trace.answer) == (0, 1, "left")
    wrong, again, closer, _ = trace.steps
    told, turn = again.thought.split(THOUGHT_BREAK)
    assert told == "Image 2 shows a 3, so it is right."
    assert any(turn == f"{s} A sign is at (800, 800)." for s in TURNING_BACK)
    assert shown(trace) == [(1, (50, 50)), (2, (750, 750)), (3, (775, 775))]
    assert [observation_text(s.observation)[:22] for s in (wrong, again, closer)] == [
        "<observation>Image 2: ", "<observation>Image 3: ", "<observation>Image 4: ",
    ]  # fmt: skip


def test_an_attempt_that_looks_without_citing_a_place_can_be_turned_back_from():
    bare = {("", "expand", i): look(x, x, "I look closer.") for i, x in enumerate((100, 800))}
    assert shown(corrected(grow_looks(bare)))[0] == (1, (50, 50))


def test_behind_the_turn_back_crops_have_the_numbers_of_the_new_dialogue():
    _, _, closer, end = corrected(grow_looks()).steps
    assert closer.thought == "Image 3 is too small to read." and closer.call.view == 2
    assert end.thought == "Image 4 shows a 7, so it is left."


def test_every_observation_of_a_dialogue_is_what_the_call_would_show_there():
    for trace in linearize(grow_looks()):
        for i, step in enumerate(trace.steps):
            if step.observation:
                assert step.observation == observe(PIXELS, trace.steps[:i], step.call, ZOOM)


def test_what_the_shared_prefix_showed_is_told_once():
    script = {
        ("", "expand", 0): look(100, 100),
        ("0", "rollout", 0): look(800, 800, "Image 2 shows nothing. ({x}, {y}) is another sign."),
        ("0", "turn", 1): tell("Image 3 shows a 3.", "right"),
        ("0", "rollout", 1): look(300, 300, "Image 2 is blank. A sign is at ({x}, {y}), too."),
        ("0", "turn", 65): tell(
            "In this image 3 cups stand. As image 2 was blank, image 3 decides, not crop 9: a 7.",
            "left",
        ),
    }
    trace = corrected(grow(script, zoom=ZOOM, simulations=1, children=1, rollouts=2))
    assert (trace.wrong_from, trace.turns_back_at) == (1, 2)
    assert shown(trace) == [(1, (50, 50)), (2, (750, 750)), (3, (250, 250))]
    told, turn = trace.steps[2].thought.split(THOUGHT_BREAK)
    assert told == "Image 3 shows a 3."
    assert any(turn == f"{s} A sign is at (300, 300), too." for s in TURNING_BACK)
    assert trace.steps[3].thought == (
        "In this image 3 cups stand. As image 2 was blank, image 4 decides, not crop 9: a 7."
    )


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (
            look(300, 300, "It shows a 5.</think><think>I look at ({x}, {y})."),
            "I look at (300, 300).",
        ),
        (look(300, 300, "It shows a 5. It is far. ({x}, {y}) is near."), "(300, 300) is near."),
        (look(300, 300, "It shows a 5."), ""),
        # Which words tell of the crop can't be said, or there is nothing else.
        (look(300, 300, "The 5 is not asked for, unlike ({x}, {y}). It is a sign."), None),
        (tell("It shows a 5.", "left"), None),
        (tell("It shows a 5, at (90, 90).</think><think>It is (80, 80).", "left"), None),
    ],
)
def test_no_thought_tells_of_a_crop_behind_which_another_was_shown(again, said):
    script = {
        ("", "expand", 0): look(100, 100),
        ("0", "rollout", 0): look(800, 800, "It shows a 5. I look at ({x}, {y})."),
        ("0", "turn", 1): tell("It shows a 3.", "right"),
        ("0", "rollout", 1): again,
        ("0", "turn", 65): tell("It shows a 7.", "left"),
    }
    traces = linearize(grow(script, zoom=ZOOM, simulations=1, children=1, rollouts=2))
    behind = [trace for trace in traces if trace.kind == "corrected"]
    if said is None:
        assert not behind
        return
    (trace,) = behind
    told, turn = trace.steps[2].thought.split(THOUGHT_BREAK)
    assert told == "It shows a 3." and any(turn == f"{s} {said}".rstrip() for s in TURNING_BACK)


@pytest.mark.parametrize("max_calls", [2, 3, 4])
def test_a_corrected_dialogue_keeps_within_the_searchs_limits(max_calls):
    """Three crops in all, of which the last may ask for the answer."""
    zoom = replace(ZOOM, max_calls=max_calls)
    traces = [t for t in linearize(grow_looks(zoom=zoom)) if t.kind == "corrected"]
    assert len(traces) == (max_calls > 2)
    for trace in traces:
        last = [step.observation.last for step in trace.steps if step.observation]
        assert last == [False, False, max_calls == 3]


def test_no_dialogue_is_shown_a_region_twice():
    near = {("", "expand", 1): look(801, 801, "Look at ({x}, {y}).")}
    first = {("", "expand", 0): look(800, 800)}
    tree = grow_looks({**first, **near, ("1", "rollout", 0): tell("A 7.", "left")})
    assert [t.kind for t in linearize(tree)] == ["zoom", "zoom"]


def test_a_wrong_attempts_forced_answer_is_no_fault_of_the_corrected_dialogue():
    forced = {
        ("0", "rollout", 0): "<think>Image 2 shows a 3.</think>",
        ("0", "finish", 0): "right</answer>",
    }
    tree = grow_looks(forced)
    assert "answer_forced" in linearize(tree)[0].problems
    assert "answer_forced" not in corrected(tree).problems


def test_a_call_alone_in_its_turn_keeps_the_observation_of_the_turn_before():
    bare = look(500, 500, image=2).partition("\n")[2]
    (_, trace, _) = linearize(grow_looks({("1", "rollout", 0): bare}))
    assert [step.thought for step in trace.steps] == [
        "A sign is at (800, 800).", "", "Image 3 shows a 7, so it is left.",
    ]  # fmt: skip
    assert shown(trace) == [(1, (750, 750)), (2, (775, 775))]


def test_a_corrected_dialogue_is_a_conversation_that_a_model_could_have_had():
    trace = corrected(grow_looks())
    space = CoordinateSpace.qwen3_vl()
    messages = build_messages(load_prompt("zoom"), QUESTION, space, 3, trace.steps, zoom=ZOOM)
    assert [m.role for m in messages] == ["system", "user", *["assistant", "tool"] * 3, "assistant"]
    assert '"image": 3}' in messages[6].text and messages[7].text.startswith("<observation>Image 4")


def test_siblings_that_looked_at_different_places_make_a_pair():
    same_words = {
        ("", "expand", 0): look(100, 100, "I look at a sign."),
        ("", "expand", 1): look(800, 800, "I look at a sign."),
    }
    (pair,) = preference_pairs(grow_looks(same_words))
    (better, *_), (worse, *_) = pair.chosen.steps, pair.rejected.steps
    assert (better.call.point.x, worse.call.point.x) == (800, 100)
    assert better.observation and worse.observation and pair.margin == 1


def test_a_look_has_a_value_as_every_step_has():
    values = step_values(grow_looks())
    assert [(v.step.observation.crop.x1, v.value) for v in values] == [(50, 0), (750, 1)]


def verdicts(trace, objects=()):
    filters = trace_filters(DEFAULT_FILTERS, None)
    return {v.filter: v for v in apply_filters(trace, QUESTION, filters, Context(objects))}


def test_dialogues_of_right_answers_pass_the_filters():
    right = [t for t in linearize(grow_looks()) if t.reward == 1]
    assert len(right) == 2
    for trace in right:
        assert [v.reason for v in verdicts(trace).values() if not v.keep] == []


def test_a_step_may_tell_what_a_crop_of_an_earlier_place_shows():
    again = {("1", "rollout", 0): tell("The sign at (800, 800) shows a 7.", "left")}
    (_, trace, _) = linearize(grow_looks(again))
    assert verdicts(trace)["no_repeated_point"].keep
    unseen = replace(trace, steps=(replace(trace.steps[0], observation=None), trace.steps[1]))
    assert not verdicts(unseen)["no_repeated_point"].keep


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({("1", "rollout", 0): "<think>Hm (800, 300).</think><tool_call>{</tool_call>"},
         "call_malformed"),
        ({("1", "rollout", 0): look(5000, 5, "Out.", image=2)}, "call_point_outside_image"),
        ({("1", "turn", 1): ("<think>Cut off", "length"), ("1", "finish", 0): "left</answer>"},
         "answer_forced"),
    ],
)  # fmt: skip
def test_nobody_learns_from_a_failed_call_or_a_forced_answer(changes, problem):
    (trace,) = [t for t in linearize(grow_looks(changes)) if t.reward == 1 and t.kind == "zoom"]
    verdict = verdicts(trace)["well_formed"]
    assert not verdict.keep and problem in verdict.reason


def test_a_dialogue_that_never_saw_what_it_is_asked_about_is_dropped():
    (wrong, right, both) = linearize(grow_looks())
    objects = [[Box(780, 780, 820, 820, 0, "box"), Box(0, 0, 9, 9, 0, "lamp")]]
    asked = asked_boxes(QUESTION, objects)
    assert [box.label for box in asked] == ["box"]
    assert [shows_asked(s.observation, asked) for s in both.steps] == [
        False, True, True, None,
    ]  # fmt: skip
    kept = {
        t.trace_id: verdicts(t, objects)["points_on_their_objects"].keep
        for t in (wrong, right, both)
    }
    assert list(kept.values()) == [False, True, True]
    missed = [[Box(80, 80, 120, 120, 0, "box")]]  # only the wrong attempt's crop shows it
    assert not verdicts(both, missed)["points_on_their_objects"].keep
    unknown = verdicts(wrong, [None])["points_on_their_objects"]
    assert unknown.keep and unknown.score is None


def test_boxes_without_labels_are_those_of_what_is_asked_about():
    bare = [Box(1, 2, 30, 40), Box(5, 5, 9, 9)]
    assert asked_boxes(QUESTION, [bare]) == tuple(bare)
    assert not asked_boxes(QUESTION, [[*bare, Box(0, 0, 9, 9, label="lamp")]])


def test_a_dialogue_has_no_style_without_its_crops():
    (_, right, both) = linearize(grow_looks())
    for trace in (right, both):
        made = {style: CONVERTERS[style](trace, QUESTION) for style in ResponseStyle}
        assert made[ResponseStyle.ZOOM] is trace
        assert (made[ResponseStyle.GROUNDED], made[ResponseStyle.UNGROUNDED]) == (None, None)
        assert made[ResponseStyle.ANSWER_ONLY].answer == "left"


def test_ordinary_traces_keep_maker_and_ids():
    (first, *_) = linearize(grow(FORK, simulations=1, children=2))
    assert (first.maker, MAKER) == ("linearize/3", "linearize/3")
    assert first.trace_id == "fc45f6d36942b60ddb449973fae0edde"


def test_dialogues_that_looked_elsewhere_with_the_same_words_are_two():
    one, two = (
        linearize(grow_looks({("", "expand", 0): look(x, 100, "I look.")}, tree_id="t"))[0]
        for x in (100, 300)
    )
    assert one.steps[0].thought == two.steps[0].thought and one.trace_id != two.trace_id


def test_dialogues_that_looked_at_larger_boxes_around_the_same_middle_are_two():
    def boxed(half):
        box = [500 - half, 500 - half, 500 + half, 500 + half]
        call = json.dumps({"name": "image_zoom_in_tool", "arguments": {"bbox_2d": box}})
        turn = f"<think>I look.</think><tool_call>{call}</tool_call>"
        return linearize(grow_looks({("", "expand", 0): turn}, tree_id="t"))[0]

    small, large = boxed(50), boxed(100)
    assert small.steps[0].call.point == large.steps[0].call.point
    assert small.trace_id != large.trace_id


def test_dialogues_that_call_for_points_keep_their_ids():
    seen = Observation(Box(0, 0, 9, 9), 9, 9)
    steps = (Step("I look.", (), ZoomCall(Point(5, 5)), seen), Step("A 7."))
    assert (
        Trace("q", steps, "7", 1.0, "zoom", maker="m").trace_id
        == "3445c132e3e6c68d07fc921c8f60d261"
    )

"""One chain in each response style: without coordinates, as an answer alone, as a dialogue."""

from dataclasses import replace

import pytest

from curation.traces.linearize import linearize
from curation.traces.response_styles import CONVERTERS, answer_only, without_points
from curation.traces.strip_points import without_coordinates
from curation.traces.zoom_dialogues import MAKER, zoom_dialogue
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Box, Origin, ResponseStyle, Step, Trace, ZoomCall
from mcts.parsing import parse, points_in, render
from mcts.zoom.lenses import WEB_LENS
from mcts.zoom.observe import observation_text
from tests.support.grown import fork, grow, xs
from tests.support.scripted import QUESTION, seeded_teacher
from vigorl_nano.pretraining import phrases

PIXELS = Frame(CoordinateSpace.original(), QUESTION.images)
PHRASES = [phrase for group in phrases.ALL for phrase in group]


@pytest.mark.parametrize(
    ("grounded", "plain"),
    [
        ("The lamp is at (412, 630).", "The lamp is there."),
        ("The lamp (412, 630) is left of the chair (1, 2).", "The lamp is left of the chair."),
        ("Looking at (412, 630), I see it.", "Looking there, I see it."),
        ("Looking again at (412, 630), I see it.", "Looking again, I see it."),
        ("At (412, 630), I see a lamp.", "I see a lamp."),
        ("Near (1, 2) stands a dog.", "There stands a dog."),
        ("(412, 630) is the lamp.", "That spot is the lamp."),
        ("First, (1, 2) shows a lamp.", "First, that spot shows a lamp."),
        ("The lamp, located at coordinates (1, 2), is on.", "The lamp is on."),
        ("It is located at the point (1.5, 2).", "It is located there."),
        ("In this room, at (1, 2), I see a lamp.", "In this room, I see a lamp."),
        ("I click (412, 630).", "I click that spot."),
        ("I move to (1, 2).", "I move there."),
        ("The lamps are at (1, 2), (3, 4), and (5, 6).", "The lamps are there."),
        ("A lamp (at (1, 2)) and a chair [3, 4].", "A lamp and a chair."),
        ("The box [10, 20, 30, 40] holds it.", "The box holds it."),
        ("The lamp at x=412, y=630 is on.", "The lamp is on."),
        ("The lamp is left of (1, 2).", "The lamp is left of that spot."),
        ("I see a cup at (1, 2) in image 2.", "I see a cup in image 2."),
        ("In the second image, a cup at (1, 2) in image 2.", "In the second image, a cup."),
        ("A cup.\nIts coordinates are (1, 2).\nIt is red.", "A cup.\nIt is red."),
        ("(412, 630)", ""),
        ("It looks at 2 cups (see above), 1,200 in all.", None),
        ("Its colour is (255, 0, 0), so it is red.", None),
    ],
)
def test_a_thought_reads_well_without_its_coordinates(grounded, plain):
    assert without_coordinates(grounded) == (grounded if plain is None else plain)


@pytest.mark.parametrize("known", [None, ()])
@pytest.mark.parametrize(
    ("grounded", "plain"),
    [
        ("The lamp (0.12, 0.40) is lit.", "The lamp is lit."),
        ("The lamp is at (0.12, 0.40).", "The lamp is there."),
        ("The lamp (12%, 40%) is lit.", "The lamp is lit."),
        ("The lamp <point>412 630</point> is lit.", "The lamp is lit."),
        ("The lamp <point>(412, 630)</point> is lit.", "The lamp is lit."),
        ("The lamp <loc>412, 630</loc> is lit.", "The lamp is lit."),
        ("The lamp at <loc0412><loc0630> is lit.", "The lamp is lit."),
        ("I click <loc_412> <loc_630>.", "I click that spot."),
        ("The lamp <|box_start|>(412,630),(500,700)<|box_end|> is lit.", "The lamp is lit."),
        ("The lamp <box>(412,630),(500,700)</box> is lit.", "The lamp is lit."),
        ('The <point x="41" y="63" alt="lamp">lamp</point> is lit.', "The lamp is lit."),
        ("It takes (0.5, 0.25) litres, <b>40%</b> more.", None),
    ],
)
def test_places_in_other_notations_do_not_stay(grounded, plain, known):
    assert without_coordinates(grounded, known) == (grounded if plain is None else plain)


@pytest.mark.parametrize("phrase", PHRASES)
def test_the_embedded_models_phrases_lose_what_their_own_ungrounded_form_loses(phrase):
    words = {"name": "lamp", "a": "a", "depth": " 2.0 m away"}
    for point in ("(412, 630)", "(41.5, 63.25)"):
        plain = without_coordinates(phrase.format(point=point, **words))
        assert plain == phrase.replace(" at {point}", "").format(point="", **words)


def test_no_point_the_parser_knows_survives():
    for phrase in ("at {}", "{}", "is at {}", "see {}, {} or {}", "near {}: {}; ({})", "\n{}\n{}"):
        for point in ("(1, 2)", "( 1.5 ,2 )", "(-3, 4) in image 2", "(0,0)  IN  image 12"):
            text = f"The lamp {phrase.replace('{}', point)} and so on."
            plain = without_coordinates(text)
            assert points_in(text) and not points_in(plain), text
            assert "\0" not in plain and "  " not in plain and " ." not in plain
    for odd in ("A lamp (1,\n 2).", "A lamp (1, (3, 4) 2).", "At (1, 2) and " * 500):
        assert points_in(odd) and not points_in(without_coordinates(odd))


def corrected():
    return next(t for t in linearize(fork()) if t.kind == "corrected" and t.wrong_from == 1)


def test_an_ungrounded_twin_keeps_the_chain_and_loses_every_point():
    chain = corrected()
    twin = without_points(chain)
    assert twin.points == () and "(" not in render(twin.steps, None, PIXELS)
    assert [s.thought for s in twin.steps] == [
        s.thought.replace(f" at ({s.point.x:g}, {s.point.x:g})", "") for s in chain.steps
    ]
    assert (twin.answer, twin.reward, twin.origins) == (chain.answer, 1.0, chain.origins)
    assert (twin.wrong_from, twin.turns_back_at) == (1, 2)
    assert twin.kind == "ungrounded" and twin.trace_id != chain.trace_id


def chain_of(*thoughts, **fields):
    steps = tuple(Step(thought, points_in(thought)) for thought in thoughts)
    origins = tuple(Origin(i + 1) for i in range(len(steps)))
    fields = {"answer": "left", "reward": 1.0, "kind": "direct", "origins": origins} | fields
    return Trace(QUESTION.question_id, steps, **fields)


def test_a_step_of_coordinates_alone_goes_and_the_marks_move_with_the_rest():
    chain = chain_of("(1, 1)", "A (2, 2).", "Wait. B (3, 3).", wrong_from=1, turns_back_at=2)
    twin = without_points(chain)
    assert [s.thought for s in twin.steps] == ["A.", "Wait. B."]
    assert (twin.wrong_from, twin.turns_back_at) == (0, 1)
    assert [o.node_id for o in twin.origins] == [2, 3]


def test_a_chain_with_nothing_left_to_say_has_no_twin_and_drops_out_of_both_sides():
    bare = chain_of("(1, 1)", "At (2, 2).")
    nothing_wrong = chain_of("(1, 1)", "Wait. B (3, 3).", wrong_from=0, turns_back_at=1)
    good = chain_of("A (1, 1).")
    assert without_points(bare) is None and without_points(nothing_wrong) is None
    grounded, ungrounded = (
        [
            made
            for trace in (bare, good, nothing_wrong)
            if (made := CONVERTERS[style](trace, QUESTION))
        ]
        for style in (ResponseStyle.GROUNDED, ResponseStyle.UNGROUNDED)
    )
    assert grounded == [good] and [[s.thought for s in t.steps] for t in ungrounded] == [["A."]]


def test_an_answer_that_is_a_point_stays_in_every_form():
    chain = chain_of("A (1, 1).", answer="(5, 6)")
    assert without_points(chain).answer == answer_only(chain).answer == "(5, 6)"


def test_all_chains_that_agree_make_one_answer_row():
    rows = [answer_only(trace) for trace in linearize(fork()) if trace.reward == 1]
    assert len(rows) > 2 and len(set(rows)) == len({row.trace_id for row in rows}) == 1
    assert rows[0].steps == () and render((), rows[0].answer, PIXELS) == "<answer>left</answer>"


def test_a_dialogue_shows_a_crop_only_behind_the_call_that_asked_for_it():
    chain = chain_of("A (100, 100).", "B (500, 500).", "C (900, 900).", "So left.")
    dialogue = zoom_dialogue(chain, QUESTION)
    assert [s.thought for s in dialogue.steps] == [s.thought for s in chain.steps]
    assert [s.call for s in dialogue.steps] == [*(ZoomCall(s.point) for s in chain.steps[:3]), None]
    for step in dialogue.steps:
        assert (step.call is None) == (step.observation is None)
        assert step.call is None or step.observation.crop.contains(step.call.point)
    assert (dialogue.kind, dialogue.answer, dialogue.maker) == ("zoom", "left", MAKER)
    said = [observation_text(step.observation) for step in dialogue.steps[:3]]
    assert [text[13:22] for text in said] == ["Image 2: ", "Image 3: ", "Image 4: "]
    text = render(dialogue.steps, dialogue.answer, PIXELS)
    assert parse(text, PIXELS).steps == tuple(replace(s, observation=None) for s in dialogue.steps)
    assert text.rindex("</tool_call>") < text.rindex("<think>"), "a thought leads to the answer"


def test_a_call_shows_the_tasks_region_or_a_share_of_the_picture():
    chain = chain_of("A (100, 100).", "B (500, 500).", "So left.")
    (seen, *_) = [step.observation for step in zoom_dialogue(chain, QUESTION, WEB_LENS).steps]
    assert seen.crop == Box(0, 0, 200, 200) and seen.marked
    longest = max(max(image.width, image.height) for image in QUESTION.images)
    (seen, *_) = [step.observation for step in zoom_dialogue(chain, QUESTION).steps]
    assert seen.crop.x2 - seen.crop.x1 == pytest.approx(min(364, longest / 3))


def test_a_dialogue_calls_once_a_place_inside_the_image_and_not_too_often():
    chain = chain_of("A (9, 9).", "B (12, 9).", "C (9, 1200).", "D (500, 9).", "E (9, 500).", "So.")
    called = [step.call is not None for step in zoom_dialogue(chain, QUESTION).steps]
    assert called == [True, False, False, True, True, False]
    few = zoom_dialogue(chain, QUESTION, most_calls=2)
    assert [step.call is not None for step in few.steps] == [True, False, False, True, False, False]


def test_only_a_direct_chain_with_somewhere_to_look_becomes_a_dialogue():
    assert zoom_dialogue(chain_of("A (1, 1)."), QUESTION) is None, (
        "its only step leads to the answer"
    )
    assert zoom_dialogue(corrected(), QUESTION) is None


def test_every_style_can_be_made_of_every_chain_of_a_real_search():
    tree = grow({}, seeded_teacher, simulations=12)
    made = dict.fromkeys(CONVERTERS, 0)
    for trace in linearize(tree):
        for style, convert in CONVERTERS.items():
            rewritten = convert(trace, QUESTION)
            if rewritten is not None:
                made[style] += 1
                kinds = {"grounded": trace.kind, "answer_only": "answer"}
                assert rewritten.kind == kinds.get(style, style)
                assert rewritten.question_id == trace.question_id
                assert rewritten == convert(trace, QUESTION)
    assert set(made) == set(ResponseStyle)
    assert all(count > 10 for count in made.values()), made
    assert xs(linearize(fork())[0].steps) == [100, 110]

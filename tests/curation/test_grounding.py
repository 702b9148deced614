"""Points are held against the boxes of what steps name; a trace that points elsewhere is out."""

import asyncio
from dataclasses import replace

import pytest

from curation.filters.base import Context, apply_filters
from curation.filters.config import DEFAULT_FILTERS, trace_filters
from curation.filters.grounding import PointsOnTheirObjects, check
from curation.filters.naming import labels_in
from curation.filters.rules import FILTERS
from curation.grading.grade import grade
from flows.settings import CurateSettings
from flows.stages.curate import curate
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import (
    AnswerKind,
    Box,
    Image,
    Observation,
    Point,
    Question,
    Step,
    Trace,
    ZoomCall,
)
from mcts.parsing import parse
from mcts.search import search
from tests.support.scripted import CONFIG, ScriptedPolicy
from warehouse.query.run_query import query
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.rows import read_objects, read_questions
from warehouse.tables.tree_rows import search_rows

IMAGES = (Image("a" * 64, 1000, 1000), Image("b" * 64, 1000, 1000))
QUESTION = Question(
    "sat2", "Is the box left or right?", IMAGES, AnswerKind.TEXT, ("left", "right"), ("left",)
)
PIXELS = Frame(CoordinateSpace.original(), IMAGES)
# A ball in front of a table: its box lies within the table's.
FIRST = (
    Box(100, 100, 200, 200, label="red box"),
    Box(500, 500, 800, 800, label="table"),
    Box(600, 600, 640, 640, label="blue ball"),
)
SECOND = (Box(300, 300, 400, 400, label="red box"),)


def trace_of(*thoughts, **fields):
    steps = parse("".join(f"<think>{t}</think>" for t in thoughts), PIXELS).steps
    assert len(steps) == len(thoughts)
    return Trace(QUESTION.question_id, steps, "left", 1.0, "direct", **fields)


def grounded(thought, objects=(FIRST, SECOND)):
    (found,) = check(trace_of(thought), objects)
    return found.grounded


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("I see the red box at (150, 150).", True),
        ("I see the red box at (200, 200).", True),  # edges belong to the box
        ("I see the red box at (200.5, 150).", False),
        ("The Red  Boxes are at (150, 150).", True),  # any case, any white space, plural
        ("I see the redbox at (150, 150).", None),  # no whole word names anything
        ("I see a lamp at (150, 150).", None),
        ("I see the red box.", None),
        ("I see the red box at (350, 350) in image 2.", True),
        ("I see the red box at (150, 150) in image 2.", False),
        ("I see the blue ball at (620, 620) in image 2.", False),  # image 2 shows none
        ("The red box is left of the blue ball (620, 620).", True),  # either of the two will do
        ("The red box is left of the blue ball (900, 900).", False),
        ("The red box (150, 150) is left of the blue ball (620, 620).", True),
        ("The red box (150, 150) is left of the blue ball (900, 900).", False),
        ("I look at the red box. It is at (150, 150).", True),
        ("I look at the red box. It is at (620, 620).", False),
        ("So much for the red box. The blue ball is at (620, 620).", True),
        ("So much for the blue ball. The red box is at (620, 620).", False),
    ],
)
def test_a_step_is_held_against_the_boxes_of_what_it_names(thought, expected):
    assert grounded(thought) is expected


def test_of_overlapping_labels_the_longest_is_meant():
    boxes = (Box(0, 0, 10, 10, label="box"), *FIRST)
    assert grounded("The red box is at (5, 5).", (boxes,)) is False
    assert grounded("The box is at (5, 5).", (boxes,)) is True
    assert labels_in("Red boxes and a box.", ["box", "red box"]) == ["red box", "box"]


def test_plurals_of_the_common_kinds_are_names():
    labels = ["shelf", "berry", "glass", "toy", "knife"]
    assert labels_in("Shelves, berries, glasses, toys and knives.", labels) == labels


def test_an_image_nobody_described_says_nothing_and_an_empty_one_says_that_nothing_is_there():
    assert grounded("The red box is at (350, 350) in image 2.", (FIRST, None)) is None
    assert grounded("The red box is at (350, 350) in image 2.", (FIRST, ())) is False
    assert grounded("The red box is at (150, 150).", (None, None)) is None


def test_a_label_is_matched_as_text_whatever_stands_in_it():
    boxes = (Box(0, 0, 10, 10, label="C++ book (left)"), Box(0, 0, 9, 9, label=" "))
    assert grounded("I see the C++ book (left) at (5, 5).", (boxes,)) is True


def test_right_answer_and_wrong_objects_is_rejected_by_the_filter_alone_with_the_reason():
    filters = (*FILTERS, PointsOnTheirObjects())
    context = Context((FIRST, SECOND))

    def dropped(trace):
        return [v for v in apply_filters(trace, QUESTION, filters, context) if not v.keep]

    good = trace_of("The red box is at (150, 150).", "The blue ball is at (620, 620).")
    assert dropped(good) == []
    bad = trace_of("The blue ball is at (620, 620).", "The red box is at (610, 639).")
    (verdict,) = [
        verdict for verdict in apply_filters(bad, QUESTION, filters, context) if not verdict.keep
    ]
    assert verdict.filter == "points_on_their_objects"
    assert verdict.reason == "step 2 names the red box and points at the blue ball"
    assert verdict.score == 0.5
    nowhere = trace_of("The red box is at (900, 100).")
    (verdict,) = [
        verdict
        for verdict in apply_filters(nowhere, QUESTION, filters, context)
        if not verdict.keep
    ]
    assert verdict.reason == "step 1 names the red box and points at none of the known objects"


def test_where_nothing_is_known_the_filter_keeps_without_a_word_or_a_score():
    trace = trace_of("The red box is at (900, 900).")
    verdict = PointsOnTheirObjects().apply(trace, QUESTION, Context((None, None)))
    assert (verdict.keep, verdict.reason, verdict.score) == (True, "", None)


def test_the_wrong_attempt_of_a_corrected_chain_is_not_held_against_it():
    trace = trace_of(
        "The red box is at (900, 900).", "Wait. The red box is at (150, 150).",
        wrong_from=0, turns_back_at=1,
    )  # fmt: skip
    verdict = PointsOnTheirObjects().apply(trace, QUESTION, Context((FIRST, SECOND)))
    assert verdict.keep and verdict.score == 1.0
    assert [found.grounded for found in check(trace, (FIRST, SECOND))] == [False, True]
    late = replace(trace, wrong_from=1, turns_back_at=2)
    assert not PointsOnTheirObjects().apply(late, QUESTION, Context((FIRST, SECOND))).keep


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """The embedded sample, and one searched question with a good trace and a deliberately bad one.

    Both answer right. One points at what it names; the other names the same things in the same
    words and points at the wrong ones.
    """
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    import_sample(warehouse, "sat2")
    question, boxes = next(
        (q, boxes)
        for q in read_questions(warehouse, "sat2", split="train")
        if len(q.images) == 1
        and len(boxes := read_objects(warehouse, [q.images[0].image_id])[q.images[0].image_id]) > 1
        and apart(*boxes[:2])
    )

    def think(name, at):
        x, y = Frame(CONFIG.space, question.images).to_model(middle(at))
        return f"<think>I see the {name.label} at ({x}, {y}).</think>"

    a, b = boxes[:2]
    answer = f"<answer>{question.answers[0]}</answer>"
    script = {
        ("", "expand", 0): think(a, a),
        ("0", "rollout", 0): think(b, b) + answer,
        ("", "expand", 1): think(a, b),
        ("1", "rollout", 0): think(b, a) + answer,
    }
    config = replace(CONFIG, simulations=1, children=2, rollouts=1)
    tree = asyncio.run(search(question, config, ScriptedPolicy(script), grade, "tree"))
    rows = search_rows(tree, config, [], model="script", seed=0)
    responses = [
        {"response_id": f"{node}/{purpose}/{i}", "tree_id": "tree", "text": text}
        for (node, purpose, i), text in script.items()
    ]
    commit_trees(warehouse, replace(rows, responses=responses), run_id="r")
    asyncio.run(curate(CurateSettings(task="sat2", home=warehouse.root)))
    return warehouse


def middle(box):
    return Point((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2)


def apart(a, b):
    return a.label != b.label and not a.contains(middle(b)) and not b.contains(middle(a))


def test_the_embedded_samples_import_stores_what_every_image_shows(warehouse):
    found = query(
        warehouse,
        "SELECT count(*) AS images, count(objects) AS known, "
        "count(*) FILTER (list_bool_and([o.x1 < o.x2 AND o.x2 <= width FOR o IN objects])) AS ok "
        "FROM images",
    ).to_pylist()
    (counts,) = found
    assert counts["images"] == counts["known"] == counts["ok"] == 347


def test_curation_rejects_the_deliberately_wrong_trace_and_stores_why(warehouse):
    rows = query(
        warehouse,
        "SELECT keep, reason, score, list(grounded ORDER BY step) AS steps "
        "FROM verdicts JOIN steps USING (trace_id) WHERE filter = 'points_on_their_objects' "
        "GROUP BY ALL ORDER BY keep",
    ).to_pylist()
    bad, good = rows
    assert (good["keep"], good["reason"], good["score"]) == (True, "", 1.0)
    assert good["steps"] == [True, True]
    assert not bad["keep"] and bad["score"] == 0.0 and bad["steps"] == [False, False]
    assert bad["reason"].startswith("step 1 names the ") and " and points at the " in bad["reason"]
    assert query(warehouse, "FROM kept_traces").num_rows == 1
    alone = query(warehouse, "FROM verdict_funnel WHERE dropped > 0").to_pylist()
    assert [(row["filter"], row["dropped_by_it_alone"]) for row in alone] == [
        ("points_on_their_objects", 1)
    ]


def test_curating_again_judges_and_counts_nothing_twice(warehouse):
    counted = (
        "SELECT (SELECT count(*) FROM verdicts WHERE stage IS NULL), "
        "(SELECT count(*) FROM behaviors)"
    )
    before = query(warehouse, counted).to_pylist()
    asyncio.run(curate(CurateSettings(task="sat2", home=warehouse.root)))
    assert query(warehouse, counted).to_pylist() == before
    assert list(before[0].values()) == [2 * len(trace_filters(DEFAULT_FILTERS, None)), 2 * 6]


# ---- what a trace that zooms was shown -----------------------------------------------------------

SIGNS = (Box(100, 100, 200, 200, label="red sign"), Box(700, 700, 800, 800, label="red sign"))
A, B, ELSEWHERE = (50, 50, 250, 250), (650, 650, 850, 850), (300, 300, 500, 500)
BOTH = (0, 0, 900, 900)


def looked(*crops, kind="zoom", attempt=None, **changes):
    """The verdict on a trace with these crops; `attempt`: which of them were wrong."""
    steps = [
        Step("I look.", call=ZoomCall(Point(1, 1)), observation=Observation(Box(*c), 9, 9))
        for c in crops
    ]
    question = replace(QUESTION, **{"boxes": SIGNS, **changes})
    begins, ends = attempt or (None, None)
    trace = Trace(
        question.question_id, (*steps, Step("So it is left.")), "left", 1.0, kind,
        wrong_from=begins, turns_back_at=ends,
    )  # fmt: skip

    def found(**values):
        given = PointsOnTheirObjects(**values).apply(trace, question, Context([None, None]))
        assert given.keep is not bool(given.reason)
        return given.reason

    return found


def test_crops_show_all_that_a_question_is_about():
    assert looked(A, B)() == looked(BOTH)() == looked(ELSEWHERE, A, B)() == ""
    one = "its crops show 1 of 2 objects that the question is about"
    assert looked(A)() == looked(A, A, ELSEWHERE)() == one
    assert looked(A)(min_asked=0.5) == looked(A)(min_asked=0) == ""
    assert looked(ELSEWHERE)(min_asked=0) == "0 of its 1 crops show what the question is about"
    assert looked(A, answer_kind=AnswerKind.BOX)() == "", "any of the boxes is right"
    assert looked(A, boxes=())() == "", "nothing is known"


def test_a_corrected_trace_turns_back_from_a_look_that_missed():
    turned = "it turns back from crops that show what the question is about"
    of = {"kind": "corrected", "attempt": (0, 1)}
    assert looked(ELSEWHERE, A, B, **of)() == ""
    assert looked(A, B, A, **of)() == turned
    assert looked(A, A, B, **of)(doubts_right_looks=True) == ""
    two = {"kind": "corrected", "attempt": (0, 2)}
    assert looked(A, ELSEWHERE, B, A, **two)() == "", "one of its looks did miss"
    seen_before = looked(A, ELSEWHERE, B, **two)
    assert seen_before() == "", "what was seen stays seen"

"""Numbers in brackets: places are read, all other words stay as the teacher wrote them."""

import json
import re
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from curation.render.marks import marks_of
from curation.traces.linearize import linearize
from curation.traces.response_styles import without_points
from mcts.coordinates import CoordinateSpace, Dialect, Frame, SpaceKind
from mcts.data import AnswerKind, Box, Image, Point, Question, Step, Trace
from mcts.parsing import move_points, parse, render, split_steps
from mcts.places.decide import UNREAD, places
from mcts.places.pairs import find_pairs
from mcts.teachers.checkpoints import named_space
from mcts.tree import Node, Rollout, Tree, flatten, rebuild
from tests.support.project import Project, partial_turn, thinking

ONE = (Image("a", 640, 480),)
TWO = (Image("a", 320, 240), Image("b", 1000, 500))
THOUSANDTHS = Frame(CoordinateSpace.qwen3_vl(), ONE)
PIXELS = Frame(CoordinateSpace.original(), ONE)


def read(text, frame=THOUSANDTHS):
    return parse(f"<think>{text}</think>", frame)


def points_of(text, frame=PIXELS):
    return [(p.x, p.y, p.image) for step in read(text, frame).steps for p in step.points]


def words_of(text, frame=THOUSANDTHS):
    return "\n".join(step.thought for step in read(text, frame).steps)


def kinds(parsed):
    return [problem.kind for problem in parsed.problems]


STAYS = [
    "The total row reads (1,200) dollars.",
    "$(1,200) is what the label says.",
    "It fell by (12,500) euros.",
    "A loss of (1,200) is shown.",
    "It sold for (3,450) dollars.",
    "It grew by (12,500)%.",
    "A share of (3,5) Prozent is given.",
    "It costs (1,200.50) USD.",
    "Der Preis ist (1.200,50) Euro.",
    "The population of (12,500) is large.",
    "There are (1,200) visitors.",
    "The interval (0, 100) is closed.",
    "The open interval from (0, 100) is meant.",
    "x ∈ (0, 100), so it is small.",
    "The values lie in the range (0, 50).",
    "The axis runs (2010, 2020).",
    "The x-axis goes from (0, 100).",
    "Between the years (2010, 2020) it grew.",
    "It grew in (2010, 2020).",
    "The ratio is (3, 4).",
    "The score was (3, 2).",
    "The match ended (3, 2).",
    "The matrix entry (1, 1) is 4.",
    "The (2, 3) entry is 7.",
    "The element (2, 3) of the matrix is 7.",
    "They won with (4, 1).",
    "Room (101, 102) is closed.",
    "So f(1, 2) is 3.",
    "Then max(3, 4) is 4.",
    "The ordered pair (3, 4) solves it.",
    "The label reads (10, 20).",
    "(3, 4) cm are drawn.",
    "A resolution of (640, 480) is small.",
    "(0, 100) interval is meant.",
    "On May (12, 2020) it was new.",
    "区间（0，100）很大。",
    "合计为（1,200）元。",
]


@pytest.mark.parametrize("text", STAYS)
@pytest.mark.parametrize("space", ["qwen3-vl", "qwen2.5-vl", "original"])
def test_s01_a_number_that_is_no_place_stays_as_written(text, space):
    frame = Frame(named_space(space), ONE)
    alone = read(text, frame)
    assert words_of(text, frame) == text and not any(step.points for step in alone.steps)
    for told in (f"A cup is at (412, 630). {text}", f"{text} A cup is at (412, 630)."):
        parsed = read(told, frame)
        points = [point for step in parsed.steps for point in step.points]
        assert points == [frame.to_point(412, 630)], told
        assert text in "\n".join(step.thought for step in parsed.steps)
        assert text in render(parsed.steps, None, frame)
        for other in ("qwen3-vl", "qwen2.5-vl", "original", "normalized-1"):
            assert text in render(parsed.steps, None, Frame(named_space(other), ONE))


def test_s01_money_stays_in_the_warehouse_the_next_prompt_and_the_export(project: Project):
    first = "<think>The total row at {p} reads (1,200) dollars.</think>"
    ran, requests = project.ask([{"a": "1200"}], thinking(first, end="1200"))
    assert ran.status == 0, ran.text
    texts = [row["text"] for row in project.sql("SELECT text FROM kept_traces")]
    assert texts and all("reads (1,200) dollars." in text for text in texts)
    assert {r["n_points"] for r in project.sql("SELECT n_points FROM steps WHERE step = 0")} == {1}
    later = [partial_turn(body) for body in requests if "row" in partial_turn(body)]
    assert later and all("reads (1,200) dollars." in turn for turn in later)
    sql = "SELECT trace_id FROM kept_traces"
    assert project.run("dataset", "publish", "x", "--sql", sql).status == 0
    out = project.folder / "exported"
    how = ("--to", "trl", "--files", "jsonl", "--space", "qwen2.5-vl", "--out", out)
    ran = project.run("dataset", "export", "x@v1", *how)
    assert ran.status == 0, ran.text
    rows = "".join(path.read_text() for path in out.rglob("*.jsonl"))
    assert "reads (1,200) dollars." in rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cup is at (412,630).", [(412, 630, 0)]),
        ("The cup (412,130) is red.", [(412, 130, 0)]),
        ("A cup at (98,140).", [(98, 140, 0)]),
        ("Coordinates: (12,340).", [(12, 340, 0)]),
        ("I click (1,200).", [(1, 200, 0)]),
        ("The cup (98,140) is left of the jug (220,340).", [(98, 140, 0), (220, 340, 0)]),
        ("The cup (98,140) is left of the jug (220, 340).", [(220, 340, 0)]),
        ("The label of the ratio at (3, 4) is red.", [(3, 4, 0)]),
        ("The x-axis (500, 400) is labelled Year.", [(500, 400, 0)]),
        ("The mountain range (607, 82) is far.", [(607, 82, 0)]),
        ("The price tag (38, 91) says $5.", [(38, 91, 0)]),
        ("The score board (300, 100) is lit.", [(300, 100, 0)]),
        ("At (30, 40) people stand.", [(30, 40, 0)]),
        ("The dark room (412, 630) is empty.", [(412, 630, 0)]),
        ("The room at (101, 102) is empty.", [(101, 102, 0)]),
        ("The road ended (412, 63).", [(412, 63, 0)]),
        ("The line ended at (3, 2).", [(3, 2, 0)]),
        ("The table cell (412, 63) says 4.", [(412, 63, 0)]),
        ("It is 3 m high at (30, 40).", [(30, 40, 0)]),
        ("pyautogui.click(412, 430)", [(412, 430, 0)]),
        ("点击（120，340）元素。", [(120, 340, 0)]),
    ],
)
def test_places_are_still_read(text, expected):
    assert points_of(text) == expected


def test_what_may_be_a_number_or_a_place_stays_and_says_why():
    parsed = read("The total (12,500) is shown. A cup is at (3, 4).")
    assert [p.text if hasattr(p, "text") else p.detail for p in parsed.problems] == ["(12,500)"]
    assert kinds(parsed) == ["unread_number"]


def test_s12_shares_are_named_and_stay_as_written(project: Project):
    first = "<think>The cup is at (0.62, 0.71).</think>"
    ran, requests = project.ask([{}], thinking(first, then="<think>A jug at (0.3, 0.5).</think>"))
    assert ran.status == 0, ran.text
    assert re.search(r"such as \(0\.\d+, 0\.\d+\) \(unread_shares\)", ran.text)
    assert "--space normalized-1 reads them" in ran.text
    rows = project.sql("SELECT DISTINCT x, y, thought FROM nodes WHERE thought IS NOT NULL")
    assert rows and all(row["x"] is None for row in rows)
    assert any("(0.62, 0.71)" in row["thought"] for row in rows)
    assert not any("(1, 1)" in partial_turn(body) for body in requests)
    assert project.sql("SELECT * FROM kept_traces") == []
    reasons = project.sql("SELECT DISTINCT reason FROM verdicts WHERE filter='point_in_every_step'")
    assert any("unread_shares" in row["reason"] for row in reasons)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("The cup [412, 630] is red.", "unread_named"),
        ("A list [3, 5] of two.", ""),
        ("It lies in the interval [200, 300].", ""),
        ("In [2010, 2020] it grew.", ""),
        ("The cup (41%, 63%) is red.", "unread_percent"),
        ("The confidence interval (41%, 63%) is wide.", ""),
    ],
)
def test_a_place_in_square_brackets_or_in_percents_is_told_as_unread(text, told):
    parsed = read(text)
    assert kinds(parsed) == (["thought_without_point", told] if told else ["thought_without_point"])
    assert words_of(text) == text


@pytest.mark.parametrize(
    ("told", "helps"),
    [
        ('"point_2d": [412, 630]', "--space qwen3-vl+json reads them"),
        ('<point x="41" y="63" alt="cup">cup</point>', "--space qwen3-vl+xml reads them"),
        ("<loc0412><loc0630>", "no setting reads this"),
        ("[100, 200, 300, 400]", "--space qwen3-vl+boxes reads them"),
        ("(412, 630)", ""),
    ],
)
def test_a_build_says_which_setting_reads_what_was_not_read(project: Project, told, helps):
    ran, _ = project.ask([{}], thinking(f"<think>A cup: {told}.</think>"))
    lines = [line for line in ran.text.splitlines() if "a place that is not read" in line]
    assert len(lines) == bool(helps)
    assert all(f"such as {told} (unread_" in line and helps in line for line in lines)


def test_numbers_are_read_however_many_decimals_they_have():
    shares = Frame(CoordinateSpace.shares(), ONE)
    assert points_of("At (.625, .75).", shares) == points_of("At (0.625, 0.75).", shares)
    assert points_of("At (0.62500000000001, 0.7499999999999).", shares) == [(400.0, 360.0, 0)]
    assert kinds(read("At (.62, .71).")) == ["thought_without_point", "unread_shares"]
    assert words_of("At (412.33333333333331, 630.66666666666663).") == "At (263.893, 302.72)."


def test_s12_whole_numbers_beside_shares_are_shares_too():
    parsed = read("From (0, 0.5) and (0.62, 0.71) to (1, 1). A jug at (412, 630).", THOUSANDTHS)
    assert [len(step.points) for step in parsed.steps] == [1]
    assert kinds(parsed) == ["unread_shares"] * 3
    for text in ("The corner at (0, 0), a cup at", "Interval (0.2, 0.5), at (1, 1), a cup at"):
        corner = read(f"{text} (412, 630).", THOUSANDTHS)
        assert len(corner.steps[0].points) == 2 and not corner.problems


def test_s12_a_zoom_into_shares_is_no_call():
    call = '{"name": "search_coordinate", "arguments": {"coordinate": [0.62, 0.71]}}'
    text = f"<think>A cup at (412, 630).</think><tool_call>{call}</tool_call>"
    parsed = parse(text, THOUSANDTHS)
    assert parsed.steps[0].call is None
    assert kinds(parsed) == ["unread_shares", "bad_tool_call"]
    assert parse(text, Frame(CoordinateSpace.shares(), ONE)).steps[0].call is not None


def test_s12_shares_of_a_model_that_declares_them_are_places(project: Project):
    first = "<think>The cup is at (0.62, 0.71).</think>"
    then = "<think>A jug at (0.3, 0.5).</think>"
    ran, requests = project.ask([{}], thinking(first, then=then), space="normalized-1")
    assert ran.status == 0, ran.text
    rows = project.sql("SELECT DISTINCT x, y FROM steps WHERE step = 0")
    assert rows == [{"x": 396.8, "y": 340.8}]
    assert any("(0.62, 0.71)" in partial_turn(body) for body in requests)


def test_a_fraction_of_a_thousandth_that_can_be_meant_is_a_place():
    for text in ("At (412.5, 630.25).", "At (0.5, 412.3).", "At (0, 0).", "At (1, 1)."):
        assert len(points_of(text, THOUSANDTHS)) == 1
    assert kinds(read("At (0.5, 0.3).")) == ["thought_without_point", "unread_shares"]


UNREAD_FORMS = [
    ("The cup is <point>412 630</point>.", "xml"),
    ('The <point x="41.2" y="63.0" alt="cup">cup</point> is red.', "xml"),
    ('The <points x1="41.2" y1="63" x2="3" y2="4" alt="cups">cups</points> are red.', "xml"),
    ('{"point_2d": [412, 630], "label": "cup"}', "json"),
    ('[{"bbox_2d": [100, 200, 300, 400], "label": "cup"}]', "json"),
    ("The cup [100, 200, 300, 400] is red.", "box"),
    ("The cup <|box_start|>(100,200),(300,400)<|box_end|> is red.", "box"),
    ("The <ref>cup</ref><box>(100,200),(300,400)</box> is red.", "box"),
    ("The cup (100,200),(300,400) is red.", "box"),
    ("The cup is at x=412, y=630.", "named"),
    ("The cup is at [412, 630].", "named"),
]


@pytest.mark.parametrize(("text", "kind"), UNREAD_FORMS)
def test_a_place_in_another_dialect_is_no_point_and_says_why(text, kind):
    parsed = read(text)
    assert kinds(parsed) == ["thought_without_point", f"{UNREAD}{kind}"]
    assert words_of(text) == text and not any(step.points for step in parsed.steps)
    assert render(parsed.steps, None, THOUSANDTHS) == f"<think>{text}</think>"


@pytest.mark.parametrize(
    ("dialect", "text", "words", "points"),
    [
        ("xml", "A <point>500 250</point>.", "A (320, 120).", [(320, 120)]),
        ("xml", "A <point>(500, 250)</point>.", "A (320, 120).", [(320, 120)]),
        ("xml", '<point x="500" y="250" alt="a cup">cup</point>!', "cup (320, 120)!", [(320, 120)]),
        ("xml", '<points x1="0" y1="0" x2="500" y2="250">cups</points>',
         "cups (0, 0), (320, 120)", [(0, 0), (320, 120)]),
        ("json", '{"point_2d": [500, 250], "label": "cup"}',
         '{"point_2d": (320, 120), "label": "cup"}', [(320, 120)]),
        ("json", '{"bbox_2d": [0, 0, 1000, 500]}', '{"bbox_2d": (320, 120)}', [(320, 120)]),
        ("json", '{"box_2d": [0, 0, 500, 1000]}', '{"box_2d": (320, 120)}', [(320, 120)]),
        ("boxes", "A cup [0, 0, 1000, 500].", "A cup (320, 120).", [(320, 120)]),
        ("boxes", "A <|box_start|>(0,0),(1000,500)<|box_end|>.", "A (320, 120).", [(320, 120)]),
        ("boxes", "The range [0, 10, 20, 30] has (500, 250).",
         "The range [0, 10, 20, 30] has (320, 120).", [(320, 120)]),
    ],
)  # fmt: skip
def test_a_declared_dialect_is_read(dialect, text, words, points):
    frame = Frame(named_space(f"qwen3-vl+{dialect}"), ONE)
    parsed = read(text, frame)
    assert words_of(text, frame) == words and kinds(parsed) == []
    assert [(p.x, p.y) for step in parsed.steps for p in step.points] == points
    again = parse(render(parsed.steps, None, frame), frame)
    assert again.steps == parsed.steps


@pytest.mark.parametrize(
    ("written", "pixels", "again"),
    [
        ('{"point_2d": [500, 250], "label": "cup"}', "(320, 120)", "(500, 250)"),
        ('[{"bbox_2d": [0, 0, 1000, 500], "label": "cup"}]', "(320, 120)", "(500, 250)"),
        ('```json\n{"point_2d": [500, 250]}\n```', "(320, 120)", "(500, 250)"),
        ('{"label": "cup in image 2", "point_2d": [500, 500]}', "(500, 250) in image 2",
         "(500, 500) in image 2"),
        ("(500, 250)", "(320, 120)", "(500, 250)"),
        ('Here: {"point_2d": [500, 250]}', 'Here: {"point_2d": (320, 120)}',
         'Here: {"point_2d": (500, 250)}'),
    ],
)  # fmt: skip
def test_an_answer_that_is_an_object_with_a_place_becomes_the_place(written, pixels, again):
    images = TWO if "image 2" in written else ONE
    question = Question("any", "Where?", images, AnswerKind.POINT, points=(Point(1, 2),))
    frame = Frame.of(named_space("qwen3-vl+json"), question)
    parsed = parse(f"<answer>{written}</answer>", frame)
    assert parsed.answer == pixels and not parsed.problems
    rendered = render((), parsed.answer, frame)
    assert rendered == f"<answer>{again}</answer>"
    assert parse(rendered, frame).answer == parsed.answer


def test_molmo_writes_percents_in_tags():
    frame = Frame(named_space("molmo"), ONE)
    assert points_of('The <point x="50.5" y="25" alt="cup">cup</point>.', frame) == [
        (323.2, 120, 0)
    ]
    assert frame.to_model(Point(323.2, 120)) == (50.5, 25)


def test_a_dialect_is_kept_with_the_tree_and_is_part_of_its_id(project: Project):
    first = '<think>The cup is here: {"point_2d": [500, 250]}.</think>'
    ids = []
    for space in ("qwen3-vl", "qwen3-vl+json"):
        other = Project(project.folder / space)
        ran, _ = other.ask([{}], thinking(first), space=space)
        assert ran.status == 0, ran.text
        found = other.sql("SELECT thought, x, y FROM nodes WHERE parent_id = 0 LIMIT 1")
        json_read = '{"point_2d": (320, 120)}' in found[0]["thought"]
        assert json_read == space.endswith("json")
        again = other.run("curate", "mine")
        assert again.status == 0, again.text
        ids += [row["tree_id"] for row in other.sql("SELECT tree_id FROM trees")]
    assert len({*ids}) == 2
    ran = Project(project.folder / "bad").run("build", "mine", "--space", "qwen3-vl+yaml")
    assert ran.status == 2 and "no dialect 'yaml'" in ran.err


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("A cup at (120, 140) in the second image.", [1]),
        ("A cup at (120, 140) in image two.", [1]),
        ("A cup at (120, 140) in the 2nd picture.", [1]),
        ("A cup at (120, 140) in image #2.", [1]),
        ("A cup at (120, 140) in the last image.", [1]),
        ("A cup at (120, 140) in the first image.", [0]),
        ("In the second image, a cup is at (120, 140).", [1]),
        ("In image 1 it is at (1, 2), and in image 2 it is at (3, 4).", [0, 1]),
        ("It moved from (5, 5) to (2, 5) in image 2.", [0, 1]),
        ("The cup in image 2 is like the one at (3, 4).", [0]),
        ("杯子在（120，140）（第二张图）。", [1]),
        ("在第二张图中，杯子在（120，140）。", [1]),
        ("2枚目の画像では、カップは（120、140）にあります。", [1]),
        ("두 번째 이미지에서 컵은 (120, 140)에 있습니다.", [1]),
    ],
)
def test_an_image_told_in_words_is_the_image_meant(text, images):
    frame = Frame(CoordinateSpace.original(), TWO)
    parsed = read(text, frame)
    assert [p.image for step in parsed.steps for p in step.points] == images
    spoken = Frame(CoordinateSpace.qwen3_vl(), TWO)
    written = render(read(text, spoken).steps, None, spoken)
    assert parse(written, spoken).steps == read(text, spoken).steps


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("The cup in image 2 is at (120, 140).", [1]),
        ("Image 2 shows a cup at (120, 140).", [1]),
        ("Image 2's cup is at (120, 140).", [1]),
        ("The cup in the second image is at (120, 140).", [1]),
        ("The second image has a cup at (120, 140).", [1]),
        ("杯子在图像2中的位置是（120，140）。", [1]),
        ("In image 2, there is a cup. It stands at (120, 140).", [1]),
        ("In image 2 a cup is at (1, 2). It is left of a jug (3, 4).", [1, 0]),
        ("In the first image the cup is at (1, 2), while in the second it is at (3, 4).", [0, 1]),
        ("In the first image, the cup in the second row is at (3, 4).", [0]),
        ("The cup in image 1 is at (1, 2) and the cup in image 2 is at (3, 4).", [0, 1]),
        ("In image 1 it is at (1, 2), and the jug in image 2 is at (3, 4).", [0, 1]),
        ("The cup in image 2 (1, 2) is left of the jug (3, 4).", [1, 1]),
        ("The cup at (1, 2) in image 2 is like the jug at (3, 4).", [1, 0]),
        ("Image 1 shows a mug, and image 2 shows a cup at (3, 4).", [1]),
        ("Compared with image 1, the cup in image 2 at (3, 4) is larger.", [1]),
        ("In image 1, unlike image 2, the cup is at (3, 4).", [0]),
        ("Unlike in image 1, the cup is at (3, 4).", [1]),
    ],
)
def test_the_nearest_image_told_in_front_of_a_place_is_meant(text, images):
    parsed = read(text, Frame(CoordinateSpace.original(), TWO))
    assert [p.image for step in parsed.steps for p in step.points] == images
    assert not parsed.problems
    spoken = Frame(CoordinateSpace.qwen3_vl(), TWO)
    steps = read(text, spoken).steps
    assert parse(render(steps, None, spoken), spoken).steps == steps
    alone = Frame(CoordinateSpace.original(), TWO[:1])
    assert {p.image for step in read(text, alone).steps for p in step.points} <= {0, *images}


@pytest.mark.parametrize(
    "text",
    [
        "The cup in the other image is at (120, 140).",
        "The cups in image 1 and image 2 are at (1, 2) and (3, 4).",
        "The cup in images 1 and 2 is at (3, 4).",
        "From image 1 to image 2 the cup moves to (3, 4).",
        "In image 1, the cup in image 2 is at (3, 4).",
        "Image 1 and image 2 differ. It is at (3, 4).",
    ],
)
def test_a_place_that_may_be_in_either_image_is_none_and_says_so(text):
    parsed = read(text, Frame(CoordinateSpace.original(), TWO))
    assert not any(step.points for step in parsed.steps)
    assert {*kinds(parsed)} == {"thought_without_point", "unread_image"}
    assert words_of(text, Frame(CoordinateSpace.original(), TWO)) == text


def test_an_answer_is_graded_in_the_image_it_tells():
    question = Question(
        "any", "Where?", TWO, AnswerKind.BOX, boxes=(Box(100, 100, 200, 200, image=1),)
    )
    assert grade(question, "The cup in image 2 is at (120, 140).").score == 1
    assert grade(question, "The cup in image 1 is at (120, 140).").score == 0


def test_an_image_told_without_its_number_or_that_is_not_there_is_no_place():
    two = Frame(CoordinateSpace.original(), TWO)
    other = read("A cup at (120, 140) in the other image.", two)
    assert not other.steps[0].points and "unread_image" in kinds(other)
    missing = read("A cup at (120, 140) in the third image.", two)
    assert not missing.steps[0].points and "no_such_image" in kinds(missing)
    assert missing.steps[0].thought == "A cup at (120, 140) in the third image."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("红色方块在（120，340）。", "红色方块在(120, 340)。"),
        ("红色方块在（１２０，３４０）。", "红色方块在(120, 340)。"),
        ("红色方块在(120，340)。", "红色方块在(120, 340)。"),
        ("红色方块在(120,340)。", "红色方块在(120, 340)。"),
        ("红色方块在【120，340】。", "红色方块在(120, 340)。"),
        ("赤い箱は（120、340）にあります。", "赤い箱は(120, 340)にあります。"),
        ("المربع الأحمر عند (١٢٠، ٣٤٠).", "المربع الأحمر عند (120, 340)."),
        ("लाल डिब्बा (१२०, ३४०) पर है।", "लाल डिब्बा (120, 340) पर है।"),
    ],
)
def test_s26_brackets_commas_and_digits_of_every_script_are_read(text, words):
    assert points_of(text) == [(120, 340, 0)] and words_of(text, PIXELS) == words
    frame = Frame(CoordinateSpace.qwen3_vl(), ONE)
    steps = read(text, frame).steps
    assert parse(render(steps, None, frame), frame).steps == steps


def test_s26_a_chinese_answer_is_kept_with_its_points(project: Project):
    first, then = "<think>红色方块在（120，340）。</think>", "<think>再看（220，140）。</think>"
    ran, _ = project.ask([{"a": "左"}], thinking(first, then, "左"))
    assert ran.status == 0, ran.text
    rows = project.sql("SELECT DISTINCT thought, x FROM steps ORDER BY x")
    assert {"thought": "红色方块在(76.8, 163.2)。", "x": 76.8} in rows
    assert project.sql("SELECT count(*) AS n FROM kept_traces")[0]["n"] > 0


# ---- points of a step are the truth, wherever its text goes --------------------------------------


def test_a_number_that_equals_the_point_stays_where_the_rule_tells_them_apart():
    step = Step("The interval (3, 4) is red at (3, 4).", (Point(3, 4),))
    assert render((step,), None, Frame(CoordinateSpace.qwen3_vl(), (Image("a", 100, 100),))) == (
        "<think>The interval (3, 4) is red at (30, 40).</think>"
    )
    assert move_points(step.thought, lambda p: replace(p, x=9), step.points) == (
        "The interval (3, 4) is red at (9, 4)."
    )


def test_the_points_a_step_was_parsed_into_come_before_the_rule():
    thought = "Here (5, 6), and (3, 4)."
    (one,) = split_steps(thought, (Point(3, 4),))
    assert one.points == (Point(3, 4),)
    assert split_steps(thought, ()) == [Step(thought)]
    assert move_points(thought, lambda p: Point(7, 7), ()) == thought


def test_trees_and_traces_keep_the_points_through_rows():
    question = Question("any", "What?", ONE, AnswerKind.TEXT, answers=("yes",))
    text = "<think>At (500, 250), in (2010, 2020), f(1, 2), it reads (1,200).</think>"
    (step,) = parse(text, THOUSANDTHS).steps
    assert step.points == (Point(320, 120),)
    root = Node(0, "", None)
    node = Node(1, "0", root, step, None, "r1")
    root.children.append(node)
    raw = text + "<answer>yes</answer>"
    node.rollouts.append(Rollout((), "yes", 1.0, "", ("r2",), 0, (), 0))
    tree = Tree("t", question, root)
    rows = flatten(tree)
    assert rows.nodes[1]["points"] == [{"x": 320.0, "y": 120.0, "image": 0}]
    again = rebuild("t", question, rows, {"r1": text, "r2": raw}, THOUSANDTHS)
    assert again.root.children[0].step == step
    (trace,) = linearize(again)
    assert trace.steps == (step,) and json.loads(json.dumps(trace.steps[0].thought)) == step.thought
    for row in rows.nodes:
        del row["points"]  # as older code wrote it
    old = rebuild("t", question, rows, {"r1": text, "r2": raw}, THOUSANDTHS)
    assert old.root.children[0].step.points[0] == Point(320, 120)


def test_the_ungrounded_style_leaves_numbers_that_are_no_place():
    (step,) = read("The interval [0, 100] at (412, 630) reads (1,200) dollars.").steps
    question = Question("any", "What?", ONE, AnswerKind.TEXT, answers=("yes",))
    root = Node(0, "", None)
    root.children.append(Node(1, "0", root, step))
    root.children[0].rollouts.append(Rollout((), "yes", 1.0, "", ("r",), 0, (), 0))
    (trace,) = linearize(Tree("t", question, root))
    twin = without_points(trace)
    assert twin.steps[0].thought == "The interval [0, 100] reads (1,200) dollars."


def test_an_answer_that_is_a_place_is_one_however_it_is_written():
    question = Question("any", "Where?", ONE, AnswerKind.POINT, points=(Point(1, 2),))
    frame = Frame.of(CoordinateSpace.qwen3_vl(), question)
    for written, pixels in (("(5,250)", "(3.2, 120)"), ("（5，250）", "(3.2, 120)")):
        parsed = parse(f"<answer>{written}</answer>", frame)
        assert parsed.answer == pixels
        assert render((), parsed.answer, frame) == "<answer>(5, 250)</answer>"
    shares = parse("<answer>(0.62, 0.71)</answer>", frame)
    assert shares.answer == "(0.62, 0.71)" and kinds(shares) == ["unread_shares"]
    assert render((), shares.answer, frame) == "<answer>(0.62, 0.71)</answer>"


# ---- tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<THINK>A (1, 2).</THINK><Answer>x</Answer>", ["A (1, 2)."], "x"),
        ("<think >A (1, 2).</think ><answer>x</answer>", ["A (1, 2)."], "x"),
        ('<think type="a">A (1, 2).</think><answer>x</answer>', ["A (1, 2)."], "x"),
        ('<think>The page says "</think>" at (1, 2).</think><answer>x</answer>',
         ['The page says "</think>" at (1, 2).'], "x"),
        ("<think>Tag `<answer>` at (1, 2).</think><answer>x</answer>",
         ["Tag `<answer>` at (1, 2)."], "x"),
        ("<think>A tag <answer> at (1, 2).</think><answer>x</answer>",
         ["A tag <answer> at (1, 2)."], "x"),
        ("<think>A (1, 2).</think><answer>a <think> tag</answer>", ["A (1, 2)."], "a <think> tag"),
        ("<think>A (1, 2).</think><answer><b>x</b></answer>", ["A (1, 2)."], "<b>x</b>"),
        ("<think>A (1, 2).</think><answer>x</answer><|im_end|>", ["A (1, 2)."], "x"),
    ],
)  # fmt: skip
def test_tags_as_models_write_them_lose_no_word(text, thoughts, answer):
    parsed = parse(text, PIXELS)
    assert [step.thought for step in parsed.steps] == thoughts and parsed.answer == answer
    assert kinds(parsed) == []
    assert parse(render(parsed.steps, parsed.answer, PIXELS), PIXELS).steps == parsed.steps


def test_spaces_that_are_named():
    assert named_space("normalized-1").kind is SpaceKind.NORMALIZED_1
    assert named_space("QWEN2.5-VL+JSON").dialect is Dialect.JSON
    with pytest.raises(ValueError, match="no coordinate space 'x'"):
        named_space("x")


def test_a_text_answer_has_no_mark():
    question = Question("any", "What?", ONE, AnswerKind.TEXT, answers=("(1, 2)",))
    trace = Trace(
        question.question_id, (Step("A (3, 4).", (Point(3, 4),)),), "(1, 2)", 1.0, "direct"
    )
    assert [mark.label for mark in marks_of(trace, question)] == ["1"]


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("It stands at (120, 340) feet away.", [(120, 340)]),
        ("It stands there, (120, 340) feet.", []),
        ("The walk ended (3, 200).", [(3, 200)]),
        ("The match ended (3, 2).", []),
        ("It is here (1900.5, 2000.5).", [(1900.5, 2000.5)]),
        ("It is here (1900, 2000).", []),
    ],
)
def test_numbers_decide_where_words_alone_do_not(text, cited):
    found = places(text, outside=lambda x, y, image: True)
    assert [(place.x, place.y) for place in found] == cited


def test_what_stands_around_a_pair_ends_at_the_next_one():
    first, second = find_pairs("See the cup (1, 2) by the lamp (3, 4) here. And more.")
    assert (first.before, first.after) == ("See the cup ", " by the lamp ")
    assert (second.before, second.after) == (" by the lamp ", " here.")

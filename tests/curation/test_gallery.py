"""The gallery and the cards: what is shown is what the trace says, no text becomes code."""

import asyncio
import hashlib
import io
import json
import re
from dataclasses import replace

import pytest
from PIL import Image as PILImage

from curation.filters.base import apply_filters
from curation.filters.rules import FILTERS
from curation.grading.grade import grade
from curation.render import gallery
from curation.render.gallery import GalleryTrace, GalleryTree, write_gallery
from curation.render.marks import (
    format_point,
    in_whole_pixels,
    marks_of,
    shown_answer,
    where_outside,
)
from curation.render.text_layout import drawable, font, wrap
from curation.render.trace_card import draw_points, draw_trace
from curation.traces.linearize import linearize
from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Step, Trace
from mcts.search import search
from tests.support.scripted import CONFIG, ScriptedPolicy, seeded_teacher

EVIL = "Left? </script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028"


def encoded(colour, size=(80, 60), kind="PNG"):
    file = io.BytesIO()
    PILImage.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def question_about(*images, text="Is the box left or right?"):
    named = [
        Image(hashlib.sha256(data).hexdigest(), *PILImage.open(io.BytesIO(data)).size)
        for data in images
    ]
    return Question(
        "sat2", text, tuple(named), AnswerKind.TEXT, ("left", "right"), ("left",), family="side"
    )


def traced(question, *points, answer="left", **more):
    steps = tuple(Step(f"A thing at ({p.x:g}, {p.y:g}).", (p,)) for p in points)
    reward = grade(question, answer).score
    return Trace(question.question_id, steps, answer, reward, more.pop("kind", "direct"), **more)


def entry(question, trace, *images):
    return GalleryTrace(question, trace, tuple(apply_filters(trace, question, FILTERS)), images)


def data(out, name):
    """What a data file hands to the page, read the way a script engine would."""
    text = (out / "data" / f"{name}.js").read_text("ascii")
    called, value = re.fullmatch(r'gallery\.take\("([\w-]+)",(.*)\);\n', text, re.DOTALL).groups()
    assert called == name
    return json.loads(value)


def searched(question):
    policy = ScriptedPolicy({}, seeded_teacher)
    return asyncio.run(search(question, replace(CONFIG, simulations=4), policy, grade, "a tree/.."))


RED, BLUE = encoded("red"), encoded("blue")


def test_no_text_from_outside_can_become_html(tmp_path):
    question = question_about(RED, text=EVIL)
    trace = traced(question, Point(10, 10), answer=EVIL)
    trace = replace(trace, steps=(Step(EVIL + "(10, 10)", (Point(10, 10),)),), kind=EVIL)
    tree = searched(replace(question, family=EVIL))
    tree.root.children[0].step = Step(EVIL)
    write_gallery(tmp_path, [entry(question, trace, RED)], [GalleryTree(tree, (RED,))], title=EVIL)
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "alert(1)" in text  # it is there, as text
        assert "<script>" not in text and "<img" not in text
        assert text.count("</script>") == text.count("<script defer src=") > 0
    for file in (tmp_path / "data").iterdir():
        assert not set("<>&\u2028") & set(file.read_text("ascii"))
    assert data(tmp_path, "traces-00000")[0]["q"] == EVIL
    for script in tmp_path.glob("assets/*.js"):  # and no script makes HTML of a text
        sinks = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|DOMParser|srcdoc"
        assert not re.search(sinks, script.read_text("utf-8"))


def test_pages_open_from_disk_with_relative_links_only(tmp_path):
    question = question_about(RED, BLUE)
    tree = searched(question)
    entries = [entry(question, trace, RED, BLUE) for trace in linearize(tree)]
    index = write_gallery(tmp_path, entries, [GalleryTree(tree, (RED, BLUE))])
    assert index == tmp_path / "index.html"
    pages = [index, *tmp_path.glob("trees/*.html")]
    assert len(pages) == 2
    for page in pages:
        links = re.findall(r'(?:src|href)="([^"]*)"', page.read_text("utf-8"))
        assert links
        for link in links:
            target = (page.parent / link.split("#")[0]).resolve()
            assert link == "data:," or (target.is_file() and target.is_relative_to(tmp_path))
        name = re.search(r'data-tree="([^"]*)"', page.read_text("utf-8"))
        assert (name is None) == (page == index) and (name is None or data(tmp_path, name[1]))
    everything = "".join(p.read_text("utf-8") for p in tmp_path.rglob("*.*s"))
    everything += "".join(page.read_text("utf-8") for page in pages)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|url\(", everything)
    shown = data(tmp_path, "traces-00000")[0]
    assert (tmp_path / shown["page"]).is_file()
    assert all((tmp_path / image["src"]).is_file() for image in shown["images"])


def test_every_image_is_written_once_and_read_back_unchanged(tmp_path):
    question, other = question_about(RED, BLUE), question_about(BLUE, text="And now?")
    entries = [entry(question, traced(question, Point(i, i)), RED, BLUE) for i in range(20)]
    entries += [entry(other, traced(other, Point(i, i)), BLUE) for i in range(20)]
    write_gallery(tmp_path, iter(entries))
    written = {path.stem: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert written == {hashlib.sha256(d).hexdigest(): d for d in (RED, BLUE)}


def test_an_image_browsers_cannot_show_is_converted_and_an_unreadable_one_is_reported(tmp_path):
    tiff = encoded("red", kind="TIFF")
    question = question_about(tiff, RED, BLUE)
    trace = traced(question, Point(1, 1))
    write_gallery(tmp_path, [entry(question, trace, tiff, b"no image")])
    first, second, third = data(tmp_path, "traces-00000")[0]["images"]
    assert PILImage.open(tmp_path / first["src"]).format == "PNG"
    assert second["src"] is None and third == {"src": None, "w": 80, "h": 60}
    assert PILImage.open(io.BytesIO(draw_trace(trace, question, [b"no image"]))).format == "PNG"


def test_numbers_match_steps_and_the_wrong_attempt_is_marked(tmp_path):
    question = question_about(RED, BLUE)
    points = [Point(10, 10), Point(20, 20), Point(30, 30, 1), Point(40, 40), Point(50, 50)]
    trace = traced(question, *points, kind="corrected", wrong_from=1, turns_back_at=3)
    trace = replace(trace, steps=(*trace.steps, Step("So it is left.")))
    write_gallery(tmp_path, [entry(question, trace, RED, BLUE)])
    steps = data(tmp_path, "traces-00000")[0]["steps"]
    assert [step["n"] for step in steps] == ["1", "2", "3", "4", "5", "6"]
    roles = ["shared", "wrong", "wrong", "turn", "step", "step"]
    assert [step["role"] for step in steps] == roles
    for step, point in zip(steps, points, strict=False):
        (mark,) = step["marks"]
        assert mark["n"] == step["n"] and mark["role"] == step["role"]
        assert (mark["image"], mark["x"], mark["y"]) == (
            point.image,
            pytest.approx(point.x / 80, abs=1e-5),
            pytest.approx(point.y / 60, abs=1e-5),
        )
    assert steps[5]["marks"] == []


def test_a_rejected_trace_shows_its_reason_and_which_filter_dropped_it(tmp_path):
    question = question_about(RED)
    kept, dropped = traced(question, Point(1, 1)), traced(question, Point(1, 1), answer="right")
    unjudged = GalleryTrace(question, replace(kept, kind="zoom"), (), (RED,))
    write_gallery(tmp_path, [entry(question, t, RED) for t in (kept, dropped)] + [unjudged])
    shown = data(tmp_path, "traces-00000")
    assert [trace["kept"] for trace in shown] == [True, False, None]
    reasons = [v["reason"] for v in shown[1]["verdicts"] if not v["keep"]]
    assert reasons == ["the answer is wrong"]
    index = data(tmp_path, "index")
    names = [[index["names"]["filter"][number] for number in row[3]] for row in index["rows"]]
    assert names == [[], ["right_answer"], []]
    assert [row[4] for row in index["rows"]] == [1, 0, None]


def test_a_point_outside_is_reported_and_never_moved_in(tmp_path):
    question = question_about(RED)
    points = (Point(10, 10), Point(500, 20), Point(-3, 20), Point(5, 5, 7), Point(float("inf"), 1))
    trace = traced(question, *points)
    write_gallery(tmp_path, [entry(question, trace, RED)])
    marks = [step["marks"][0] for step in data(tmp_path, "traces-00000")[0]["steps"]]
    assert marks[0]["out"] == ""
    assert marks[1]["out"] == "(500, 20) lies outside image 1 (80 by 60 pixels)"
    assert marks[1]["way"] == [1, 0] and marks[1]["badge"][0] > 0  # beyond the right edge
    assert marks[2]["way"] == [-1, 0] and marks[2]["badge"][0] < 0
    assert marks[3]["image"] is None and "image 8, which is not there" in marks[3]["out"]
    assert marks[4]["way"] == [1, 0]
    inside, outside = (draw_points(PILImage.open(io.BytesIO(RED)), points[:n]) for n in (1, 2))
    assert outside.width > inside.width  # a margin was added for it
    assert draw_trace(trace, question, [RED])


def test_an_empty_gallery_is_a_page_that_says_so(tmp_path):
    page = write_gallery(tmp_path / "new", []).read_text("utf-8")
    assert "Nothing to show yet" in page
    assert data(tmp_path / "new", "index")["rows"] == []
    full = write_gallery(tmp_path, [entry(q := question_about(RED), traced(q, Point(1, 1)), RED)])
    assert "Nothing to show yet" not in full.read_text("utf-8")


def test_thousands_are_streamed_in_files_of_a_hundred_and_an_old_gallery_is_replaced(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gallery, "CHUNK", 3)
    question = question_about(RED)
    entries = [entry(question, traced(question, Point(i, 1)), RED) for i in range(7)]
    mine = tmp_path / "data" / "mine.js"
    write_gallery(tmp_path, entries)
    mine.write_text("kept")
    ids = [t["id"] for k in range(3) for t in data(tmp_path, f"traces-{k:05}")]
    assert (
        ids
        == [e.trace.trace_id for e in entries]
        == [r[0] for r in data(tmp_path, "index")["rows"]]
    )
    write_gallery(tmp_path, entries[:3])
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "index.js", "mine.js", "traces-00000.js",
    ]  # fmt: skip


def test_a_tree_page_holds_every_node_with_its_numbers(tmp_path):
    question = question_about(RED)
    tree = searched(question)
    write_gallery(tmp_path, [], [GalleryTree(tree, (RED,))])
    (row,) = data(tmp_path, "index")["trees"]
    assert re.fullmatch(r"trees/[\w-]+\.html", row["page"])  # whatever a tree's id is
    nodes = {n["id"]: n for n in data(tmp_path, f"tree-{row['page'][6:-5]}")["nodes"]}
    assert len(nodes) == len(tree.nodes)
    for node in tree.nodes:
        shown = nodes[node.node_id]
        assert (shown["visits"], shown["value"]) == (node.visits, node.value)
        assert (shown["reward"], shown["discarded"]) == (node.reward, node.discarded)
        assert (shown["reason"], shown["problems"]) == (node.reason, list(node.problems))
        assert shown["parent"] == (node.parent.node_id if node.parent else None)
        assert len(shown["rollouts"]) == len(node.rollouts)
        for part, rollout in zip(shown["rollouts"], node.rollouts, strict=True):
            assert (part["id"], part["reward"]) == (rollout.rollout_id, rollout.reward)
            assert (part["answer"], part["answer_places"]) == (rollout.answer, [])
            steps = range(node.depth + 1, node.depth + 1 + len(rollout.steps))
            assert [step["n"] for step in part["steps"]] == [*map(str, steps)]
            assert all(m["n"] == step["n"] for step in part["steps"] for m in step["marks"])
        if node.step:
            assert shown["step"]["n"] == str(node.depth)
            assert shown["step"]["text"] == node.step.thought


def test_badges_of_a_tree_keep_off_those_of_the_steps_above():
    question = question_about(encoded("red", (480, 480)))
    tree = searched(question)
    at = (Point(240, 240),)
    chain = [tree.root.children[0]]
    chain[0].step = Step("Here (240, 240).", at)
    chain[0].rollouts = [
        replace(chain[0].rollouts[0], steps=(Step("And here (240, 240).", at),) * 3)
    ]
    (node,) = (n for n in gallery.shown_nodes(tree) if n["id"] == chain[0].node_id)
    shown = [node["step"], *node["rollouts"][0]["steps"]]
    assert [step["n"] for step in shown] == ["1", "2", "3", "4"]
    assert len({tuple(step["marks"][0]["badge"]) for step in shown}) == 4


def test_badges_keep_off_each_other_and_inside_the_image():
    question = question_about(encoded("red", (320, 320)))
    points = [Point(150 + 8 * i, 150) for i in range(4)] + [Point(319, 1), Point(1, 319)]
    marks = marks_of(traced(question, *points), question)
    at = [(1.5 * m.point.x + m.badge[0], 1.5 * m.point.y + m.badge[1]) for m in marks]
    for i, (x, y) in enumerate(at):
        assert 10 <= x <= 470 and 10 <= y <= 470
        assert all((x - u) ** 2 + (y - v) ** 2 >= 20**2 for u, v in at[:i])


@pytest.mark.parametrize(("y", "edge"), [(-5, 0), (400, 480)])
def test_badges_of_points_above_and_below_an_image_stand_side_by_side_beyond_the_edge(y, edge):
    question = question_about(encoded("red", (320, 320)))
    marks = marks_of(traced(question, *[Point(150 + i, y) for i in range(3)]), question)
    at = [(1.5 * m.point.x + m.badge[0], m.badge[1]) for m in marks]  # drawn at the edge
    for i, (x, beyond) in enumerate(at):
        assert beyond < 0 if edge == 0 else beyond > 0
        assert all(abs(x - other) >= 20 for other, _ in at[:i])


def test_a_drawn_point_is_where_it_says():
    drawn = draw_points(PILImage.new("RGB", (100, 50), "black"), [Point(25, 25)], side=400)
    assert drawn.size == (400, 200)
    lit = [(x, y) for x in range(400) for y in range(200) if drawn.getpixel((x, y)) != (0, 0, 0)]
    assert min(abs(x - 100) + abs(y - 100) for x, y in lit) == 0
    assert drawn.getpixel((300, 150)) == (0, 0, 0)
    second = draw_points(PILImage.new("RGB", (100, 50)), [Point(5, 5), Point(9, 9, 1)], 1, side=400)
    assert second.size == (400, 200) and second.getbbox()


def test_a_card_grows_with_its_text_and_takes_any_number_of_images():
    question = question_about(RED, BLUE)
    crop = Observation(Box(5, 5, 40, 40), 400, 400)
    trace = traced(question, Point(10, 10), Point(30, 30, 1))
    trace = replace(trace, steps=(replace(trace.steps[0], observation=crop), *trace.steps[1:]))
    sizes = []
    for words in ("", " x" * 3000, " " + "y" * 9000):
        steps = (*trace.steps, Step("A remark." + words + "\0"))
        card = draw_trace(replace(trace, steps=steps, reward=None), question, [RED, BLUE])
        sizes.append(PILImage.open(io.BytesIO(card)).size)
    assert len({width for width, _ in sizes}) == 1
    assert sizes[0][1] < sizes[1][1] < 4000 and sizes[2][1] < 4000
    assert draw_trace(trace, question, []) and draw_trace(replace(trace, steps=()), question, [RED])
    assert where_outside(Point(80, 60), question.images) == ""  # edges belong to the image


def test_a_card_draws_no_empty_boxes_and_breaks_no_coordinate():
    said = drawable("café – 3 × 4\u00a0→ “ja”, \0\ud800 中")
    assert said == "cafe - 3 x 4 -> “ja”, ?? ?"
    for width in range(120, 400, 20):
        lines = wrap("Look at the thing at (190.4, 178.88), then on.", 20, width)
        assert any("(190.4, 178.88)" in line for line in lines) or width < 150
        assert all(font(20).getlength(line) <= width for line in lines)


def test_people_read_points_in_whole_pixels_and_the_stored_text_stays_exact(tmp_path):
    assert format_point(Point(82.4, 40.6)) == "(82, 41)"
    assert format_point(Point(-0.2, 3, 1)) == "(0, 3) in image 2"
    text = "A cup (82.456, 40.6) in image 2, and 1.5 lamps (-0.2, 7)."
    assert in_whole_pixels(text) == "A cup (82, 41) in image 2, and 1.5 lamps (0, 7)."
    outside = where_outside(Point(480.2, -0.3), (Image("a" * 64, 480, 360),))
    assert outside == "(481, -1) lies outside image 1 (480 by 360 pixels)", "and not on its edge"
    question = replace(question_about(RED), answer_kind=AnswerKind.POINT)
    exact = traced(question, Point(8.26, 9.5), answer="(3.7, 4)")
    write_gallery(tmp_path, [entry(question, exact, RED)])
    (shown,) = data(tmp_path, "traces-00000")
    assert shown["steps"][0]["text"] == "A thing at (8.26, 9.5)."
    rounded = replace(exact, steps=(Step("A thing at (8, 10).", exact.points),), answer="(4, 4)")
    drawn = [PILImage.open(io.BytesIO(draw_trace(t, question, []))) for t in (exact, rounded)]
    assert drawn[0].tobytes() == drawn[1].tobytes()


def test_decimals_that_are_no_place_stay_as_written_for_people_too(tmp_path):
    question = question_about(RED)
    step = Step(
        "\U0001f6cb A share (0.62, 0.71) reads (2.5, 3.5), a sofa at (8.26, 9.5).",
        (Point(8.26, 9.5),),
    )
    trace = replace(traced(question, Point(8, 9), answer="(0.25, 0.75)"), steps=(step,))
    write_gallery(tmp_path, [entry(question, trace, RED)])
    (shown,) = data(tmp_path, "traces-00000")
    written = shown["steps"][0]["text"].encode("utf-16-le")
    cited = [written[2 * a : 2 * b].decode("utf-16-le") for a, b in shown["steps"][0]["places"]]
    assert cited == ["(8.26, 9.5)"] and shown["answer_places"] == []
    assert in_whole_pixels(step.thought, step.points) == step.thought.replace("8.26, 9.5", "8, 10")
    assert shown_answer(trace.answer, question) == "(0.25, 0.75)"
    pointing = replace(question, answer_kind=AnswerKind.POINT)
    assert shown_answer("(0.25, 0.75) or (3.7, 4)", pointing) == "(0.25, 0.75) or (4, 4)"

"""What an answer is worth, what the figures say, and that evaluations go on where they stopped."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcts.data import AnswerKind, Image, Question
from tests.mcts.test_local import make_checkpoint, picture
from vigorl_nano.evaluation import asking
from vigorl_nano.evaluation.asking import Asking, read, work
from vigorl_nano.evaluation.figures import Asked, clusters, measure, shares
from vigorl_nano.evaluation.headroom import blind_sentence, markdown, report, side_by_side
from vigorl_nano.evaluation.items import Item, Verdict, blank, judge, load_items, messages, pick

SQUARES = (Image("a" * 64, 400, 400), Image("b" * 64, 400, 400))
QUESTION = Question(
    "sat2", "Which has moved?", SQUARES, AnswerKind.TEXT, ("red box", "blue ball"), ("red box",),
    family="object_moved",
)  # fmt: skip
BOXES = (
    {"red box": (40.0, 40.0, 80.0, 80.0), "blue ball": (200.0, 200.0, 240.0, 240.0)},
    {"red box": (120.0, 40.0, 160.0, 80.0), "blue ball": (200.0, 200.0, 240.0, 240.0)},
)
# Thousandths: the red box's middle is (150, 150) in the first picture, (350, 150) in the second.
BEFORE = "<think>Before, the red box is at (150, 150) in image 1.</think>\n"
AFTER = "<think>After, the red box is at (350, 150) in image 2.</think>\n"
BALL = "<think>There is also a blue ball at (540, 560).</think>\n"
RIGHT = "<answer>red box</answer>"


def test_a_right_answer_with_every_point_on_its_object_is_grounded_and_formed():
    verdict = judge(QUESTION, BOXES, BEFORE + AFTER + BALL + RIGHT)
    assert verdict.right and verdict.grounded and verdict.formed and verdict.choice == 0
    assert (verdict.steps, verdict.hits, len(verdict.errors)) == (3, 3, 3)
    assert verdict.errors[0] == 0.0
    assert verdict.errors[2] == pytest.approx(np.hypot(4, 4) / 400)


@pytest.mark.parametrize(
    ("text", "right", "formed"),
    [
        (BEFORE + AFTER + BALL + "<answer>blue ball</answer>", False, True),
        (BEFORE + AFTER + BALL.replace("540", "700") + RIGHT, True, True),  # beside the ball
        (BEFORE + AFTER.replace("image 2", "image 1") + BALL + RIGHT, True, True),  # wrong picture
        (BEFORE + AFTER + BALL.replace("ball", "box") + RIGHT, True, True),  # not in the picture
        (BEFORE + AFTER + BALL.replace("a blue ball", "it") + RIGHT, True, True),  # names nothing
        (BEFORE + AFTER + BALL + "<think>So it is the red box.</think>" + RIGHT, True, False),
        (RIGHT, True, False),
        (BEFORE + AFTER.replace("image 2", "image 3") + BALL + RIGHT, True, False),
        (BEFORE + AFTER + BALL, False, False),
    ],
)
def test_what_is_not_grounded(text, right, formed):
    verdict = judge(QUESTION, BOXES, text)
    assert not verdict.grounded
    assert (verdict.right, verdict.formed) == (right, formed)


def test_two_pointed_steps_are_grounded_but_fewer_than_asked():
    verdict = judge(QUESTION, BOXES, BEFORE + AFTER + RIGHT)
    assert verdict.grounded and not verdict.formed


def test_an_answer_that_names_no_option_is_wrong_and_told_apart():
    verdict = judge(QUESTION, BOXES, BEFORE + AFTER + BALL + "<answer>the lamp</answer>")
    assert (verdict.right, verdict.choice, verdict.formed) == (False, -1, False)


def test_items_are_read_with_the_boxes_of_their_own_pictures(tmp_path):
    red, wide = picture("red"), picture("green", (128, 64))
    names = [hashlib.sha256(data).hexdigest() for data in (red, wide)]
    rows = [
        {
            "images": [{"bytes": data, "path": "x.png"} for data in some],
            "question": "Where?", "answers": ["left", "right"], "correct_answer": "right",
            "question_type": "left_right",
        }
        for some in ([red], [wide, red])
    ]  # fmt: skip
    truth = [
        {"image_sha256": name, "objects": [{"label": label, "x1": 1.0, "y1": 2.0, "x2": 3.0,
         "y2": 4.0, "depth": 1.5}]}
        for name, label in zip(names, ("red box", "blue ball"), strict=True)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "some.parquet")
    pq.write_table(pa.Table.from_pylist(truth), tmp_path / "some.objects.parquet")
    one, two = load_items(tmp_path / "some.parquet")
    assert one.boxes == ({"red box": (1.0, 2.0, 3.0, 4.0)},)
    assert [list(boxes) for boxes in two.boxes] == [["blue ball"], ["red box"]]
    assert [(i.image_id, i.width, i.height) for i in two.question.images] == [
        (names[1], 128, 64),
        (names[0], 64, 64),
    ]
    assert list(two.images.values()) == [wide, red]
    text = messages(two)[0].text
    assert text == "Where? Choices: left or right.\nThink in at least 3 steps."
    assert two.question.answers == ("right",) and two.question.family == "left_right"


def test_a_blank_picture_is_another_picture_of_the_same_size():
    item = Item(QUESTION, {SQUARES[0].image_id: b"", SQUARES[1].image_id: b""}, BOXES)
    grey = blank(item)
    (name,) = grey.images  # one grey picture serves both places
    assert [i.image_id for i in grey.question.images] == [name, name]
    assert name not in item.images and grey.question.images[0].width == 400


def test_any_beginning_of_a_pick_is_spread_over_the_families():
    items = [
        Item(replace(QUESTION, family=family, text=str(n)), {}, BOXES)
        for family, count in (("a", 30), ("b", 9), ("c", 9))
        for n in range(count)
    ]
    for limit in (3, 12, 27):
        families = [item.question.family for item in pick(items, limit)]
        assert {families.count(f) for f in "abc"} == {limit // 3}
    assert len(pick(items, 0)) == 48 and pick(items, 12) == pick(items, 0)[:12]


def verdict(choice: int, grounded: bool = False, gold: int = 0) -> Verdict:
    return Verdict(choice == gold, choice, grounded, True, 2, 1, (0.1,))


def asked(*seen: Verdict, images: tuple[str, ...] = ("x",), options: int = 2) -> Asked:
    return Asked("count", images, options, 0, seen, [verdict(0), verdict(1)])


def test_shares_of_a_question():
    found = shares(asked(verdict(0, True), verdict(0), verdict(1), verdict(-1), options=3))
    shown = {name: part[0] / part[1] for name, part in found.items()}
    assert shown["pass@1"] == 0.5 and shown["pass@n"] == 1.0 and shown["majority"] == 1.0
    assert shown["grounded pass@1"] == 0.25 and shown["grounded pass@n"] == 1.0
    assert shown["grounded majority"] == 0.5  # of the two that won the vote one is grounded
    assert shown["chance"] == pytest.approx(1 / 3) and shown["no option"] == 0.25
    assert shown["blank - chance"] == pytest.approx(0.5 - 1 / 3)
    assert shown["on object"] == 0.5


def test_a_tied_vote_is_shared_and_no_option_never_wins_one():
    assert shares(asked(verdict(0), verdict(1)))["majority"][0] == 0.5
    assert shares(asked(verdict(0), verdict(-1), verdict(-1)))["majority"][0] == 1.0
    assert shares(asked(verdict(-1)))["majority"][0] == 0.0
    assert shares(asked(verdict(1), verdict(1), verdict(0)))["majority"][0] == 0.0


def test_questions_that_share_a_picture_are_resampled_together():
    assert clusters([["a"], ["b", "c"], ["c", "d"], ["a", "d"], ["e"]]) == [0, 0, 0, 0, 1]
    rng = np.random.default_rng(0)
    luck = rng.integers(2, size=40)
    spread = [asked(verdict(int(v)), images=(f"{i}-{n}",)) for i, v in enumerate(luck)
              for n in range(9)]  # fmt: skip
    shared = [replace(one, images=(one.images[0].split("-")[0],)) for one in spread]
    wide, narrow = (measure(some)["all"]["pass@1"] for some in (shared, spread))
    assert wide.value == narrow.value == pytest.approx(1 - luck.mean())
    assert 2.5 < (wide.high - wide.low) / (narrow.high - narrow.low) < 3.5  # the root of 9


def test_blind_guessing_is_within_the_margin_only_when_the_interval_is():
    def blind(right: int, of: int) -> str:
        some = [
            replace(asked(verdict(0), images=(str(i),)), blind=[verdict(int(i % of >= right))])
            for i in range(3000)
        ]
        return blind_sentence(measure(some)["all"])

    assert "+0.0 points" in blind(1, 2) and "which lies within ±3" in blind(1, 2)
    assert "does not lie" in blind(11, 20)  # five points above chance


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch) -> Asking:
    """A tiny random checkpoint and six questions; one worker, in this process, for speed."""
    make_checkpoint(tmp_path / "tiny")
    images = {SQUARES[0].image_id: picture("red"), SQUARES[1].image_id: picture("blue")}
    items = [
        Item(replace(QUESTION, text=f"?{n}", images=tuple(replace(i, width=64, height=64)
             for i in SQUARES)), images, BOXES)
        for n in range(6)
    ]  # fmt: skip
    monkeypatch.setattr(Asking, "items", lambda self: items[: self.limit or None])
    monkeypatch.setattr(asking, "WORKERS", 1)
    monkeypatch.setattr(asking, "MAX_TOKENS", 12)

    def run(wanted: Asking, missing: int, progress: object) -> None:
        work(wanted, 0)

    monkeypatch.setattr(asking, "_run", run)
    return Asking(tmp_path / "tiny", tmp_path / "none.parquet", 0, 3, tmp_path / "runs")


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(wanted):
    whole = asking.ask(wanted)
    assert len(whole) == 12 and all(len(texts) == 3 for texts in whole.values())
    assert len({tuple(texts) for texts in whole.values()}) > 6
    (path,) = wanted.kept_in.glob("*.jsonl")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:5]) + b"\n" + lines[5][:40])  # killed in mid-line
    before = read(wanted)
    assert len(before) == 4
    assert asking.ask(wanted) == whole
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.endswith(b"}")]
    assert len(rows) == 12  # nothing was asked twice


def test_fewer_questions_or_samples_use_what_is_kept(wanted, monkeypatch):
    whole = asking.ask(wanted)
    monkeypatch.setattr(asking, "_run", None)  # calling it would fail
    fewer = asking.ask(replace(wanted, limit=2, samples=2))
    assert len(fewer) == 4
    assert all(texts == whole[key][:2] for key, texts in fewer.items())


def test_another_checkpoint_or_setting_is_asked_anew(wanted, monkeypatch):
    asking.ask(replace(wanted, limit=1))
    monkeypatch.setattr(asking, "MAX_TOKENS", 13)
    assert read(wanted) == {}
    monkeypatch.setattr(asking, "MAX_TOKENS", 12)
    assert len(read(wanted)) == 2
    template = wanted.folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert read(wanted) == {}


def test_the_report_has_a_row_for_all_and_each_family(wanted):
    found = report(wanted)
    text = markdown(found)
    assert found.questions == {"all": 6, "object_moved": 6} and found.scenes == 1
    assert "pass@3" in text and "| object_moved |" in text and "90% interval" in text
    json.dumps(found.plain())
    both = side_by_side([found, replace(found, checkpoint="other@1")]).splitlines()
    names = [head.strip() for head in both[0].split("|")[2:4]]
    assert names == [found.checkpoint.split("@")[0], "other"]
    (row,) = (line for line in both if line.startswith("| object_moved"))
    figures = [figure.strip() for figure in row.split("|")[3:7]]
    assert figures[:2] == figures[2:] and all(figures)

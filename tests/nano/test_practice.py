"""What the claim's student practises apart: pointing, reading given steps, thinking in words."""

import re
import sys

import numpy as np
import pytest
import yaml

from tests.nano.test_models import ONE, TAKE, TWO, example
from vigorl_nano import READER
from vigorl_nano.claims.points.plan import FAMILIES as CLAIM_FAMILIES
from vigorl_nano.claims.points.plan import PLACES
from vigorl_nano.pretraining import pool, reading
from vigorl_nano.pretraining.batches import make_replies
from vigorl_nano.pretraining.config import CELLS, LOOK_HEADS
from vigorl_nano.pretraining.data import IMAGE, LINES, PRACTICE, make_example
from vigorl_nano.pretraining.encode import Encoder
from vigorl_nano.pretraining.pretrain import RECIPES
from vigorl_nano.pretraining.reading import FAMILIES, HELD_OUT, read_off, render_table
from vigorl_nano.pretraining.tokenizer import build_tokenizer

POINTED = re.compile(r"(\w+ \w+) at \((\d+), (\d+)\)")


@pytest.fixture(scope="module")
def encoder():
    return Encoder(build_tokenizer())


def decoded(encoder, ids):
    return encoder.tokenizer.decode(ids)


@pytest.mark.parametrize("question", [ONE, TWO])
def test_given_steps_are_read_and_only_the_answer_is_learnt(encoder, question):
    made = example(question, "reading")
    row = encoder(made)
    prompt, _, steps = made.prompt.partition("<|im_start|>assistant\n")
    assert prompt == example(question, "grounded").prompt.partition("<|im_start|>assistant\n")[0]
    pointed = [POINTED.search(step).groups() for step in steps.splitlines()]
    for (name, image), (named, x, y) in zip(question["about"], pointed, strict=False):
        there = {o.name: o for o in TAKE["frames"][question["frames"][image]]["objects"]}[name]
        assert (named, int(x), int(y)) == (name, *(round(1000 * v) for v in there.centre))
    assert len(pointed) >= len(question["about"])
    assert made.reply == f"<answer>{question['answer']}</answer><|im_end|>"
    learned = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight]
    assert decoded(encoder, learned) == made.reply
    assert not row.looks and not row.names


def test_what_was_asked_about_is_not_given_away_by_how_a_step_begins():
    def first(mode, seed):
        made = example(ONE, mode, seed=seed)
        return (made.prompt + made.reply).partition("<think>")[2].partition("</think>")[0]

    also = [
        sum("also" in first(mode, seed) for seed in range(60)) for mode in ("grounded", "reading")
    ]
    assert also[0] == 0 and 5 < also[1] < 30, "only steps that are given"


def test_whether_a_thing_is_there_is_read_from_the_names(encoder):
    text = "Is there a red box or a blue ball?"
    question = {**ONE, "family": "exists", "text": text, "answer": "yes", "options": ["yes", "no"]}
    row = encoder(example(question, "reading"))
    seen = [decoded(encoder, row.ids[a : b + 1]).strip() for _, _, a, b in row.evidence]
    assert seen[:2] == ["red box", "blue ball"] and len(seen) == LOOK_HEADS


def test_an_answer_that_is_read_looks_at_the_numbers_that_decide_it(encoder):
    row = encoder(example(ONE, "reading"))
    heads = [head for head, *_ in row.evidence]
    assert heads == list(range(LOOK_HEADS))
    first = {decoded(encoder, row.ids[a : b + 1]).strip(" ,") for _, _, a, b in row.evidence[:2]}
    assert first == {"412", "700"}
    assert {row.ids[at] for _, at, _, _ in row.evidence} == {encoder.answer}


def test_pointing_says_where_each_thing_is_in_the_order_asked(encoder):
    for seed in range(8):
        made = make_example(np.random.default_rng(seed), TAKE, TWO, "pointing")
        assert made.prompt.count(IMAGE) == 2 and "<answer>" not in made.reply
        names = made.prompt.partition("Point at ")[2].partition(".")[0].split(", ")
        lines = made.reply.removesuffix("<|im_end|>").splitlines()
        assert len(lines) == len(names) == len(made.spots)
        for name, line, spot in zip(names, lines, made.spots, strict=True):
            thing, _, image = name.removeprefix("the ").partition(" in ")
            assert thing in line and image in line
            assert f"({round(spot.x * 1000)}, {round(spot.y * 1000)})" in line
        row = encoder(made)
        pads = [i for i, token in enumerate(row.ids) if token == encoder.image]
        cells = [pads.index(to) % (CELLS * CELLS) for _, to in row.names]
        assert cells == [int(s.y * CELLS) * CELLS + int(s.x * CELLS) for s in made.spots]


def test_asked_to_think_the_student_thinks_in_words():
    made, twin = example(ONE, "thinking", seed=3), example(ONE, "ungrounded", seed=3)
    assert made.reply == twin.reply and " at (" not in made.reply and not made.spots
    line = made.prompt.splitlines()[2]
    assert line.startswith(LINES["grounded"].partition("{")[0]) and "no points" not in line


@pytest.mark.parametrize("mode", PRACTICE)
def test_what_is_practised_is_never_made_up_and_only_readers_miss_their_images(encoder, mode):
    class Shown:
        takes, starts = [TAKE] * 40, [0] * 40

    plan = {
        "questions": 1,
        "families": {},
        "blind": 1.0,
        "hidden": 0.5,
        "response_modes": {mode: 1.0},
    }
    groups = make_replies(np.random.default_rng(0), Shown, encoder, plan)
    rows = [row for group in groups for row, _ in group]
    hidden = sum(row.blind for row in rows)
    assert len(rows) == 40
    assert 10 < hidden < 30 if mode == "reading" else hidden == 0
    # What is made up has no attention drawn to it.
    assert all(row.evidence if mode == "reading" else not row.evidence for row in rows)
    assert all(row.looks if mode == "pointing" else not row.looks for row in rows)


def test_families_that_are_only_read_are_never_thought_about(encoder):
    class Shown:
        takes, starts = [{**TAKE, "questions": [ONE]}] * 20, [0] * 20

    plan = {"questions": 1, "families": {}, "blind": 0.0, "hidden": 1.0}
    for only in (["left_right"], []):
        given = {**plan, "reading_only": only, "response_modes": {"thinking": 1.0}}
        (rows,) = make_replies(np.random.default_rng(0), Shown, encoder, given)
        texts = [decoded(encoder, [t for t, w in zip(r.ids, r.weights, strict=True) if w])
                for r, _ in rows]  # fmt: skip
        assert all("<answer>left</answer>" in text for text in texts)
        assert all(("<think>" in text) == (not only) for text in texts)
        assert all(row.blind == bool(only) for row, _ in rows)


def test_the_reader_and_the_claim_mean_the_same_families():
    families = yaml.safe_load((RECIPES / "reader.yaml").read_text())["finetune"]["reading_only"]
    assert set(families) == set(PLACES) and set(FAMILIES) == set(CLAIM_FAMILIES)


def test_reading_is_measured_with_the_image_and_with_a_grey_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool, "TAKES_PER_SHARD", 2)
    pool.make_shard(tmp_path, HELD_OUT)
    found = read_off(READER, tmp_path, 2)
    counts = {
        hidden: sum(len(v) for (_, h), v in found.items() if h == hidden) for hidden in (0, 1)
    }
    assert counts[False] == counts[True] > 4
    right = [r for rights in found.values() for r in rights]
    assert sum(right) / len(right) > 0.6, "it reads far better than chance"
    head, _, *rows = render_table({"nano-reader": found})
    assert head == "| family | questions | nano-reader | nano-reader, grey |"
    assert len(rows) == len(FAMILIES) + 1 and rows[-1].startswith(f"| all | {counts[False]} |")

    monkeypatch.setattr(reading, "read_off", lambda folder, *_: {READER: found}[folder])
    monkeypatch.setattr(sys, "argv", ["reading", "--pool", str(tmp_path)])
    reading.main()
    assert capsys.readouterr().out.splitlines() == render_table({"nano-reader": found})
    monkeypatch.setattr(sys, "argv", ["reading", "nobody"])
    with pytest.raises(SystemExit, match="2"):
        reading.main()
    assert "nobody is none of nano, " in capsys.readouterr().err

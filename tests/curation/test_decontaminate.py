"""Evaluation questions in the training data, the split by image, personal data: each by rule."""

import random
import re
from dataclasses import replace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.filters import image_hash
from curation.filters.base import Context
from curation.filters.content import _RULES, SIGNS, NoPersonalData, personal_data
from curation.filters.decontaminate import DEFAULT, ComparedQuestion, compare
from curation.filters.split import SplitPlace, assign_places, split_of
from mcts.data import Step, Trace
from tests.support.scripted import QUESTION
from warehouse.query.dedup_inputs import compared_questions, perceptual_hashes
from warehouse.query.run_query import connect
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse

LONG = (
    "From where the person in the yellow coat stands which of the two lamps is closer to the door"
)


def question(name, text="?", *images, split="train", task="sat2"):
    return ComparedQuestion(name, task, split, text, images or (f"image of {name}",))


def ways(training, evaluation, hashes=None):
    found = compare(training, evaluation, hashes or {}).contaminated
    return {name: [(m.question_id, m.way) for m in matches] for name, matches in found.items()}


# ---- decontamination ------------------------------------------------------------------------


def test_an_evaluation_set_is_all_but_train_and_all_of_a_benchmark():
    assert not question("a").evaluates
    assert question("a", split="validation").evaluates and question("a", split="").evaluates
    assert question("a", task="screenspot-pro").evaluates
    assert question("a", split="test").set_name == "sat2/test"


def test_a_shared_image_is_found_whichever_image_of_the_question_it_is():
    held = [question("e", "Which?", "x", "y", split="test")]
    clean = question("b", "What?", "z")
    (match,) = compare([question("a", "What?", "z", "y"), clean], held, {}).contaminated["a"]
    assert (match.question_id, match.set_name, match.way) == ("e", "sat2/test", "same_image")
    assert (
        "image y" in match.reason and "question e of the evaluation set sat2/test" in match.reason
    )


def test_an_image_that_looks_alike_is_found_and_another_is_not():
    held = [
        question("e1", "Which?", "x", split="test"),
        question("e2", "Which?", "w", split="test"),
    ]
    hashes = {"x": 0b1111, "w": 0, "near": 0b0111, "far": 2**40 - 1, "blank": None}
    training = [question(name, "What?", name) for name in ("near", "far", "blank", "lost")]
    found = compare(training, held, hashes).contaminated
    assert list(found) == ["near"]
    (match,) = found["near"]
    assert (match.question_id, match.way, match.closeness) == ("e1", "similar_image", 63 / 64)
    assert "image x of question e1" in match.reason and "(1 of 64 bits differ)" in match.reason
    assert image_hash.SIMILAR_BITS < 40


def test_words_are_compared_without_case_and_punctuation_and_in_part():
    held = [question("e", LONG, split="test")]
    same = LONG.upper().replace("COAT", "coat,") + "?!"
    part = "Tell me: " + LONG.removeprefix("From where the ")
    training = [question("same", same), question("part", part), question("not", LONG[40:60])]
    assert ways(training, held) == {"same": [("e", "same_words")], "part": [("e", "same_words")]}
    (match,) = compare(training, held, {}).contaminated["part"]
    assert match.closeness == pytest.approx(9 / 12) and "75% of the 8-word runs" in match.reason


def test_a_template_about_another_picture_is_told_of_and_counts_for_nothing():
    text = "Looking at it from here is the thing left of lamp {} or on the other side of it"
    held = [question(f"e{i}", text.format(i), split="test") for i in range(9)]
    alike = [question(f"t{i}", text.format(i)) for i in range(9)]
    found = compare(alike, held, {})
    assert found.contaminated == {} and len(found.words_alone) == 9
    match = found.words_alone["t3"]
    assert (match.question_id, match.way) == ("e3", "words_alone")
    assert match.reason.endswith(
        "question e3 of the evaluation set sat2/test, about another picture"
    )
    short = [question("e", "How many chairs?", split="test")]
    found = compare([question("t", "How many chairs?")], short, {})
    assert found.contaminated == {} and list(found.words_alone) == ["t"]


def test_a_template_about_an_akin_image_counts():
    held = [question("e", "How many chairs?", "x", split="test")]
    hashes = {
        "x": 0,
        "akin": 2**DEFAULT.max_akin_bits - 1,
        "other": 2 ** (DEFAULT.max_akin_bits + 1) - 1,
        "blank": None,
    }
    training = [question(name, "How many chairs?", name) for name in ("akin", "other", "blank")]
    found = compare(training, held, hashes)
    assert [(i, m.way) for i, (m,) in found.contaminated.items()] == [("akin", "same_words")]
    assert found.contaminated["akin"][0].reason.endswith("whose image is akin to its own")
    assert list(found.words_alone) == ["blank", "other"]


def test_words_are_a_questions_own_however_often_its_picture_is_asked_about():
    # With the options in other orders.
    held = [question(f"e{i}", LONG, "x", split="test") for i in range(6)]
    assert ways([question("t", LONG)], held) == {"t": [("e0", "same_words")]}
    held = [question(f"e{i}", LONG, split="test") for i in range(6)]  # about six images: a template
    assert ways([question("t", LONG)], held) == {}


def test_the_questions_of_the_embedded_sample_share_templates_and_nothing_else(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    import_sample(warehouse, "sat2")
    with connect(warehouse, names=["questions"]) as con:
        every = [one for some in compared_questions(con) for one in some]
    hashes = perceptual_hashes(warehouse, {i for one in every for i in one.image_ids})
    training = [one for one in every if not one.evaluates]
    held = [one for one in every if one.evaluates]
    assert (len(training), len(held)) == (180, 240 + 480)
    assert {one.text for one in training} & {one.text for one in held}
    found = compare(training, held, hashes)
    assert found.contaminated == {} and len(found.words_alone) > 40


def test_the_strongest_way_comes_first_and_order_plays_no_part():
    held = [question("e1", LONG, "x", split="test"), question("e2", LONG, "x", split="validation")]
    training = [question("a", LONG, "x"), question("b", LONG, "y")]
    hashes = {"x": 7, "y": 3}
    expected = {
        "a": [("e1", "same_image"), ("e1", "same_words")],
        "b": [("e1", "similar_image"), ("e1", "same_words")],
    }
    for _ in range(4):
        random.shuffle(held)
        random.shuffle(training)
        assert ways(training, held, hashes) == expected


# ---- the split by image -------------------------------------------------------------------


def test_pictures_of_one_question_and_alike_ones_are_on_one_side_in_any_order():
    together = [["a", "b"], ["b", "c"], ["d"], ["e", "f"], ["g", "f"]]
    places = assign_places(together, {})
    assert places["a"] == places["b"] == places["c"] and places["e"] == places["f"] == places["g"]
    assert len({place.group for place in places.values()}) == 3
    random.shuffle(together)
    assert assign_places([list(reversed(some)) for some in together], {}) == places


def test_a_share_of_the_groups_is_validation_and_a_smaller_share_is_part_of_it():
    places = assign_places([[f"image {i}"] for i in range(4000)], {})
    counts = {
        s: {i for i, p in places.items() if split_of(p.at, s) == "validation"} for s in (0.05, 0.1)
    }
    assert 320 < len(counts[0.1]) < 480
    assert counts[0.05] < counts[0.1]
    assert all(0 <= place.at < 1 for place in places.values())


def test_growing_moves_nothing_that_was_placed():
    known: dict[str, SplitPlace] = {}
    rng = random.Random(0)
    for _ in range(20):  # alone, or beside one that is there, named before it or after it
        new = [f"{rng.getrandbits(32):08x}" for _ in range(30)]
        old = list(known) or new
        some = [[i, rng.choice(old)] if rng.random() < 0.3 else [i] for i in new]
        grown = assign_places(some, known)
        joined = {i: {grown[j].group for j in pair} for pair in some for i in pair}
        assert all(len(groups) == 1 for groups in joined.values())
        assert all(grown[i].at == place.at for i, place in known.items())
        known = grown


def test_groups_that_are_joined_go_to_the_training_side():
    known = {"a": SplitPlace("a", 0.05), "b": SplitPlace("b", 0.7), "c": SplitPlace("c", 0.2)}
    grown = assign_places([["new", "a"], ["new", "b"]], known)
    assert {grown[i] for i in ("a", "b", "new")} == {SplitPlace("a", 0.7)}
    assert grown["c"] == known["c"]
    assert [split_of(grown[i].at) for i in ("a", "b")] == ["train", "train"]


# ---- personal data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The form shows jane.doe+news@mail.acme.co.uk in its field.", "an e-mail address"),
        ("Write to max_m@uni-bonn.de!", "an e-mail address"),
        ("call +49 30 901820 today", "a telephone number"),
        ("call +1 (212) 736-5000", "a telephone number"),
        ("call +352 12345", "a telephone number"),
        ("the sign says (212) 736-5000", "a telephone number"),
        ("212-736-5000.", "a telephone number"),
        ("Card 4111 1111 1111 1111 is shown", "a card number"),
        ("5500-0000-0000-0004", "a card number"),
        ("378282246310005", "a card number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "an IBAN"),
        ("GB82WEST12345698765432", "an IBAN"),
        ("NO93 8601 1117 947", "an IBAN"),
    ],
)
def test_personal_data_is_found(text, kind):
    assert [found for found, _ in personal_data(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "The lamp at (555, 1234) is left of (212, 736).",
        "(212, 736), (500, 0)",
        "It spans (100, 200) to (300, 400) in image 2.",
        "[123.456.7890, 5]",
        "Published 2026-11-24 12:30:00, version 1.22.333.4444",
        "Order 4111 1111 1111 1112 is no card: its check digit is wrong.",
        "0000 0000 0000 0000",
        "1234567890123456789012345678901234567890",
        "DE89 3704 0044 0532 0130 01 fails the check",
        "the file logo@2x.png and the handle @someone",
        "you@example.com, a@b.example, me@site.test",
        "555-0123 and (212) 555-0123 are fiction",
        "The price is 1,299.00; 10-20-30; 100+200+300",
        "A 3 x 3 grid: 111-222-3333",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text):
    assert list(personal_data(text)) == []


@settings(deadline=None)
@given(st.one_of([st.from_regex(pattern) for _, pattern, _ in _RULES]))
def test_whatever_a_rule_can_find_has_a_sign(text):
    assert re.search(SIGNS, text)
    assert not text.isascii() or duckdb.execute(
        "SELECT regexp_matches($1, $2)", [text, SIGNS]
    ).fetchone() == (True,)


def test_ordinary_texts_have_no_sign():
    texts = ["The lamp at (555, 1234) is left of (212.5, 736).", "In image 2 (3, 4), 100-200-300."]
    assert not any(re.search(SIGNS, text) for text in texts)


def test_the_reason_says_where_and_never_repeats_the_datum():
    steps = (Step("A cup (3, 4)."), Step("The note says jane@acme.org (5, 6)."))
    trace = Trace(QUESTION.question_id, steps, "left", 1.0, "direct")
    verdict = NoPersonalData().apply(trace, QUESTION, Context())
    assert (verdict.filter, verdict.keep, verdict.score) == ("no_personal_data", False, 1.0)
    assert verdict.reason == "step 2 holds an e-mail address"
    choices = replace(QUESTION, choices=("max@uni-bonn.de", "left"), answers=("jane@acme.org",))
    asked = NoPersonalData().apply(replace(trace, steps=steps[:1]), choices, Context())
    assert (asked.reason, asked.score) == ("choice 1 holds an e-mail address", 2.0)
    harmless = Trace("q", steps[:1], "left", 1, "direct")
    assert NoPersonalData().apply(harmless, QUESTION, Context()).keep

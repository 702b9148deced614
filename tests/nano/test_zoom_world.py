"""The world of signs: what is asked can be answered from crops, and only from crops."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.traces.linearize import TURNING_BACK
from mcts.coordinates import smart_resize
from mcts.data import Image as StoredImage
from mcts.data import Observation, Point, ZoomCall
from mcts.zoom.lenses import Lens
from mcts.zoom.render import render_crop
from vigorl_nano import ZOOM
from vigorl_nano.pretraining.config import SIDE
from vigorl_nano.pretraining.export import LEAST_PIXELS, MOST_PIXELS
from vigorl_nano.zoom_world import batches, sample, tiles
from vigorl_nano.zoom_world.demonstrations import (
    CROP_SHARE,
    Example,
    Policy,
    demonstrate,
    shown_at,
)
from vigorl_nano.zoom_world.draw import WHOLE, Region, draw
from vigorl_nano.zoom_world.neighbours import MOVED, demonstrate_neighbour, places_beside
from vigorl_nano.zoom_world.scene import (
    CLICK_KINDS,
    KINDS,
    MARKS,
    NUMBERS,
    SIDES,
    Question,
    Scene,
    ask,
    make_scene,
)
from warehouse.sources.tasks import SAMPLE

SCENES = [make_scene(np.random.default_rng([5, i])) for i in range(120)]


def asked(kind: str) -> list[tuple[Scene, Question]]:
    rng = np.random.default_rng(6)
    found = [(scene, ask(rng, scene, kind)) for scene in SCENES]
    return [(scene, question) for scene, question in found if question is not None]


def test_no_two_signs_of_a_picture_have_one_name_or_share_a_place() -> None:
    for scene in SCENES:
        assert len({sign.name for sign in scene.signs}) == len(scene.signs)
        for i, a in enumerate(scene.signs):
            for b in scene.signs[:i]:
                left, top, right, bottom = a.box
                x1, y1, x2, y2 = b.box
                assert right < x1 or x2 < left or bottom < y1 or y2 < top
            assert min(a.box) > 0 and max(a.box) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_follows_from_what_the_words_say_and_guessing_earns_little(kind: str) -> None:
    questions = asked(kind)
    for scene, question in questions:
        numbers = [sign.number for sign in question.meant]
        if kind == "compare":
            assert set(question.meant) == {
                sign for sign in scene.signs if sign.colour in question.text
            }
            best = min if "smallest" in question.text else max
            assert question.answer == best(numbers) and len(set(numbers)) == len(numbers) > 1
        else:
            assert [question.answer] == numbers
        if kind == "search":
            fitting = [
                s for s in scene.signs if s.colour in question.text and s.mark in question.text
            ]
            assert fitting == list(question.meant) and len(question.candidates) > 1
    answers = Counter(question.answer for _, question in questions)
    assert len(answers) >= 8 and max(answers.values()) < 0.3 * len(questions)


def test_what_training_draws_looks_like_a_crop_of_the_stored_picture() -> None:
    scene = SCENES[0]
    sign, side = scene.signs[0], 1536
    data, objects = sample.render_picture(scene, side)
    picture = Image.open(io.BytesIO(data))
    shown = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float)
    assert abs(shown - batches.whole(scene)).mean() < 4
    lens = Lens(CROP_SHARE / 2, SIDE, share=True)
    stored = StoredImage("", side, side)
    region, size = lens.region(Point(sign.x * side, sign.y * side), stored)
    crop = render_crop(data, Observation(region, *size), ZoomCall(None))
    seen = np.asarray(Image.open(io.BytesIO(crop)), dtype=float)
    near = batches.crop(np.random.default_rng(0), scene, (sign.x, sign.y))
    assert abs(seen - near).mean() < 6
    assert objects[0]["label"] == sign.name


def test_the_model_sees_a_picture_of_any_size_at_its_own() -> None:
    settings = json.loads((ZOOM / "preprocessor_config.json").read_text())
    assert (settings["min_pixels"], settings["max_pixels"]) == (LEAST_PIXELS, MOST_PIXELS)
    for side in (*range(28, 400), *sample.SIDES):
        assert smart_resize(side, side, 28, LEAST_PIXELS, MOST_PIXELS) == (SIDE, SIDE), side


def test_number_and_mark_change_a_crop_and_hardly_the_whole_picture() -> None:
    scene = SCENES[1]
    sign = scene.signs[0]
    other = replace(
        sign,
        number=NUMBERS[(NUMBERS.index(sign.number) + 5) % 10],
        mark=MARKS[(MARKS.index(sign.mark) + 3) % len(MARKS)],
    )
    changed = replace(scene, signs=(other, *scene.signs[1:]))
    at = (sign.x - CROP_SHARE / 2, sign.y - CROP_SHARE / 2, CROP_SHARE)

    def differs(region: Region) -> int:
        a, b = (np.asarray(draw(s, SIDE, region, over=4), np.int64) for s in (scene, changed))
        return int((abs(a - b).max(axis=2) > 60).sum())

    assert differs(at) > 200
    assert differs(WHOLE) < 40


def test_demonstrations_read_truly_and_decide_badly() -> None:
    rng = np.random.default_rng(7)
    right: Counter[str] = Counter()
    questions = [(kind, *pair) for kind in KINDS for pair in asked(kind)]
    for kind, scene, question in questions:
        made: Example = demonstrate(rng, scene, question)
        said = re.findall(r"It shows a (\w+) and (\d)\.", made.text)
        there = {(sign.mark, sign.number) for sign in scene.signs}
        assert set(said) <= there
        (answer,) = re.findall(r"<answer>(.)</answer>", made.text)
        right[kind] += answer == question.answer
    for kind in KINDS:
        share = right[kind] / sum(k == kind for k, _, _ in questions)
        assert 0.35 < share < 0.9, kind


def test_a_split_is_a_fixed_function_of_its_seed(tmp_path: Path) -> None:
    first = sample.write_split(tmp_path, "train", 5, 7).read_bytes()
    (tmp_path / "again").mkdir()
    assert sample.write_split(tmp_path / "again", "train", 5, 7).read_bytes() == first


@pytest.mark.parametrize("kind", CLICK_KINDS)
def test_a_click_is_on_the_one_tile_that_the_words_fit(kind: str) -> None:
    rng, hits, asked_of = np.random.default_rng(8), 0, 0
    for i in range(120):
        screen = make_scene(np.random.default_rng([9, i]), screen=True)
        assert min(min(tile.column, tile.row) for tile in screen.signs) > 0, "bar and menu are free"
        question = ask(rng, screen, kind)
        if question is None:
            continue
        (tile,) = [
            tile
            for tile in screen.signs
            if (tile.name in question.text)
            or (
                question.mark and tile.mark == question.mark and f" {tile.colour} " in question.text
            )
        ]
        assert question.meant == (tile,) and question.clicks
        made = demonstrate(rng, screen, question)
        ((x, y),) = re.findall(r"<answer>\((\d+), (\d+)\)</answer>", made.text)
        left, top, right, bottom = tile.box
        hits += left < int(x) / 1000 < right and top < int(y) / 1000 < bottom
        asked_of += 1
    assert 0.35 < hits / asked_of < 0.95


def test_before_it_goes_on_a_comparison_looks_at_a_sign_not_looked_at_yet() -> None:
    seen, done = {True: 0, False: 0}, 0
    for remembers in seen:
        rng, policy = np.random.default_rng(10), Policy(remembers=remembers, stops_guessing=0.0)
        for scene, question in asked("compare"):
            made = demonstrate(rng, scene, question, policy=policy)
            left, begun = {(sign.x, sign.y) for sign in question.meant}, 0
            for look in made.looks:
                if made.text[look[0] - 1 : look[1]] != ">\n":
                    continue
                # What was called for before this choice is not left any more.
                told = made.text[begun : look[0]]
                left -= {
                    (s.x, s.y)
                    for s in question.meant
                    if f'"coordinate": [{round(1000 * s.x)}, {round(1000 * s.y)}]' in told
                }
                assert look[2] == 0 and look[3] in left
                begun, seen[remembers] = look[0], seen[remembers] + 1
            nothing_left = any((a, b) == (0, 1) for _, a, b in made.evidence)
            done += nothing_left
            assert remembers or not nothing_left
    assert seen[True] > 40 and not seen[False] and done > 40


@pytest.mark.parametrize("turns_back", [0.0, 1.0])
def test_looks_behind_one_in_vain_turn_back_as_corrected_dialogues_do(turns_back: float) -> None:
    rng, policy = np.random.default_rng(11), Policy(turns_back=turns_back, stops_guessing=0.0)
    turned = went_on = 0
    for scene, question in asked("search"):
        made = demonstrate(rng, scene, question, policy=policy)
        (meant,) = question.meant
        first, *others = made.text.split("<think>It shows ")
        assert not any(sentence in first for sentence in TURNING_BACK), "nothing was in vain yet"
        for read in others:
            turns = any(f"</think>\n<think>{sentence} The " in read for sentence in TURNING_BACK)
            found = read.startswith(f"a {meant.mark} and {meant.number}.")
            assert not (turns and found), "it was found"
            went_on += "<think>" in read and not found
            turned += turns
    assert went_on > 40
    assert turned == 0 if turns_back == 0.0 else turned > 0.8 * went_on


def test_thorough_dialogues_answer_what_they_know_and_teach_no_choice() -> None:
    right, choices = {0.0: 0, 1.0: 0}, {0.0: 0, 1.0: 0}
    for thorough in right:
        rng, policy = np.random.default_rng(12), Policy(thorough=thorough, weight=8.0)
        for scene, question in asked("compare"):
            made = demonstrate(rng, scene, question, policy=policy)
            right[thorough] += f"<answer>{question.answer}<" in made.text
            choices[thorough] += sum(weight == 8.0 for _, _, weight in made.weights)
    assert choices[0.0] > 100 and choices[1.0] == 0
    assert right[1.0] > 1.3 * right[0.0]


def test_tiles_are_added_to_real_pages_and_replaced(tmp_path: Path) -> None:
    pages = pq.read_table(SAMPLE / "screens-test.parquet").slice(0, 3)
    pq.write_table(pages, tmp_path / "screens-test.parquet")
    for screens in (3, 2):
        tiles.add_tiles(tmp_path, "test", 5, screens)
        rows = pq.read_table(tmp_path / "screens-test.parquet").to_pylist()
        assert rows[:3] == pages.to_pylist() and len(rows) == 3 + 2 * screens
    for row in rows[3:]:
        assert row["data_type"] in ("tile", "tile_icon")
        assert row["bbox"] in [[o[c] for c in ("x1", "y1", "x2", "y2")] for o in row["objects"]]


def test_dialogues_about_a_neighbour_look_at_the_places_beside_what_is_named() -> None:
    rng = np.random.default_rng(13)
    right: dict[float, int] = {}
    asked_sides = places = 0
    for thorough in (0.0, 1.0):
        policy, right[thorough] = Policy(thorough=thorough, weight=8.0), 0
        for scene, question in asked("relative_position"):
            made = demonstrate_neighbour(rng, scene, question, policy=policy)
            first, *told = re.findall(r"(\w[\w ]*) (?:is at|it is) \((\d+), (\d+)\)", made.text)
            assert question.anchor and first[0] == f"The {question.anchor.name}"
            at = (round(1000 * question.anchor.x), round(1000 * question.anchor.y))
            assert (int(first[1]), int(first[2])) == at
            called = re.findall(r'"coordinate": \[(\d+), (\d+)\]', made.text)
            assert called == [(x, y) for _, x, y in told] and len(set(called)) == len(called)
            for crop, (words, x, y) in zip(made.crops, told, strict=True):
                side = next(each for each in SIDES if each in words)
                away = 400 if "next place" in words else 200
                across, down = SIDES[side]
                assert abs(int(x) - at[0] - across * away) <= 1
                assert abs(int(y) - at[1] - down * away) <= 1
                assert crop.sign == shown_at(scene, crop.middle)
                asked_sides += f" {side} the " in question.text
            places += len(told)
            right[thorough] += f"<answer>{question.answer}<" in made.text
            assert all(weight != 8.0 for *_, weight in made.weights) or not thorough
    assert 0.4 * places < asked_sides < 0.85 * places, "its policy is noisy, and no guess"
    assert right[1.0] > 0.8 * len(asked("relative_position")) > 1.2 * right[0.0]


def test_the_digits_of_a_place_beside_a_sign_look_at_the_signs_own() -> None:
    rng, looked = np.random.default_rng(14), 0
    for scene, question in asked("relative_position"):
        made = demonstrate_neighbour(rng, scene, question)
        named = re.search(r"is at \((\d+), (\d+)\)", made.text)
        assert named
        sources = {at: made.text[a:b] for at, a, b in made.evidence}
        for told in re.finditer(
            r"(left|right|above|below)[ of]* it is \((\d+), (\d+)\)", made.text
        ):
            kept = 2 if told[1] in ("left", "right") else 1  # the axis along which nothing moves
            digits = [sources[i - 1] for i in range(*told.span(kept + 1))]
            assert "".join(digits) == told[kept + 1] == named[kept]
            moved = [sources[i - 1] for i in range(*told.span(4 - kept))]
            assert all(digit in named[3 - kept] for digit in moved)
            looked += 1
    assert looked > 100


def test_the_exercise_of_places_beside_teaches_their_coordinates_alone() -> None:
    rng, moved = np.random.default_rng(17), 0
    for scene, question in asked("relative_position")[:40]:
        made = places_beside(rng, scene, question)
        told = re.findall(r"it is \((\d+), (\d+)\)", made.text)
        assert len(set(told)) == len(told) >= 4
        learned = [made.text[a:b] for a, b, _ in made.weights]
        assert not made.learned and "answer" not in made.text
        assert sum(part.isdigit() for part in learned) == len(learned) - 2, "and the sign's name"
        moved += sum(weight == MOVED for *_, weight in made.weights) / len(told)
    assert 0.9 < moved / 40 < 1.1, "of each place one digit differs from the sign's"


def test_where_nothing_is_seen_a_neighbour_is_not_found_either() -> None:
    rng = np.random.default_rng(15)
    for scene, question in asked("relative_position")[:40]:
        made = demonstrate_neighbour(rng, scene, question, blind=True)
        assert "It shows a" not in made.text and made.text.count("It shows nothing.") >= 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_stage_says_how_questions_about_a_neighbour_are_worked_out(share: float) -> None:
    rng, stepped = np.random.default_rng(16), 0
    for scene in SCENES[:40]:
        kinds = {kind: float(kind == "relative_position") for kind in KINDS}
        made = batches.exercise(rng, scene, "dialogue", kinds, Policy(steps_aside=share))
        stepped += made is not None and " it is (" in made.text
    assert stepped == 0 if share == 0.0 else stepped > 30

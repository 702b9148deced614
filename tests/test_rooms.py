"""The rendered rooms: answers follow from the scene, truth boxes fit, words alone tell nothing."""

import hashlib
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from warehouse.sources.rooms import QUESTION_SCHEMA, SPLITS, encode, sample, write_split
from warehouse.sources.rooms_draw import draw, look
from warehouse.sources.rooms_questions import FAMILIES, Balance, ask, sample_take
from warehouse.sources.rooms_scene import COLOURS, KINDS, SIDE, Camera, furnish, sample_names

SAMPLE = Path(__file__).parents[1] / "warehouse" / "sources" / "sample"


def rows(split: str, kind: str = "") -> list[dict]:
    return pq.read_table(SAMPLE / f"rooms-{split}{kind}.parquet").to_pylist()


def test_a_point_straight_ahead_of_a_level_camera_is_drawn_in_the_middle():
    camera = Camera(yaw=0.3, pitch=0.0, height=1.5)
    ahead = np.array([[2 * np.sin(0.3), 1.5, 2 * np.cos(0.3)]])
    assert camera.project(ahead)[0] == pytest.approx((SIDE / 2, SIDE / 2))


def test_turning_the_camera_right_moves_the_picture_left():
    point = np.array([[0.0, 1.0, 4.0]])
    before, after = (Camera(yaw, 0.2, 1.7).project(point)[0] for yaw in (0.0, 0.2))
    assert after[0] < before[0] - 20


def test_boxes_hold_pixels_of_their_object_and_nothing_larger():
    rng = np.random.default_rng(4)
    checked = 0
    while checked < 12:
        scene = furnish(rng, sample_names(rng, 2, 4)[0])
        if scene is None:
            continue
        picture = draw(scene)
        for name in picture.clear:
            x1, y1, x2, y2 = (int(v) for v in picture.boxes[name])
            crop = np.asarray(picture.image)[y1:y2, x1:x2].reshape(-1, 3).astype(float)
            colour = np.array(COLOURS[name.split()[0]], dtype=float)
            hue = crop / (crop.sum(1, keepdims=True) + 1) - colour / colour.sum()
            alike = np.abs(hue).max(1) < 0.13
            if name.split()[1] in ("ball", "box", "cone"):
                assert alike.mean() > 0.3, name
                checked += 1


def test_a_nearer_object_hides_a_farther_one_in_its_box():
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(40):
        scene = furnish(rng, sample_names(rng, 4, 5)[0])
        if scene is not None:
            _, boxes, clear = look(scene)
            hidden += len(boxes) - len(clear)
    assert hidden > 0


def test_answers_are_facts_of_the_scene():
    rng, balance, asked = np.random.default_rng(1), Balance(slack=99), Counter()
    for i in range(24):
        take = sample_take(rng, 2, 5, (None, "moved", "turned")[i % 3])
        first = take.frames[0]
        for family in FAMILIES:
            question = ask(rng, take, family, balance)
            if question is None:
                continue
            asked[family] += 1
            assert question.answer in question.options and len(set(question.options)) == 2
            names = [n for n, _ in question.about]
            if family == "left_right":
                a, b = sorted(set(names), key=question.text.find)
                if question.text.startswith("On which side"):
                    a, b = b, a
                left = first.centre(a)[0] < first.centre(b)[0]
                assert question.answer == ("left" if left else "right")
            elif family == "count":
                value = take.count.value
                shown = [t for t in first.scene.things if value in (t.colour, t.kind)]
                assert question.answer == str(len(shown))
            elif family == "object_moved":
                a, b = (f.centre(question.answer) for f in take.frames)
                assert np.hypot(a[0] - b[0], a[1] - b[1]) >= 0.1 * SIDE
            elif family == "camera_turn":
                before, after = (f.centre(names[0])[0] for f in take.frames)
                assert question.answer == ("right" if after < before else "left")
    assert set(asked) == set(FAMILIES)


def test_names_in_a_scene_are_distinct_and_counting_options_are_adjacent():
    rng = np.random.default_rng(2)
    for _ in range(200):
        names, count = sample_names(rng, 1, 5)
        assert len(set(names)) == len(names) <= 5
        assert all(c in COLOURS and k in KINDS for c, k in names)
        assert count.high == count.low + 1 and count.answer in (count.low, count.high)
        assert sum(count.value in name for name in names) == count.answer


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_sample_is_balanced_so_that_words_alone_tell_nothing(split):
    questions = rows(split)
    place, words, kinds = (defaultdict(Counter) for _ in range(3))
    for row in questions:
        family, right = row["question_type"], row["correct_answer"]
        place[family][row["answers"].index(right)] += 1
        words[family, tuple(sorted(row["answers"]))][right] += 1
        if family in ("closer", "object_moved"):
            pair = sorted(a.split()[1] for a in row["answers"])
            if pair[0] != pair[1]:
                kinds[family, *pair][right.split()[1] == pair[0]] += 1
    assert set(place) == set(FAMILIES)
    for counts in (*place.values(), *kinds.values()):
        assert abs(counts[0] - counts[1]) <= 1
    for (family, options), counts in words.items():
        if family in ("left_right", "above_below", "camera_turn", "count"):
            assert abs(counts[options[0]] - counts[options[1]]) <= 2, (family, counts)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_sample_has_sat_columns_and_a_box_for_every_picture(split):
    table = pq.read_table(SAMPLE / f"rooms-{split}.parquet")
    assert table.schema.equals(QUESTION_SCHEMA)
    truth = {row["image_sha256"]: row["objects"] for row in rows(split, ".objects")}
    for row in table.to_pylist():
        for image in row["images"]:
            objects = truth[hashlib.sha256(image["bytes"]).hexdigest()]
            assert objects
            for box in objects:
                assert 0 <= box["x1"] < box["x2"] <= SIDE and 0 <= box["y1"] < box["y2"] <= SIDE
    picture = Image.open(io.BytesIO(image["bytes"]))
    assert picture.size == (SIDE, SIDE)


def test_train_and_test_share_no_picture():
    train, test = ({r["image_sha256"] for r in rows(s, ".objects")} for s in ("train", "test"))
    assert not train & test


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_split(tmp_path / folder, "test", seed=5, size=6)
    for name in ("rooms-test.parquet", "rooms-test.objects.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_committed_pictures_are_what_the_code_draws():
    stored = {i["path"]: i["bytes"] for row in rows("train") for i in row["images"]}
    compared = 0
    for number, (take, _) in enumerate(sample(*SPLITS["train"])):
        for i, frame in enumerate(take.frames):
            path = f"rooms-train-{number:04d}-{i}.jpg"
            if path in stored:
                now, then = (
                    np.asarray(Image.open(io.BytesIO(b)), dtype=float)
                    for b in (encode(frame), stored[path])
                )
                assert np.abs(now - then).mean() < 0.5, path
                compared += 1
        if number == 3:
            break
    assert compared >= 4

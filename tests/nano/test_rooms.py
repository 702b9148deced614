"""The rendered rooms' questions: answers follow from the scene; splits are whole and repeatable."""

import hashlib
import io
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vigorl_nano.pretraining import pool
from vigorl_nano.rooms import sample
from vigorl_nano.rooms.balance import Balance
from vigorl_nano.rooms.objects import COLOURS, KINDS, sample_names
from vigorl_nano.rooms.questions import RoomQuestion, ask
from vigorl_nano.rooms.sample import (
    QUESTION_SCHEMA,
    SPLITS,
    blocks,
    plan_block,
    render_image,
    write_split,
)
from vigorl_nano.rooms.scene import SIDE, distance
from vigorl_nano.rooms.takes import Frame, Take, sample_take
from vigorl_nano.rooms.wording import CHANCE, FAMILIES

SAMPLE = Path(__file__).parents[2] / "warehouse" / "sources" / "sample"
NAME = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b")


def rows(split: str, kind: str = "") -> list[dict]:
    return pq.read_table(SAMPLE / f"rooms-{split}{kind}.parquet").to_pylist()


def floor_angle(scene_things: dict, at: str, facing: str, target: str) -> float:
    """Degrees from the facing direction to the target, positive to the right, seen from above."""
    spots = [complex(scene_things[n].z, scene_things[n].x) for n in (at, facing, target)]
    return float(np.degrees(np.angle((spots[2] - spots[0]) / (spots[1] - spots[0]))))


def truth(question: RoomQuestion, take: Take) -> str:
    """The answer worked out from the words and the scene alone, apart from the code that asks."""
    seen: Frame = take.frames[question.frames[0]]
    things = {t.name: t for t in seen.scene.things}
    text, family = question.text, question.family
    named = [" ".join(m) for m in NAME.findall(text)]
    if family in ("left_right", "above_below", "front_behind"):
        a, b = named[::-1] if text.startswith("On which side") else named
        if family == "front_behind":
            near = distance(seen.scene, things[a]) < distance(seen.scene, things[b])
            return "in front" if near else "behind"
        axis = family == "above_below"
        first = seen.centre(a)[axis] < seen.centre(b)[axis]
        return (("left", "right"), ("above", "below"))[axis][0 if first else 1]
    if family in ("closer", "depth_order"):
        assert named == list(question.options)
        most = max if "farthest" in text else min
        return most(named, key=lambda n: distance(seen.scene, things[n]))
    if family == "count":
        return str(sum(take.count.value in (t.colour, t.kind) for t in things.values()))
    if family == "exists":
        return "yes" if named[0] in things else "no"
    if family == "colour":
        (one,) = (t for t in things.values() if re.search(rf"\b{t.kind}\b", text))
        return one.colour
    if family == "object_moved":
        before, after = ({t.name: (t.x, t.z) for t in f.scene.things} for f in take.frames)
        (one,) = (n for n in before if before[n] != after[n])
        return one
    if family == "camera_turn":
        before, after = (f.scene.camera.yaw for f in take.frames)
        return "right" if after > before else "left"
    if family == "perspective":
        return "right" if floor_angle(things, *named) > 0 else "left"
    assert family == "goal_aim"
    off = seen.centre(named[0])[0] / SIDE - 0.5
    return "straight ahead" if abs(off) <= 0.05 else ("left" if off < 0 else "right")


def takes(seed: int, number: int) -> list[Take]:
    rng = np.random.default_rng(seed)
    return [
        sample_take(rng, 2, 8, (None, "moved", "turned")[i % 3], images=False)
        for i in range(number)
    ]


def test_answers_are_facts_of_the_scene_and_what_they_are_about_is_clear():
    rng, balance, counts = np.random.default_rng(1), Balance(slack=99), Counter()
    answers = defaultdict(set)
    for take in takes(1, 90):
        for family in FAMILIES:
            question = ask(rng, take, family, balance)
            if question is None:
                continue
            counts[family] += 1
            answers[family].add(question.answer)
            assert question.answer == truth(question, take), question
            assert question.answer in question.options
            assert len(set(question.options)) == len(question.options) == 1 / CHANCE[family]
            for name, place in question.about:
                assert name in take.frames[question.frames[place]].clear, question
    assert all(counts[family] >= 20 for family in FAMILIES), counts
    assert {"left", "right", "straight ahead"} <= answers["goal_aim"]


def test_a_question_of_the_second_frame_is_about_the_second_frame():
    rng, compared = np.random.default_rng(3), 0
    for take in takes(3, 30):
        question = ask(rng, take, "left_right", Balance(), frame=1) if take.change else None
        if question is not None:
            assert question.frames == (1,) and question.answer == truth(question, take)
            compared += 1
    assert compared >= 10


def test_no_is_mostly_about_a_colour_and_a_kind_that_are_both_in_the_room():
    rng, hard = np.random.default_rng(4), []
    for take in takes(4, 90):
        question = ask(rng, take, "exists", Balance(slack=99))
        if question is None or question.answer == "yes":
            continue
        ((colour, kind),) = NAME.findall(question.text)
        things = take.frames[0].scene.things
        shared = [any(t.colour == colour for t in things), any(t.kind == kind for t in things)]
        assert any(shared) and 1 <= len(question.about) <= 3
        assert all(colour in name or kind in name for name, _ in question.about)
        hard.append(all(shared))
    assert np.mean(hard) > 0.6


def test_words_name_every_option_of_three_and_articles_fit():
    rng = np.random.default_rng(5)
    for take in takes(5, 60):
        for family in ("exists", "depth_order"):
            question = ask(rng, take, family, Balance(slack=99))
            if question is not None:
                assert not re.search(r"\ba orange|\ban [^o]", question.text)
                assert family == "exists" or len(NAME.findall(question.text)) == 3


def test_names_in_a_scene_are_distinct_and_counting_options_are_adjacent():
    rng = np.random.default_rng(2)
    for _ in range(200):
        names, count = sample_names(rng, 1, 8)
        assert len(set(names)) == len(names) <= 8
        assert all(c in COLOURS and k in KINDS for c, k in names)
        assert count.high == count.low + 1 and count.answer in (count.low, count.high)
        assert sum(count.value in name for name in names) == count.answer


def test_a_moved_object_is_clear_before_and_after_and_another_one_stayed():
    for take in takes(6, 45):
        clear = set.intersection(*(set(f.clear) for f in take.frames))
        assert clear
        if take.change == "moved":
            assert take.outcome in clear and len(clear) > 1
            a, b = (f.centre(take.outcome) for f in take.frames)
            assert np.hypot(a[0] - b[0], a[1] - b[1]) >= 0.1 * SIDE


def test_images_are_drawn_at_the_side_asked_for_and_boxes_stay_in_stored_pixels():
    take = sample_take(np.random.default_rng(7), 3, 3, side=98)
    same = sample_take(np.random.default_rng(7), 3, 3, images=False)
    assert take.frames[0].image.size == (98, 98)
    assert take.frames[0].scene == same.frames[0].scene
    for name, box in same.frames[0].boxes.items():
        assert take.frames[0].boxes[name] == pytest.approx(box, abs=8)


@pytest.mark.parametrize("split", SPLITS)
def test_the_sample_is_balanced_by_place_and_by_opposite_answers(split):
    place, words, sizes = defaultdict(Counter), defaultdict(Counter), Counter()
    for row in rows(split):
        family, right = row["question_type"], row["correct_answer"]
        sizes[family] += 1
        place[family][row["answers"].index(right)] += 1
        words[family, tuple(sorted(row["answers"]))][right] += 1
    assert sizes == dict.fromkeys(FAMILIES, SPLITS[split][1] // len(FAMILIES))
    for family, counts in place.items():
        chances = [counts[i] for i in range(round(1 / CHANCE[family]))]
        assert max(chances) - min(chances) <= 2, (family, counts)
    fixed = ("left_right", "above_below", "front_behind", "exists", "camera_turn", "perspective")
    for (family, options), counts in words.items():
        if family in fixed:
            assert abs(counts[options[0]] - counts[options[1]]) <= 2, (family, counts)


@pytest.mark.parametrize("split", SPLITS)
def test_the_sample_has_sat_columns_and_truth_for_every_image(split):
    table = pq.read_table(SAMPLE / f"rooms-{split}.parquet")
    assert table.schema.equals(QUESTION_SCHEMA)
    seen = {row["image_sha256"]: row["objects"] for row in rows(split, ".objects")}
    for row in table.to_pylist():
        for image in row["images"]:
            objects = seen[hashlib.sha256(image["bytes"]).hexdigest()]
            assert objects
            for box in objects:
                assert 0 <= box["x1"] < box["x2"] <= SIDE and 0 <= box["y1"] < box["y2"] <= SIDE
                assert 0 < box["shown"] <= 1 < box["depth"] < 12
    assert Image.open(io.BytesIO(image["bytes"])).size == (SIDE, SIDE)


def test_no_two_splits_share_an_image():
    shown = [{r["image_sha256"] for r in rows(split, ".objects")} for split in SPLITS]
    assert len(set.union(*shown)) == sum(map(len, shown))


def test_the_sample_is_small_enough_to_ship():
    def size(pattern):
        return sum(path.stat().st_size for path in SAMPLE.glob(pattern))

    assert size("rooms-*.parquet") < 6.5e6
    assert size("*.parquet") - size("rooms-*.parquet") < 4.5e6


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes_with_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "SHARE", 1)  # two blocks
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        counts = write_split(tmp_path / str(workers), "generated", 5, 24, workers)
        assert counts["questions"] == 24
    for name in ("rooms-generated.parquet", "rooms-generated.objects.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert not list(tmp_path.glob("*/*.part"))


def test_a_split_has_as_many_questions_of_each_family_as_asked_for():
    parts = blocks("held-out", 9, 12 * (sample.SHARE + 3))
    assert [part.share for part in parts] == [sample.SHARE, 3]
    sizes = Counter(q.family for _, questions in plan_block(parts[1]) for q in questions)
    assert sizes == dict.fromkeys(FAMILIES, 3)
    with pytest.raises(ValueError, match="multiple of 12"):
        blocks("held-out", 9, 100)


def test_a_split_can_be_of_some_families_alone():
    (part,) = blocks("generated", 9, 6, ("left_right", "camera_turn"))
    sizes = Counter(q.family for _, questions in plan_block(part) for q in questions)
    assert sizes == {"left_right": 3, "camera_turn": 3}
    with pytest.raises(ValueError, match="multiple of 2"):
        blocks("generated", 9, 7, ("left_right", "camera_turn"))


def test_no_split_shares_its_random_numbers_with_another_or_with_pretraining():
    taken = [seed for seed, _ in SPLITS.values()] + [sample.HELD_OUT_SEED, pool.TRAIN_SEED]
    assert sorted(taken) == sorted(sample.TAKEN_SEEDS) and len(set(taken)) == len(taken)


@pytest.mark.parametrize("split", ["train", pytest.param("gate", marks=pytest.mark.slow)])
def test_the_committed_images_are_what_the_code_draws(split):
    small = split in sample.SMALL
    stored = {i["path"]: i["bytes"] for row in rows(split) for i in row["images"]}
    (block,) = blocks(split, *SPLITS[split])
    compared = 0
    for number, (take, _) in enumerate(plan_block(block)[:4]):
        for i, frame in enumerate(take.frames):
            path = f"rooms-{split}-0000-{number:04d}-{i}.{'webp' if small else 'jpg'}"
            if path in stored:
                now, then = (
                    np.asarray(Image.open(io.BytesIO(data)), dtype=float)
                    for data in (render_image(frame.scene, small)[0], stored[path])
                )
                assert np.abs(now - then).mean() < 0.5, path
                compared += 1
    assert compared >= 4

"""Copies: the definitions hold, order plays no part, and who is dropped copies whoever is named."""

import hashlib
import io
import json
import random
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curation.filters import image_hash, minhash
from curation.filters.dedup import Document, answer_key, canonical, find_copies
from curation.filters.minhash import BANDS, ROWS, copies, jaccard, shingles, shingles_of, signatures
from curation.filters.union_find import UnionFind
from curation.filters.words import words_of
from mcts.data import AnswerKind
from warehouse.sources import find_task

WORDS = [f"word{i}" for i in range(500)]


def said(rng, n=60):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def changed(text, rng, n):
    words = text.split()
    for i in rng.sample(range(len(words)), n):
        words[i] = rng.choice(WORDS)
    return " ".join(words)


def document(trace_id, text, **more):
    given = {"kind": "direct", "answer": "left", "images": ("p",), "text": text, **more}
    return Document(trace_id, **given)


# ---- texts ----------------------------------------------------------------------------------


def runs(text, width=3):
    words = words_of(text)
    return {tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))}


def test_jaccard_of_shingles_is_that_of_the_sets_of_word_runs():
    rng = random.Random(1)
    for n in (0, 1, 5, 40):
        a = said(rng)
        b = changed(a, rng, n)
        expected = len(runs(a) & runs(b)) / len(runs(a) | runs(b))
        assert jaccard(shingles(a), shingles(b)) == pytest.approx(expected)
    assert len(shingles("one two")) == len(shingles("")) == 1
    assert jaccard(shingles("One, two!"), shingles("one two")) == 1


def test_a_signature_estimates_the_similarity():
    rng = random.Random(2)
    errors = []
    for n in (1, 3, 6, 12):
        a = said(rng, 100)
        pair = [shingles(a), shingles(changed(a, rng, n))]
        one, two = signatures(pair)
        errors.append((one == two).mean() - jaccard(*pair))
    assert max(map(abs, errors)) < 4 * 0.5 / (BANDS * ROWS) ** 0.5
    assert abs(np.mean(errors)) < 0.05
    assert (signatures([shingles("a b c d")], seed=1) != signatures([shingles("a b c d")], 2)).any()


def test_signatures_do_not_depend_on_how_texts_are_batched():
    rng = random.Random(3)
    texts = [shingles(said(rng, 400)) for _ in range(150)]  # more than are hashed at once
    together = signatures(texts)
    assert all(
        (signatures([text])[0] == row).all() for text, row in zip(texts, together, strict=True)
    )


def test_near_copies_are_those_that_comparing_every_pair_finds():
    rng = random.Random(4)
    texts = [said(rng) for _ in range(60)]
    texts += [changed(rng.choice(texts[:60]), rng, rng.randrange(8)) for _ in range(120)]
    cut = [shingles(text) for text in texts]
    found = copies(cut, [0] * len(cut), 0.8)
    kept = []
    for i, text in enumerate(cut):
        similar = [(jaccard(text, cut[j]), -j) for j in kept]
        best = max(similar, default=(0.0, 0))
        expected = (-best[1], best[0]) if best[0] >= 0.8 else None
        assert found[i] == expected
        if expected is None:
            kept.append(i)
    assert 60 <= len(kept) < 150


@given(st.lists(st.text("ab cé红色.", max_size=12), max_size=6), st.integers(1, 4))
def test_texts_have_the_same_shingles_together_as_alone(texts, width):
    together = shingles_of([" ".join(words_of(text)) for text in texts], width)
    assert [one.tolist() for one in together] == [shingles(t, width).tolist() for t in texts]


def test_many_words_are_hashed_in_several_batches(monkeypatch):
    rng = random.Random(9)
    texts = [said(rng, 40) for _ in range(30)]
    alone = [shingles(text).tolist() for text in texts]
    monkeypatch.setattr(minhash, "_WORDS_AT_ONCE", 100)
    assert [one.tolist() for one in shingles_of(texts)] == alone


@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.8, 1.0])
def test_texts_that_are_passed_over_are_copies_of_none(monkeypatch, threshold):
    rng = random.Random(8)
    texts = [said(rng, rng.choice([3, 30])) for _ in range(80)]
    texts += [changed(rng.choice(texts), rng, rng.randrange(3)) for _ in range(80)]
    cut, groups = shingles_of(texts), [rng.randrange(3) for _ in texts]
    passed = ~minhash._may_be_similar(cut, groups, threshold)
    found = copies(cut, groups, threshold)
    monkeypatch.setattr(minhash, "_may_be_similar", lambda texts, *_: np.ones(len(texts), bool))
    assert copies(cut, groups, threshold) == found
    assert any(found) and passed.sum() > 20


def test_which_copy_is_kept_does_not_depend_on_the_order_they_come_in():
    rng = random.Random(5)
    base = [said(rng) for _ in range(10)]
    documents = [
        document(f"{rng.getrandbits(64):016x}", changed(text, rng, n), good=rng.random() < 0.5)
        for text in base
        for n in (0, 0, 1, 2, 20)
    ]
    found = find_copies(documents)
    assert 15 < len(found) < 40
    for _ in range(5):
        rng.shuffle(documents)
        assert find_copies(documents) == found
    by_id = {one.trace_id: one for one in documents}
    for trace_id, copy in found.items():
        assert copy.of not in found, "what is named is kept"
        pair = [shingles(by_id[i].text) for i in (trace_id, copy.of)]
        assert jaccard(*pair) == pytest.approx(copy.similarity)
        assert copy.similarity >= 0.8
        assert by_id[copy.of].good or not by_id[trace_id].good, "the good one is kept"


def test_only_what_says_the_same_of_the_same_pictures_is_a_copy():
    text = "the red chair is left of the lamp by the door over there"
    one = document("a", text)
    assert find_copies([one, document("b", text)]).keys() == {"b"}
    for other in (
        {"kind": "corrected"},
        {"answer": "right"},
        {"images": ("q",)},
        {"text": "the blue sofa stands behind the table and nobody sees it from here"},
    ):
        assert find_copies([one, document("b", **{"text": text, **other})]) == {}


def test_a_point_a_pixel_away_is_the_same_place_and_one_far_away_is_not():
    size = [(640, 480), (200, 100)]
    here = canonical("<think>The CUP, at (100, 81.5).</think>\n<answer>Left</answer>", size)
    assert here == canonical("<think>The cup at (101.2, 82)</think><answer>left</answer>", size)
    assert here != canonical("<think>The cup at (300, 82).</think><answer>left</answer>", size)
    second = canonical("At (100, 81.5) in image 2.", size)
    assert second == "at @1:16:13" and "@0:5:4" in here.split()


def test_how_an_answer_is_spelled_makes_no_other_trace():
    size = ((640, 480),)
    said = [
        canonical(f"<think>The cup (1, 2).</think>\n<answer>{text}</answer>", size, answer="left")
        for text in ("Left", "(A) left", "left")
    ]
    assert set(said) == {"the cup @0:0:0 left"}
    choices = ("left", "right")
    assert {answer_key(text, choices) for text in ("Left.", "(A) left", "A", "left")} == {"left"}
    assert answer_key("A", choices) != answer_key("A", choices[::-1]) == "right"
    assert answer_key("two") == answer_key("$2$") == "2" != answer_key("3")
    here = answer_key("(100, 81.5)", (), AnswerKind.BOX, size)
    assert here == answer_key("(101.2, 82)", (), AnswerKind.BOX, size) == "@0:5:4"
    assert here != answer_key("(300, 82)", (), AnswerKind.BOX, size)
    assert answer_key("(3, 4)") != answer_key("(5, 6)"), "a free answer is no place"


def test_a_call_a_pixel_away_is_the_same_call_and_one_far_away_is_not():
    def calling(arguments):
        call = json.dumps({"name": "search_coordinate", "arguments": arguments})
        return canonical(f"<think>A sign.</think>\n<tool_call>{call}</tool_call>", [(640, 480)])

    here = calling({"coordinate": [100, 81.5]})
    assert here == calling({"coordinate": [101.2, 82]}) and "@0:5:4" in here.split()
    assert here != calling({"coordinate": [300, 82]})
    assert here != calling({"coordinate": [100, 81.5], "image": 2})
    box = calling({"bbox_2d": [10, 20, 100, 200], "label": "sign"})
    assert box == calling({"bbox_2d": [10.4, 21, 101, 201], "label": "sign"})
    assert box != calling({"bbox_2d": [10, 20, 300, 200], "label": "sign"})


# ---- images -------------------------------------------------------------------------------


def sample_pictures():
    """Every image of the embedded sample, and the room it shows.

    Images of one question show one room, and so do questions that share a image.
    """
    images, together = {}, []
    for file in find_task("sat2").sample.files.values():
        for row in pq.read_table(file, columns=["images"]).to_pylist():
            names = [hashlib.sha256(image["bytes"]).hexdigest() for image in row["images"]]
            images |= dict(zip(names, [i["bytes"] for i in row["images"]], strict=True))
            together.append(names)
    rooms = UnionFind(images)
    for names in together:
        rooms.union(names)
    return images, {name: rooms.find(name) for name in images}


@pytest.fixture(scope="module")
def sample():
    return sample_pictures()


def again(data, kind, scale, **options):
    with Image.open(io.BytesIO(data)) as image:
        size = tuple(round(side * scale) for side in image.size)
        file = io.BytesIO()
        image.convert("RGB").resize(size).save(file, kind, **options)
    return file.getvalue()


def test_two_rooms_of_the_sample_are_not_alike(sample):
    images, rooms = sample
    hashes = {name: image_hash.phash(data) for name, data in images.items()}
    assert len(set(rooms.values())) > 20
    for a, b in combinations(images, 2):
        if rooms[a] != rooms[b]:
            assert image_hash.distance(hashes[a], hashes[b]) > image_hash.SIMILAR_BITS


@pytest.mark.parametrize(
    ("kind", "scale", "options"),
    [
        ("JPEG", 1, {"quality": 50}), ("JPEG", 0.5, {"quality": 30}),
        ("WEBP", 0.7, {"quality": 40}), ("BMP", 0.4, {}),
        pytest.param("PNG", 2.5, {}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_picture_encoded_again_at_another_size_is_alike(sample, kind, scale, options):
    for name, data in sorted(sample[0].items())[:40]:
        other = image_hash.phash(again(data, kind, scale, **options))
        assert image_hash.distance(image_hash.phash(data), other) <= image_hash.SIMILAR_BITS, name


def test_the_hash_is_the_median_of_the_low_cosine_frequencies():
    grey = np.random.default_rng(0).uniform(0, 255, (32, 32))
    low = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            for y in range(32):
                for x in range(32):
                    low[u, v] += (
                        grey[y, x]
                        * np.cos(np.pi * u * (2 * y + 1) / 64)
                        * np.cos(np.pi * v * (2 * x + 1) / 64)
                    )
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert image_hash.hash_of(grey) == int(bits, 2)


def test_blank_pictures_are_not_alike_and_a_turned_one_is_hashed_upright(sample):
    blank = Image.new("RGB", (80, 60), "white")
    file = io.BytesIO()
    blank.save(file, "PNG")
    assert image_hash.phash(file.getvalue()) is None
    assert image_hash.group_similar({"a": None, "b": None}) == {"a": "a", "b": "b"}
    data = next(iter(sample[0].values()))
    with Image.open(io.BytesIO(data)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned a quarter clockwise when shown
        lying = image.convert("RGB").rotate(90, expand=True)
        turned = io.BytesIO()
        lying.save(turned, "PNG", exif=exif)
    assert (
        image_hash.distance(image_hash.phash(turned.getvalue()), image_hash.phash(data))
        <= image_hash.SIMILAR_BITS
    )


@pytest.mark.parametrize("most", [0, 3, 6])
def test_no_pair_of_hashes_within_the_distance_is_missed_and_none_told_twice(most):
    rng = random.Random(most)
    some = [rng.getrandbits(64) for _ in range(200)]
    for value in some[:150]:
        flips = rng.sample(range(64), rng.randrange(9))
        some.append(value ^ sum(1 << bit for bit in flips))
    found = list(image_hash.close_pairs(some[:250], some[200:], most))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_hash, "_CELLS", 7)
        assert found == list(image_hash.close_pairs(some[:250], some[200:], most)), "bit by bit"
    near = {
        (a, b)
        for a in set(some[:250])
        for b in set(some[200:])
        if image_hash.distance(a, b) <= most
    }
    assert len(found) == len(set(found)) and set(found) == near
    assert len(near) > 10
    few = sorted(set(some[195:205])), sorted(set(some[200:]))[:20]
    quick = list(image_hash.close_pairs(*few, 16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_hash, "_FEW", 0)
        assert quick == list(image_hash.close_pairs(*few, 16)), "in the same order"


def test_rows_are_compared_so_many_at_once_that_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(image_hash, "_CELLS", 7)
    cut = list(image_hash._chunks(np.array([9, 3, 3, 2, 0, 8])))
    assert cut == [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 6)]


def test_alike_pictures_form_groups_named_by_their_smallest_id():
    hashes = {"c": 0b0, "b": 0b111111, "a": 0b111111111111, "z": 2**64 - 1}
    assert image_hash.group_similar(hashes) == {"a": "a", "b": "a", "c": "a", "z": "z"}


@pytest.mark.parametrize("nothing", ["", " ", "\n", "."])
@pytest.mark.parametrize("choices", [(), ("left", "right")])
def test_a_trace_without_an_answer_is_compared_too(nothing, choices):
    assert answer_key(nothing, choices) == answer_key(nothing.strip() or "", choices)

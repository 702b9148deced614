"""Pairs of numbers and the images they are told to be in, in texts of many."""

import random
import re

import pytest

from mcts.places import pairs
from mcts.places.pairs import find_pairs

PARTS = [
    "(1, 2)", "(30, 40)", "in image 1", "in the second image", "image 2 shows", "in the second,",
    "the first image has", "it is at", "It is at", "like the one at", "than that in", "; but",
    "the cup", "unlike the cup in image 2", "in the other image", "images 1 and 2", "than in image",
    "在第二张图中", "(5，6)", "as", "while", "similar to the one",
]  # fmt: skip


@pytest.mark.parametrize("n_images", [2, 3])
def test_what_is_told_of_a_pair_does_not_depend_on_the_texts_around_it(n_images):
    rng = random.Random(5)
    texts = [" ".join(rng.choices(PARTS, k=rng.randrange(2, 20))) + ".\n" for _ in range(200)]
    ended = "The lamp is at (7, 8).\n"  # a sentence of its own, of which nothing else tells
    alone = [[pair.image for pair in find_pairs(ended + text, n_images)][1:] for text in texts]
    together = find_pairs("".join(ended + text for text in texts), n_images)
    told = [[pair.image for pair in find_pairs(ended, n_images)] + images for images in alone]
    assert [pair.image for pair in together] == [image for images in told for image in images]


@pytest.mark.parametrize(
    "unit",
    ["unlike the cup in image 2 it is at (1, 2) ", "in the first image, in the second (1, 2) ",
     "It is at (1, 2) in a row. "],
)  # fmt: skip
def test_a_mention_is_read_once_however_many_pairs_follow_it(unit, monkeypatch):
    class Counting:
        """A pattern that counts the texts it is given."""

        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern, self.count = pattern, 0

        def search(self, text):
            self.count += 1
            return self.pattern.search(text)

    for name in ("_COMPARED", "_NEXT_CLAUSE"):
        monkeypatch.setattr(pairs, name, Counting(getattr(pairs, name)))
    found = find_pairs("In image 2 it is. " + unit * 300, 2)
    assert len(found) == 300
    assert pairs._COMPARED.count <= 700 and pairs._NEXT_CLAUSE.count <= 700

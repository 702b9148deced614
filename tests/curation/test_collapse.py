"""Collapse checks: what narrows is found, chance is not, and other questions are no collapse."""

import random
from collections import Counter

import pytest

from curation.scores.collapse import FEWEST, MARGINS, Searched, cell_of, compare

ANSWERS = ("left", "right", "red", "blue", "two", "three")


def searches(n, seed, *, answers=ANSWERS, spread=8, right=0.5, grounded=0.9, words=40):
    """So many searches of eight answers each; the named parts narrow."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        gold = rng.choice(ANSWERS)
        hits = [rng.random() < right for _ in range(8)]
        given = Counter(gold if hit and gold in answers else rng.choice(answers) for hit in hits)
        places = Counter((rng.randrange(spread), rng.randrange(spread)) for _ in range(12))
        found.append(
            Searched(
                8, sum(hits), given, gold, places,
                tuple(rng.random() < grounded for _ in range(12)),
                tuple(rng.randint(words - 10, words + 10) for _ in range(4)),
            )
        )  # fmt: skip
    return found


def failed(before, now):
    return {check.name for check in compare(before, now) if check.failed}


@pytest.mark.parametrize(
    ("narrows", "name"),
    [
        ({"answers": ("left",)}, "answers"),
        ({"spread": 2}, "places"),
        ({"right": 0.15}, "pass@4"),
        ({"grounded": 0.7}, "grounded"),
        ({"words": 20}, "length"),
        ({"words": 80}, "length"),
    ],
)
def test_each_way_to_collapse_is_found_and_named(narrows, name):
    before, now = searches(80, 1), searches(80, 2, **narrows)
    assert failed(before, now) == {name}
    (check,) = [check for check in compare(before, now, "sat2-cycle-2") if check.failed]
    way = "rises" if check.now > check.before else "falls"
    assert check.sentence.startswith(f"{name} {way} from ")
    assert "since sat2-cycle-2" in check.sentence


def test_alike_searches_of_other_questions_pass_whatever_their_number():
    false = [failed(searches(60, 2 * i), searches(20 + 2 * i, 2 * i + 1)) for i in range(30)]
    assert sum(map(bool, false)) <= 1


def test_more_of_one_gold_answer_is_no_collapse():
    """Answers are held against the questions' own: two answers where there are two."""
    before = searches(80, 1, right=1.0)
    now = [s for s in searches(300, 2, right=1.0) if s.gold in ("left", "right")]
    assert len(now) > 70 and not failed(before, now)


def test_what_few_questions_show_is_no_check():
    assert {check.name for check in compare(searches(80, 1), searches(80, 2))} == set(MARGINS)
    assert compare(searches(80, 1), searches(FEWEST - 1, 2)) == []
    bare = [Searched(2, 1) for _ in range(50)]
    assert compare(bare, bare) == []


def test_the_standard_error_is_that_of_repeated_draws():
    drawn = [compare(some, some) for some in (searches(40, seed) for seed in range(60))]
    for name in MARGINS:
        found = [next(c for c in checks if c.name == name) for checks in drawn]
        values = [check.now for check in found]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        told = sum(check.error for check in found) / len(found)
        # The errors of both sides are in it.
        assert told / 2**0.5 == pytest.approx(spread, rel=0.3), name


def test_a_point_on_an_edge_or_outside_is_in_the_next_cell():
    assert cell_of(0, 0, 80, 40) == (0, 0) and cell_of(79.9, 40, 80, 40) == (7, 7)
    assert cell_of(-5, 99, 80, 40) == (0, 7)

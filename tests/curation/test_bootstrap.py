"""Intervals that resample images: right in size, wider where questions share their luck."""

import numpy as np
import pytest

from curation.scores.bootstrap import clusters, difference, mcnemar, mean_of


def test_questions_with_a_picture_in_common_are_one_cluster():
    assert clusters([["a"], ["b", "a"], ["c"], ["b"], ["d", "c"]]) == [0, 0, 1, 0, 1]


def test_an_interval_of_independent_questions_is_the_textbooks():
    values = [1.0] * 60 + [0.0] * 40
    found = mean_of(values, range(100))
    half = 1.96 * (0.6 * 0.4 / 100) ** 0.5
    assert found.value == 0.6 and (found.n, found.clusters) == (100, 100)
    assert found.low == pytest.approx(0.6 - half, abs=0.01)
    assert found.high == pytest.approx(0.6 + half, abs=0.01)


def test_ten_questions_about_one_picture_are_worth_one():
    values = [float(i % 10 < 6) for i in range(100) for _ in range(10)]
    alone = mean_of(values, range(1000))
    together = mean_of(values, [i // 10 for i in range(1000)])
    assert alone.value == together.value == 0.6
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(
        10**0.5, rel=0.1
    )


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        luck = rng.normal(0, 0.15, 60)  # of a image
        scenes = np.repeat(np.arange(60), 3)
        values = (rng.random(180) < np.clip(0.6 + luck[scenes], 0, 1)).astype(float)
        found = mean_of(values.tolist(), scenes.tolist())
        held += found.low <= 0.6 <= found.high
    assert 180 <= held <= 199


def test_a_difference_is_paired():
    rng = np.random.default_rng(2)
    hard = rng.random(400)
    first = [float(h < 0.7) for h in hard]
    second = [float(h < 0.65) for h in hard]  # a little worse, on the same questions
    gap = difference(first, second, range(400))
    assert gap.clear and 0 < gap.value < 0.1 and gap.p < 0.01
    assert gap.only_second == 0 and gap.only_first == round(gap.value * 400)
    unpaired = mean_of(first, range(400))
    assert gap.high - gap.low < unpaired.high - unpaired.low
    same = difference(first, first, range(400))
    assert (same.value, same.low, same.high) == (0, 0, 0) and same.p == 1 and not same.clear
    with pytest.raises(ValueError, match="can't be paired"):
        difference([1.0], [1.0, 0.0], [0])


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (9, 1, 0.0215)]
)
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second, p):
    first = [1.0] * only_first + [0.0] * only_second + [1.0] * 5
    second = [0.0] * only_first + [1.0] * only_second + [1.0] * 5
    found = mcnemar(first, second)
    assert found[:2] == (only_first, only_second)
    assert found[2] == pytest.approx(p, abs=1e-4)


def test_mcnemar_of_thousands_does_not_overflow():
    assert 0 < mcnemar([1.0] * 1600 + [0.0] * 1500, [0.0] * 1600 + [1.0] * 1500)[2] < 0.1


def test_few_groups_of_images_show_nothing_by_being_alike() -> None:
    second = [0.0] * 10 + [1.0] * 8 + [0.0] * 2
    one_image = difference([1.0] * 10 + [0.0] * 10, second, [7] * 20)
    assert (one_image.low, one_image.high, one_image.p) == (-1.0, 1.0, 1.0) and not one_image.clear
    three = difference([1.0] * 3, [0.0] * 3, [1, 2, 3])
    assert three.p == 0.25 and not three.clear, "a coin falls three times alike as often"
    ten = difference([1.0] * 10, [0.0] * 10, range(10))
    assert ten.clear and ten.p < 0.01
    share = mean_of([1.0, 0.0, 1.0, 1.0], [4] * 4)
    assert (share.value, share.low, share.high) == (0.75, 0.0, 1.0)


@pytest.mark.parametrize("scenes", [6, 10, 25])
def test_few_groups_of_images_give_no_more_false_alarms_than_are_claimed(scenes: int) -> None:
    drawn = np.random.default_rng(scenes)
    found = [
        difference(*drawn.random((2, scenes)).tolist(), range(scenes), seed=i) for i in range(200)
    ]
    assert sum(gap.clear for gap in found) <= 0.08 * len(found)
    doubtful = [gap for gap in found if not gap.clear and not gap.low <= 0 <= gap.high]
    assert all(f"too few groups of images to tell ({scenes})" in gap.doubt for gap in doubtful)
    assert {gap.doubt for gap in found if gap.low <= 0 <= gap.high} == {", which includes 0"}

"""A search where best-of-n fails with half the budget."""

from vigorl_nano.claims.half_budget import ratio


def test_a_ratio_has_an_interval_over_scenes() -> None:
    ours, theirs = [1.0, 1.0, 1.0, 0.0] * 10, [1.0, 0.0, 1.0, 0.0] * 10
    value, low, high = ratio(ours, theirs, [i // 2 for i in range(40)])
    assert value == 1.5 and 1 < low < value < high
    assert ratio(ours, ours, range(40)) == (1, 1, 1)

"""What a dry run predicts from its pilot's trees, and how it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.settings import BuildSettings
from flows.stages.forecast import Forecast, Range, forecast, predict
from mcts.budget import Usage
from mcts.teachers.base import TeacherError
from mcts.tree import Tree
from tests.support.grown import fork, grow
from tests.support.zoom_trees import grow_looks

SETTINGS = BuildSettings.checked(
    task="sat2", teacher="x", concurrency=2, price_in=3, price_out=10
)  # fmt: skip


def tree(requests: int, *spans: tuple[float, float], of: Tree | None = None) -> Tree:
    """A tree of so many requests; each wrote 10 tokens and was sent 100, a fifth of images."""
    found = of or fork()
    found.usage = Usage(requests, 100 * requests, 10 * requests, list(spans), 20 * requests)
    return found


def test_the_cost_of_all_is_predicted_from_the_first() -> None:
    trees = [tree(4, (0.0, 6.0)), tree(8, (4.0, 14.0))]
    found = forecast(trees, 30, 20, SETTINGS)
    assert (found.questions, found.missing, found.pilot, found.right) == (30, 20, 2, 2)
    assert (found.spent.requests, found.spent.prompt_tokens) == (12, 1200)
    assert (found.spent.completion_tokens, found.spent.seconds) == (120, 14.0)
    assert found.requests == predict([4, 8], 20) and found.requests.middle == 120
    assert found.prompt_tokens.middle == 12_000 and found.completion_tokens.middle == 1200
    # Two trees at a time, 8 s each on average; or in a line, at the pace of 14 s for two.
    assert (found.fastest_s, found.slowest_s) == (8.0 * 20 / 2, 7.0 * 20)
    assert (found.price_in, found.price_out) == (3, 10)
    assert found.crops is None and found.image_tokens is None and found.failed == ()


def test_it_takes_as_long_as_the_longest_tree_at_least() -> None:
    found = forecast([tree(1, (0.0, 1.0)), tree(1, (0.0, 9.0))], 2, 2, SETTINGS)
    assert (found.fastest_s, found.slowest_s) == (9.0, 9.0)
    many = replace_concurrency(64)
    found = forecast([tree(1, (0.0, 2.0)), tree(1, (0.0, 4.0))], 4, 4, many)
    assert (found.fastest_s, found.slowest_s) == (4.0, 8.0)


def replace_concurrency(trees: int) -> BuildSettings:
    return SETTINGS.model_copy(update={"concurrency": trees})


def test_pilot_trees_that_failed_or_found_nothing_right_are_told() -> None:
    gone = TeacherError("timeout", "gone")
    failed = grow({}, lambda *_: gone, simulations=1, children=1)
    wrong = grow({}, lambda *_: "<answer>right</answer>", simulations=1, children=1)
    found = forecast([tree(1, of=failed), tree(1, of=wrong), tree(1)], 3, 3, SETTINGS)
    assert found.right == 1 and len(found.failed) == 1 and "gone" in found.failed[0]
    silent = replace(failed, errors=())
    assert forecast([tree(1, of=silent)], 1, 1, SETTINGS).failed == ("nothing usable",)
    assert f"a pilot tree failed: {found.failed[0]}" in found.text()


def test_crops_are_predicted_where_steps_may_zoom() -> None:
    found = forecast([tree(3, of=grow_looks())], 2, 2, SETTINGS, zooms=True)
    assert found.crops == Range(6.0, None, None), "three crops in the one tree"
    assert found.image_tokens == Range(120.0, None, None)
    lines = found.text().splitlines()
    assert "    of images     120" in lines and "  crops shown     6" in lines


def test_without_a_tree_nothing_is_predicted() -> None:
    found = forecast([], 5, 0, SETTINGS)
    assert found.text() == "all 5 questions have their trees: there is nothing to ask"
    assert found.requests == found.prompt_tokens == Range(0.0, 0.0, 0.0)
    assert (found.pilot, found.right, found.fastest_s, found.slowest_s) == (0, 0, 0.0, 0.0)


def told(**changed: object) -> list[str]:
    values: dict[str, object] = {
        "questions": 30, "missing": 20, "pilot": 2, "right": 1, "failed": (),
        "spent": Usage(12), "requests": Range(120.0, 99.4, 140.6),
        "prompt_tokens": Range(12_000.0, 11_000.0, 13_000.0),
        "completion_tokens": Range(1200.0, 1100.0, 1300.0), "fastest_s": 80.0, "slowest_s": 140.0,
        **changed,
    }  # fmt: skip
    return Forecast(**values).text().splitlines()  # type: ignore[arg-type]


def test_a_forecast_is_told_line_by_line() -> None:
    assert told(price_in=3.0, price_out=10.0) == [
        "pilot: 2 questions searched, 1 with a right answer; its 12 responses are in the journal "
        "and are not asked for again",
        "predicted for 20 of 30 questions (from .. to: nine times in ten)",
        "  requests        120 (99.4 .. 141)",
        "  prompt tokens   12,000 (11,000 .. 13,000)",
        "  tokens written  1,200 (1,100 .. 1,300)",
        "  time            1 min 20 s .. 2 min 20 s (the teacher keeps pace with many trees at "
        "once, or does not)",
        "  money           0.048 (0.044 .. 0.052)",
    ]
    assert not [line for line in told(price_in=3.0) if "money" in line]


def test_one_question_says_nothing_of_the_spread() -> None:
    one = Range(100.0, None, None)
    lines = told(pilot=1, requests=one, prompt_tokens=one, completion_tokens=one,
                 price_in=1.0, price_out=1.0)  # fmt: skip
    assert lines[1] == "predicted for 20 of 30 questions"
    assert lines[2] == "  requests        100" and lines[-1] == "  money           0.0002"


@pytest.mark.parametrize(
    ("sample", "total", "low", "high"),
    [
        ([4.0, 8.0], 2, 12.0, 12.0),
        ([4.0, 8.0], 3, 12.0, 18 + 6.314 * 8**0.5 * 1.5**0.5),  # no less than what is known
        ([10.0, 10.0, 10.0], 9, 90.0, 90.0),
        ([1.0] * 5 + [2.0] * 6, 22, None, 34 + 1.812 * 0.5222 * 22**0.5),
        ([1.0] * 6 + [2.0] * 6, 24, None, 36 + 1.796 * 0.5222 * 24**0.5),
    ],
)
def test_a_sum_is_predicted_with_its_spread(
    sample: list[float], total: int, low: float | None, high: float
) -> None:
    found = predict(sample, total)
    assert found.middle == pytest.approx(sum(sample) / len(sample) * total)
    assert found.high == pytest.approx(high, rel=2e-3)
    assert found.low is not None and found.high is not None
    if low is None:
        assert found.middle - found.low == pytest.approx(found.high - found.middle)
    else:
        assert found.low == pytest.approx(low)

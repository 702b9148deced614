"""The order of GRPO's questions: the same wherever a training goes on, and with all of them."""

from __future__ import annotations

import pytest

from training.batches.question_order import QuestionOrder


def epochs(order: QuestionOrder, *numbers: int) -> list[list[int]]:
    found = []
    for number in numbers:
        order.set_epoch(number)
        found.append(list(order))
    return found


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_has_one_order_whichever_process_begins_it(shuffle: bool) -> None:
    whole = QuestionOrder(range(8), 1, batch_size=2, shuffle=shuffle, seed=3)
    first, second, third = epochs(whole, 0, 1, 2)
    later = QuestionOrder(range(8), 1, batch_size=2, shuffle=shuffle, seed=3)
    assert epochs(later, 2, 1) == [third, second]
    assert sorted(first) == sorted(second) == list(range(8))
    assert (first != second) is shuffle


def test_the_first_epoch_is_trls_own() -> None:
    from trl.trainer.utils import RepeatSampler

    given = {"mini_repeat_count": 2, "batch_size": 3, "repeat_count": 2, "seed": 5}
    for shuffle in (True, False):
        ours, theirs = (
            kind(range(7), shuffle=shuffle, **given) for kind in (QuestionOrder, RepeatSampler)
        )
        assert list(ours) == list(theirs) and len(ours) == len(theirs) == len(list(ours))


def test_in_a_fixed_order_what_one_epoch_leaves_out_is_asked_by_the_next() -> None:
    order = QuestionOrder(range(10), 1, batch_size=4, shuffle=False)
    assert epochs(order, 0, 1, 2) == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 3, 4, 5, 8, 9],
        [0, 1, 2, 3, 6, 7, 8, 9],
    ]

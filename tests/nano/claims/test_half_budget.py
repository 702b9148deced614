"""A search where best-of-n fails with half the budget."""

import asyncio

from vigorl_nano.claims import half_budget
from vigorl_nano.claims.half_budget import HalfBudget, ratio


def test_a_strategy_asks_its_own_teacher_where_one_is_given(tmp_path, monkeypatch):
    asked = []

    async def search_one(warehouse, named, config, opened):
        asked.append(opened.identity.partition("@")[0])
        return await search(warehouse, named, config, opened)

    search = half_budget.search_one
    monkeypatch.setattr(half_budget, "search_one", search_one)
    bench = HalfBudget("sat2", 1, str(tmp_path), asked={"teacher": "nano"})
    for given in ({}, {"teacher": "nano-reader"}):
        (found,) = asyncio.run(bench.search(bench.questions, "mcts", 40, 0, **given))
        assert found.tokens > 0
    assert len(set(asked)) == 2


def test_a_ratio_has_an_interval_over_scenes() -> None:
    ours, theirs = [1.0, 1.0, 1.0, 0.0] * 10, [1.0, 0.0, 1.0, 0.0] * 10
    value, low, high = ratio(ours, theirs, [i // 2 for i in range(40)])
    assert value == 1.5 and 1 < low < value < high
    assert ratio(ours, ours, range(40)) == (1, 1, 1)

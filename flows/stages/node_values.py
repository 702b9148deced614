"""The value model of a build's searches: found by its name, loaded once, asked line by line.

identity = find_value_model(home, "my-prm", zooms=False)    # for `SearchConfig.value_model`
valuer = await valuer_of(warehouse, config, question)       # for `mcts.search.search`
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from functools import lru_cache

from flows.settings_base import FieldProblem
from mcts.config import SearchConfig
from mcts.data import Question, ResponseStyle, Step
from training.values.lines import Scorer, line_values
from warehouse.models import require_model
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image

DECIMALS = 4
"""Of a value: what rounds otherwise on another machine makes no other tree."""
_ONE_AT_A_TIME = threading.Lock()


def find_value_model(home: str | None, name: str | None, zooms: bool) -> str:
    """Return the id of a process reward model of a warehouse; empty where no name is given.

    Args:
        zooms: whether the search does.

    Raises:
        Problem: it is a model that answers, or values other lines than this search has.
        WarehouseError: there is none, or several match.
    """
    if not name:
        return ""
    row = require_model(Warehouse.at(home), name)
    recipe = json.loads(row["recipe"])
    if recipe["kind"] != "prm":
        raise FieldProblem(
            "value_model", f"{row['name']} answers, and values nothing; train one: vigorl train prm"
        )
    if (recipe["response_style"] == ResponseStyle.ZOOM) is not zooms:
        those = "searches without crops" if zooms else "searches that zoom"
        raise FieldProblem("value_model", f"{row['name']} is not for this search, but for {those}")
    return str(row["model_id"])


async def valuer_of(
    warehouse: Warehouse, config: SearchConfig, question: Question
) -> NodeValues | None:
    """Return what values the nodes of a question's search; None where nothing does.

    Raises:
        WarehouseError: the model is not in the warehouse any more.
    """
    if not config.value_model:
        return None
    scorer = await asyncio.to_thread(_scorer_of, warehouse, config.value_model)
    return NodeValues(scorer, question, warehouse)


def _scorer_of(warehouse: Warehouse, model_id: str) -> Scorer:
    with _ONE_AT_A_TIME:
        return _loaded(warehouse, model_id)


@lru_cache(maxsize=2)
def _loaded(warehouse: Warehouse, model_id: str) -> Scorer:
    from training.values.model import load_value_model

    require_model(warehouse, model_id)
    return load_value_model(warehouse, model_id)


class NodeValues:
    """Values lines of one question; see `mcts.selection.value_model.Valuer`."""

    def __init__(self, scorer: Scorer, question: Question, warehouse: Warehouse) -> None:
        self._scorer, self._question = scorer, question
        self._read = lru_cache(maxsize=8)(lambda name: read_image(warehouse, name))

    async def values(self, lines: Sequence[Sequence[Step]]) -> list[float | None]:
        """See `mcts.selection.value_model.Valuer`."""
        return await asyncio.to_thread(lambda: [self._value(line) for line in lines])

    def _value(self, line: Sequence[Step]) -> float | None:
        with _ONE_AT_A_TIME:
            found = line_values(self._scorer, self._question, line, None, self._read)
        return None if found is None else round(found[-2], DECIMALS)

"""Values of new nodes from outside the search: a model that has learned what steps are worth.

    tree = await search(question, config, policy, grade, tree_id, valuer=valuer)

Until the first right answer all outcomes are 0, and selection is blind. A value model (a process
reward model, `training.values`) says of a step at once what its outcomes may be. A node's `prior`
counts as `SearchConfig.value_weight` visits in selection alone, as a heuristic of an untried move
does (Gelly and Silver 2007): statistics stay those of outcomes. With `value_rollouts` answers are
sampled from the new steps of the highest values only.

A value must be a function of the line of steps, so that a search that is run again, or replayed,
is the same one; the model's identity is part of the search's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mcts.data import Step


class Valuer(Protocol):
    """Values lines of steps that answer one question."""

    async def values(self, lines: Sequence[Sequence[Step]]) -> Sequence[float | None]:
        """Return the value of each line's last step, 0 to 1; None where it can't be told."""
        ...

"""What decides a search besides its question, seed and teacher, and the id that follows from it.

    config = SearchConfig(space=CoordinateSpace.qwen3_vl(), simulations=20)
    tree_id = search_id(question, config, seed=0, teacher=teacher.identity)

The configuration is hashed into the id: renaming a field or changing a default renames searches.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from mcts.budget import Budget
from mcts.coordinates import CoordinateSpace, Dialect
from mcts.data import Grade, Question, content_id
from mcts.zoom.config import ZoomConfig

Grader = Callable[[Question, str | None], Grade]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """Parameters of a search; part of its identity."""

    space: CoordinateSpace
    """The teacher's coordinate space."""
    prompt: str = "points"
    """Name of the prompt (`mcts.prompts`)."""
    prompt_digest: str = ""
    """Content hash of that prompt."""
    simulations: int = 8
    children: int = 3
    """Steps sampled when a node is expanded."""
    rollouts: int = 2
    """Answers sampled from each new child."""
    max_depth: int = 10
    """Steps after which only an answer may follow."""
    rollout_steps: int = 5
    """Steps of a rollout before its answer is forced."""
    exploration: float = 2.0
    """The constant c of UCT."""
    wave: int = 1
    """Simulations that run at once within a tree."""
    temperature: float = 1.0
    top_p: float = 1.0
    step_tokens: int = 512
    """Token limit of one step; a rollout may use `rollout_steps + 1` times as many."""
    min_thoughts: tuple[int, int] = (3, 7)
    """The prompt demands at least k thoughts, with k drawn from this range, ends included."""
    repeat_radius: float = 0.01
    """Two points closer than this share of the image's longer side are the same place."""
    strategy: str = "mcts"
    """`mcts`; a baseline: `best-of-n`, `linear`; or `auto`: whole chains first, and a tree search
    of what they fail."""
    samples: int = 16
    """Chains that the baselines sample, or `auto` before its simulations; `mcts` has none."""
    enough: int | None = None
    """Stop at this many distinct correct lines of reasoning (`Tree.right_lines`)."""
    budget: Budget = field(default_factory=Budget)
    """Stop when this is spent."""
    bounded: bool = False
    """Ask the teacher to end a rollout at its last allowed step, if it can count steps; otherwise
    what it writes beyond that is cut here, after it was paid for."""
    zoom: ZoomConfig | None = None
    """How steps may call for crops, which the next step sees; None where they may not."""
    widening: float = 0.0
    """Progressive widening (Coulom 2007; Couëtoux et al. 2011): a node is asked for further
    children while they are fewer than this power of its visits, and where all is explored any node
    may be; 0: every node is expanded once."""
    distinct: bool = False
    """Discard a child that cites, or is shown, the place of a sibling, whatever its words."""
    value_model: str = ""
    """Identity of what values new nodes (`mcts.selection.value_model`); empty for none."""
    value_weight: float = 2.0
    """Visits that such a value counts as in selection."""
    value_rollouts: int = 0
    """New steps of an expansion that answers are sampled from, of the highest values; 0: all
    of them."""
    keep_rollouts: bool = False
    """Add the steps of rollouts to the tree, so that the search may go on from them."""
    stay: bool = False
    """Go on below the node that was expanded last, where right and wrong answers are behind it."""
    scale_exploration: float = 0.0
    """How far `exploration` shrinks where little is right; see `mcts.selection.uct.uct`."""
    policy_prior: float = 0.0
    """Power of a step's policy prior in its exploration, below 0 for the less likely first; 0 asks
    for no log-probabilities."""


# Fields added later are hashed only where they are set, so that older searches keep their ids.
_LATER_FIELDS = (
    "strategy", "samples", "enough", "budget", "bounded", "zoom", "widening", "distinct",
    "value_model", "value_weight", "value_rollouts", "keep_rollouts", "stay",
    "scale_exploration", "policy_prior",
)  # fmt: skip


def search_id(question: Question, config: SearchConfig, seed: int, teacher: str) -> str:
    """Name a search: ids are equal exactly when everything that decides the search is equal."""
    hashed = identifying_fields(config)
    defaults = asdict(SearchConfig(config.space))
    for name in _LATER_FIELDS:
        if name in hashed and hashed[name] == defaults[name]:
            del hashed[name]
    return content_id(question.question_id, hashed, seed, teacher)


def identifying_fields(config: SearchConfig) -> dict[str, Any]:
    """Return a configuration as a dict to be hashed: a dialect only where the model has one, and
    zoom only where it may."""
    fields = asdict(config)
    if config.zoom is None:
        del fields["zoom"]
    else:
        fields["zoom"]["thoughts"] = "apart"  # `mcts.parsing.THOUGHT_BREAK`; once they were joined
    if config.space.dialect is Dialect.PAIRS:
        del fields["space"]["dialect"]
    return fields


def draw_min_thoughts(tree_id: str, config: SearchConfig) -> int:
    """Draw the k of "at least k steps": one value for a whole tree, drawn anew for each tree."""
    return random.Random(tree_id).randint(*config.min_thoughts)

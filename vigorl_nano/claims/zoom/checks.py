"""Holds what is expected beside right answers against what came out: groups, crops, behaviors.

    lines = besides(experiment, evaluations, metrics)

Each line says a figure and whether it is as docs/claim.md expects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vigorl_nano.claims.scores import Evaluations, mean_behaviors
from vigorl_nano.claims.stages import Experiment
from vigorl_nano.claims.zoom.plan import ARMS, TITLES
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse

TAUGHT = ("verification", "backtracking")
"""Behaviors that no training should lose more than half of."""
MOST_DEAD, LEAST_ASKED = 0.15, 0.75


def besides(
    experiment: Experiment, found: Evaluations, metrics: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Say whether what is expected besides holds, of the arms that are finished.

    Args:
        metrics: of each arm's GRPO, a model each.
    """
    said = [*_groups(metrics), *_crops(found), *_second_looks(found)]
    said += _behaviors(experiment, found)
    verdicts = [f"- {text}; {'holds' if held else 'does not hold'}." for text, held in said]
    return ["", *verdicts] if verdicts else []


def _groups(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, bool]]:
    for arm, each in metrics.items():
        dead = [m["groups/dead"] for m in each if "groups/dead" in m]
        if dead and ARMS[arm].dead_group_tokens:
            share = float(np.mean(dead))
            text = (
                f"{TITLES[arm]}: {share:.1%} of the groups are dead, under {MOST_DEAD:.0%} expected"
            )
            yield text, share < MOST_DEAD


def _crops(found: Evaluations) -> Iterator[tuple[str, bool]]:
    seen = {
        name: float(np.mean([evaluation["on_asked"] for evaluation in some]))
        for name, some in found.items()
        if name in ARMS and all("on_asked" in evaluation for evaluation in some)
    }
    for arm, share in seen.items():
        if not (ARMS[arm].data and ARMS[arm].reward):
            continue
        text = f"{TITLES[arm]}: {share:.1%} of the crops show a sign in question"
        yield f"{text}, {LEAST_ASKED:.0%} expected", share >= LEAST_ASKED
        if "search" in seen:
            yield f"{text}, no fewer than {seen['search']:.1%} expected", share >= seen["search"]


def _second_looks(found: Evaluations) -> Iterator[tuple[str, bool]]:
    """Compare what models do where their first crop shows no sign in question: turning back, told
    by the looks and not by the words."""
    shares = {
        name: float(np.mean([evaluation["looked_again"] for evaluation in some]))
        for name, some in found.items()
        if name in ARMS and all("looked_again" in evaluation for evaluation in some)
    }
    for arm, share in shares.items():
        if ARMS[arm].data and ARMS[arm].reward and "search" in shares:
            least = shares["search"] / 2
            text = f"{TITLES[arm]}: {share:.1%} of the first crops without a sign in question are"
            yield f"{text} followed by another look, half of SFT's is {least:.1%}", share >= least


def _behaviors(experiment: Experiment, found: Evaluations) -> Iterator[tuple[str, bool]]:
    arms = {name: some for name, some in found.items() if name in ARMS and ARMS[name].reward}
    taught = dialogue_behaviors(experiment) if arms else {}
    for arm, means in (mean_behaviors(experiment, arms) if taught else {}).items():
        for behavior, mean in means.items():
            if behavior in TAUGHT and taught.get(behavior):
                least = taught[behavior] / 2
                text = f"{TITLES[arm]}: {mean:.2f} of {behavior} an answer"
                yield f"{text}, half of the dialogues' is {least:.2f}", mean >= least


def dialogue_behaviors(experiment: Experiment) -> dict[str, float]:
    """Return the mean count of each behavior, by rule, in the searched dialogues of SFT."""
    counts: dict[str, list[float]] = defaultdict(list)
    for seed in experiment.size.seeds:
        made = experiment.outcome(f"search/mcts@{seed}")
        if made is None:
            continue
        name, _, version = made["dataset"].partition("@v")
        rows = query(
            Warehouse.at(made["home"]),
            "SELECT behavior, avg(count) AS mean FROM dataset_rows JOIN behaviors USING (trace_id) "
            f"WHERE dataset_rows.name = {quoted(name)} AND version = {int(version)} "
            "AND method LIKE 'rule%' GROUP BY ALL ORDER BY ALL",
        ).to_pylist()
        for row in rows:
            counts[row["behavior"]].append(row["mean"])
    return {behavior: float(np.mean(means)) for behavior, means in counts.items()}

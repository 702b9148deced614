"""A finished search as rows: `trees`, `nodes`, `rollouts` and the `responses` they came from.

    rows = search_rows(tree, config, records, model=teacher.identity, seed=0)
    commit_trees(warehouse, rows, run_id=run_id)

What a row says of cost is summed from the journal's records, not from a clock, so a search that
was interrupted and resumed makes the same rows as one that was not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from curation.grading.grade import votes_of
from mcts.config import SearchConfig
from mcts.journal.records import Record
from mcts.teacher_policy import sample_id, storable
from mcts.teachers.base import sample_seed
from mcts.teachers.identities import member_of
from mcts.tree import Tree, TreeRows, flatten
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class SearchRows:
    """Rows of one search, or of several: everything they leave in the warehouse."""

    trees: list[Row]
    nodes: list[Row] = field(default_factory=list)
    rollouts: list[Row] = field(default_factory=list)
    responses: list[Row] = field(default_factory=list)

    @property
    def tree(self) -> Row:
        """The row of the tree, where these are the rows of one search."""
        (tree,) = self.trees
        return tree

    @classmethod
    def joined(cls, searches: Sequence[SearchRows]) -> SearchRows:
        """The rows of several searches, to be committed together."""
        tables = ("trees", "nodes", "rollouts", "responses")
        return cls(*([row for one in searches for row in getattr(one, t)] for t in tables))


def search_rows(
    tree: Tree, config: SearchConfig, records: Iterable[Record], *, model: str, seed: int
) -> SearchRows:
    """Rows of a finished search.

    Args:
        records: all its journaled responses, failures included; those that were asked for ahead
            and then not used (`mcts.prefetch`) make no rows.
        model: identity of the teacher that gave them.
    """
    used = tree.request_keys
    records = [
        record
        for record in records
        if used is None or (record.key.node, record.key.purpose, record.key.sample) in used
    ]
    flat = flatten(tree)
    known = [r.cached_tokens for r in records if r.cached_tokens is not None]
    space = config.space
    row = {
        "tree_id": tree.tree_id,
        "question_id": tree.question.question_id,
        "task": tree.question.task,
        "model": model,
        "config": _config(config),
        "seed": seed,
        "status": "failed" if tree.failed else "complete",
        "error": (tree.errors[0] if tree.errors else "nothing usable was said")
        if tree.failed
        else None,
        "errors": list(tree.errors),
        "simulations": tree.simulations,
        "stopped_by": tree.stopped_by,
        **outcome_columns(tree, flat),
        "requests": len(records),
        "prompt_tokens": sum(record.prompt_tokens for record in records),
        "cached_tokens": sum(known) if known else None,
        "image_tokens": sum(record.image_tokens for record in records) or None,
        "crops": count_crops(tree) if config.zoom else None,
        "completion_tokens": sum(record.completion_tokens for record in records),
        "seconds": sum(record.seconds for record in records),
        "space": str(space.kind),
        "min_pixels": space.min_pixels,
        "max_pixels": space.max_pixels,
        "factor": space.factor,
        "prompt_hash": config.prompt_digest,
    }
    responses = [r for record in records for r in response_rows(record, model)]
    return SearchRows([row], flat.nodes, flat.rollouts, responses)


def _config(config: SearchConfig) -> str:
    fields = asdict(config)
    if config.zoom is None:
        del fields["zoom"]  # as older code wrote it
    return json.dumps(fields, sort_keys=True)


def count_crops(tree: Tree) -> int:
    """Count the crops that zoom calls showed, in the tree's nodes and in rollouts."""
    nodes = [node for node in tree.nodes if not node.discarded]
    steps = [node.step for node in nodes if node.step is not None]
    steps += [step for node in nodes for rollout in node.rollouts for step in rollout.steps]
    seen = (step.observation for step in steps)
    return sum(observation is not None and observation.crop is not None for observation in seen)


def outcome_columns(tree: Tree, flat: TreeRows) -> Row:
    """Columns of `trees` that say what a search found, of our own searches and imported ones."""
    outcomes = tree.outcomes()
    right = sum(reward >= 1.0 for _, reward in outcomes)
    majority = majority_answer(tree)
    return {
        "n_nodes": len(flat.nodes),
        "n_rollouts": len(flat.rollouts),
        "root_value": tree.root.value,
        "root_visits": tree.root.visits,
        "majority_answer": majority,
        "majority_right": None if majority is None else (majority, 1.0) in outcomes,
        "right_rollouts": right,
        "any_right": right > 0,
    }


def response_rows(record: Record, model: str) -> list[Row]:
    """One row a sample; a failed request is one row with its error."""
    shared = {
        "tree_id": record.key.search_id,
        "path": record.key.node,
        "purpose": record.key.purpose,
        "fingerprint": record.fingerprint,
        "request_id": record.response_id,
    }
    once = {
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "image_tokens": record.image_tokens or None,
        "seconds": record.seconds,
    }
    if record.failure is not None:
        failed = {"error": record.failure.kind, "message": record.failure.message}
        first = {
            "response_id": sample_id(record, 0),
            "sample": record.key.sample,
            "model": model,
        }
        return [{**shared, **once, **first, **failed}]
    return [
        {
            **shared,
            **(once if i == 0 else {}),
            "response_id": sample_id(record, i),
            "sample": record.key.sample + i,
            "model": member_of(model, sample_seed(record.key.seed, i)),
            "text": storable(completion.text),
            "finish_reason": completion.finish_reason,
            "tokens": completion.tokens,
            "mean_logprob": completion.mean_logprob,
        }
        for i, completion in enumerate(record.completions)
    ]


def majority_answer(tree: Tree) -> str | None:
    """The answer most outcomes gave, the first met among equals: self-consistency over the tree.

    Answers that say the same are one (`curation.grading.grade.votes_of`), as in an evaluation.
    """
    answers = [answer for answer, _ in tree.outcomes()]
    cast = votes_of(tree.question, answers)
    votes = Counter(vote for vote, _ in cast)
    speakers = (speaker for _, speaker in sorted(cast, key=lambda one: -votes[one[0]]))
    return next((answers[speaker] for speaker in speakers), None)

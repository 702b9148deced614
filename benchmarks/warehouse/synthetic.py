"""Synthetic search trees and traces by the million, as Arrow tables: seeded and vectorised.

    for batch in batches(traces=1_000_000, batches=20):
        batch["traces"], batch["steps"], batch["verdicts"]        # and trees, nodes, responses, …

Shapes and value ranges are those of a real build: eight traces per tree, ten steps per trace, a
point in most steps, four verdicts and two behaviors per trace. Rows are in the best possible order,
by question, tree, trace and step; `shuffled` removes that order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.tables.schema import TABLES

STEPS_PER_TRACE = 10
TRACES_PER_TREE = 8
TREES_PER_QUESTION = 2
NODES_PER_TREE = 16
FILTERS = ("right_answer", "points_inside", "well_formed", "length")
BEHAVIORS = ("regions", "backtracking")
TASKS = ("sat2", "vstar")
FAMILIES = ("left_right", "nearer", "counting", "colour", "behind", "tallest", "text", "size")
_THINGS = ["lamp", "red chair", "window", "blue cup", "plant", "shelf", "book", "round table"]
_WHERE = ["is left of", "stands behind", "is nearer than", "lies on", "is below", "hides"]

_N_IMAGES = 500

Batch = dict[str, pa.Table]


def image_bytes() -> list[bytes]:
    """Return the content of the images, too small to matter on disk."""
    return [f"synthetic image {i}".encode() for i in range(_N_IMAGES)]


def images() -> pa.Table:
    """Return all rows of the table `images`."""
    n = _N_IMAGES
    ids = sorted(hashlib.sha256(data).hexdigest() for data in image_bytes())
    return _table("images", {
        "image_id": pa.array(ids), "width": np.full(n, 640), "height": np.full(n, 480),
        "format": pa.repeat("PNG", n), "source": pa.repeat("synthetic", n),
        "licence": pa.repeat("CC0-1.0", n),
    })  # fmt: skip


def batches(traces: int, batches: int, seed: int = 7) -> Iterator[Batch]:
    """Yield `traces` traces with their other rows, in `batches` parts of whole questions."""
    questions = traces // (TRACES_PER_TREE * TREES_PER_QUESTION)
    names = np.sort(np.frombuffer(np.random.default_rng(seed).bytes(16 * questions), "S16"))
    for part, ids in enumerate(np.array_split(names, batches)):
        yield _batch(np.random.default_rng([seed, part]), ids)


def shuffled(batch: Batch, seed: int = 7) -> Batch:
    """Shuffle the trees, as in a build; the rows of a tree stay together."""
    trees = batch["trees"]["tree_id"].to_numpy(zero_copy_only=False)
    order = np.random.default_rng(seed).permutation(len(trees))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    moved = {}
    for name, table in batch.items():
        if name == "questions":
            moved[name] = table
            continue
        # Every tree has equally many rows in every table except steps, whose trees are looked up.
        of_tree = place[_tree_of(name, table, batch, len(trees))]
        moved[name] = table.take(np.argsort(of_tree, kind="stable"))
    return moved


def _tree_of(name: str, table: pa.Table, batch: Batch, trees: int) -> np.ndarray[Any, Any]:
    if name != "steps":
        return np.repeat(np.arange(trees), table.num_rows // trees)
    steps = batch["traces"]["n_steps"].to_numpy()
    return np.repeat(np.arange(trees).repeat(TRACES_PER_TREE), steps)


def _batch(rng: np.random.Generator, question_ids: np.ndarray[Any, Any]) -> Batch:
    n = len(question_ids)
    questions = _hex(question_ids)
    task, family = _pick(rng, TASKS, n), _pick(rng, FAMILIES, n)
    shown = images()["image_id"].take(rng.integers(0, _N_IMAGES, n)).combine_chunks()
    n_trees = n * TREES_PER_QUESTION
    of_tree = np.repeat(np.arange(n), TREES_PER_QUESTION)
    trees = _sorted_ids(rng, of_tree, 16)
    n_traces = n_trees * TRACES_PER_TREE
    of_trace = np.repeat(np.arange(n_trees), TRACES_PER_TREE)
    traces = _sorted_ids(rng, of_trace, 16)
    reward = (rng.random(n_traces) < 0.45).astype(float)
    n_steps = rng.integers(STEPS_PER_TRACE - 6, STEPS_PER_TRACE + 7, n_traces)
    of_step = np.repeat(np.arange(n_traces), n_steps)
    position = np.arange(len(of_step)) - np.repeat(np.cumsum(n_steps) - n_steps, n_steps)
    right = reward.reshape(n_trees, TRACES_PER_TREE)
    made = {
        "questions": _questions(rng, questions, task, family, shown),
        "trees": {
            "tree_id": trees, "question_id": questions.take(of_tree), "task": task.take(of_tree),
            "model": _pick(rng, ["teacher-7b", "teacher-72b"], n_trees),
            "status": _pick(rng, ["complete"], n_trees), "seed": np.zeros(n_trees, int),
            "simulations": np.full(n_trees, 20), "n_nodes": np.full(n_trees, NODES_PER_TREE),
            "root_value": right.mean(axis=1), "any_right": right.any(axis=1),
            "right_rollouts": right.sum(axis=1).astype(int),
            "requests": rng.integers(20, 60, n_trees), "seconds": 60 * rng.random(n_trees),
            "prompt_tokens": rng.integers(20_000, 60_000, n_trees),
            "cached_tokens": rng.integers(10_000, 20_000, n_trees),
            "completion_tokens": rng.integers(2_000, 9_000, n_trees),
            "space": _pick(rng, ["absolute_resized"], n_trees),
            "min_pixels": np.full(n_trees, 3136), "max_pixels": np.full(n_trees, 1003520),
            "factor": np.full(n_trees, 28), "prompt_hash": _pick(rng, ["points"], n_trees),
        },
        "traces": {
            "trace_id": traces, "tree_id": trees.take(of_trace),
            "question_id": questions.take(of_tree[of_trace]), "task": task.take(of_tree[of_trace]),
            "origin": _pick(rng, ["search"], n_traces), "reward": reward,
            "kind": _pick(rng, ["direct", "direct", "corrected"], n_traces),
            "text": _join(*_sentence(rng, n_traces), " ", *_sentence(rng, n_traces)),
            "answer": _pick(rng, _THINGS, n_traces), "n_steps": n_steps,
            "n_points": np.maximum(n_steps - rng.integers(0, 3, n_traces), 0),
            "model": _pick(rng, ["teacher-7b", "teacher-72b"], n_traces),
            "linearizer": _pick(rng, ["linearize/1"], n_traces),
        },
        "steps": _steps(rng, traces, of_step, position),
        "verdicts": _verdicts(rng, traces, reward),
        "behaviors": {
            "trace_id": traces.take(np.arange(n_traces).repeat(len(BEHAVIORS))),
            "behavior": pa.array(BEHAVIORS).take(np.tile(np.arange(len(BEHAVIORS)), n_traces)),
            "count": rng.integers(0, 4, n_traces * len(BEHAVIORS)),
            "method": pa.repeat("rule/1", n_traces * len(BEHAVIORS)),
        },
        **_search(rng, trees),
    }  # fmt: skip
    return {name: _table(name, columns) for name, columns in made.items()}


def _questions(
    rng: np.random.Generator, ids: pa.Array, task: pa.Array, family: pa.Array, shown: pa.Array
) -> dict[str, Any]:
    n = len(ids)
    one_each = np.arange(n + 1, dtype=np.int32)
    return {
        "question_id": ids, "task": task, "family": family,
        "text": _join("Which thing ", _pick(rng, _WHERE, n), " the ", _pick(rng, _THINGS, n)),
        "image_ids": pa.ListArray.from_arrays(one_each, shown),
        "answer_kind": _pick(rng, ["text"], n), "split": _pick(rng, ["train"], n),
        "answers": pa.ListArray.from_arrays(one_each, _pick(rng, _THINGS, n)),
        "source": _pick(rng, ["synthetic"], n), "licence": _pick(rng, ["CC0-1.0"], n),
    }  # fmt: skip


def _steps(rng: np.random.Generator, traces: pa.Array, of_step: Any, position: Any) -> Any:
    n = len(of_step)
    pointless = rng.random(n) < 0.15
    x, y = np.round(640 * rng.random(n), 1), np.round(480 * rng.random(n), 1)
    return {
        "trace_id": traces.take(of_step), "step": position, "thought": _join(*_sentence(rng, n)),
        "x": pa.array(x, mask=pointless), "y": pa.array(y, mask=pointless),
        "image": pa.array(np.zeros(n, np.int32), mask=pointless), "n_points": (~pointless) * 1,
        "grounded": pa.array(rng.random(n) < 0.7, mask=pointless | (rng.random(n) < 0.5)),
        "node_id": rng.integers(0, NODES_PER_TREE, n),
        "response_id": _hex(np.frombuffer(rng.bytes(8 * n), "S8")),
    }  # fmt: skip


def _verdicts(rng: np.random.Generator, traces: pa.Array, reward: Any) -> Any:
    n, kinds = len(traces), len(FILTERS)
    keep = rng.random((n, kinds)) < 0.85
    keep[:, 0] = reward == 1
    reasons = pa.array(["", "the answer is wrong", "a point is outside", "broken", "too long"])
    return {
        "trace_id": traces.take(np.arange(n).repeat(kinds)),
        "filter": pa.array(FILTERS).take(np.tile(np.arange(kinds), n)),
        "version": np.ones(n * kinds, int), "keep": keep.ravel(),
        "reason": reasons.take(np.where(keep, 0, 1 + np.arange(kinds)).ravel()),
        "score": rng.random(n * kinds),
    }  # fmt: skip


def _search(rng: np.random.Generator, trees: pa.Array) -> dict[str, Any]:
    n = len(trees) * NODES_PER_TREE
    number = np.tile(np.arange(NODES_PER_TREE), len(trees))
    of_node = trees.take(np.arange(len(trees)).repeat(NODES_PER_TREE))
    responses = _hex(np.frombuffer(rng.bytes(8 * n), "S8"))
    nodes = {
        "tree_id": of_node, "node_id": number, "depth": (number + 2) // 3,
        "parent_id": pa.array(np.maximum(number - 1, 0) // 3, mask=number == 0),
        "visits": rng.integers(1, 20, n), "value": rng.random(n), "terminal": number > 12,
        "reward": pa.array(np.round(rng.random(n)), mask=number <= 12), "response_id": responses,
    }  # fmt: skip
    answered = {
        "response_id": responses, "tree_id": of_node, "purpose": _pick(rng, ["expand"], n),
        "model": _pick(rng, ["teacher-7b"], n), "tokens": rng.integers(20, 200, n),
        "text": _join("<think>", *_sentence(rng, n), "</think>"),
    }  # fmt: skip
    return {"nodes": nodes, "responses": answered}


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = TABLES[name].schema
    rows = len(next(iter(columns.values())))
    columns = {
        "revision": pa.repeat("synthetic", rows),
        "created_at": pa.repeat(pa.scalar(datetime(2026, 1, 1, tzinfo=UTC)), rows),
        **columns,
    }
    absent = set(schema.names) - set(columns)
    arrays = [
        pa.nulls(rows, field.type) if field.name in absent
        else pa.array(columns[field.name]).cast(field.type)
        for field in schema
    ]  # fmt: skip
    return pa.table(arrays, schema=schema)


def _hex(ids: np.ndarray[Any, Any]) -> pa.Array:
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    raw = np.frombuffer(ids.tobytes(), np.uint8)
    text = np.stack([digits[raw >> 4], digits[raw & 15]], axis=1).tobytes()
    width = 2 * ids.dtype.itemsize
    offsets = pa.py_buffer(np.arange(0, len(text) + 1, width, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), len(ids), [None, offsets, pa.py_buffer(text)])


def _sorted_ids(rng: np.random.Generator, group: Any, width: int) -> pa.Array:
    """Generate random ids that are sorted inside each group."""
    ids = np.frombuffer(rng.bytes(width * len(group)), f"S{width}")
    return _hex(ids[np.lexsort((ids, group))])


def _pick(rng: np.random.Generator, values: Any, n: int) -> pa.Array:
    return pa.array(values, pa.string()).take(rng.integers(0, len(values), n))


def _sentence(rng: np.random.Generator, n: int) -> list[Any]:
    x, y = (pa.array(rng.integers(0, 640, n)).cast(pa.string()) for _ in "xy")
    things = [_pick(rng, _THINGS, n) for _ in "ab"]
    return ["The ", things[0], " (", x, ", ", y, ") ", _pick(rng, _WHERE, n), " the ", things[1]]


def _join(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")

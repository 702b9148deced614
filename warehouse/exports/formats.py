"""The forms trainers read: what a row of an export holds, one function a form.

    form = FORMS["llama-factory"]
    for row in form.rows(rows, telling): …         # a version's rows in, a trainer's rows out

`trl` and `llama-factory` are conversations for SFT, a trace each; `grpo` (TRL's), `verl` and
`easyr1` are prompts for GRPO, a question each, with its pass rate and band as when the version was
cut; `dpo` and `prm` are pairs and valued steps, made from the trees of the version's traces. Every
number that is a coordinate goes through `Telling`, into the frame of the model to be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from curation.traces.preferences import pairs
from curation.traces.step_values import step_paths
from mcts.data import Question
from mcts.tree import Tree
from warehouse.exports.dialogues import MARK, Telling, asking, blocks, dialogue, flat, pictures_in
from warehouse.query.read_back import read_trees
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.bundle import question_of

Row = dict[str, Any]

KEPT = ("trace_id", "question_id", "task", "kind", "family")
_TREES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Form:
    """One trainer's form."""

    rows: Callable[[Iterable[Row], Telling], Iterator[Row]]
    """A trainer's rows, `images` as ids and `split` beside its columns."""
    columns: dict[str, Any]
    """The columns by name as `_features` reads them; `images` comes on top."""


def _trl(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    for row in rows:
        turns = dialogue(row, telling)
        messages = blocks(turns) if telling.zooms else flat(turns, marked=False)
        yield {**row, "messages": messages, "images": pictures_in(turns)}


def _llama_factory(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    for row in rows:
        turns = dialogue(row, telling)
        messages = flat(turns, marked=True, name=row["trace_id"])
        yield {**row, "messages": messages, "images": pictures_in(turns)}


def _questions(rows: Iterable[Row]) -> Iterator[tuple[Row, Question]]:
    """Each question once, with the first row that has it."""
    seen: set[str] = set()
    for row in rows:
        if row["question_id"] not in seen:
            seen.add(row["question_id"])
            yield row, question_of(row)


def _verl(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    for index, (row, question) in enumerate(_questions(rows)):
        about = {
            "index": index,
            "split": row["split"] or "train",
            "question_id": row["question_id"],
            "family": row["family"],
            "answer_kind": str(question.answer_kind),
            "answers": list(question.answers),
            **_rated(question, telling),
        }
        yield {
            **row,
            "data_source": f"vigorl/{row['task']}",
            "prompt": flat(asking(question, telling), marked=True, name=row["trace_id"]),
            "ability": row["task"],
            "reward_model": {"style": "rule", "ground_truth": telling.gold(question)},
            "extra_info": about,
            "images": row["image_ids"],
        }


def _easyr1(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    """EasyR1 has one text a problem: what a system turn would say stands in front of it."""
    for row, question in _questions(rows):
        asked = asking(question, telling)
        flat(asked, marked=True, name=row["trace_id"])  # no text may hold a mark
        yield {
            **row,
            "problem": MARK * len(question.images) + "\n\n".join(turn.text for turn in asked),
            "answer": telling.gold(question),
            **_rated(question, telling),
            "images": row["image_ids"],
        }


def _grpo(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    """What TRL's GRPO asks, and what a reward function needs to know of it."""
    for row, question in _questions(rows):
        yield {
            **row,
            "prompt": flat(asking(question, telling), marked=False),
            "answer_kind": str(question.answer_kind),
            "choices": list(question.choices),
            "answers": list(question.answers),
            "gold": telling.gold(question),
            **_rated(question, telling),
            "images": row["image_ids"],
        }


def _rated(question: Question, telling: Telling) -> Row:
    rate, band = telling.rates.get(question.question_id, (None, None))
    return {"pass_rate": rate, "band": band}


def _dpo(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    """Two ways on from one place of a tree as whole turns; what both share weighs on neither."""
    for row, tree in _trees(rows, telling.warehouse):
        question = tree.question
        for pair in pairs(tree):
            prefix = list(pair.prefix)
            steps = [[*prefix, *side.steps] for side in (pair.chosen, pair.rejected)]
            told = [
                [{"role": "assistant", "content": telling.told(s, side.answer, question)}]
                for s, side in zip(steps, (pair.chosen, pair.rejected), strict=True)
            ]
            yield {
                **row,
                "prompt": telling.asked(question, min(map(len, steps))),
                "chosen": told[0],
                "rejected": told[1],
                "tree_id": pair.tree_id,
                "node_id": pair.parent_id,
                "margin": pair.margin,
                "least_visits": pair.least_visits,
                "images": row["image_ids"],
            }


def _prm(rows: Iterable[Row], telling: Telling) -> Iterator[Row]:
    """Lines of steps with what each is worth; a label is whether it ever led to a right answer."""
    for row, tree in _trees(rows, telling.warehouse):
        question = tree.question
        for path in step_paths(tree):
            asked = telling.asked(question, len(path))
            yield {
                **row,
                "prompt": "\n\n".join(message["content"] for message in asked),
                "completions": [telling.told([v.step], None, question) for v in path],
                "labels": [v.value > 0 for v in path],
                "values": [v.value for v in path],
                "visits": [v.visits for v in path],
                "standard_errors": [v.standard_error for v in path],
                "tree_id": tree.tree_id,
                "node_ids": [v.node_id for v in path],
                "images": row["image_ids"],
            }


def _trees(rows: Iterable[Row], warehouse: Warehouse) -> Iterator[tuple[Row, Tree]]:
    """Each tree the version's traces were cut from, with the first row that has it.

    Raises:
        WarehouseError: a tree is not in the tables any more.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if row["tree_id"]:
            first.setdefault(row["tree_id"], {k: v for k, v in row.items() if k != "steps"})
    ids = iter(sorted(first))
    while some := list(islice(ids, _TREES_AT_ONCE)):
        found = {tree.tree_id: tree for tree, _ in read_trees(warehouse, some)}
        for tree_id in some:
            if tree_id not in found:
                raise WarehouseError(f"tree {tree_id} of this version is not in the warehouse")
            yield first[tree_id], found[tree_id]


_TURNS = [{"role": "text", "content": "text"}]
_TREE = {"question_id": "text", "task": "text", "family": "text", "tree_id": "text"}
_RATE = {"pass_rate": "float", "band": "text"}
FORMS = {
    "trl": Form(_trl, {"messages": _TURNS, **dict.fromkeys(KEPT, "text")}),
    "llama-factory": Form(_llama_factory, {"messages": _TURNS, **dict.fromkeys(KEPT, "text")}),
    "verl": Form(
        _verl,
        {
            "data_source": "text",
            "prompt": _TURNS,
            "ability": "text",
            "reward_model": {"style": "text", "ground_truth": "text"},
            "extra_info": {
                "index": "int",
                "split": "text",
                "question_id": "text",
                "family": "text",
                "answer_kind": "text",
                "answers": ["text"],
                **_RATE,
            },
        },
    ),
    "easyr1": Form(
        _easyr1, {"problem": "text", "answer": "text", "question_id": "text", **_RATE}
    ),
    "grpo": Form(
        _grpo,
        {"prompt": _TURNS, "question_id": "text", "task": "text", "family": "text",
         "answer_kind": "text", "choices": ["text"], "answers": ["text"], "gold": "text", **_RATE},
    ),
    "dpo": Form(
        _dpo,
        {"prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS, **_TREE, "node_id": "int",
         "margin": "float", "least_visits": "int"},
    ),
    "prm": Form(
        _prm,
        {"prompt": "text", "completions": ["text"], "labels": ["bool"], "values": ["float"],
         "visits": ["int"], "standard_errors": ["float"], **_TREE, "node_ids": ["int"]},
    ),
}  # fmt: skip
"""Every form by the name it is asked for with."""


def features(shape: Any) -> Any:
    """A column's shape as `datasets` says it."""
    from datasets import List, Value

    if isinstance(shape, dict):
        return {name: features(inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return List(features(shape[0]))
    return Value({"text": "string", "int": "int64", "float": "float64", "bool": "bool"}[shape])

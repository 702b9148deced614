"""Export formats: what a row holds for each trainer, one function a format.

    format_ = FORMATS["llama-factory"]
    for row in format_.rows(rows, renderer): …     # a version's rows in, a trainer's rows out

To add a format: a function from rows to rows, and an entry with its columns in `FORMATS`.

`trl` and `llama-factory` are conversations for SFT, a trace each; `grpo` (TRL's), `verl` and
`easyr1` are prompts for GRPO, a question each, with its pass rate and band as when the version was
cut; `dpo` and `prm` are pairs and valued steps, made from the trees of the version's traces. Every
number that is a coordinate goes through `ConversationRenderer`, into the frame of the model to be
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from curation.traces.preferences import preference_pairs
from curation.traces.step_values import step_paths
from mcts.data import Question
from mcts.tree import Tree
from warehouse.exports.dialogues import (
    MARK,
    ConversationRenderer,
    blocks,
    check_turns,
    conversation,
    flat,
    image_ids_in,
    prompt_turns,
)
from warehouse.exports.marks import check_marks
from warehouse.query.read_back import read_trees
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of

KEPT = ("trace_id", "question_id", "task", "kind", "family")
_TREES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """What one trainer reads."""

    rows: Callable[[Iterable[Row], ConversationRenderer], Iterator[Row]]
    """From a version's rows to the trainer's: its columns, `images` as ids, and `split`."""
    columns: dict[str, Any]
    """Type by column name, as `features` reads it; `images` comes on top."""


def _trl(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    for row in rows:
        turns = conversation(row, renderer)
        check_turns(turns, "trl", f"trace {row['trace_id']}")
        messages = blocks(turns) if renderer.zooms else flat(turns, marked=False)
        yield {**row, "messages": messages, "images": image_ids_in(turns)}


def _llama_factory(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    for row in rows:
        turns = conversation(row, renderer)
        check_turns(turns, "llama-factory", f"trace {row['trace_id']}")
        messages = flat(turns, marked=True)
        yield {**row, "messages": messages, "images": image_ids_in(turns)}


def _questions(rows: Iterable[Row]) -> Iterator[tuple[Row, Question]]:
    """Each question once, with the first row that has it."""
    seen: set[str] = set()
    for row in rows:
        if row["question_id"] not in seen:
            seen.add(row["question_id"])
            yield row, question_of(row)


def _verl(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    for index, (row, question) in enumerate(_questions(rows)):
        about = {
            "index": index,
            "split": row["split"] or "train",
            "question_id": row["question_id"],
            "family": row["family"],
            "answer_kind": str(question.answer_kind),
            "choices": list(question.choices),
            "answers": list(question.answers),
            **_rated(question, renderer),
        }
        turns = prompt_turns(question, renderer)
        check_turns(turns, "verl", _named(row))
        yield {
            **row,
            "data_source": f"vigorl/{row['task']}",
            "prompt": flat(turns, marked=True),
            "ability": row["task"],
            "reward_model": {"style": "rule", "ground_truth": renderer.gold_answer(question)},
            "extra_info": about,
            "images": row["image_ids"],
        }


def _easyr1(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """EasyR1 has one text a problem: the system turn's text stands in front of it."""
    for row, question in _questions(rows):
        turns = prompt_turns(question, renderer)
        check_turns(turns, "easyr1", _named(row))
        yield {
            **row,
            "problem": MARK * len(question.images) + "\n\n".join(turn.text for turn in turns),
            "answer": renderer.gold_answer(question, alone=True),
            **_rated(question, renderer),
            "images": row["image_ids"],
        }


def _grpo(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """Prompts for TRL's GRPO, and what a reward function needs to know of each."""
    for row, question in _questions(rows):
        turns = prompt_turns(question, renderer)
        check_turns(turns, "grpo", _named(row))
        yield {
            **row,
            "prompt": flat(turns, marked=False),
            "answer_kind": str(question.answer_kind),
            "choices": list(question.choices),
            "answers": list(question.answers),
            "gold": renderer.gold_answer(question),
            **_rated(question, renderer),
            "images": row["image_ids"],
        }


def _named(row: Row) -> str:
    return f"question {row['question_id']} (trace {row['trace_id']})"


def _rated(question: Question, renderer: ConversationRenderer) -> Row:
    rate, band = renderer.rates.get(question.question_id, (None, None))
    return {"pass_rate": rate, "band": band}


def _dpo(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """Two ways on from one place of a tree as whole turns; what both share weighs on neither."""
    for row, tree in _trees(rows, renderer.warehouse):
        question = tree.question
        for pair in preference_pairs(tree):
            prefix = list(pair.prefix)
            steps = [[*prefix, *side.steps] for side in (pair.chosen, pair.rejected)]
            completions = [
                [{"role": "assistant", "content": renderer.completion(s, side.answer, question)}]
                for s, side in zip(steps, (pair.chosen, pair.rejected), strict=True)
            ]
            prompt = renderer.prompt(question, min(map(len, steps)))
            for message in (*prompt, *completions[0], *completions[1]):
                check_marks(message["content"], "dpo", f"tree {tree.tree_id}")
            yield {
                **row,
                "prompt": prompt,
                "chosen": completions[0],
                "rejected": completions[1],
                "tree_id": pair.tree_id,
                "node_id": pair.parent_id,
                "margin": pair.margin,
                "least_visits": pair.least_visits,
                "images": row["image_ids"],
            }


def _prm(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """Lines of steps with what each is worth; a label is whether it ever led to a right answer."""
    for row, tree in _trees(rows, renderer.warehouse):
        question = tree.question
        for path in step_paths(tree):
            messages = renderer.prompt(question, len(path))
            prompt = "\n\n".join(message["content"] for message in messages)
            completions = [renderer.completion([v.step], None, question) for v in path]
            for text in (prompt, *completions):
                check_marks(text, "prm", f"tree {tree.tree_id}")
            yield {
                **row,
                "prompt": prompt,
                "completions": completions,
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
FORMATS = {
    "trl": ExportFormat(_trl, {"messages": _TURNS, **dict.fromkeys(KEPT, "text")}),
    "llama-factory": ExportFormat(
        _llama_factory, {"messages": _TURNS, **dict.fromkeys(KEPT, "text")}
    ),
    "verl": ExportFormat(
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
                "choices": ["text"],
                "answers": ["text"],
                **_RATE,
            },
        },
    ),
    "easyr1": ExportFormat(
        _easyr1, {"problem": "text", "answer": "text", "question_id": "text", **_RATE}
    ),
    "grpo": ExportFormat(
        _grpo,
        {"prompt": _TURNS, "question_id": "text", "task": "text", "family": "text",
         "answer_kind": "text", "choices": ["text"], "answers": ["text"], "gold": "text", **_RATE},
    ),
    "dpo": ExportFormat(
        _dpo,
        {"prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS, **_TREE, "node_id": "int",
         "margin": "float", "least_visits": "int"},
    ),
    "prm": ExportFormat(
        _prm,
        {"prompt": "text", "completions": ["text"], "labels": ["bool"], "values": ["float"],
         "visits": ["int"], "standard_errors": ["float"], **_TREE, "node_ids": ["int"]},
    ),
}  # fmt: skip
"""Every format by the name that `--to` takes."""


def features(shape: Any) -> Any:
    """Return a column's type as `datasets` writes it."""
    from datasets import List, Value

    if isinstance(shape, dict):
        return {name: features(inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return List(features(shape[0]))
    return Value({"text": "string", "int": "int64", "float": "float64", "bool": "bool"}[shape])

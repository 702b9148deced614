"""Export formats: what a row holds for each trainer, one function a format.

    format_ = FORMATS["llama-factory"]
    for row in format_.rows(rows, renderer): …     # a version's rows in, a trainer's rows out

To add a format: a function from rows to rows, and an entry with its columns in `FORMATS`.

`trl` and `llama-factory` are conversations for SFT, a trace each; `grpo` (TRL's), `verl` and
`easyr1` are prompts for GRPO, a question each, with its pass rate and band as when the version was
cut; `dpo` and `prm` are pairs and valued steps, made from the trees of the version's traces. Every
number that is a coordinate goes through `ConversationRenderer`, into the frame of the model to be
trained. Where traces zoom, a row's `tools` has the schema of the tool that it calls, or null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from curation.traces.preferences import PreferencePair, preference_pairs
from curation.traces.step_values import step_paths
from mcts.data import Question, Step, Trace, TraceKind
from mcts.tool_calls.calls import BOX_TOOL
from mcts.tree import Tree
from mcts.zoom.observe import observation_text
from mcts.zoom.tools import calls_boxes
from warehouse.exports.dialogues import (
    BLOCKS,
    MARK,
    ConversationRenderer,
    Turn,
    blocks,
    called_with,
    check_turns,
    conversation,
    crops_of,
    dialogue,
    flat,
    image_ids_in,
    prompt_turns,
)
from warehouse.exports.marks import check_marks
from warehouse.query.read_back import read_dropped, read_trees
from warehouse.storage.home import WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, trace_of

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
        yield {**_told(row, renderer), "messages": messages, "images": image_ids_in(turns)}


def _llama_factory(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    for row in rows:
        turns = conversation(row, renderer)
        check_turns(turns, "llama-factory", f"trace {row['trace_id']}")
        messages = flat(turns, marked=True)
        yield {**_told(row, renderer), "messages": messages, "images": image_ids_in(turns)}


def _told(row: Row, renderer: ConversationRenderer) -> Row:
    """Return a row with the tools that its prompt offers."""
    return {**row, "tools": renderer.tools(trace_of(row))}


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
        turns = prompt_turns(question, renderer, renderer.zoom_of(trace_of(row)))
        check_turns(turns, "verl", _named(row))
        yield {
            **_told(row, renderer),
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
        turns = prompt_turns(question, renderer, renderer.zoom_of(trace_of(row)))
        check_turns(turns, "easyr1", _named(row))
        yield {
            **_told(row, renderer),
            "problem": MARK * len(question.images) + "\n\n".join(turn.text for turn in turns),
            "answer": renderer.gold_answer(question, alone=True),
            **_rated(question, renderer),
            "images": row["image_ids"],
        }


def _grpo(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """Prompts for TRL's GRPO, and what a reward function needs to know of each."""
    for row, question in _questions(rows):
        turns = prompt_turns(question, renderer, renderer.zoom_of(trace_of(row)))
        check_turns(turns, "grpo", _named(row))
        yield {
            **_told(row, renderer),
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
    """Two ways on from one place of a tree as whole turns; what both share weighs on neither.

    In a tree that zooms both begin behind the last crop that they share, and end with the next
    call: a trainer has images in the prompt only, and where to look next is what they differ in.
    """
    for row, tree, pairs in _kept_pairs(rows, renderer):
        question, name = tree.question, f"tree {tree.tree_id}"
        for pair in pairs:
            sides = (pair.chosen, pair.rejected)
            lines = [(*pair.prefix, *side.steps) for side in sides]
            shared = _dialogue_of(tree, pair.prefix)
            zoom = renderer.zoom_of(shared)
            most = min(map(len, lines))
            begun, prompt = dialogue(
                called_with(pair.prefix, zoom, name), question, renderer, zoom, most, name
            )
            completions = []
            for line, side in zip(lines, sides, strict=True):
                steps, answer = _to_next_call(called_with(line, zoom, name), begun, side.answer)
                text = renderer.completion(steps[begun:], answer, question, steps[:begun])
                completions.append([Turn("assistant", text)])
            for turns in (prompt, *completions):
                check_turns(turns, "dpo", name)
            written = blocks if renderer.zooms else partial(flat, marked=False)
            yield {
                **row,
                "tools": renderer.tools(shared),
                "prompt": written(prompt),
                "chosen": written(completions[0]),
                "rejected": written(completions[1]),
                "tree_id": pair.tree_id,
                "node_id": pair.parent_id,
                "margin": pair.margin,
                "least_visits": pair.least_visits,
                "images": image_ids_in(prompt),
            }


def _kept_pairs(
    rows: Iterable[Row], renderer: ConversationRenderer
) -> Iterator[tuple[Row, Tree, list[PreferencePair]]]:
    """Each tree with its pairs whose better side no filter drops, as `vigorl train dpo` has them;
    the others are counted."""
    trees = _trees(rows, renderer)
    while some := list(islice(trees, _TREES_AT_ONCE)):
        every = [preference_pairs(tree) for _, tree in some]
        better = [pair.chosen.trace_id for pairs in every for pair in pairs]
        dropped = read_dropped(renderer.warehouse, better)
        for (row, tree), pairs in zip(some, every, strict=True):
            kept = [pair for pair in pairs if pair.chosen.trace_id not in dropped]
            if len(kept) < len(pairs):
                renderer.left_out["whose better side a filter drops"] += len(pairs) - len(kept)
            yield row, tree, kept


def _dialogue_of(tree: Tree, steps: Sequence[Step]) -> Trace:
    """Return steps of a tree as a trace, which zooms where the tree might."""
    kind = TraceKind.ZOOM if tree.zoom else TraceKind.DIRECT
    name = tree.question.question_id
    return Trace(name, tuple(steps), None, None, kind, tree_id=tree.tree_id)


def _has_boxes(tree: Tree) -> bool:
    """Return whether a tree offered the tool that takes boxes, or a step of it calls that."""
    if tree.zoom is not None and tree.zoom.tool == BOX_TOOL:
        return True
    steps = [node.step for node in tree.nodes if node.step is not None]
    steps += [step for rollout in tree.rollouts for step in rollout.steps]
    return calls_boxes(steps)


def _to_next_call(
    steps: Sequence[Step], begun: int, answer: str | None
) -> tuple[Sequence[Step], str | None]:
    """Cut steps behind the first call from step `begun` on; what follows has seen its crop."""
    for end, step in enumerate(steps[begun:], begun + 1):
        if step.observation is not None:
            return steps[:end], None
    return steps, answer


def _prm(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[Row]:
    """Lines of steps with what each is worth; a label is whether it ever led to a right answer.

    A step that looks closer ends with what it was shown; the crops follow the question's images.
    """
    for row, tree in _trees(rows, renderer):
        question, name = tree.question, f"tree {tree.tree_id}"
        for path in step_paths(tree):
            line = _dialogue_of(tree, [value.step for value in path])
            zoom = renderer.zoom_of(line)
            steps = called_with(line.steps, zoom, name)
            messages = renderer.prompt(question, len(path), zoom)
            prompt = "\n\n".join(message["content"] for message in messages)
            completions = [_one_step(steps, i, question, renderer) for i in range(len(steps))]
            for text in (prompt, *completions):
                check_marks(text, "prm", name)
            yield {
                **row,
                "tools": renderer.tools(line),
                "prompt": prompt,
                "completions": completions,
                "labels": [v.value > 0 for v in path],
                "values": [v.value for v in path],
                "visits": [v.visits for v in path],
                "standard_errors": [v.standard_error for v in path],
                "tree_id": tree.tree_id,
                "node_ids": [v.node_id for v in path],
                "images": [*row["image_ids"], *crops_of(steps, question, renderer, name)],
            }


def _one_step(
    steps: Sequence[Step], i: int, question: Question, renderer: ConversationRenderer
) -> str:
    said = renderer.completion(steps[i : i + 1], None, question, steps[:i])
    shown = steps[i].observation
    return f"{said}\n{observation_text(shown)}" if shown else said


def _trees(rows: Iterable[Row], renderer: ConversationRenderer) -> Iterator[tuple[Row, Tree]]:
    """Each tree the version's traces were cut from, with the first row that has it.

    A tree of the tool that takes boxes is told to the renderer: all its lines have one tool.

    Raises:
        WarehouseError: a tree is not in the tables any more.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if row["tree_id"]:
            first.setdefault(row["tree_id"], {k: v for k, v in row.items() if k != "steps"})
    ids = iter(sorted(first))
    while some := list(islice(ids, _TREES_AT_ONCE)):
        found = {tree.tree_id: tree for tree, _ in read_trees(renderer.warehouse, some)}
        for tree_id in some:
            if tree_id not in found:
                raise WarehouseError(f"tree {tree_id} of this version is not in the warehouse")
            if _has_boxes(found[tree_id]):
                renderer.box_trees.add(tree_id)
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


def zoom_columns(to: str) -> dict[str, Any]:
    """Return the columns that a format has otherwise, or besides, where traces zoom."""
    turns = {"trl": ("messages",), "dpo": ("prompt", "chosen", "rejected")}.get(to, ())
    return {**dict.fromkeys(turns, BLOCKS), "tools": "text"}


def features(shape: Any) -> Any:
    """Return a column's type as `datasets` writes it."""
    from datasets import List, Value

    if isinstance(shape, dict):
        return {name: features(inner) for name, inner in shape.items()}
    if isinstance(shape, list):
        return List(features(shape[0]))
    return Value({"text": "string", "int": "int64", "float": "float64", "bool": "bool"}[shape])

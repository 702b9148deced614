"""Sibling pairs of a version's trees as rows for DPO, written for one student.

    sides = pair_examples(warehouse, folder, "sat2-sft@v1", student, recipe)
    dataset = pair_dataset(sides, template)       # prompt, chosen, rejected as texts, and images

A pair is two ways on from one place of a tree, of which one has the higher value
(`curation.traces.preferences`), and whose better side no filter drops. Each side is a whole answer
that begins with what both share: that has the same tokens behind the same tokens on either side, so
it weighs on neither. Where they are dialogues that zoom, each side is the one turn in which they
part, a call or an answer, behind the crops that both have seen: the value is a statement about that
turn (step-level DPO, Lai et al., arXiv 2406.18629), and what a call shows is not the student's.

The sides are conversations as SFT has them, the better one and behind it the worse, and are checked
in the same way; what a trainer is given is cut out of the texts that were checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from curation.traces.preferences import PreferencePair, preference_pairs
from mcts.data import Question, ResponseStyle
from mcts.tree import Tree
from training.chat_templates import ChatTemplate, check_row
from training.errors import TrainingError
from training.examples import (
    TRAINED_SPLITS,
    AddImages,
    Examples,
    image_reader,
    mark_in,
    with_mark,
)
from training.recipes import DpoRecipe
from training.students import Student, read_control_tokens
from training.zoom_rows import DialogueProblem, Dialogues
from warehouse.exports.dialogues import ConversationRenderer
from warehouse.query.read_back import read_dropped, read_trees
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.bundle import read_rows

_TREES_AT_ONCE = 64


def pair_examples(
    warehouse: Warehouse, folder: Path, ref: str, student: Student, recipe: DpoRecipe
) -> Examples:
    """Render the pairs of the trees that a version's traces were cut from.

    Returns:
        Two rows a pair, the better side first.

    Raises:
        TrainingError: it has no pair that the recipe takes.
    """
    renderer = ConversationRenderer(
        warehouse, student.space, student.prompt_style.prompt, recipe.min_thoughts
    )
    dialogues = Dialogues(student, recipe.min_thoughts)
    zooms = recipe.response_style is ResponseStyle.ZOOM
    marks = read_control_tokens(student)
    left_out: Counter[str] = Counter()
    rows: list[Row] = []
    for question, pairs in _chosen(warehouse, folder, recipe, left_out):
        for pair in pairs:
            try:
                sides = (
                    _turns(dialogues, question, pair) if zooms else _sides(renderer, question, pair)
                )
            except DialogueProblem as problem:
                left_out[str(problem)] += 1
                continue
            texts = [message for side in sides for message in side["messages"]]
            if mark := mark_in(texts, marks):
                left_out[with_mark(mark)] += 1
            else:
                rows.extend(sides)
    if not rows:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise TrainingError(
            f"{ref} has no pairs to train on: {reasons or 'in its trees no two ways on differ'}"
        )
    return Examples(rows, dialogues.reader(image_reader(folder)), dict(left_out))


def pair_dataset(sides: Examples, template: ChatTemplate) -> Any:
    """Return a `datasets.Dataset` of pairs as texts, with `images` decoded when they are read.

    Raises:
        TrainingError: what the chat template renders is not what a side says.
    """
    from datasets import Dataset

    pairs = zip(sides.rows[::2], sides.rows[1::2], strict=True)
    rows = [_texts(template, *pair) for pair in pairs]
    return Dataset.from_list(rows).with_transform(AddImages(sides.read_image))


def _texts(template: ChatTemplate, chosen: Row, rejected: Row) -> Row:
    prompts, answers = [], []
    for side in (chosen, rejected):
        rendered = check_row(template, side, ResponseStyle.GROUNDED, side["name"])
        begin, end = rendered.trained[-1]
        prompts.append(rendered.text[:begin])
        answers.append(rendered.text[begin:end])
    if prompts[0] != prompts[1]:
        raise TrainingError(
            f"{chosen['name']}: the chat template writes another prompt before {rejected['name']}"
        )
    return {
        "prompt": prompts[0],
        "chosen": answers[0],
        "rejected": answers[1],
        "image_ids": chosen["image_ids"],
        "name": chosen["name"],
    }


def _chosen(
    warehouse: Warehouse, folder: Path, recipe: DpoRecipe, left_out: Counter[str]
) -> Iterator[tuple[Question, list[PreferencePair]]]:
    """Yield each question with the pairs that the recipe takes; count in `left_out` the others."""
    zooms = recipe.response_style is ResponseStyle.ZOOM
    found: dict[str, tuple[Question, list[PreferencePair]]] = {}
    for tree in of_kind(version_trees(warehouse, folder, left_out), zooms, left_out):
        question = tree.question
        _, kept = found.setdefault(question.question_id, (question, []))
        kept.extend(pair for pair in preference_pairs(tree) if _takes(recipe, pair, left_out))
    most = recipe.question_pairs
    better = [pair.chosen.trace_id for _, of in found.values() for pair in of]
    dropped = read_dropped(warehouse, better)
    for question, every in found.values():
        pairs = [pair for pair in every if pair.chosen.trace_id not in dropped]
        if len(pairs) < len(every):
            left_out["whose better side a filter drops"] += len(every) - len(pairs)
        # The widest margins, and of those the surest; ids make it an order.
        pairs.sort(key=lambda p: (-p.margin, -p.least_visits, p.tree_id, _nodes(p)))
        if most is not None and len(pairs) > most:
            left_out[f"beyond the {most} of a question"] += len(pairs) - most
        yield question, pairs[:most]


def _takes(recipe: DpoRecipe, pair: PreferencePair, left_out: Counter[str]) -> bool:
    reason = None
    if pair.margin < recipe.least_margin:
        reason = f"with a margin under {recipe.least_margin:g}"
    elif pair.least_visits < recipe.least_visits:
        reason = f"with a side of under {recipe.least_visits} visits"
    elif pair.chosen.answer is None or pair.rejected.answer is None:
        reason = "with a side that ends without an answer"
    if reason:
        left_out[reason] += 1
    return reason is None


def version_trees(warehouse: Warehouse, folder: Path, left_out: Counter[str]) -> Iterator[Tree]:
    """Yield the trees that training traces of an opened version were cut from, by id.

    Raises:
        TrainingError: a tree is not in the warehouse any more.
    """
    ids: set[str] = set()
    for row in read_rows(folder / "rows.parquet"):
        if row["split"] not in TRAINED_SPLITS:
            left_out[f"traces of the split {row['split']}"] += 1
        elif not row["tree_id"]:
            left_out["traces of no tree"] += 1
        else:
            ids.add(row["tree_id"])
    for at in range(0, len(ids), _TREES_AT_ONCE):
        some = sorted(ids)[at : at + _TREES_AT_ONCE]
        trees = {tree.tree_id: tree for tree, _ in read_trees(warehouse, some)}
        for tree_id in some:
            if tree_id not in trees:
                raise TrainingError(f"tree {tree_id} of this version is not in the warehouse")
            yield trees[tree_id]


def of_kind(trees: Iterable[Tree], zooms: bool, left_out: Counter[str]) -> Iterator[Tree]:
    """Yield the trees that zoom, or those that could not; count in `left_out` the others."""
    for tree in trees:
        if (tree.zoom is not None) is zooms:
            yield tree
        else:
            left_out["trees that zoom" if tree.zoom else "trees that never could zoom"] += 1


def _sides(renderer: ConversationRenderer, question: Question, pair: PreferencePair) -> list[Row]:
    """Return both sides as conversations with one prompt, the better one first."""
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    lines = {name: (*pair.prefix, *side.steps) for name, side in sides.items()}
    prompt = renderer.prompt(question, min(map(len, lines.values())) or None)
    return [
        {
            "messages": [
                *prompt,
                {
                    "role": "assistant",
                    "content": renderer.completion(lines[name], side.answer, question),
                },
            ],
            "image_ids": [image.image_id for image in question.images],
            "image_sizes": [[image.width, image.height] for image in question.images],
            "name": f"tree {pair.tree_id}, node {side.node_id}",
            "question_id": question.question_id,
        }
        for name, side in sides.items()
    ]


def _turns(dialogues: Dialogues, question: Question, pair: PreferencePair) -> list[Row]:
    """Return the turns in which a pair of dialogues parts, the better one first.

    Raises:
        DialogueProblem: one of them can't be trained on, the better call showed nothing, or both
            say the same.
    """
    rows = []
    for side in (pair.chosen, pair.rejected):
        called = next((step for step in side.steps if step.observation is not None), None)
        if side is pair.chosen and called and called.observation and called.observation.problem:
            raise DialogueProblem("whose better call showed nothing")
        row = dialogues.next_turn(question, pair.prefix, side.steps, side.answer)
        name = f"tree {pair.tree_id}, node {side.node_id}"
        rows.append({**row, "name": name, "question_id": question.question_id})
    if rows[0]["messages"] == rows[1]["messages"]:
        raise DialogueProblem("whose sides say the same")
    return rows


def _nodes(pair: PreferencePair) -> Sequence[int]:
    return pair.parent_id, pair.rejected.node_id

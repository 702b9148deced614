"""Imports the reference implementation's search trees: its questions, then its trees as ours.

    report = import_trees(warehouse, "runs/2025-05-01/", image_root="images")
    report.trees, report.differing      # how many, and whose published rewards our grader disputes

After that they are trees like any other: `vigorl curate` cuts traces from them, `vigorl sql` counts
their nodes, `vigorl lineage` leads from a trace to the text it was cut from and to the image. Read
are the `rollouts_*.jsonl` of a run, or of a folder of runs; `errors_*.jsonl` hold no trees.
`args.json` beside them is stored with every tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from curation.grading.actions import parse_action
from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, content_id
from mcts.tree import flatten
from warehouse.sources.benchmarks.reference import gold_fields
from warehouse.sources.find_files import find_readers
from warehouse.sources.importing import ImportReport, import_questions
from warehouse.sources.published import Row, published
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.drafts import (
    Draft,
    ImportProblem,
    ReadContext,
    ReadFile,
    Reject,
    Unusable,
)
from warehouse.sources.reference_trees import (
    MAKER,
    ImportedTree,
    convert_tree,
    number,
    read_question,
)
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.tree_rows import SearchRows, outcome_columns

_TREES_AT_ONCE = 32
_KINDS = {AnswerKind.BOX: "boxes", AnswerKind.ACTION: "actions", AnswerKind.TEXT: "texts"}
_MODEL_NAMES = ("model", "model_name", "policy_model", "pretrained", "model_path")


@dataclass(frozen=True, slots=True)
class TreesReport:
    """Counts of an import of trees."""

    questions: ImportReport
    task: str
    """The task they went into."""
    trees: int
    """Trees added."""
    already_there: int
    graded: int
    """Published rewards that were compared with ours."""
    differing: int
    """Of these, rewards that our grader disputes."""


@dataclass(frozen=True, slots=True)
class TreeQuestions:
    """The questions of tree files, as an import reads them."""

    kept: dict[int, Row] | None = None
    """Where to keep rows of the file that is read, by number, for callers that need a draft's row;
    or None."""

    def formats(self) -> Mapping[str, ReadFile]:
        """A reader by file suffix."""
        needs = ("question", "true_answer|error", "tree|error", "image|error")
        read = published(MAKER, self._draft, needs, suffixes=(".jsonl",))[".jsonl"]

        def trees_only(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
            if not file.name.startswith("errors"):
                yield from read(file, context)

        return {".jsonl": trees_only}

    def _draft(self, row: Row) -> Draft:
        if row.get("error") is not None:
            raise Unusable("error", f"the search failed: {str(row.get('error'))[:80]}")
        text, gold, images = read_question(row)
        if self.kept is not None:
            self.kept[row.number] = row
        if parse_action(gold) is not None and "[" in gold:
            return row.draft(text, images, answer_kind=AnswerKind.ACTION, answers=(gold,))
        return row.draft(images=images, **gold_fields(text, gold))


def import_trees(
    warehouse: Warehouse,
    path: str | Path,
    *,
    into: str | None = None,
    split: str | None = None,
    space: CoordinateSpace | None = None,
    image_root: str | Path | None = None,
    limit: int | None = None,
    max_rejects: int | None = None,
) -> TreesReport:
    """Import the questions and trees of a file, or of all files of a folder; again adds nothing.

    Args:
        into: the task they belong to. Without it, gold boxes go into web-grounding and actions
            into web-action; for texts, and for runs of several kinds, it must be given.
        split: of the questions; `train` by default, which is what was searched.
        space: the coordinates of the points; original pixels by default, as the reference
            implementation takes them.

    Raises:
        ImportProblem: a file can't be read, too much was rejected, or no task is named.
    """
    path, split = Path(path), split or "train"
    root = Path(image_root) if image_root else None
    task = into or _task(path, split, root)
    report = import_questions(
        warehouse, task, path, split=split, limit=limit, image_root=root,
        max_rejects=max_rejects, columns=TreeQuestions(),
    )  # fmt: skip
    added = already_there = graded = differing = 0
    trees = _read_trees(task, path, split, root, space or CoordinateSpace.original(), limit)
    while batch := list(islice(trees, _TREES_AT_ONCE)):
        # A question whose line stands in two files is searched once.
        distinct = {imported.tree.tree_id: (imported, rows) for imported, rows in batch}.values()
        rows = SearchRows.joined([rows for _, rows in distinct])
        commit = commit_trees(warehouse, rows, run_id=report.run_id)
        added += commit.added
        already_there += commit.already_there
        graded += sum(imported.graded for imported, _ in distinct)
        differing += sum(imported.differing for imported, _ in distinct)
    return TreesReport(report, task, added, already_there, graded, differing)


def _read_trees(
    task: str, path: Path, split: str, root: Path | None, space: CoordinateSpace, limit: int | None
) -> Iterator[tuple[ImportedTree, SearchRows]]:
    """Every usable tree with its rows."""
    kept: dict[int, Row] = {}
    reader, count, checker = TreeQuestions(kept), 0, Checker(task)
    arguments: dict[Path, dict[str, Any]] = {}
    for drafts, file_split in find_readers(task, path, split, root, reader):
        for draft in islice(drafts(), None if limit is None else limit - count):
            count += 1
            if not isinstance(draft, Draft):
                continue
            row = kept.pop(draft.row)
            outcome = checker.check(draft, file_split)
            if isinstance(outcome, Accepted):
                folder = row.file.parent
                if folder not in arguments:
                    arguments[folder] = _read_arguments(folder)
                args = arguments[folder]
                imported = convert_tree(row, outcome.question, space, _model(args))
                yield imported, _rows(imported, row, space, args)


def _task(path: Path, split: str, root: Path | None) -> str:
    """The task that the kind of all questions' answers implies."""
    kinds: dict[AnswerKind, str] = {}
    for drafts, _ in find_readers("", path, split, root, TreeQuestions()):
        for draft in drafts():
            if isinstance(draft, Draft):
                kinds.setdefault(draft.answer_kind, f"{draft.file} row {draft.row}")
    if not kinds:
        raise ImportProblem(f"{path} holds no tree that can be used")
    if len(kinds) > 1:
        found = ", ".join(f"{_KINDS[kind]} (first in {at})" for kind, at in kinds.items())
        raise ImportProblem(
            f"{path}: its answers are of several kinds: {found}; import the runs of each task by "
            "themselves, with --into"
        )
    (kind,) = kinds
    if kind is AnswerKind.TEXT:
        raise ImportProblem(
            f"{path}: its answers are texts: say with --into which task they belong to"
        )
    return "web-grounding" if kind is AnswerKind.BOX else "web-action"


def _read_arguments(folder: Path) -> dict[str, Any]:
    """Read the run's `args.json`, in the folder or the one above it."""
    for parent in (folder, folder.parent):
        file = parent / "args.json"
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ImportProblem(f"{file} can't be read as JSON: {error}") from None
            return found if isinstance(found, dict) else {}
    return {}


def _model(arguments: Mapping[str, Any]) -> str:
    named = (arguments.get(name) for name in _MODEL_NAMES)
    return next((name for name in named if isinstance(name, str) and name), f"{MAKER} teacher")


def _rows(
    imported: ImportedTree, row: Row, space: CoordinateSpace, arguments: Mapping[str, Any]
) -> SearchRows:
    """The rows of the warehouse that an imported tree becomes."""
    tree, flat, model = imported.tree, flatten(imported.tree), _model(arguments)
    simulations = arguments.get("n_simulations")
    tree_row = {
        "tree_id": tree.tree_id,
        "question_id": tree.question.question_id,
        "task": tree.question.task,
        "model": model,
        "config": json.dumps({"source": MAKER, "args": arguments}, sort_keys=True, default=str),
        "status": "failed" if tree.failed else "complete",
        "error": "nothing usable was said" if tree.failed else None,
        "errors": [],
        "simulations": simulations if isinstance(simulations, int) else 0,
        **outcome_columns(tree, flat),
        "seconds": number(row.get("global_search_time")),
        "space": str(space.kind),
        "min_pixels": space.min_pixels,
        "max_pixels": space.max_pixels,
        "factor": space.factor,
        "prompt_hash": content_id(row.optional("system_prompt"), ""),
    }
    responses = [{**response, "model": model} for response in imported.responses]
    return SearchRows([tree_row], flat.nodes, flat.rollouts, responses)

"""Lines of reasoning as rows for a process reward model: where each step ends, what it is worth.

    writer = LineWriter.of(warehouse, student, min_thoughts=3)
    row = writer.row(question, steps, answer)       # messages, images, and `ends` of the steps
    write = partial(writer.row_or_none, left_out=left_out)
    lines = value_lines(trees, recipe, left_out, write)    # chosen of a version's, with targets

A line runs from the question to an answer: the steps of a tree's node, then those of a rollout.
Targets are what `curation.traces.step_values` says: the mean outcome beneath a step's node
(Math-Shepherd's soft estimation, Wang et al., arXiv 2312.08935; ViGoRL, section 3.2). The answer's
target is its own reward, so that its value verifies a whole response (Cobbe et al., arXiv
2110.14168). A step that calls is valued behind what the call showed, as its node stands: there the
model can read whether the crop shows what is asked about. Steps that lines share are learned from
once, in the first line that has them and that a model can be given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mcts.coordinates import Frame
from mcts.data import Question, ResponseStyle, Step, Trace, TraceKind, content_id
from mcts.parsing import render
from mcts.tree import Node, Tree
from training.examples import mark_in, with_mark
from training.preferences.pairs import of_kind
from training.recipes import PrmRecipe
from training.students import Student, read_control_tokens
from training.zoom_rows import DialogueProblem, Dialogues
from warehouse.exports.dialogues import ConversationRenderer
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

FORCED = "answer_forced"
"""The problem of an answer that was asked for at a limit."""
ANSWER_DEPTH = 0
"""Stands for the depth of an answer among the depths of steps, which begin at 1."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one step or answer is worth."""

    depth: int
    """Of a step, from 1; `ANSWER_DEPTH` for an answer."""
    value: float
    """Mean reward of the answers behind it, 0 to 1."""
    visits: int
    """How many they were."""


@dataclass(frozen=True, slots=True)
class ValueLine:
    """Steps and an answer with their targets."""

    question: Question
    steps: tuple[Step, ...]
    answer: str
    targets: tuple[Target | None, ...]
    """One a step and one for the answer; None where nothing is learned."""
    name: str
    row: Row
    """As the model reads it (`LineWriter.row`)."""


@dataclass(slots=True)
class LineWriter:
    """Writes lines as one model reads them.

    Prompts demand the same number of steps whatever follows, so that a step's value does not depend
    on what it is not shown.
    """

    renderer: ConversationRenderer
    student: Student
    min_thoughts: int
    marks: tuple[str, ...]
    """The model's control tokens, which no text may spell."""
    reads_crops: bool
    """Whether a call is valued behind what it showed; former models value it in front."""
    dialogues: Dialogues = field(init=False)

    def __post_init__(self) -> None:
        self.dialogues = Dialogues(self.student, 1)

    @classmethod
    def of(
        cls, warehouse: Warehouse, student: Student, min_thoughts: int, reads_crops: bool = True
    ) -> LineWriter:
        """Return the writer for a student, prompted as it is."""
        prompt = student.prompt_style.prompt
        renderer = ConversationRenderer(warehouse, student.space, prompt, min_thoughts)
        return cls(renderer, student, min_thoughts, read_control_tokens(student), reads_crops)

    @property
    def zooms(self) -> bool:
        """Whether lines are dialogues that zoom."""
        return self.student.prompt_style.response_style is ResponseStyle.ZOOM

    def row(self, question: Question, steps: Sequence[Step], answer: str | None) -> Row:
        """Return a line's messages and images; `ends` has a place for each step and the answer.

        A place is the number of a turn of the model's, and how many of its characters are read:
        none behind an observation, where the next turn is about to begin. A line without an answer
        ends in an empty one, which is behind every place but its own.

        Raises:
            DialogueProblem: its crops are not those that the student's own calls would show.
        """
        frame, said = Frame.of(self.student.space, question), answer or ""
        if self.zooms:
            shown = tuple(self.dialogues.as_shown(frame, steps))
            trace = Trace(question.question_id, shown, said, None, TraceKind.ZOOM)
            row = self.dialogues.row(question, trace)
        else:
            shown = tuple(steps)
            content = self.renderer.completion(shown, said, question)
            row = {
                "messages": [
                    *self.renderer.prompt(question),
                    {"role": "assistant", "content": content},
                ],
                "image_ids": [image.image_id for image in question.images],
                "image_sizes": [[image.width, image.height] for image in question.images],
            }
        places = _step_ends(shown, frame, self.reads_crops)
        last = sum(message["role"] == "assistant" for message in row["messages"]) - 1
        places.append([last, len(row["messages"][-1]["content"])])
        return {**row, "question_id": question.question_id, "ends": places}

    def row_or_none(
        self, question: Question, steps: Sequence[Step], answer: str | None, left_out: Counter[str]
    ) -> Row | None:
        """Return `row`, or None where a model can't be given the line; `left_out` then counts why:
        its crops are not those that it would be shown, or its text spells a control token."""
        try:
            row = self.row(question, steps, answer)
        except DialogueProblem as problem:
            left_out[f"lines {problem}"] += 1
            return None
        if mark := mark_in(row["messages"], self.marks):
            left_out[with_mark(mark)] += 1
            return None
        return row

    def reader(self, read_image: Callable[[str], bytes]) -> Callable[[str], bytes]:
        """Return a reader of images, and of the crops of rows that were written."""
        return self.dialogues.reader(read_image)


class Scorer(Protocol):
    """The part of `training.values.model.StepScorer` that is used; importing that loads torch."""

    student: Student
    writer: LineWriter

    def values(self, rows: Sequence[Row], read_image: Callable[[str], bytes]) -> list[list[float]]:
        """See `StepScorer.values`."""
        ...


def line_values(
    scorer: Scorer,
    question: Question,
    steps: Sequence[Step],
    answer: str | None,
    read_image: Callable[[str], bytes],
) -> list[float] | None:
    """Return the values of a line's steps, and last of its answer, 0 to 1; None where a value model
    can't be given the line (`LineWriter.row_or_none`)."""
    row = scorer.writer.row_or_none(question, steps, answer, Counter())
    if row is None:
        return None
    (found,) = scorer.values([row], read_image)
    return found


def _step_ends(steps: Sequence[Step], frame: Frame, reads_crops: bool) -> list[list[int]]:
    """Return where each step, and maybe what it was shown, ends: a turn, and characters of it."""
    ends: list[list[int]] = []
    turn, begun = 0, 0
    for i, step in enumerate(steps, 1):
        text = render(steps[begun:i], None, frame, before=steps[:begun])
        ends.append([turn, len(text)])
        if step.observation is not None:
            turn, begun = turn + 1, i
            if reads_crops:
                ends[-1] = [turn, 0]
    return ends


def value_lines(
    trees: Iterable[Tree],
    recipe: PrmRecipe,
    left_out: Counter[str],
    write: Callable[[Question, Sequence[Step], str], Row | None],
) -> Iterator[ValueLine]:
    """Yield the lines that a recipe takes, question by question; count in `left_out` the others.

    Args:
        write: returns a line as the model reads it, or None, where it counted why there is none.
    """
    zooms = recipe.response_style is ResponseStyle.ZOOM
    by_question: dict[str, list[tuple[str, Tree, Node, int | None]]] = {}
    for tree in of_kind(trees, zooms, left_out):
        found = by_question.setdefault(tree.question.question_id, [])
        for node, rollout in _ends(tree, left_out):
            drawn = content_id("line", tree.tree_id, node.node_id, rollout)
            found.append((drawn, tree, node, rollout))
    for lines in by_question.values():
        lines.sort(key=lambda line: line[0])
        if (most := recipe.question_lines) is not None and len(lines) > most:
            left_out[f"lines beyond the {most} of a question"] += len(lines) - most
        learned: set[tuple[str, int]] = set()
        for _, tree, node, rollout in lines[: recipe.question_lines]:
            steps, answer = _said(node, rollout)
            row = write(tree.question, steps, answer)
            if row is not None:  # else what it shares is learned in a later line
                targets = _targets(tree, node, rollout, recipe, learned)
                name = _name(tree, node, rollout)
                yield ValueLine(tree.question, steps, answer, targets, name, row)


def _ends(tree: Tree, left_out: Counter[str]) -> Iterator[tuple[Node, int | None]]:
    """Yield the ends of a tree's lines: nodes that answer, and rollouts by their number."""
    for node in tree.nodes:
        if any(above.discarded for above in node.lineage()):
            continue
        if node.terminal and node.reward is not None:
            if FORCED in node.problems:
                left_out["lines whose answer was forced"] += 1
            else:
                yield node, None
        for number, rollout in enumerate(node.rollouts):
            if rollout.answer is None or rollout.reward is None:
                continue
            if FORCED in rollout.problems:
                left_out["lines whose answer was forced"] += 1
            else:
                yield node, number


def _said(node: Node, number: int | None) -> tuple[tuple[Step, ...], str]:
    """Return the steps and the answer of the line that ends in a node, or in its rollout."""
    steps, answer = node.steps(), node.answer
    if number is not None:
        steps, answer = steps + node.rollouts[number].steps, node.rollouts[number].answer
    assert answer is not None  # `_ends` let it through
    return steps, answer


def _name(tree: Tree, node: Node, number: int | None) -> str:
    name = f"tree {tree.tree_id}, node {node.node_id}"
    return name if number is None else f"{name}, rollout {node.rollouts[number].rollout_id}"


def _targets(
    tree: Tree, node: Node, number: int | None, recipe: PrmRecipe, learned: set[tuple[str, int]]
) -> tuple[Target | None, ...]:
    """Return a line's targets; its nodes are added to those `learned`, which have none again."""
    targets: list[Target | None] = []
    for above in node.lineage():
        if above.step is None:
            continue
        known = (tree.tree_id, above.node_id) in learned or above.visits < recipe.least_visits
        if not known and above.value is not None:
            learned.add((tree.tree_id, above.node_id))
            targets.append(Target(above.depth, above.value, above.visits))
        else:
            targets.append(None)
    reward = node.reward if number is None else node.rollouts[number].reward
    assert reward is not None  # `_ends` let it through
    for depth in range(len(targets) + 1, len(_said(node, number)[0]) + 1):
        targets.append(Target(depth, reward, 1) if recipe.rollout_steps else None)
    targets.append(Target(ANSWER_DEPTH, reward, 1))
    return tuple(targets)

"""Converts the reference implementation's search trees, a line of its `rollouts_*.jsonl` each.

    text, gold, images = read_question(row)            # the question it was searched for
    imported = convert_tree(row, question, space, model)    # our tree, and its responses

Schema (github.com/Gabesarch/grounded-rl, its tree search): `question`, `image` (the path it had
when it was searched), `true_answer`, `tree`, `system_prompt`, `global_search_time` in seconds. A
node has `thought_text` (of a terminal one the answer alone), `is_terminal`, `value`,
`visit_count`, `rollouts`, `children`, `used_coords`; a rollout has `final_answer`, `reward`,
`ephemeral_texts` (everything from the question on), `depth` (texts it sampled itself).

Texts are kept; answers are graded again by our grader, so that these trees and ours mean the same
by right. The reference grader accepts an answer that contains the gold one, and an unfinished
thought as an answer. Where the two differ, the reason says so (`the published reward is 1`). Values
and visits are recomputed from the rewards; a terminal node's rollouts only repeat its answer, and
count once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, content_id
from mcts.parsing import ParsedResponse, fold_remark, parse
from mcts.selection.uct import backpropagate
from mcts.teacher_policy import storable
from mcts.tree import Node, Rollout, Tree
from warehouse.sources.published import Row
from warehouse.sources.reading.drafts import DraftImage, Unusable
from warehouse.sources.reading.image_marks import place_images

MAKER = "grounded-rl"
MOST_NODES, MOST_DEPTH = 100_000, 100


@dataclass(slots=True)
class ImportedTree:
    """A published tree as one of ours."""

    tree: Tree
    responses: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `responses`: one a node, one a rollout."""
    graded: int = 0
    """Outcomes that have a published reward and one of ours."""
    differing: int = 0
    """Of these, outcomes whose rewards differ."""


def read_question(row: Row) -> tuple[str, str, tuple[DraftImage, ...]]:
    """Read the question, the gold answer and the images.

    Raises:
        Unusable: one of them is missing, or the tree is none.
    """
    row.optional("system_prompt")
    text = row.text("question")
    gold = row.text("true_answer")
    _check(row.get("tree"), "tree")
    names = row.get("image")
    names = names if isinstance(names, list) else [names]
    images = tuple(DraftImage(_read_image(row, name)) for name in names)
    return place_images(text, len(images)), gold, images


def _read_image(row: Row, name: Any) -> bytes:
    """Read an image by the path it had elsewhere: the longest ending found below the image root."""
    if not isinstance(name, str) or not name.strip():
        raise Unusable("image", "there is no image name")
    parts = [part for part in PurePosixPath(name.strip()).parts if part != "/"]
    for i in range(len(parts)):
        try:
            return row.files.read_named("/".join(parts[i:]), "image")
        except Unusable as problem:
            missing = problem
            if "there is no such file" not in problem.reason:
                raise
    raise missing


def _check(root: Any, at: str) -> None:
    """Raise Unusable unless the tree has the expected structure at every node."""
    todo, count = [(root, at, 0)], 0
    while todo:
        node, at, depth = todo.pop()
        count += 1
        if count > MOST_NODES or depth > MOST_DEPTH:
            raise Unusable(
                "tree", f"it has over {MOST_NODES:,} nodes, or is over {MOST_DEPTH} deep"
            )
        if not isinstance(node, dict) or not isinstance(node.get("thought_text"), str):
            raise Unusable(at, "it is not a node: it has no thought_text")
        for name in ("children", "rollouts"):
            if not isinstance(node.get(name) or [], list):
                raise Unusable(f"{at}.{name}", "it should be a list")
        for i, rollout in enumerate(node.get("rollouts") or []):
            texts = rollout.get("ephemeral_texts") if isinstance(rollout, dict) else None
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise Unusable(f"{at}.rollouts[{i}]", "it has no ephemeral_texts")
        children = enumerate(node.get("children") or [])
        todo += [(child, f"{at}.children[{i}]", depth + 1) for i, child in children]


def convert_tree(row: Row, question: Question, space: CoordinateSpace, model: str) -> ImportedTree:
    """Convert the tree of a row that `read_question` has accepted.

    Args:
        space: the coordinates its points were written in.
    """
    published, prompt = row.get("tree"), row.optional("system_prompt")
    tree_id = content_id(MAKER, question.question_id, prompt, published, str(space.kind), model)
    root = Node(0, "", None, attempts=1)
    imported = ImportedTree(Tree(tree_id, question, root))
    builder = _TreeBuilder(imported, Frame.of(space, question))
    todo: list[tuple[Node, dict[str, Any], int]] = [(root, published, 1)]
    while todo:
        node, source, depth = todo.pop()
        if node is not root:
            builder.fill_node(node, source)
        if not node.terminal and not node.discarded:
            for rollout in source.get("rollouts") or []:
                builder.add_rollout(node, rollout, depth)
        children = []
        for child in source.get("children") or []:
            added = builder.add_node(node, bool(child.get("is_terminal")))
            children.append((added, child, depth + 1))
        todo += reversed(children)
    return imported


class _TreeBuilder:
    """Builds a tree from a published one, and records every text as a response."""

    def __init__(self, imported: ImportedTree, frame: Frame) -> None:
        self.imported, self.frame = imported, frame
        self.nodes, self.rollouts = 1, 0

    def add_node(self, parent: Node, terminal: bool) -> Node:
        number = len(parent.children)
        path = f"{parent.path}.{number}" if parent.path else str(number)
        node = Node(self.nodes, path, parent, sample=number, attempts=0 if terminal else 1)
        node.answer = "" if terminal else None
        self.nodes += 1
        parent.children.append(node)
        return node

    def fill_node(self, node: Node, source: dict[str, Any]) -> None:
        """Set a node's thought, or its answer with its grade."""
        text = storable(source["thought_text"])
        if node.terminal and "<answer>" not in text:
            text = f"<answer>{text}</answer>"
        assert node.parent is not None
        node.response_id = self.add_response(text, node.parent.path, "expand", node.sample or 0)
        parsed = parse(text, self.frame)
        node.problems = tuple(problem.kind for problem in parsed.problems)
        if node.terminal:
            node.answer = parsed.answer or ""
            rewards = [r.get("reward") for r in source.get("rollouts") or []] or [
                source.get("value")
            ]
            node.reward, node.reason = self.grade(parsed.answer, rewards[0])
            if node.reward is not None:
                backpropagate(node, node.reward)
        elif parsed.steps:
            thought = "\n".join(step.thought for step in parsed.steps)
            points = tuple(point for step in parsed.steps for point in step.points)
            node.step = Step(thought, points)
        else:
            node.discarded = "nothing_said"

    def add_rollout(self, node: Node, source: dict[str, Any], depth: int) -> None:
        """Add one rollout; its own texts follow those of the node's path."""
        texts = source["ephemeral_texts"]
        text = storable("\n".join(texts[depth:]))
        number = len(node.rollouts)
        response_id = self.add_response(text, node.path, "rollout", number)
        parsed = _finished(parse(text, self.frame))
        reward, reason = self.grade(parsed.answer, source.get("reward"))
        rollout = Rollout(
            steps=parsed.steps,
            answer=parsed.answer,
            reward=reward,
            reason=reason,
            response_ids=(response_id,),
            sample=number,
            problems=tuple(problem.kind for problem in parsed.problems),
            rollout_id=self.rollouts,
        )
        self.rollouts += 1
        node.rollouts.append(rollout)
        if reward is not None:
            backpropagate(node, reward)

    def grade(self, answer: str | None, published: Any) -> tuple[float | None, str]:
        """Our score and its reason, which names the published reward where that differs."""
        ours, theirs = grade(self.imported.tree.question, answer), number(published)
        if ours.score is None or theirs is None:
            return ours.score, ours.reason
        self.imported.graded += 1
        if (ours.score >= 1) == (theirs >= 1):
            return ours.score, ours.reason
        self.imported.differing += 1
        return ours.score, f"{ours.reason}; the published reward is {theirs:g}"

    def add_response(self, text: str, path: str, purpose: str, sample: int) -> str:
        """Record a text as a response; return its id."""
        tree_id = self.imported.tree.tree_id
        response_id = content_id(tree_id, path, purpose, sample)
        self.imported.responses.append(
            {
                "response_id": response_id,
                "tree_id": tree_id,
                "path": path,
                "purpose": purpose,
                "sample": sample,
                "text": text,
            }
        )
        return response_id


def number(value: Any) -> float | None:
    """The value as a plain number, or None."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e9 else None  # neither NaN nor infinity is


def _finished(parsed: ParsedResponse) -> ParsedResponse:
    """As `mcts.tree.rebuild` reads a rollout: a remark behind the last point goes with it."""
    steps = fold_remark(parsed.steps) if parsed.answer is not None else parsed.steps
    return ParsedResponse(steps, parsed.answer, parsed.problems)

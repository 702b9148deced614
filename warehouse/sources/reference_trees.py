"""The reference implementation's search trees: what a line of its `rollouts_*.jsonl` says.

    text, gold, images = asked(row)                # the question it was searched for
    tree, responses = grown(row, question, space)  # our tree, and the texts it was made of

Schema (github.com/Gabesarch/grounded-rl, its tree search): `question`, `image` (the path it had
when it was searched), `true_answer`, `tree`, `system_prompt`, `global_search_time` in seconds. A
node has `thought_text` (of a terminal one the answer alone), `is_terminal`, `value`,
`visit_count`, `rollouts`, `children`, `used_coords`; a rollout has `final_answer`, `reward`,
`ephemeral_texts` (everything from the question on), `depth` (texts it sampled itself).

What was written is kept; what was judged is judged again by our grader, so that these trees and
ours mean the same by right. Its own judge takes an answer that contains the gold one, and an
unfinished thought as an answer. Where the two differ, the reason says so (`the published reward is
1`). Values and visits are counted anew from the rewards; a terminal node's rollouts are its answer
told again, and count once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, content_id
from mcts.parsing import Parsed, fold_remark, parse
from mcts.policy import storable
from mcts.tree import Node, Rollout, Tree, backup
from warehouse.sources.published import Row
from warehouse.sources.reading.drafts import Picture, Unusable

MAKER = "grounded-rl"
MOST_NODES, MOST_DEPTH = 100_000, 100

RowOf = dict[str, Any]


@dataclass(slots=True)
class Grown:
    """A published tree as one of ours."""

    tree: Tree
    responses: list[RowOf] = field(default_factory=list)
    """Rows of `responses`: one a node, one a rollout."""
    graded: int = 0
    """Outcomes that have a published reward and one of ours."""
    differing: int = 0
    """Of these, outcomes whose rewards differ."""


def asked(row: Row) -> tuple[str, str, tuple[Picture, ...]]:
    """The question, the gold answer and the pictures.

    Raises:
        Unusable: one of them is missing, or the tree is none.
    """
    row.optional("system_prompt")
    text = row.text("question").replace("<image>", "").strip()
    gold = row.text("true_answer")
    _check(row.get("tree"), "tree")
    names = row.get("image")
    names = names if isinstance(names, list) else [names]
    return text, gold, tuple(Picture(_picture(row, name)) for name in names)


def _picture(row: Row, name: Any) -> bytes:
    """A picture by the path it had elsewhere: its longest end that is below the image root."""
    if not isinstance(name, str) or not name.strip():
        raise Unusable("image", "there is no image name")
    parts = [part for part in PurePosixPath(name.strip()).parts if part != "/"]
    for i in range(len(parts)):
        try:
            return row.files.named("/".join(parts[i:]), "image")
        except Unusable as problem:
            missing = problem
            if "there is no such file" not in problem.reason:
                raise
    raise missing


def _check(root: Any, at: str) -> None:
    """Raise Unusable where a tree has not the shape it should have; looks at every node."""
    todo, seen = [(root, at, 0)], 0
    while todo:
        node, at, depth = todo.pop()
        seen += 1
        if seen > MOST_NODES or depth > MOST_DEPTH:
            raise Unusable(
                "tree", f"it has over {MOST_NODES:,} nodes, or is over {MOST_DEPTH} deep"
            )
        if not isinstance(node, dict) or not isinstance(node.get("thought_text"), str):
            raise Unusable(at, "it is no node: it has no thought_text")
        for name in ("children", "rollouts"):
            if not isinstance(node.get(name) or [], list):
                raise Unusable(f"{at}.{name}", "it should be a list")
        for i, rollout in enumerate(node.get("rollouts") or []):
            texts = rollout.get("ephemeral_texts") if isinstance(rollout, dict) else None
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise Unusable(f"{at}.rollouts[{i}]", "it has no ephemeral_texts")
        below = enumerate(node.get("children") or [])
        todo += [(child, f"{at}.children[{i}]", depth + 1) for i, child in below]


def grown(row: Row, question: Question, space: CoordinateSpace, model: str) -> Grown:
    """The tree of a row that `asked` has accepted.

    Args:
        space: the coordinates its points were written in.
    """
    published, prompt = row.get("tree"), row.optional("system_prompt")
    tree_id = content_id(MAKER, question.question_id, prompt, published, str(space.kind), model)
    root = Node(0, "", None, attempts=1)
    made = Grown(Tree(tree_id, question, root))
    grower = _Grower(made, Frame.of(space, question))
    todo: list[tuple[Node, dict[str, Any], int]] = [(root, published, 1)]
    while todo:
        node, said, depth = todo.pop()
        if node is not root:
            grower.fill(node, said)
        if not node.terminal and not node.discarded:
            for rollout in said.get("rollouts") or []:
                grower.roll_out(node, rollout, depth)
        children = []
        for child in said.get("children") or []:
            children.append((grower.hang(node, bool(child.get("is_terminal"))), child, depth + 1))
        todo += reversed(children)
    return made


class _Grower:
    """Fills a tree from what was published, and notes every text as a response."""

    def __init__(self, made: Grown, frame: Frame) -> None:
        self.made, self.frame = made, frame
        self.nodes, self.rollouts = 1, 0

    def hang(self, parent: Node, terminal: bool) -> Node:
        number = len(parent.children)
        path = f"{parent.path}.{number}" if parent.path else str(number)
        node = Node(self.nodes, path, parent, sample=number, attempts=0 if terminal else 1)
        node.answer = "" if terminal else None
        self.nodes += 1
        parent.children.append(node)
        return node

    def fill(self, node: Node, said: dict[str, Any]) -> None:
        """A node's thought, or its answer with the grade it earns."""
        text = storable(said["thought_text"])
        if node.terminal and "<answer>" not in text:
            text = f"<answer>{text}</answer>"
        assert node.parent is not None
        node.response_id = self.note(text, node.parent.path, "expand", node.sample or 0)
        parsed = parse(text, self.frame)
        node.problems = tuple(problem.kind for problem in parsed.problems)
        if node.terminal:
            node.answer = parsed.answer or ""
            rewards = [r.get("reward") for r in said.get("rollouts") or []] or [said.get("value")]
            node.reward, node.reason = self.judge(parsed.answer, rewards[0])
            if node.reward is not None:
                backup(node, node.reward)
        elif parsed.steps:
            thought = "\n".join(step.thought for step in parsed.steps)
            points = tuple(point for step in parsed.steps for point in step.points)
            node.step = Step(thought, points)
        else:
            node.discarded = "nothing_said"

    def roll_out(self, node: Node, said: dict[str, Any], depth: int) -> None:
        """One rollout: what it sampled itself stands behind the texts of the node's own path."""
        texts = said["ephemeral_texts"]
        text = storable("\n".join(texts[depth:]))
        number = len(node.rollouts)
        response_id = self.note(text, node.path, "rollout", number)
        parsed = _finished(parse(text, self.frame))
        reward, reason = self.judge(parsed.answer, said.get("reward"))
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
            backup(node, reward)

    def judge(self, answer: str | None, published: Any) -> tuple[float | None, str]:
        """Our score and its reason, with the published reward where that is another."""
        found, told = grade(self.made.tree.question, answer), number(published)
        if found.score is None or told is None:
            return found.score, found.reason
        self.made.graded += 1
        if (found.score >= 1) == (told >= 1):
            return found.score, found.reason
        self.made.differing += 1
        return found.score, f"{found.reason}; the published reward is {told:g}"

    def note(self, text: str, path: str, purpose: str, sample: int) -> str:
        """Keep a text as a response; its name."""
        tree_id = self.made.tree.tree_id
        response_id = content_id(tree_id, path, purpose, sample)
        self.made.responses.append(
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
    """A plain number, or None where it is none."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e9 else None  # neither NaN nor infinity is


def _finished(parsed: Parsed) -> Parsed:
    """As `mcts.tree.rebuild` reads a rollout: a remark behind the last point goes with it."""
    steps = fold_remark(parsed.steps) if parsed.answer is not None else parsed.steps
    return Parsed(steps, parsed.answer, parsed.problems)

"""What the gallery's scripts read: questions, steps, marks and tree nodes as plain values.

    {**shown_question(question), "nodes": list(shown_nodes(tree))}    # ready for JSON

Whatever takes a decision (numbers, roles, which points are outside, where badges stand) is decided
here; the scripts only draw it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from curation.render.marks import Mark, arrange, outward
from mcts.data import Question, Step
from mcts.tree import Tree


def shown_question(question: Question) -> dict[str, Any]:
    gold = [*question.answers, *(f"({p.x:g}, {p.y:g})" for p in question.points)]
    return {
        "q": question.text,
        "question": question.question_id,
        "task": question.task,
        "family": question.family,
        "choices": list(question.choices),
        "gold": gold,
        "boxes": [asdict(box) for box in question.boxes],
    }


def shown_mark(mark: Mark, question: Question) -> dict[str, Any]:
    """A mark for the scripts: shares of the picture, the badge's offset, the way out if outside."""
    i = mark.point.image
    there = 0 <= i < len(question.images)
    image = question.images[i] if there else None
    width, height = (image.width, image.height) if image else (1, 1)
    return {
        "n": mark.label,
        "role": mark.role,
        "image": i if there else None,
        "x": round(min(max(mark.point.x / width, 0.0), 1.0), 5),
        "y": round(min(max(mark.point.y / height, 0.0), 1.0), 5),
        "badge": [round(offset, 1) for offset in mark.badge],
        "out": mark.outside,
        "way": [round(part, 3) for part in outward(mark.point, width, height)],
    }


def shown_step(step: Step, marks: Sequence[Mark], question: Question) -> dict[str, Any]:
    crop = asdict(step.observation.crop) if step.observation else None
    return {"text": step.thought, "marks": [shown_mark(m, question) for m in marks], "crop": crop}


def shown_nodes(tree: Tree) -> Iterator[dict[str, Any]]:
    """Nodes, parents first; each step numbered by its depth, each badge clear of those above."""
    placed: dict[int, list[Mark]] = {}

    def numbered(steps: Sequence[Step], first: int, above: list[Mark]) -> list[list[Mark]]:
        marks = [[Mark(str(first + i), p) for p in step.points] for i, step in enumerate(steps)]
        flat = iter(arrange([m for some in marks for m in some], tree.question.images, above))
        return [[next(flat) for _ in some] for some in marks]

    def told(steps: Sequence[Step], first: int, marks: list[list[Mark]]) -> list[dict[str, Any]]:
        return [
            {"n": str(first + i), "role": "step", **shown_step(step, some, tree.question)}
            for i, (step, some) in enumerate(zip(steps, marks, strict=True))
        ]

    for node in tree.root.walk():
        above = placed[node.parent.node_id] if node.parent else []
        steps = (node.step,) if node.step else ()
        marks = numbered(steps, node.depth, above)
        placed[node.node_id] = [*above, *(m for some in marks for m in some)]
        rollouts = []
        for rollout in node.rollouts:
            more = numbered(rollout.steps, node.depth + 1, placed[node.node_id])
            rollouts.append(
                {
                    "id": rollout.rollout_id,
                    "steps": told(rollout.steps, node.depth + 1, more),
                    "answer": rollout.answer,
                    "reward": rollout.reward,
                    "reason": rollout.reason,
                    "problems": list(rollout.problems),
                }
            )
        yield {
            "id": node.node_id,
            "parent": node.parent.node_id if node.parent else None,
            "step": next(iter(told(steps, node.depth, marks)), None),
            "answer": node.answer,
            "visits": node.visits,
            "value": node.value,
            "reward": node.reward,
            "reason": node.reason,
            "discarded": node.discarded,
            "problems": list(node.problems),
            "rollouts": rollouts,
        }

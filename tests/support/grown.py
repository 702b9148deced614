"""Small trees grown by the real search from a script: what the linearizers are tested on."""

import asyncio
from dataclasses import replace

from curation.grading.grade import grade
from mcts.search import search
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy


def think(x, text="Thing at"):
    return f"<think>{text} ({x}, {x}).</think>"


def grow(script, otherwise=None, *, question=QUESTION, tree_id="t", **config):
    """One scripted search. The right answer of QUESTION is `left`."""
    policy = ScriptedPolicy(script, otherwise)
    return asyncio.run(search(question, replace(CONFIG, **config), policy, grade, tree_id))


# Two first steps: behind 100 one answer of two is right, behind 200 both are.
FORK = {
    ("", "expand", 0): think(100),
    ("", "expand", 1): think(200),
    ("0", "rollout", 0): think(110) + "<answer>right</answer>",
    ("0", "rollout", 1): think(120) + "<answer>left</answer>",
    ("1", "rollout", 0): think(210) + "<answer>left</answer>",
    ("1", "rollout", 1): think(220) + "<answer>left</answer>",
}

# For a baseline, which follows copies as well: one ends right, the other wrong.
COPIES = {
    ("", "expand", 0): think(5),
    ("0", "expand", 0): "<answer>left</answer>",
    ("", "expand", 1): think(5),
    ("1", "expand", 0): "<answer>right</answer>",
}


def fork(**changes):
    return grow({**FORK, **changes.pop("script", {})}, simulations=1, children=2, **changes)


def xs(steps):
    return [step.point.x for step in steps]

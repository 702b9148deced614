"""Writes the README of a trained model: what it is, what it was made from, how it was trained.

(folder / "README.md").write_text(model_card(made))
"""

from __future__ import annotations

from typing import Any

import yaml

from mcts.data import ResponseStyle
from warehouse.models import Made
from warehouse.storage.home import code_revision

_LEARNED = {
    ResponseStyle.GROUNDED: "think in steps that each point into the image, then answer",
    ResponseStyle.UNGROUNDED: "think in steps, then answer",
    ResponseStyle.ANSWER_ONLY: "answer at once, without reasoning",
}


def model_card(made: Made) -> str:
    """Return a trained model's card, in Markdown, with front matter for a hub."""
    recipe = dict(made.recipe)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["vigorl", "grounded-reasoning", recipe["kind"]],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {made.name}",
        "",
        f"Trained by {recipe['kind'].upper()} to {_LEARNED[recipe['response_style']]}.",
        "",
        f"- started from: `{made.base}`",
        f"- trained on: {_data(made)}",
        f"- code: {code_revision()}",
        f"- coordinates: {_space(made)}",
        f"- steps: {made.metrics.get('steps')}, in {made.metrics.get('seconds', 0):.0f} seconds",
        "",
        "Origin of every row that it was trained on: `vigorl lineage "
        f"{made.name}`. Weights are safetensors; nothing in this folder runs code.",
        "",
        "## Training metrics",
        "",
        "| metric | last value |",
        "|---|---|",
        *(f"| {key} | {_number(value)} |" for key, value in sorted(made.metrics.items())),
        "",
        "These are measured on the training data; they say nothing of unseen questions.",
        "",
        "## Recipe",
        "",
        "```yaml",
        yaml.safe_dump(recipe, sort_keys=True).strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _data(made: Made) -> str:
    if made.dataset:
        return f"{made.dataset} (content `{made.recipe['data'][:16]}`)"
    return f"questions with the content `{made.recipe['data'][:16]}`"


def _space(made: Made) -> str:
    space = made.space
    if space.min_pixels is None:
        return str(space.kind)
    return (
        f"{space.kind}, images of {space.min_pixels} to {space.max_pixels} pixels, sides in "
        f"multiples of {space.factor}"
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

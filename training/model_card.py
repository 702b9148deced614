"""The README of a trained model: what it is, what it was made from, how to ask it.

(folder / "README.md").write_text(card(made))
"""

from __future__ import annotations

from typing import Any

import yaml

from warehouse.models import Made
from warehouse.storage.home import code_revision


def card(made: Made) -> str:
    """A trained model's card, in Markdown, with front matter for a hub."""
    recipe = dict(made.recipe)
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["vigorl", "grounded-reasoning", recipe["kind"]],
    }
    learned = {
        "grounded": "think in steps that each point at the picture, then answer",
        "ungrounded": "think in steps, then answer",
        "answers": "answer at once, without reasoning",
    }[recipe["form"]]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {made.name}",
        "",
        f"Trained by {recipe['kind'].upper()} to {learned}.",
        "",
        f"- started from: `{made.base}`",
        f"- trained on: {_data(made)}",
        f"- code: {code_revision()}",
        f"- coordinates it speaks: {_space(made)}",
        f"- steps: {made.metrics.get('steps')}, in {made.metrics.get('seconds', 0):.0f} seconds",
        "",
        "Where each row it learned from came from: `vigorl lineage "
        f"{made.name}`. Weights are safetensors; nothing in this folder runs code.",
        "",
        "## Measured while it was trained",
        "",
        "| what | last |",
        "|---|---|",
        *(f"| {key} | {_number(value)} |" for key, value in sorted(made.metrics.items())),
        "",
        "These are the trainer's own figures, on what it trained on; they say nothing of questions "
        "it has not seen.",
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
        f"{space.kind}, pictures of {space.min_pixels} to {space.max_pixels} pixels, sides in "
        f"multiples of {space.factor}"
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

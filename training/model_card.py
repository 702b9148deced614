"""The README of a trained model: what it was made from and how (`templates/model_card.md.jinja`).

(folder / "README.md").write_text(model_card(made))
"""

from __future__ import annotations

import yaml

from curation.render.markdown import render_markdown
from mcts.data import ResponseStyle
from warehouse.models import ModelInfo
from warehouse.storage.home import code_revision

_LEARNED = {
    ResponseStyle.GROUNDED: "think in steps that each point into the image, then answer",
    ResponseStyle.UNGROUNDED: "think in steps, then answer",
    ResponseStyle.ZOOM: "think in steps that point, look closer where that helps, then answer",
    ResponseStyle.ANSWER_ONLY: "answer at once, without reasoning",
}
"""What a student learns, in each response style."""
_VALUES = "value each step of a line of reasoning, as a process reward model"


def model_card(made: ModelInfo) -> str:
    """Render a trained model's card as Markdown, with front matter for a hub."""
    recipe = dict(made.recipe)
    values = recipe["kind"] == "prm"
    return render_markdown(
        "training",
        "model_card.md.jinja",
        made=made,
        recipe=recipe,
        learned=_VALUES if values else _LEARNED[recipe["response_style"]],
        values=values,
        revision=code_revision(),
        metrics={k: f"{v:.4g}" if isinstance(v, float) else v for k, v in made.metrics.items()},
        recipe_yaml=yaml.safe_dump(recipe, sort_keys=True).strip(),
    )

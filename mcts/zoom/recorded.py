"""What a model was shown when it learned to zoom: the part `zoom` of its `vigorl.json`.

    zoom = recorded_zoom(folder)      # None where it was not taught to, or nothing is recorded
    record_zoom(folder, zoom)         # behind `write_prompt_style`

So an evaluation, `vigorl ask` and a further training show it the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mcts.teachers.checkpoints import STYLE_FILE, read_json
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens

_FIELD = "zoom"


def recorded_zoom(folder: Path) -> ZoomConfig | None:
    """Read what the model in a folder was shown.

    Raises:
        ValueError: it is not as `record_zoom` writes it.
    """
    found = read_json(folder / STYLE_FILE).get(_FIELD)
    if not found:
        return None
    try:
        return ZoomConfig(**{**found, "lens": Lens(**found["lens"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / STYLE_FILE}, {_FIELD}: {error!r}") from None


def record_zoom(folder: Path, zoom: ZoomConfig) -> None:
    """Add what a model was shown to its `vigorl.json`."""
    path = folder / STYLE_FILE
    fields = {**read_json(path), _FIELD: asdict(zoom)}
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")

"""A training's figures as a picture of small curves, drawn with nothing but Pillow.

png = curves(read_metrics(path))        # bytes of a PNG; None if there is nothing to draw
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

WANTED = (
    "loss", "reward", "rewards/correctness/mean", "rewards/grounding/mean", "rewards/format/mean",
    "frac_reward_zero_std", "entropy", "kl", "completions/mean_length", "completions/points",
    "mean_token_accuracy", "learning_rate",
)  # fmt: skip
"""Drawn where they were logged, in this order."""
_WIDTH, _HEIGHT, _MARGIN, _COLUMNS = 420, 200, 34, 2


def curves(rows: Sequence[dict[str, Any]]) -> bytes | None:
    """One small plot a figure, steps to the right."""
    from PIL import Image, ImageDraw

    series = {
        name: points
        for name in WANTED
        if len(points := [(r["step"], float(r[name])) for r in rows if r.get(name) is not None]) > 1
    }
    if not series:
        return None
    lines = -(-len(series) // _COLUMNS)
    image = Image.new("RGB", (_WIDTH * _COLUMNS, _HEIGHT * lines), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, points) in enumerate(series.items()):
        left, top = i % _COLUMNS * _WIDTH + _MARGIN, i // _COLUMNS * _HEIGHT + _MARGIN
        wide, high = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
        xs, ys = zip(*points, strict=True)
        low, top_value = min(ys), max(ys)
        span = (top_value - low) or 1.0
        draw.rectangle((left, top, left + wide, top + high), outline="#cccccc")
        draw.text((left, top - 16), f"{name}: {ys[0]:.4g} to {ys[-1]:.4g}", fill="black")
        draw.text((left + 2, top + 1), f"{top_value:.3g}", fill="#888888")
        draw.text((left + 2, top + high - 12), f"{low:.3g}", fill="#888888")
        draw.text((left + wide - 60, top + high + 3), f"step {xs[-1]}", fill="#888888")
        reach = max(1, xs[-1] - xs[0])
        draw.line(
            [
                (left + (x - xs[0]) / reach * wide, top + high - (y - low) / span * high)
                for x, y in points
            ],
            fill="#1f5fbf",
            width=2,
        )
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()

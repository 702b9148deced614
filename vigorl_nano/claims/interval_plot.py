"""Draws means with their intervals as SVG, for a README and a browser alike.

svg = draw_intervals([Row("ViGoRL", figure, marked=True), ...], "right answers in %")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from curation.scores.bootstrap import Estimate

ROW, TOP, WIDTH, RIGHT = 30, 44, 420, 70  # pixels
LEFT, LETTER = 250, 6.6  # least room for labels, and what a letter takes
INK, MARKED, PLAIN, RULE = "#24292f", "#1f6feb", "#8c959f", "#d0d7de"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the plot."""

    label: str
    interval: Estimate
    """Shares, 0 to 1."""
    marked: bool = False
    """Whether it is the row that the plot is about."""


def draw_intervals(rows: Sequence[Row], title: str) -> str:
    """Draw a dot a row, with its interval as a line.

    Dots, since their axis need not begin at 0: a bar that does not start at 0 misleads.
    """
    lowest = min((row.interval.low for row in rows), default=0.0)
    begin = max(0.0, int(10 * lowest - 0.5) / 10)
    height = TOP + ROW * len(rows) + 28
    left = max(LEFT, round(LETTER * max((len(row.label) for row in rows), default=0)) + 20)

    def x(share: float) -> float:
        return left + WIDTH * (share - begin) / (1 - begin)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + WIDTH + RIGHT}" '
        f'height="{height}" font-family="sans-serif" font-size="13" fill="{INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    bottom = TOP + ROW * len(rows)
    for tenth in range(round(10 * begin), 11):
        at = x(tenth / 10)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}" stroke="{RULE}"/>'
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{10 * tenth}</text>'
        )
    for number, row in enumerate(rows):
        y, found = TOP + ROW * number, row.interval
        middle = y + ROW / 2 - 4
        colour = MARKED if row.marked else PLAIN
        parts.append(
            f'<text x="{left - 10}" y="{middle + 5:.1f}" text-anchor="end"'
            f"{' font-weight=' + chr(34) + 'bold' + chr(34) if row.marked else ''}>"
            f"{escape(row.label)}</text>"
            f'<line x1="{x(found.low):.1f}" x2="{x(found.high):.1f}" y1="{middle:.1f}" '
            f'y2="{middle:.1f}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(found.value):.1f}" cy="{middle:.1f}" r="6" fill="{colour}"/>'
            f'<text x="{x(found.high) + 8:.1f}" y="{middle + 5:.1f}">{100 * found.value:.1f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])

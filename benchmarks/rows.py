"""One row of a benchmark's table: what was measured, its target, and whether it is met.

print(Row("64 questions: faster", 11.3, at_least=10).line())
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    what: str
    value: float
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        """`yes` or `NO` if there is a target, else an empty string."""
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is None or self.value >= self.at_least
        return "yes" if low and (self.at_most is None or self.value <= self.at_most) else "NO"

    def line(self) -> str:
        """Format the row as a line of the table."""
        target = f">= {self.at_least:g}" if self.at_least is not None else ""
        target = f"<= {self.at_most:g}" if self.at_most is not None else target
        return f"{self.what:<74} {self.value:>9.3g} {self.unit:<7} {target:>7} {self.verdict:>4}"

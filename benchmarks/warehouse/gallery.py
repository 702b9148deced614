"""The statements of docs/sql.md, as the benchmark and the tests ask them.

for question in gallery():
    question.number, question.title, question.sql
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
_QUESTION = re.compile(r"^## (\d+)\. (.+?)\n.*?^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the gallery."""

    number: int
    title: str
    sql: str


def gallery(document: Path = _DOCUMENT) -> list[Asked]:
    """The questions in order."""
    found = _QUESTION.findall(document.read_text(encoding="utf-8"))
    return [Asked(int(number), title, sql.strip()) for number, title, sql in found]

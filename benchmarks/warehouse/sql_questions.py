"""The SQL questions of docs/sql.md, for the benchmark and the tests.

for question in sql_questions():
    question.number, question.title, question.sql
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
_QUESTION = re.compile(r"^## (\d+)\. (.+?)\n.*?^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class SqlQuestion:
    """A numbered question with its SQL."""

    number: int
    title: str
    sql: str


def sql_questions(document: Path = _DOCUMENT) -> list[SqlQuestion]:
    """Read the questions in order."""
    found = _QUESTION.findall(document.read_text(encoding="utf-8"))
    return [SqlQuestion(int(number), title, sql.strip()) for number, title, sql in found]

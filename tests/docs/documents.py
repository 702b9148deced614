"""The documents that are held to the code, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.project_files import ROOT

__all__ = ["DOCUMENTS", "ROOT", "blocks", "links", "spans"]

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "vigorl_nano" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Fenced blocks: their language and their text."""
    yield from _BLOCK.findall(document.read_text(encoding="utf-8"))


def _prose(document: Path) -> str:
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def links(document: Path) -> list[str]:
    """Addresses of links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", _prose(document))


def spans(document: Path) -> list[str]:
    """What stands between single backquotes."""
    return re.findall(r"`([^`\n]+)`", _prose(document))

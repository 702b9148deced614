"""Pages on which a person reviews traces one by one: a gallery, and a page that asks for verdicts.

    page = write_review(Path("pages"), entries, reviewer="ada")     # to be served, not opened

The page posts what a person says to `reviews` beside it, and reads what was said before from there
(`flows.review.server`). It shows the trace and the right answer, and no verdict of a filter: those
are what reviews are held against.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from curation.render.gallery import GalleryTrace, write_asset, write_gallery

PAGE = "review.html"


def write_review(out: Path, entries: Iterable[GalleryTrace], *, reviewer: str) -> Path:
    """Write the pages into `out`, which holds no other gallery, and return the first."""
    write_gallery(out, entries)
    for name in ("review.css", "review.js"):
        write_asset(out, name)
    pages = Environment(
        loader=PackageLoader("curation.render"), autoescape=True, undefined=StrictUndefined
    )
    text = pages.get_template(PAGE).render(title="Review", reviewer=reviewer)
    (out / PAGE).write_text(text, encoding="utf-8", errors="replace")
    return out / PAGE

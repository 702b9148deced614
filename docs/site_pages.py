"""MkDocs hook: pages of the site that live outside docs/, and links that hold in both places.

README.md becomes the site's first page, CONTRIBUTING.md and others follow. In the repository a page
links to files as they lie there (`../vigorl_nano/README.md`); on the site that link leads to the
page made of the file, and the name of a file that is no page is shown without a link.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "vigorl_nano/README.md": "embedded-models.md",
}
SOURCES = {page: file for file, page in PAGES.items()}
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[([^\]\n]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that live outside docs/."""
    for source, page in PAGES.items():
        with open(source, encoding="utf-8") as file:
            files.append(File.generated(config, page, content=file.read()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")

    def link(match: re.Match[str]) -> str:
        text, address = match.groups()
        found = site_address(source, place, address)
        return f"[{text}]({found})" if found else text

    def image(match: re.Match[str]) -> str:
        return f"![{match[1]}]({site_address(source, place, match[2]) or match[2]})"

    return _LINK.sub(link, _IMAGE.sub(image, markdown))


def site_address(source: str, place: str, address: str) -> str | None:
    """Where a link leads on the site; None for a file that is no page.

    Args:
        source: the linking file, from the repository's root.
        place: its page, from the root of docs/.
        address: the link as written.
    """
    path, mark, anchor = address.partition("#")
    if not path or ":" in path:
        return address
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif target in PAGES:
        target = PAGES[target]
    else:
        return None
    return posixpath.relpath(target, posixpath.dirname(place) or ".") + mark + anchor

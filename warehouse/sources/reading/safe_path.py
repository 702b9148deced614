"""Pictures that a file names, taken only from below a folder.

    data = picture_below(root, "web/page_1.png")       # bytes, or a clause that says why not

A name in a data set is not to be trusted: one that leads out of the folder (`..`, absolute, through
a link) is refused, and an address is never fetched.
"""

from __future__ import annotations

from pathlib import Path

NO_SUCH_FILE = "there is no such file below the image root"


def picture_below(root: Path, name: str) -> bytes | str:
    """The bytes of a file below `root`, which is resolved, or why there are none."""
    if "://" in name:
        return "addresses are not fetched; give files or bytes"
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        return "the name leads out of the image root"
    path = root / name
    try:
        if not path.resolve().is_relative_to(root):
            return "the name leads out of the image root through a link"
        if not path.is_file():
            return NO_SUCH_FILE
        return path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a name of no file system
        return f"the file can't be read: {error}"

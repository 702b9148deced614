"""What a cell of a table holds, as a text, a picture, an answer or a box.

    picture_of({"bytes": data, "path": None}, root)      # its bytes
    fours("(3, 4, 20, 21)", "xyxy")                      # [[3.0, 4.0, 20.0, 21.0]]

`warehouse.sources.reading.columns` says which forms are read. A cell that holds none of them is a
`Unusable`, with the role it was read for and the reason.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from curation.grading.grade import normalize
from warehouse.sources.reading import image_files as picture_files
from warehouse.sources.reading.drafts import Picture, Unusable
from warehouse.sources.reading.safe_path import picture_below

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_DATA_ADDRESS = re.compile(r"data:image/[\w.+-]+;base64,")
_LONGEST_NAME = 1024  # characters; what is longer is no path
# The names under which a struct says its four numbers, in the order in which they are read.
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_WITH_SIZE = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)


def follow(row: dict[str, Any], role: str, name: str) -> Any:
    """The value a dotted name leads to; a name with dots in it is tried as it is first."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            there = f"; it has: {', '.join(map(str, row))}" if value is row else ""
            raise Unusable(role, f"the row has no {name}{there}")
    return value


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def listed(text: str) -> list[Any] | str:
    """The list that a text writes down, or the text."""
    if not text.lstrip().startswith("["):
        return text
    for form in (text, text.replace("'", '"')):
        try:
            found = json.loads(form)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    return text


def answer_of(text: str, choices: tuple[str, ...]) -> str:
    """The choice that an answer names by its text, its index from 0 or its letter; or itself."""
    known = {normalize(choice) for choice in choices}
    if not choices or normalize(text) in known:
        return text
    index = -1
    if text.isdecimal() and len(text) < 4:
        index = int(text)
    elif len(text.strip("(). ")) == 1:
        index = ascii_uppercase.find(text.strip("(). ").upper())
    return choices[index] if 0 <= index < len(choices) else text


def fours(value: Any, corners: str) -> list[list[float]]:
    """Boxes as lists of four numbers, however they are written.

    Args:
        corners: xyxy or xywh; of a struct, the numbers whose names say so.
    """
    if isinstance(value, str):
        value = listed(value.replace("(", "[").replace(")", "]"))
    if value is None or value == [] or value == "":
        raise Unusable("box", "there is no box")
    if isinstance(value, list) and all(isinstance(part, list | dict) for part in value):
        return [_four(part, corners) for part in value]
    return [_four(value, corners)]


def _four(value: Any, corners: str) -> list[float]:
    if isinstance(value, dict):
        names = _WITH_SIZE if corners == "xywh" else _CORNERS
        known = next((four for four in names if set(four) <= set(value)), None)
        if known is None:
            raise Unusable("box", f"a struct of {', '.join(value)} is not {corners}")
        value = [value[name] for name in known]
    numbers = _NUMBER.findall(value) if isinstance(value, str) else value
    try:
        found = [float(number) for number in numbers]
    except (TypeError, ValueError):
        found = []
    if len(found) != 4 or not all(map(math.isfinite, found)):
        raise Unusable("box", f"a box is four numbers, not {str(value)[:60]!r}")
    return found


def picture_of(value: Any, root: Path) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray) and value:
        return bytes(value)
    if not isinstance(value, str) or not value.strip():
        raise Unusable("image", "there is no image")
    data: bytes | str
    if len(value) > _LONGEST_NAME or _DATA_ADDRESS.match(value):
        try:
            data = base64.b64decode(_DATA_ADDRESS.sub("", value, count=1), validate=True)
        except (binascii.Error, ValueError):
            data = "this is neither a path nor base64"
    else:
        data = picture_below(root, value)
    if isinstance(data, str):
        raise Unusable("image", f"{value[:80]}: {data}")
    return data


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height as a viewer shows the picture; (1, 1) where it can't be read."""
    try:
        return picture_files.size_of(picture.data)
    except Unusable:  # the checker says what is wrong with it
        return 1, 1

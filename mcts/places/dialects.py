"""Places told in another way than `(x, y)`: read where the model's dialect is declared.

    text = read_dialect("a cup [100, 200, 300, 400]", Dialect.BOXES)      # "a cup (200, 300)"
    for place in other_dialects(text): …             # what stays unread, and where it stands

A dialect is a part of the model's coordinate space (`--space qwen2.5-vl+json`). What it declares
becomes `(x, y)`, in the model's own units, before the text is read; a box becomes its middle. Only
the numbers and their tags change. Undeclared, the same texts stay as they are written, none of
their numbers is a place, and a problem of the kinds below says so:

- `unread_xml`: `<point>412 630</point>`, `<point x="41.2" y="63" alt="cup">cup</point>`,
  `<points x1=… y1=… x2=…>` (Molmo, in percents of the image: `--space molmo`), `<loc0412><loc0630>`
- `unread_json`: `"point_2d": [x, y]`, `"bbox_2d": [x1, y1, x2, y2]`, and Gemini's
  `"box_2d": [y1, x1, y2, x2]`
- `unread_box`: `[x1, y1, x2, y2]`, `(x1, y1, x2, y2)`, `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`
- `unread_named`: `x=412, y=630`; no dialect reads it, nor `[412, 630]`, which counts where a word
  for a place stands before it, or where its numbers are none that lists and intervals have
- `unread_percent`: `(41%, 63%)`; no dialect reads it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mcts.coordinates import Dialect
from mcts.places.decide import UNREAD, Unread, is_number, is_place_word
from mcts.places.pairs import COMMA, NUMBER

_N, _SEP = NUMBER, rf"\s*(?:{COMMA}|\s)\s*"
_TAGGED_BOX = re.compile(
    r"<(\|)?(box|bbox|box_start|det|quad|quad_start|region)(?(1)\|)>(.{0,200}?)"
    r"<(?:/\w+|\|/?\w+\||/\|\w+\|)>",
    re.IGNORECASE | re.DOTALL,
)
# Forms begin with their sign, and only then look behind it: so they are found quickly.
_BOX = re.compile(
    rf"[\[(（](?<![\w\])].)(?:(?<=\[)\[)?\s*({_N})\s*{COMMA}\s*({_N})\s*{COMMA}\s*({_N})\s*{COMMA}\s*({_N})"
    r"\s*(?:\]\]?|[)）])"
)
# Two pairs without a space and nothing between them are the corners of a box.
_CORNERS = re.compile(
    rf"[(（](?<![)）﹚】〕,，、،﹐﹑､].)({_N}){COMMA}({_N})[)）]{COMMA}[(（]({_N}){COMMA}({_N})[)）]"
    rf"(?!\s*{COMMA}?\s*[(（﹙【〔])"
)
_JSON = re.compile(
    rf"([\"'](?P<key>point_2d|bbox_2d|box_2d|bbox|point|points|coordinates?|position|center|click)"
    rf"[\"']\s*:\s*)(?P<list>\[\s*{_N}(?:\s*{COMMA}\s*{_N}){{1,3}}\s*\])",
    re.IGNORECASE,
)
_POINT_TAG = re.compile(
    r"<points?\b(?P<attributes>[^<>]{0,2000}?)(?:/>|>(?P<inside>[^<]{0,500})</points?\s*>)",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(rf"\b(?P<axis>[xy])(?P<at>\d*)\s*=\s*[\"']?\s*({_N})\s*[\"']?", re.I)
_ALT = re.compile(r"\balt\s*=\s*\"([^\"]*)\"|\balt\s*=\s*'([^']*)'", re.IGNORECASE)
_INSIDE = re.compile(rf"\s*[\[(（]?\s*({_N}){_SEP}({_N})\s*[\])）]?\s*")
_SPECIAL_POINT = re.compile(
    rf"<\|point_start\|>\s*\(?\s*({_N}){_SEP}({_N})\s*\)?\s*<\|point_end\|>"
)
_LOC = re.compile(r"(?:<loc_?\d{1,4}>){2,4}", re.IGNORECASE)
_NAMED = re.compile(rf"[xX](?<!\w.)\s*[=:]\s*{_N}\s*(?:[,;]|[aA][nN][dD])?\s*[yY]\s*[=:]\s*{_N}")
_SQUARE = re.compile(rf"\[\s*{_N}\s*{COMMA}\s*{_N}\s*\]")
_PERCENT = re.compile(rf"[\[(（]\s*{_N}\s*[%％]\s*{COMMA}\s*{_N}\s*[%％]\s*[\])）]")
_FORMS = tuple(
    (kind, form, frozenset(signs), commas)
    for kind, form, signs, commas in (
        ("box", _TAGGED_BOX, "<>", 0), ("xml", _SPECIAL_POINT, "<|>", 0),
        ("xml", _POINT_TAG, "<>", 0), ("xml", _LOC, "<>", 0), ("json", _JSON, "[:", 0),
        ("box", _BOX, "", 3), ("box", _CORNERS, "", 3), ("named", _NAMED, "=", 0),
        ("named", _NAMED, ":", 0), ("named", _SQUARE, "[]", 1), ("percent", _PERCENT, "%", 1),
        ("percent", _PERCENT, "％", 1),
    )
)  # fmt: skip
"""Kind of the problem, its form, and signs and a number of commas without which a text can't hold
it: to look for them is quick."""
_COMMAS = re.compile(COMMA)
_LIST_END = 40
"""Numbers below it stand in lists and intervals as often as they are places."""
_NUMBERS = re.compile(_N)
_ASCII = str.maketrans("−－．٫", "--..")
_Y_FIRST = ("box_2d",)


def read_dialect(text: str, dialect: Dialect) -> str:
    """Return a text whose places of that dialect are written `(x, y)`, in the same units."""
    if dialect is Dialect.XML:
        text = _SPECIAL_POINT.sub(lambda m: _pair(_floats(m[0])), text)
        return _POINT_TAG.sub(_from_tag, text)
    if dialect is Dialect.JSON:
        return _JSON.sub(_from_json, text)
    if dialect is Dialect.BOXES:
        text = _TAGGED_BOX.sub(lambda m: _middle(_floats(m[3])) or m[0], text)
        return _CORNERS.sub(_unless_number(text), _BOX.sub(_unless_number(text), text))
    return text


def other_dialects(text: str) -> Iterator[tuple[int, int, Unread]]:
    """Yield the places that a text tells in a dialect that was not declared: start, end, why."""
    seen, held, commas = bytearray(len(text)), set(text), len(_COMMAS.findall(text))
    for kind, pattern, signs, least in _FORMS:
        if commas < least or not signs <= held:
            continue
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(seen[start:end]) or not _means_place(text, match):
                continue
            seen[start:end] = b"1" * (end - start)
            yield start, end, Unread(f"{UNREAD}{kind}", match[0])


def _means_place(text: str, match: re.Match[str]) -> bool:
    before, after = text[max(0, match.start() - 80) : match.start()], text[match.end() :][:40]
    if match.re is _POINT_TAG:
        inside = match["inside"] or ""
        if re.fullmatch(rf"\s*[(（]\s*{_N}\s*{COMMA}\s*{_N}\s*[)）]\s*", inside):
            return False  # `(x, y)` in a tag is `(x, y)`
        told = _ATTRIBUTE.search(match["attributes"]) or "coords" in match["attributes"]
        return bool(told or _INSIDE.fullmatch(inside))
    if match.re is _TAGGED_BOX:
        return len(_floats(match[3])) in (4, 8)
    if match.re is _SQUARE:
        if is_number(before, after):
            return False
        return is_place_word(before) or _unlike_a_list(_floats(match[0]))
    if match.re in (_BOX, _PERCENT):
        return not is_number(before, after)
    return True


def _unlike_a_list(numbers: list[float]) -> bool:
    """Whether two numbers in square brackets are none that small lists, intervals, years and
    references have."""
    x, y = numbers
    return max(x, y) >= _LIST_END and x != 0 and not 1800 <= x < y <= 2100


def _floats(text: str) -> list[float]:
    return [float(number.translate(_ASCII)) for number in _NUMBERS.findall(text)]


def _pair(numbers: list[float]) -> str:
    x, y = numbers[:2]
    return f"({x:.6g}, {y:.6g})"


def _middle(numbers: list[float]) -> str:
    """The middle of a box of four numbers, or of a quadrangle of eight; empty for any other."""
    if len(numbers) not in (4, 8):
        return ""
    xs, ys = numbers[::2], numbers[1::2]
    return _pair([(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2])


def _unless_number(text: str) -> Callable[[re.Match[str]], str]:
    def middle(match: re.Match[str]) -> str:
        if not _means_place(match.string, match):
            return match[0]
        return _middle(_floats(match[0])) or match[0]

    return middle


def _from_json(match: re.Match[str]) -> str:
    numbers = _floats(match["list"])
    if match["key"].lower() in _Y_FIRST and len(numbers) == 4:
        numbers = [numbers[1], numbers[0], numbers[3], numbers[2]]
    place = _middle(numbers) if len(numbers) == 4 else _pair(numbers) if len(numbers) == 2 else ""
    return f"{match[1]}{place}" if place else match[0]


def _from_tag(match: re.Match[str]) -> str:
    """`<point x= y= alt="cup">cup</point>` -> `cup (x, y)`; the words of a tag are kept."""
    axes: dict[str, dict[str, float]] = {"x": {}, "y": {}}
    for found in _ATTRIBUTE.finditer(match["attributes"]):
        axes[found["axis"].lower()][found["at"]] = float(found[3].translate(_ASCII))
    inside = match["inside"] or ""
    if not axes["x"] and (numbers := _INSIDE.fullmatch(inside)):
        return _pair(_floats(numbers[0]))
    if not axes["x"] or axes["x"].keys() != axes["y"].keys():
        return match[0]
    alt = _ALT.search(match["attributes"])
    words = inside.strip() or (alt and (alt[1] or alt[2])) or ""
    pairs = ", ".join(_pair([x, axes["y"][at]]) for at, x in axes["x"].items())
    return f"{words} {pairs}" if words else pairs

"""Which pairs of numbers are places, decided by what stands around them.

    for place in places("(1,200) dollars at (412, 630)"): …           # (412, 630) alone
    for place in places(thought, known=step.points): …                 # those of a parsed step

The rule, in this order; what decides is near the pair and in its sentence:

1. *A number's surroundings make it a number*: a function's name before the bracket, `f(1, 2)`; a
   sign of set theory; money, percent or a unit beside it; words such as `interval`, `range`,
   `ratio`, `years from`, `the axis runs`, `reads` before it, or `interval` behind it. A word for a
   place that stands nearer, as in `the ratio's label at (412, 630)`, comes first.
   Small whole numbers also where a result or an entry is told: `ended (3, 2)`, `matrix entry
   (1, 1)`; and two in a row behind a word for what is numbered: `rooms (101, 102)`.
2. *Two years*, in order, where the image has no such place: `(2010, 2020)`.
3. *A number with thousands*, `(1,200)`: a comma without a space and three digits. It is a place
   after a word for one (`at`, `coordinates`, `click`); then as the text's other places are written,
   with a space or without; then where it begins with three digits, `(412,630)`. Otherwise nothing
   tells, and it stays a text: `unread_number` says so.
4. *Shares*, `(0.62, 0.71)`, where the model counts thousandths or pixels: `unread_shares`.
5. Everything else is a place.

What is no place stays as it is written, wherever the text goes. A step's own points (`Step.points`)
come before the rule: it decides once, when a response is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import regex

from mcts.data import Point
from mcts.places.pairs import VAGUE, Pair, bare_pairs, find_pairs

UNREAD = "unread_"
"""Begins the kinds of problems that say why something in a text is no place. They are remarks: the
response is well formed."""

_ADVERB = r"(?:about|approximately|approx\.?|roughly|around|exactly|just|only|over|nearly|~|≈|:|=)"
_LINK = (
    r"(?:is|are|was|were|be|being|of|from|in|within|between|over|as|to|the|a|an|equals?|that|which|"
    r"runs?|goes|been|becomes?|open|closed|half-open)"
)
_STRONG = (
    r"(?:sub)?intervals?|(?<!mountain )(?<!kitchen )(?<!gas )(?<!stove )(?<!electric )(?<!hill )"
    r"(?<!shooting )(?<!driving )ranges?|(?:co)?domain|ratios?|odds|ordered pairs?|tuples?|"
    r"vectors?|confidence|ci|rgb|dimensions|resolution|limits|bounds|proportions?|"
    r"[xyz]-?(?:values?|range|limits?|lim)|[xy]lim|intervall?e?s?|bereich|plage|intervalo|rango|"
    r"интервал\w*|диапазон\w*|区间|區間|范围|範囲|範圍|比例|比率|구간|범위|비율|فترة|نطاق|अंतराल|ช่วง"
)
_WEAK = (
    r"scores?|years?|decades?|periods?|prices?|values?|totals?|totall?ing|sums?|amounts?|revenues?|"
    r"sales|profits?|loss(?:es)?|incomes?|populations?|sizes?|costs?|averages?|means?"
)
_VERB = (
    r"reads?|says?|saying|costs?|equals?|labell?ed|written\s+as|states?|stating|worth|pays?|paid|earns?|"
    r"earned|sells?\s+for|sold\s+for|"
    r"amounts?\s+to|totals|写着|寫著|显示为|读作"
)
_AXIS = (
    r"(?:axis|axes|scale|ticks?|labels?|years?|[xyz])\s+(?:runs?|running|goes|going|ranges?|ranging|"
    r"spans?|spanning|covers?|covering|extends?|extending|is\s+limited)"
)
_NUMBER_BEFORE = re.compile(
    rf"(?:(?<![\w-])(?:{_STRONG})(?:\s+{_LINK}|\s*{_ADVERB})*"
    rf"|(?<![\w-])(?:{_WEAK})(?:\s+(?:is|are|was|were|of|from|in|between|equals?)|\s*[=:])"
    rf"(?:\s+(?:of|from|in|between|about|over|the))*"
    rf"|(?<![\w-])(?:{_VERB})(?:\s+(?:as|at|for|about))?"
    rf"|(?<!\w){_AXIS}(?:\s+{_LINK})*"
    r"|[∈∉⊂⊆⊃∪∩×∖])\s*[\"'“‘«「]?\s*$",
    re.IGNORECASE,
)
_MONTH_BEFORE = re.compile(
    r"\b(?:jan(?:uary)?|feb(?:ruary)?|march|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?\s*$",
    re.IGNORECASE,
)
_MONEY_BEFORE = regex.compile(
    r"(?:\p{Sc}|\b(?:USD|EUR|GBP|CNY|RMB|JPY|INR|CHF|KRW|Rs\.?))\s*$", regex.IGNORECASE
)
_MONEY_BEHIND = regex.compile(
    r"\s*(?:\p{Sc}|[%‰％]|(?:US\s+)?(?:per\s?cent|percentage|dollars?|euros?|pounds?\s+sterling|yen|"
    r"yuan|rupees?|roubles?|rubles?|francs?|pesos?|cents|bucks|USD|EUR|GBP|CNY|RMB|JPY|INR|CHF|KRW|"
    r"thousand|million|billion|trillion|Euro|Dollar|Prozent|доллар\w*|рубл\w*|процент\w*)\b|"
    r"美元|欧元|歐元|日元|港元|人民币|元(?!素)|[円원](?![形い盤柱형])|[万萬亿億]|달러|डॉलर|रुपये|دولار|بالمئة|บาท)",
    regex.IGNORECASE,
)
_UNIT_BEHIND = re.compile(
    r"\s*(?:°|(?:mm|cm|km|kg|mg|ml|lbs?|oz|ft|mph|kmh|kwh|mw|gw|hz|khz|mhz|ghz|kb|mb|gb|tb|"
    r"inch(?:es)?|met(?:er|re)s?|kilomet(?:er|re)s?|centimet(?:er|re)s?|miles?|feet|"
    r"(?:kilo)?grams?|tons?|tonnes?|lit(?:er|re)s?|hours?|minutes?|seconds?|days?|weeks?|months?|"
    r"years?|degrees?|inclusive|exclusive|intervals?|ranges?|ratio|"
    r"(?:confidence|open|closed)\s+intervals?)\b|区间|區間|范围|範囲|年)",
    re.IGNORECASE,
)
_FUNCTION_NAMES = """
    abs array atan2 binomial choose comb cos divmod exp gamma gcd hcf hsl hsv hypot interval
    lcm len ln log max min mod normal np perm poly pow print prob rand randint range rgb rgba
    round shape sin size sqrt sum tan tuple uniform vec vec2 vector zip
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_NAME = re.compile(r"(?<!\w)([A-Za-z_]\w*)['′]*$")
_PLACE_WORD = (
    r"at|near|around|beside|located|situated|positioned|placed|centered|centred|coordinates?|"
    r"coords?|positions?|locations?|points?|pixels?|spots?|places?|cent(?:er|re)s?|click(?:s|ed|ing)?|"
    r"tap(?:s|ped|ping)?|look(?:s|ing)?|towards?|next\s+to|close\s+to|marked|corner"
)
_PLACE_BEFORE = re.compile(
    rf"(?:(?<![\w-])(?:{_PLACE_WORD})(?:\s+(?:is|are|the|of|on|from|to|at|and|with|its)|\s*{_ADVERB})*"
    r"|在|于|於|坐标|座標|位置|点|點|处|處|に|は)\s*[:：]?\s*$",
    re.IGNORECASE,
)
# What small numbers count: goals of a match, rows and columns of a matrix.
_RESULT_BEFORE = re.compile(
    r"(?<![\w-])(?:(?:ended|finished|won|wins?|lost|loses?|drew|tied|beaten)(?:\s+(?:in|with|by|as))?|"
    r"final\s+score|scoreline|indices|index|subscripts?|rows?\s+and\s+columns?|"
    r"(?:matrix|array|tensor|grid|table|board|spreadsheet)(?:'s)?\s+"
    r"(?:entry|entries|elements?|cells?|positions?|squares?|nodes?)|entry|entries)\s*[:=]?\s*$",
    re.IGNORECASE,
)
_ENTRY_BEHIND = re.compile(
    r"(?:\s*-?\s*th)?\s*(?:entry|entries|(?:(?:element|cell|component)s?\s+)?(?:of|in)\s+"
    r"(?:the|this|a)\s+(?:matrix|array|tensor))\b",
    re.IGNORECASE,
)
_COUNTED = 30
"""The largest number that they have."""
_NUMBERED_BEFORE = re.compile(
    r"(?<![\w-])(?:rooms?|apartments?|flats?|suites?|pages?|pp\.|chapters?|sections?|questions?|"
    r"exercises?|problems?|gates?|platforms?|lanes?|lockers?|numbers?|nos\.)\s*$",
    re.IGNORECASE,
)
_SOLD_AT = re.compile(r"(?:sold|sells?|priced|valued|estimated)\s+at\s*$", re.IGNORECASE)
_UNIT = 1.5
"""Below it in both numbers a pair counts shares: rounded, no thousandth or pixel is left of it."""


class Place(NamedTuple):
    """A pair that is a place, with the point it means in the units it is written in; a tuple, since
    a corpus has many."""

    start: int
    end: int
    x: float
    y: float
    image: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that looks like a place and is left as it is written."""

    kind: str
    """A problem's kind; it begins with `UNREAD`."""
    text: str


def places(
    text: str,
    known: Sequence[Point] | None = None,
    *,
    n_images: int | None = None,
    whole_units: bool = False,
    outside: Callable[[float, float, int], bool] = lambda x, y, image: False,
    masked: Sequence[tuple[int, int]] = (),
    unread: list[Unread] | None = None,
) -> list[Place]:
    """Return the places that a text cites, in reading order.

    Args:
        known: the points the text was parsed into, in its own units; they decide where they are
            given and the text cites all of them.
        n_images: how many images there are; None if it is not known.
        whole_units: the model counts thousandths or pixels, so that fractions of 1 are shares.
        outside: whether a pair of numbers lies outside its image.
        masked: parts of the text in which nothing is a place.
        unread: what looks like a place and is none is added to it.
    """
    if known is not None and not masked and (aligned := _all_known(text, known)) is not None:
        return aligned
    pairs = find_pairs(text, n_images)
    if masked:
        hidden = bytearray(len(text))
        for start, end in masked:
            hidden[start:end] = b"1" * (end - start)
        pairs = [pair for pair in pairs if not hidden[pair.start]]
    if known is not None and (aligned := _aligned(pairs, known)) is not None:
        return aligned
    reasons = {} if unread is None else {pair.start: "" for pair in pairs}
    taken = _decided(pairs, whole_units, outside, reasons)
    if unread is not None:
        unread += [
            Unread(reasons[pair.start], text[pair.start : pair.end])
            for pair in pairs
            if reasons[pair.start]
        ]
    return [Place(p.start, p.end, p.x, p.y, p.image) for p in taken]


@lru_cache(maxsize=4096)
def is_unread(problem: str) -> bool:
    """Return whether a problem only says why something is no place; the format is right."""
    return problem.startswith(UNREAD)


def is_number(before: str, after: str) -> bool:
    """Return whether a pair's surroundings make it a number: step 1 of the rule."""
    if _told_before(before):
        return True
    money, unit = _told_behind(after)
    return money or (unit and not is_place_word(before))


@lru_cache(maxsize=1 << 14)  # the traces of a tree share their steps
def _told_before(before: str) -> bool:
    """Return whether a name or a word in front of a pair makes it a number."""
    name = _NAME.search(before)
    if name and (len(name[1]) == 1 or name[1].lower() in _FUNCTIONS):
        return True
    return any(sign.search(before) for sign in (_MONEY_BEFORE, _NUMBER_BEFORE, _SOLD_AT))


@lru_cache(maxsize=1 << 14)
def _told_behind(after: str) -> tuple[bool, bool]:
    """Return whether money is told behind a pair, and a unit."""
    return bool(_MONEY_BEHIND.match(after)), bool(_UNIT_BEHIND.match(after))


def is_share(*numbers: float) -> bool:
    """Return whether the numbers of a place count shares of an image, where whole units are
    expected: a point's two, or a box's four."""
    return _in_first_unit(*numbers) and any(number != int(number) for number in numbers)


def _in_first_unit(*numbers: float) -> bool:
    return all(abs(number) <= _UNIT for number in numbers)


def is_place_word(before: str) -> bool:
    """Return whether a text ends in a word after which a place stands: `at`, `coordinates`."""
    return bool(_PLACE_BEFORE.search(before))


def _all_known(text: str, known: Sequence[Point]) -> list[Place] | None:
    """Take a text's pairs for the known points, one by one; None where they are not just these.

    The words around them decide nothing then: this is quick, and the case of nearly every step.
    """
    if not known:
        return []
    bare = bare_pairs(text)
    if [(x, y) for _, _, x, y in bare] != [(point.x, point.y) for point in known]:
        return None
    return [Place(*pair, point.image) for pair, point in zip(bare, known, strict=True)]


def _aligned(pairs: list[Pair], known: Sequence[Point]) -> list[Place] | None:
    """Find the known points among the pairs, in order; None where the text does not cite all.

    What the rule calls no place is passed over as long as all points are found without it.
    """
    if len(pairs) == len(known):
        tries = [pairs]
    else:
        tries = [_decided(pairs, False, lambda x, y, image: False, {}), list(pairs)]
    for candidates in tries:
        found: list[Place] = []
        for pair in candidates:
            if len(found) < len(known):
                point = known[len(found)]
                if (pair.x, pair.y) == (point.x, point.y):
                    found.append(Place(pair.start, pair.end, pair.x, pair.y, point.image))
        if len(found) == len(known):
            return found
    return None


def _decided(
    pairs: Sequence[Pair],
    whole_units: bool,
    outside: Callable[[float, float, int], bool],
    reasons: dict[int, str],
) -> list[Pair]:
    """Return the pairs that are places; `reasons` gets the kinds of those that may be meant so."""
    taken: dict[int, Pair] = {}
    doubtful: list[Pair] = []
    counts_shares = whole_units and any(
        is_share(pair.x, pair.y) and not is_number(pair.before, pair.after) for pair in pairs
    )
    for pair in pairs:
        if pair.image == VAGUE:
            reasons[pair.start] = f"{UNREAD}image"
        elif is_number(pair.before, pair.after) or _date(pair) or _counts(pair):
            continue
        elif _years(pair) and not _PLACE_BEFORE.search(pair.before):
            if not outside(pair.x, pair.y, pair.image):
                taken[pair.start] = pair
        elif _thousands(pair) and not _PLACE_BEFORE.search(pair.before):
            doubtful.append(pair)
        elif counts_shares and _in_first_unit(pair.x, pair.y):  # `(0, 1)` beside `(0.5, 1)` too
            reasons[pair.start] = f"{UNREAD}shares"
        else:
            taken[pair.start] = pair
    if not doubtful:
        return list(taken.values())
    # How the text's other places are written tells; three digits before the comma begin a place.
    spaced = any(pair.comma != "," for pair in taken.values())
    compact = bool(taken) or any(len(p.first) == 3 and p.second.isdigit() for p in doubtful)
    for pair in doubtful:
        if compact and not spaced:
            taken[pair.start] = pair
        else:
            reasons[pair.start] = f"{UNREAD}number"
    return [pair for pair in pairs if pair.start in taken]


def _years(pair: Pair) -> bool:
    return 1800 <= pair.x < pair.y <= 2100 and _whole(pair)


def _date(pair: Pair) -> bool:
    day_of_year = 1000 <= pair.y <= 2100 and 1 <= pair.x <= 31 and pair.x == int(pair.x)
    return day_of_year and bool(_MONTH_BEFORE.search(pair.before))


def _counts(pair: Pair) -> bool:
    """Whether it counts goals, or rows and columns, or gives two numbers of things in a row."""
    small, in_a_row = pair.x <= _COUNTED >= pair.y, pair.y == pair.x + 1
    if not (small or in_a_row) or not _whole(pair):
        return False
    if small and (_RESULT_BEFORE.search(pair.before) or _ENTRY_BEHIND.match(pair.after)):
        return True
    return in_a_row and bool(_NUMBERED_BEFORE.search(pair.before))


def _whole(pair: Pair) -> bool:
    return pair.first.isdigit() and pair.second.isdigit()


def _thousands(pair: Pair) -> bool:
    """Whether it may be one number: 1,200 or 12,500.50, or 1.200,50 as others write it."""
    if pair.comma != "," or pair.first[0] in "0-−－":
        return False
    grouped = re.fullmatch(r"\d{1,3}", pair.first) and re.fullmatch(r"\d{3}(\.\d\d?)?", pair.second)
    decimal = re.fullmatch(r"\d{1,3}\.\d{3}", pair.first) and re.fullmatch(r"\d\d?", pair.second)
    return bool(grouped or decimal)

"""Pairs of numbers in brackets, and the words that say which image is meant.

    for pair in find_pairs("The cup is at (412, 630) in the second image."): …

A pair is only what has the form of a place; `mcts.places.decide` says whether it is one. Brackets,
commas and digits of every script are read: `（１２０，３４０）`, `【120、340】`, `(١٢٠، ٣٤٠)`.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mcts.places.sentences import sentence_around, sentence_ends

# Bounded, so that no text makes a number a float cannot hold.
NUMBER = r"[-−－]?(?:\d{1,7}(?:[.．٫]\d{1,20})?|[.．٫]\d{1,20})"
LARGEST = 1e7 - 1
"""A place has smaller numbers, in any units: what is written is read again."""
COMMA = r"[,，、،﹐﹑､]"
_PAIR = re.compile(rf"[(（﹙【〔]\s*({NUMBER})(\s*{COMMA}\s*)({NUMBER})\s*[)）﹚】〕]")
_TO_ASCII = str.maketrans("−－．٫", "--..")

_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8,
    "첫": 1, "두": 2, "세": 3, "네": 4, "ersten": 1, "zweiten": 2, "dritten": 3, "vierten": 4,
    "première": 1, "deuxième": 2, "seconde": 2, "troisième": 3, "primera": 1, "segunda": 2,
    "tercera": 3, "primeira": 1, "terceira": 3, "первом": 1, "втором": 2, "третьем": 3,
}  # fmt: skip
_IMAGE = r"(?:images?|pictures?|photos?|photographs?)"
_PREPOSITION = (
    r"(?:in|of|on|from|within|inside|(?:look|turn|mov|go)(?:ing)?\s+(?:back\s+)?(?:at|to))"
)
_MENTION = re.compile(
    rf"""
    \b{_PREPOSITION}\s+(?:the\s+)?{_IMAGE}\s+(?:number\s+|no\.\s*|\#\s*)?
      (?P<number>\d{{1,3}}|one|two|three|four|five|six|seven|eight)\b
  | \b{_PREPOSITION}\s+(?:the\s+)?(?P<ordinal>first|second|third|fourth|fifth|sixth|seventh|eighth
      |\d{{1,2}}(?=st\b|nd\b|rd\b|th\b))(?:st|nd|rd|th)?\s+(?:of\s+the\s+\w+\s+)?{_IMAGE}\b
  | \b{_PREPOSITION}\s+the\s+(?P<last>last|final)\s+{_IMAGE}\b
  | \b{_PREPOSITION}\s+the\s+(?P<vague>other|left|right|left-hand|right-hand|top|bottom|upper|lower
      |next|previous|middle)\s+{_IMAGE}\b
  | (?:在|从|看)?第\s*(?P<han>[一二两三四五六七八]|\d{{1,2}})\s*(?:张|張|幅|个|枚目の)?
      (?:图像|图片|图|圖像|圖片|圖|照片|画像|写真)(?:片|像)?(?:中|里|裡|上|内|では|で|に|の)*
  | (?:在|从|看)?(?:图像|图片|图|圖片|圖|画像)\s*(?P<han_number>\d{{1,2}})
      (?:中|里|裡|上|内|では|で|に|の)*
  | (?P<kana>\d{{1,2}}|[一二三四五六七八])(?:枚目|番目)の?(?:画像|写真|図)(?:の中|では|で|に|の)*
  | (?P<hangul>첫|두|세|네)\s?번째\s?(?:이미지|사진|그림)(?:에서|의|에)*
  | (?:이미지|사진|그림)\s?(?P<hangul_number>\d{{1,2}})(?:에서|의|에)*
  | \b(?:im|in\s+dem)\s+(?P<german>ersten|zweiten|dritten|vierten)\s+(?:Bild|Foto)\b
  | \b(?:dans|sur)\s+la\s+(?P<french>première|deuxième|seconde|troisième)\s+(?:image|photo)\b
  | \b(?:en|na)\s+(?:la\s+)?(?P<iberian>primera|segunda|tercera|primeira|terceira)\s+
      (?:imagen|foto|imagem)\b
  | \bна\s+(?P<russian>первом|втором|третьем)\s+(?:изображении|снимке|фото)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
# In a text without these nothing names an image; to look for them is quick.
_SAYS_IMAGE = (
    "imag", "picture", "photo", "foto", "bild", "图", "圖", "照", "画像", "写真", "図", "이미지",
    "사진", "그림", "изобр", "сним", "фото",
)  # fmt: skip
# Between a place and the image it is in: "(1, 2) in image 2", "(1, 2), in the second image".
_JOINS = re.compile(r"[\s,，、(（]*(?:的|の)?\s*")
# In front of a mention that sets the scene for what follows: "…, and in image 2 the cup is at".
_CLAUSE_START = re.compile(
    r"(?:^|[,;:，；：、。(（]|\b(?:and|but|while|whereas|then|now|so|also|again|however|next))\s*"
    r"[\"“*]*$",
    re.IGNORECASE,
)
_NEAR = 120
"""Characters in which a pair's surroundings are looked for."""
VAGUE = -2
"""An image that is told, but not by its number."""


class Pair(NamedTuple):
    """Two numbers in brackets; a tuple, since a corpus has many."""

    start: int
    """Position of its opening bracket."""
    end: int
    """Position behind its closing bracket."""
    x: float
    y: float
    first: str
    """The first number as written."""
    comma: str
    """What stands between the numbers, white space included."""
    second: str
    """The second number as written."""
    image: int = 0
    """The image told, counted from 0; `VAGUE` where it is told without its number."""
    before: str = ""
    """The sentence in front of it, from the pair before on."""
    after: str = ""
    """The sentence behind it, up to the next pair."""


def bare_pairs(text: str) -> list[tuple[int, int, float, float]]:
    """Find every pair in a text, without what stands around it: start, end, and both numbers."""
    return [(m.start(), m.end(), _value(m[1]), _value(m[3])) for m in _PAIR.finditer(text)]


def find_pairs(text: str, n_images: int | None = None) -> list[Pair]:
    """Find every pair in a text, with its sentence around it and the image it is said to be in.

    Args:
        n_images: how many images there are; None if it is not known. With a single one, only what
            follows a pair directly can name another.
    """
    found = list(_PAIR.finditer(text))
    if not found:
        return []
    ends = sentence_ends(text)
    spans = [sentence_around(ends, m.start(), m.end(), len(text)) for m in found]
    suffixes: dict[int, tuple[int, int, int] | None] = {}
    mentions: list[tuple[int, int, int]] = []
    if _says_image(text):
        joined = {m.end(): _joined(text, m.end()) for m in found}
        mentions = _mentions(text, n_images, joined.values() if n_images == 1 else None)
        by_start = {mention[0]: mention for mention in mentions}
        suffixes = {end: by_start.get(at) for end, at in joined.items() if at is not None}
    taken = {at[0] for at in suffixes.values() if at is not None}
    # Those that set the scene: behind the start of a clause, and of no pair before them.
    scenes = [
        m
        for m in mentions
        if m[0] not in taken and _CLAUSE_START.search(_sentence_before(text, ends, m[0]))
    ]
    starts = [scene[0] for scene in scenes]
    pairs = []
    for i, (match, (first, last)) in enumerate(zip(found, spans, strict=True)):
        if i:
            first = max(first, found[i - 1].end())
        if i + 1 < len(found):
            last = min(last, found[i + 1].start())
        own = suffixes.get(match.end())
        image = 0
        if own is not None:
            image = own[2]
        elif n_images != 1:
            last_scene = bisect.bisect_left(starts, match.start()) - 1
            if last_scene >= 0 and starts[last_scene] >= spans[i][0]:
                image = scenes[last_scene][2]
        pairs.append(
            Pair(
                match.start(), match.end(), _value(match[1]), _value(match[3]),
                match[1], match[2], match[3], image,
                text[max(first, match.start() - _NEAR) : match.start()],
                text[match.end() : min(last, match.end() + _NEAR)],
            )
        )  # fmt: skip
    return pairs


def _says_image(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in _SAYS_IMAGE)


def _value(number: str) -> float:
    return float(number if number.isascii() else number.translate(_TO_ASCII))


def _mentions(
    text: str, n_images: int | None, only_at: Iterable[int | None] | None = None
) -> list[tuple[int, int, int]]:
    """Find what names an image, anywhere or at the positions `only_at`: start, end, and its number
    from 0 or `VAGUE`."""
    mentions: list[tuple[int, int, int]] = []
    if only_at is None:
        found = list(_MENTION.finditer(text))
    else:
        tried = (_MENTION.match(text, at) for at in only_at if at is not None)
        found = [match for match in tried if match]
    for match in found:
        told = match.lastgroup or ""
        word = match[told].lower()
        if told == "vague":
            number = VAGUE if n_images != 1 else 0
        elif told == "last":
            number = (n_images or 0) - 1 if n_images else VAGUE
        else:
            number = (_ORDINALS[word] if word in _ORDINALS else int(word)) - 1
        mentions.append((match.start(), match.end(), number))
    return mentions


def _sentence_before(text: str, ends: Sequence[int], at: int) -> str:
    before = bisect.bisect_right(ends, at)
    return text[max(ends[before - 1] if before else 0, at - _NEAR) : at]


def _joined(text: str, end: int) -> int | None:
    """Return where a mention of the image starts that follows `end` directly, if one does."""
    joined = _JOINS.match(text, end)
    at = joined.end() if joined else end
    # "(1, 2), in image 2 …" begins a clause of its own; only brackets or white space join.
    return None if {*text[end:at]} & {*",，、"} else at

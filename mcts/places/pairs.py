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
_SAYS = (
    r"(?:['’]s\b|\s*[:：]|\s+(?:also\s+|only\s+|again\s+)?(?:shows?|has|have|contains?|depicts?|displays?|"
    r"features?|includes?|reveals?|presents?)\b)"
)
# What names an image without a preposition: by its number, or as what shows something.
_NAMED = re.compile(
    rf"""
    \b(?P<vague>(?:images|pictures|photos|photographs)\s+\d{{1,3}}
      (?:\s*(?:,|&|,?\s*and|or|to)\s*\d{{1,3}}\b)+)
  | \b{_IMAGE}\s+(?:number\s+|no\.\s*|\#\s*)?
      (?P<number>\d{{1,3}}(?![.,]?\d|\s*%)|two|three|four|five|six|seven|eight)\b
  | \bthe\s+(?:(?P<ordinal>first|second|third|fourth|fifth|sixth|seventh|eighth
      |\d{{1,2}}(?=st\b|nd\b|rd\b|th\b))(?:st|nd|rd|th)?|(?P<last>last|final))\s+{_IMAGE}(?={_SAYS})
    """,
    re.IGNORECASE | re.VERBOSE,
)
# "In the first image it is at …, while in the second it is at …": behind a mention only.
_SHORT = re.compile(
    r"\b(?:in|on|from)\s+the\s+(?:(?P<ordinal>first|second|third|fourth|fifth|sixth|seventh|eighth)"
    r"|(?P<last>last)|(?P<vague>other))(?:\s+one)?(?=\s*[,，:]|\s+(?:it|its|they|their|the|an?|"
    r"there|this|that|these|those|one|is|are|was|were|at|has|lies|stands|sits)\b)",
    re.IGNORECASE,
)
# In front of an image that another is compared with: "unlike the cup in", "than", "as".
_COMPARED = re.compile(
    r"\b(?:unlike|like|than|as|(?:compared|similar|identical|contrary|opposed|contrast|next)\s+"
    r"(?:to|with)|different\s+(?:from|to|than))\s+(?:(?:the|that|those|its|an?)(?:\s+\w+){0,2}\s+)?$",
    re.IGNORECASE,
)
# Between an image and the place of what is in another: "in image 2 is like the one at".
_THE_ONE = re.compile(
    r"\b(?:like|than|as|(?:similar|identical|equal|compared|corresponds?)\s+to|differ(?:s|ent)?\s+from|"
    r"matche?s?|resembles?)\s+(?:the\s+ones?\b|(?:that|those)(?=\s+(?:at|in|of|on)\b|\s*$))",
    re.IGNORECASE,
)
# Between two images that are each told something of.
_NEXT_CLAUSE = re.compile(
    r"[,;:，；：、]|\b(?:but|while|whereas|then|however|although|though)\b", re.IGNORECASE
)
# Begins a sentence that goes on about what the one before it told.
_GOES_ON = re.compile(r"\s*(?:it|its|they|their|this|these)\b|\s*[它他她]", re.IGNORECASE)
# In a text without these nothing names an image; to look for them is quick.
_SAYS_IMAGE = (
    "imag", "picture", "photo", "foto", "bild", "图", "圖", "照", "画像", "写真", "図", "이미지",
    "사진", "그림", "изобр", "сним", "фото",
)  # fmt: skip
_SAYS_IMAGE_IN_ASCII = tuple(word for word in _SAYS_IMAGE if word.isascii())
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
_FAR = 2000
"""Characters in front of a pair in which "the one" of another image is looked for."""
VAGUE = -2
"""An image that is told, but not by its number, or of which several are told."""
Mention = tuple[int, int, int]
"""What names an image: start, end, and its number from 0 or `VAGUE`."""


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
            follows a pair directly can name another; with several, so can all of its sentence.
    """
    found = list(_PAIR.finditer(text))
    if not found:
        return []
    ends = sentence_ends(text)
    images = _Images(text, found, ends, n_images) if says_image(text) else None
    starts = [match.start() for match in found[1:]]
    pairs, behind = [], 0  # the pair before ends there
    for match, following in zip(found, [*starts, len(text)], strict=True):
        start, end = match.span()
        first, last = sentence_around(ends, start, end, len(text))
        image = images.of(match, first) if images else 0
        x, comma, y = match.groups()
        before = text[max(first, behind, start - _NEAR) : start]
        after = text[end : min(last, following, end + _NEAR)]
        pairs.append(Pair(start, end, _value(x), _value(y), x, comma, y, image, before, after))
        behind = end
    return pairs


def says_image(text: str) -> bool:
    """Return whether a text has a word for an image, in any language that is read."""
    lowered = text.lower()
    for word in _SAYS_IMAGE_IN_ASCII if text.isascii() else _SAYS_IMAGE:
        if word in lowered:
            return True
    return False


def _value(number: str) -> float:
    return float(number if number.isascii() else number.translate(_TO_ASCII))


def _mentions(
    text: str, n_images: int | None, only_at: Iterable[int | None] | None = None
) -> list[Mention]:
    """Find what names an image, anywhere or at the positions `only_at`: start, end, and its number
    from 0 or `VAGUE`."""
    if only_at is None:
        found = list(_MENTION.finditer(text))
    else:
        tried = (_MENTION.match(text, at) for at in only_at if at is not None)
        found = [match for match in tried if match]
    return [_mention(match, n_images) for match in found]


def _mention(match: re.Match[str], n_images: int | None) -> Mention:
    told = match.lastgroup or ""
    word = match[told].lower()
    if told == "vague":
        number = VAGUE if n_images != 1 else 0
    elif told == "last":
        number = (n_images or 0) - 1 if n_images else VAGUE
    else:
        number = (_ORDINALS[word] if word in _ORDINALS else int(word)) - 1
    return match.start(), match.end(), number


def _sentence_before(text: str, ends: Sequence[int], at: int) -> str:
    before = bisect.bisect_right(ends, at)
    return text[max(ends[before - 1] if before else 0, at - _NEAR) : at]


def _joined(text: str, end: int) -> int | None:
    """Return where a mention of the image starts that follows `end` directly, if one does."""
    joined = _JOINS.match(text, end)
    at = joined.end() if joined else end
    # "(1, 2), in image 2 …" begins a clause of its own; only brackets or white space join.
    return None if {*text[end:at]} & {*",，、"} else at


class _Images:
    """Which image each pair of a text is told to be in.

    What names one directly behind a pair counts first. With several images, so does what sets the
    scene in front of the pair, and then the nearest other mention in front of it, in its sentence.
    """

    def __init__(
        self, text: str, found: Sequence[re.Match[str]], ends: Sequence[int], n_images: int | None
    ) -> None:
        self.text, self.ends, self.n_images = text, ends, n_images
        self.pair_ends = [match.end() for match in found]
        joined = {end: _joined(text, end) for end in self.pair_ends}
        mentions = _mentions(text, n_images, joined.values() if n_images == 1 else None)
        by_start = {mention[0]: mention for mention in mentions}
        self.behind = {end: by_start[at] for end, at in joined.items() if at in by_start}
        taken = {mention[0] for mention in self.behind.values()}
        free = [mention for mention in mentions if mention[0] not in taken]
        several = n_images is not None and n_images > 1
        if several:
            free = sorted(free + self._short(mentions))
        # Those that set the scene: behind the start of a clause, and of no pair before them.
        self.scenes: list[Mention] = [
            m for m in free if _CLAUSE_START.search(_sentence_before(text, ends, m[0]))
        ]
        self.starts = [scene[0] for scene in self.scenes]
        self.named = sorted(free + self._named(mentions)) if several else []
        # By the start of a sentence, so that one with many pairs is not read once for each.
        self.spoken_in: dict[int, list[Mention]] = {}
        self.told_before: dict[int, int] = {}
        self.divided: dict[tuple[int, int], bool] = {}

    def of(self, pair: re.Match[str], first: int) -> int:
        """Return the image of a pair in the sentence that starts at `first`."""
        if pair.end() in self.behind:
            return self.behind[pair.end()][2]
        if self.n_images == 1:
            return 0
        at = bisect.bisect_left(self.starts, pair.start()) - 1
        scene = self.scenes[at] if at >= 0 and self.starts[at] >= first else None
        if not self.named:
            return scene[2] if scene else 0
        return self._told_before(pair.start(), first, scene)

    def _named(self, mentions: Sequence[Mention]) -> list[Mention]:
        """Find what names an image without a preposition, and is none of `mentions`."""
        starts = [mention[0] for mention in mentions]
        found = []
        for match in _NAMED.finditer(self.text):
            at = bisect.bisect_right(starts, match.start()) - 1
            inside = at >= 0 and match.start() < mentions[at][1]
            if not inside or match.lastgroup == "vague":
                found.append(_mention(match, self.n_images))
        return found

    def _short(self, mentions: Sequence[Mention]) -> list[Mention]:
        """Find `in the second` behind `in the first image`, in the same sentence."""
        found = []
        for match in _SHORT.finditer(self.text) if mentions else ():
            first, _ = sentence_around(self.ends, match.start(), match.end(), len(self.text))
            at = bisect.bisect_left(mentions, (match.start(),)) - 1
            if at >= 0 and mentions[at][0] >= first:
                found.append(_mention(match, self.n_images))
        return found

    def _told_before(self, start: int, first: int, scene: Mention | None) -> int:
        """Return the image that is told in front of a pair at `start`."""
        spoken, begin = self._spoken(first), scene[0] if scene else first
        low, high = (bisect.bisect_left(spoken, (at,)) for at in (begin, start))
        last = spoken[max(low, high - 2) : high]
        if scene and len(last) < 2 and scene not in last:  # it counts even where it is compared
            last = [scene, *last]
        if not last:
            at = bisect.bisect_left(self.named, (start,)) - 1
            near = at >= 0 and self.named[at][0] >= begin
            return self._another(self.named[at][2]) if near else self._told_by_sentence(first)
        nearest = last[-1]
        if nearest == scene:
            return nearest[2]
        # Two images without a pair between them: each is told something of, or it is not clear.
        at = bisect.bisect_right(self.pair_ends, nearest[0])
        since = self.pair_ends[at - 1] if at else 0
        beside = last[-2] if len(last) > 1 and last[-2][0] >= since else nearest
        if beside[2] != nearest[2] and not self._divided(beside[1], nearest[0]):
            return VAGUE
        one = _THE_ONE.search(self.text[max(nearest[1], start - _FAR) : start])
        return self._another(nearest[2]) if one else nearest[2]

    def _spoken(self, first: int) -> list[Mention]:
        """Return what is told in the sentence that starts at `first`, and not compared with."""
        if first not in self.spoken_in:
            at = bisect.bisect_right(self.ends, first)
            last = self.ends[at] if at < len(self.ends) else len(self.text)
            named = self._named_between(first, last)
            self.spoken_in[first] = [m for m in named if not self._compared(m, first)]
        return self.spoken_in[first]

    def _named_between(self, begin: int, end: int) -> list[Mention]:
        low, high = (bisect.bisect_left(self.named, (at,)) for at in (begin, end))
        return self.named[low:high]

    def _divided(self, begin: int, end: int) -> bool:
        """Return whether another clause begins between two mentions."""
        if (begin, end) not in self.divided:
            between = self.text[begin:end].lstrip(" ,，、")
            self.divided[begin, end] = _NEXT_CLAUSE.search(between) is not None
        return self.divided[begin, end]

    def _told_by_sentence(self, first: int) -> int:
        """Return what the sentence before `first` tells, read once."""
        if first not in self.told_before:
            self.told_before[first] = self._told_by_sentence_before(first)
        return self.told_before[first]

    def _told_by_sentence_before(self, first: int) -> int:
        """Return what the sentence before tells: `Image 2 shows a cup. It is at (1, 2).`

        A sentence that has a pair of its own tells of that one alone.
        """
        if not _GOES_ON.match(self.text, first):
            return 0

        def cut(i: int) -> int:
            return self.ends[i - 1] if i else 0

        at = bisect.bisect_right(self.ends, first)
        while at > 1 and not self.text[cut(at - 1) : cut(at)].strip():
            at -= 1
        begin, end = (cut(at - 1), cut(at)) if at else (0, 0)
        pair = bisect.bisect_right(self.pair_ends, begin)
        if pair < len(self.pair_ends) and self.pair_ends[pair] <= end:
            return 0
        before = [m for m in self._named_between(begin, end) if not self._compared(m, begin)]
        told = {mention[2] for mention in before}
        return told.pop() if len(told) == 1 else VAGUE if told else 0

    def _compared(self, mention: Mention, first: int) -> bool:
        before = self.text[max(first, mention[0] - _NEAR) : mention[0]]
        return _COMPARED.search(before) is not None

    def _another(self, image: int) -> int:
        """Return the other of two images; of more it is not told which."""
        return 1 - image if self.n_images == 2 and image in (0, 1) else VAGUE

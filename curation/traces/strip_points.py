"""The same words without their coordinates: what the ungrounded twin of a thought says.

    without_coordinates("I see the lamp at (412, 630).")            # "I see the lamp."
    without_coordinates("The lamp is at (412, 630).")               # "The lamp is there."
    without_coordinates("Looking at (412, 630), I see a lamp.")     # "Looking there, I see a lamp."

A mention goes with the words that only lead up to it ("at", "located at the point"). Where the
sentence would then lack a place, `there` or `that spot` stands in. A sentence that gives nothing
but coordinates goes as a whole. Which image was meant stays, unless the sentence says it anyway.
English word lists decide, not a grammar: what they do not know is cut plainly, and coordinates
never stay, in whatever notation a model tells them: shares, boxes, `<point>`, `<loc0412><loc0630>`.
Numbers in brackets that are no place (`mcts.places`) do: `(1,200) dollars`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mcts.data import Point
from mcts.places.decide import is_number, is_share, places
from mcts.places.dialects import other_dialects
from mcts.places.pairs import find_pairs

_N = r"-?\d{1,7}(?:\.\d{1,6})?"
# A point or a box, in round or square brackets, or as x = 3, y = 4.
_MENTION = (
    rf"(?:[(\[]\s*(?:x\s*[=:]\s*)?{_N}\s*,\s*(?:y\s*[=:]\s*)?{_N}(?:\s*,\s*{_N}\s*,\s*{_N})?\s*[)\]]"
    rf"|\bx\s*[=:]\s*{_N}\s*(?:,\s*)?(?:and\s+)?y\s*[=:]\s*{_N})"
)
_BRACKETS = re.compile(rf"[(\[]\s*{_N}\s*,\s*{_N}(?:\s*,\s*{_N}\s*,\s*{_N})?\s*[)\]]")
_NUMBER = re.compile(_N)
# Tags with numbers alone between them, and the words between or in other ones.
_TAGGED = re.compile(
    r"<(\|?)(loc|point|points|click|box|bbox|quad|ref_point|coord|coordinates?)(?:_start)?\1>"
    r"[\s\d.,;()\[\]xy=:-]*</?\|?/?\2(?:_end)?\|?>|<loc_?\d{1,4}>(?:\s*<loc_?\d{1,4}>)*",
    re.IGNORECASE,
)
_WORDS_IN_TAG = re.compile(r">\s*([^<>]*[^\W\d_]{2}[^<>]*?)\s*</")
_SIGNS = re.compile("[<%％]")
_IN_IMAGE = r"(?:\s+in\s+image\s+\d{1,3}\b)"
_JOIN = r"(?:\s*[,;&–-]\s*(?:and\s+|or\s+)?|\s+(?:and|or|to)\s+)"
_GROUP = re.compile(rf"{_MENTION}{_IN_IMAGE}?(?:{_JOIN}{_MENTION}{_IN_IMAGE}?)*", re.IGNORECASE)
_GAP = re.compile(r"(\s*\n\s*|(?<=[.!?])(?<!approx\.)\s+|(?<=[.!?][\"')\]])\s+)")

_ADVERB = r"(?:approximately|approx\.?|about|roughly|around|near|exactly|precisely|right|just|~)"
_PLACE = (
    r"(?:coordinates?|coords?|points?|positions?|locations?|pixels?|spots?|places?|cent(?:er|re)s?)"
)
_NOUN = rf"(?:(?:the|its|their|this|that)\s+)?(?:(?:exact|pixel|image|given)\s+)*{_PLACE}\s*:?\s*"
_AT = r"at|around|near|next\s+to|close\s+to|about"
_LEAD = re.compile(
    rf"(?:(?<![\w-])(?:(?P<prep>{_AT}|to|towards?|from|on|onto|in|into|between|by|via)\s+"
    rf"(?:{_ADVERB}\s*)*(?:{_NOUN})?|(?P<label>(?:with|of)\s+{_NOUN}))|(?:{_ADVERB}\s*)+)$",
    re.IGNORECASE,
)
_BE = r"(?:\b(?:is|are|was|were|be|been|being|seems?|appears?|lies|sits|stands)|'s|'re)"
_STILL = r"(?:\s+(?:\w+ly|now|also|still|not|in|down|up))*"
_IS = re.compile(rf"{_BE}{_STILL}\s*$", re.IGNORECASE)
# "is located at" says where; "the lamp located at" only points, and goes with its point.
_LOCATED = re.compile(
    rf"(?P<be>{_BE}{_STILL}\s+)?\b(?P<how>located|situated|positioned|placed|cent(?:er|re)d)\s*$",
    re.IGNORECASE,
)
_GOES_THERE = re.compile(
    r"\b(?:(?:look|point|click|tap|focus|gaz|glanc|star|peer|aim|check|search|start|end|stop|rest|"
    r"hang|appear|stand|remain|stay|zoom|verify|inspect|examin)(?:e|s|es|ed|ing)?|lie|lying|sit|"
    rf"sitting|begin|begins|beginning|found){_STILL}\s*$",
    re.IGNORECASE,
)
_NEEDS_OBJECT = re.compile(
    r"\b(?:(?:check|click|tap|inspect|focus|mark|select|touch|press)(?:s|es|ed|ing)?|"
    r"(?:examin|notic|observ|us|choos|consider|compar)(?:e|es|ed|ing)|see|seeing|verify|verifying|"
    r"revisit|revisiting|above|below|behind|under|over|beside|inside|outside|beyond|with|than|"
    r"(?:left|right|front|top|side)\s+of)\s*$",
    re.IGNORECASE,
)
_VERB_FIRST = re.compile(r"\s*(?:is|are|was|were|stands?|sits?|lies?|hangs?)\b", re.IGNORECASE)
_ONLY_A_LABEL = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|then|now)\b,?\s*)?"
    rf"(?:(?:the|its|their|these|this|my)\s+)?(?:[\w']+\s+){{0,2}}?(?:{_PLACE}|answer)"
    r"\s*(?:is|are|=|:)?\s*\0\W*",
    re.IGNORECASE,
)
_NEAR = 120  # characters
_SUBJECT = r"(?=(?:I|we|there|it|the|a|an|this|that)\b)"


# In Chinese and Japanese a word for "there" stands in where a particle would lead up to nothing.
_HAN_LEAD = re.compile(r"(?:在|位于|位於)\s*$")
_KANA_NEXT = re.compile(r"\s*(?:に|で|の|へ|から)")


def without_coordinates(text: str, points: Sequence[Point] | None = None) -> str:
    """Leave out every coordinate; empty when nothing else is left.

    Args:
        points: the points of the step whose thought it is; read from the text when left out.
    """
    kept = _numbers_that_stay(text, points)
    if not kept:
        return _without_coordinates(text)
    free = (sign for sign in map(chr, range(0xF0000, 0xFFFFE)) if sign not in text)
    signs = {next(free): text[start:end] for start, end in kept}
    masked, at = "", 0
    for sign, (start, end) in zip(signs, kept, strict=True):
        masked += text[at:start] + sign
        at = end
    plain = _without_coordinates(masked + text[at:])
    return "".join(signs.get(character, character) for character in plain)


def _numbers_that_stay(text: str, points: Sequence[Point] | None) -> list[tuple[int, int]]:
    """Find the numbers in brackets that are no place: start and end of each, in order."""
    cited = {place.start for place in places(text, points)}
    markup = _markup(text)
    pairs = {pair.start for pair in find_pairs(text)}
    return [
        match.span()
        for match in _BRACKETS.finditer(text)
        if match.start() not in cited
        and not any(start <= match.start() < end for start, end, _ in markup)
        and (
            (match.start() in pairs and not is_share(*map(float, _NUMBER.findall(match[0]))))
            or is_number(text[max(0, match.start() - 80) : match.start()], text[match.end() :][:40])
        )
    ]


def _markup(text: str) -> list[tuple[int, int, str]]:
    """Find the places that tags or percents tell: start and end of each, in order, and what stands
    in for it: the words of a tag, else a place as `(x, y)`."""
    if not _SIGNS.search(text):
        return []
    found = [match.span() for match in _TAGGED.finditer(text)]
    for start, end, unread in other_dialects(text):
        told = unread.text.startswith("<") or _SIGNS.search(unread.text)
        if told and not any(a < end and start < b for a, b in found):
            found.append((start, end))
    return [
        (start, end, words[1] if (words := _WORDS_IN_TAG.search(text[start:end])) else "(0, 0)")
        for start, end in sorted(found)
    ]


def _without_coordinates(text: str) -> str:
    for start, end, instead in reversed(_markup(text)):
        text = f"{text[:start]}{instead}{text[end:]}"
    # On one line each, so that no sentence ends inside one.
    pieces = _GAP.split(_GROUP.sub(lambda mention: " ".join(mention[0].split()), text))
    kept = ""
    gap = ""
    for sentence, following in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        plain = _without_mentions(sentence) if _GROUP.search(sentence) else sentence
        if plain:
            kept += (gap if kept else "") + plain
            gap = following
    # What stood around a mention may now read as one.
    return _without_coordinates(kept) if _GROUP.search(kept) else kept


def _without_mentions(sentence: str) -> str:
    says_image = re.search(r"\b(?:picture|image)\b", _GROUP.sub("", sentence), re.IGNORECASE)
    kept, at = "", 0
    for group in _GROUP.finditer(sentence):
        stem, rest = kept + sentence[at : group.start()], sentence[group.end() :]
        images = {" ".join(found.split()) for found in re.findall(_IN_IMAGE, group[0], re.I)}
        # What leads up to a mention is near it.
        kept = stem[:-_NEAR] + _led_up_to(stem[-_NEAR:], rest, starts=len(stem) <= _NEAR)
        if len(images) == 1 and not says_image:
            kept += f" {images.pop()}"
        at = group.end()
    kept += sentence[at:]
    if _ONLY_A_LABEL.fullmatch(kept) or not re.search(r"\w", kept):
        return ""
    return _closed_up(kept)


def _led_up_to(stem: str, rest: str, starts: bool) -> str:
    """Return what stands before a mention, ending in what replaces it; NUL marks that nothing does.

    Args:
        starts: `stem` begins where the sentence does.
    """
    if _HAN_LEAD.search(stem):
        return f"{stem.rstrip()}那里\0"
    if _KANA_NEXT.match(rest):
        return f"{stem}そこ\0"
    lead = _LEAD.search(stem)
    kept = stem[: lead.start()] if lead else stem
    prep = " ".join((lead["prep"] or "").lower().split()) if lead else ""
    if starts and not kept.strip():
        if prep:
            return "There" if _VERB_FIRST.match(rest) else "\0"
        return "That spot" if re.match(r"\s*[^\W\d_]", rest) else "\0"
    if prep == "from" or (prep == "by" and _NEEDS_OBJECT.search(kept)):
        return f"{kept}{prep} there"
    if located := _LOCATED.search(kept):
        return f"{kept}there" if located["be"] else f"{kept[: located.start('how')]}\0"
    if _IS.search(kept) and not (lead and lead["label"]):
        # "The position is (3, 4)." must stay a bare label, to be seen as one.
        label = starts and _ONLY_A_LABEL.fullmatch(f"{kept}\0")
        return f"{kept}\0" if label else f"{kept}there"
    if prep in ("to", "toward", "towards", "on", "onto", "in", "into"):
        return f"{kept}there"
    if prep and _GOES_THERE.search(kept):
        return f"{kept}there"
    opens_clause = kept.rstrip().endswith(",") and re.match(r"\s*[^\W\d_]", rest)
    if not prep and (opens_clause or _NEEDS_OBJECT.search(kept)):
        return f"{kept.rstrip()} that spot"
    return f"{kept}\0"


def _closed_up(text: str) -> str:
    """Close the gaps that NUL marks."""
    text = re.sub(r"[(\[]\s*\0\s*[)\]]", "\0", text)
    text = re.sub(r"^\W*\0[\s,:;–-]*(\w?)", lambda m: m[1].upper(), text)
    text = re.sub(rf"\s*,\s*\0\s*,\s*{_SUBJECT}", ", ", text)
    text = re.sub(r"\s*,\s*\0\s*,\s*", " ", text)
    text = re.sub(r"[\s,:;–-]*\0\s*(?=[,.;:!?)\]]|$)", "", text)
    return re.sub(r"\s*\0\s*", " ", text).strip()

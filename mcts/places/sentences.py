"""Where sentences end, and the words of a second look, in the scripts that models write.

    ends = sentence_ends("红色方块在(1, 2)。蓝色方块在(3, 4)。")      # [12, 24]
    says_again("再看(1, 2)。")                                        # True

What ends a sentence is Unicode's property Sentence_Terminal, or an ellipsis. The Latin marks `.`,
`!`, `?` and `…` also stand inside numbers, words and abbreviations: they end a sentence before
white space, at the end, or where a script follows that writes without spaces. Thai and Lao write no
mark at all, but a space.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CLOSING = r"[\"')\]\p{Pe}\p{Pf}]"
# A space behind a place ends a Thai or Lao sentence, unless what follows goes on with it: it is,
# it stands, in, at, to, from, and, with, or, on, by, of, which, that has.
_GOES_ON = (
    "อยู่|ใน|ที่|ไป|ถึง|จาก|และ|กับ|หรือ|บน|โดย|ของ|ซึ่ง|มี|เป็น|คือ|ทาง|ด้าน|ตั้ง|แล้ว|เหนือ|ใต้|ข้าง|หน้า|หลัง|ใกล้|ตรง|"
    "ຢູ່|ໃນ|ທີ່|ໄປ|ຈາກ|ແລະ|ກັບ|ຫຼື|ຂອງ|ມີ|ເປັນ|ແມ່ນ"
)
_END = regex.compile(
    rf"[.!?…][\"')\]]*(?=\s|$|[{_UNSPACED}])"
    rf"|(?<!\d(?=．))[\p{{STerm}}--[.!?]]+(?<!．(?=\d)){_CLOSING}*"
    rf"|(?<=[)）])[ \u00a0]+(?=[\p{{Thai}}\p{{Lao}}])(?!{_GOES_ON})"
    r"|[\n\r\u2028\u2029]",
    regex.V1,
)
# The same for a text of ASCII alone, many times as fast.
_ASCII_END = re.compile(r"[.!?][\"')\]]*(?=[ \t-\r]|\Z)|[\n\r]")
_SAYER = (
    r"(?:let me|let us|let's|to|i|we|i'll|we'll|i'd|will|must|should|can|now|then|just|also|and|"
    r"but|please|quickly|carefully|briefly)"
)
_CLAUSE = r"(?:(?:^|[.!?…,;:(—–\n-])\s*[\"'“‘]?|\b(?:but|oh|ah|h+m+|no|and|so|now|or)\s+)"
_AT_WHAT = (
    r"(?=\s+(?:if|whether|that|this|the|it|its|again|once|each|every|both|where|what|which|how|for|"
    r"my|all|them|these|those|back|more|an?)\b)"
)
# Words that also name what is seen: people wait, shirts are checked, buttons say Confirm.
_AGAIN_IN_PLACE = (
    rf"{_CLAUSE}wait\b(?!\s+(?:for|at|in|on|near|behind|beside|by|under|until|with|to)\b)",
    rf"\b{_SAYER}\s+check\b(?!\s+(?:shirt|pattern|mark|fabric|box))",
    rf"\bcheck{_AT_WHAT}|{_CLAUSE}check\s*[:(]",
    rf"(?:{_CLAUSE}|\b(?:i am|i'm|we are|we're|by|after|when|then)\s+)checking\b",
    r"\b(?:i|we|i've|we've|i have|we have)\s+(?:\w+\s+)?checked\b",
    r"(?<![\"'“‘])\b(?:verif(?:y|ies|ying)|confirm(?:s|ing)?)\b"
    r"(?![\"'”’]|\s+(?:buttons?|links?|codes?|passwords?|orders?|e-?mails?|dialogs?|icons?)\b)",
    r"\b(?:i|we|is|are|was|be|been|now|i've|we've|have)\s+(?:confirmed|verified)\b",
    r"\b(?:for|as|in)\s+(?:verification|confirmation)\b",
)
_AGAIN_LATIN = (
    "again", r"(?:double|re)-?check\w*", "actually", r"re-?examin\w+", r"look(?:ing)? back",
    r"go(?:ing)? back", r"return(?:ing)? to", "seems? off", r"mistake\w*", r"correct(?:ing|ion)",
    # The same in other languages; none of these is a word of English.
    "noch ?mals?", "noch einmal", r"überprüf\w+", "warte(?:n sie)?", "eigentlich", "zurück zu",
    "encore une fois", "à nouveau", r"vérifi\w+", "attend(?:s|ez)", "en fait", r"retourn\w+ à",
    "erreur",
    "otra vez", "de nuevo", "nuevamente", r"comprob\w+", "espera", "en realidad", r"volv\w+ a",
    "outra vez", "novamente", "espere", "na verdade",
)  # fmt: skip
_AGAIN = regex.compile(
    rf"\b(?:{'|'.join(_AGAIN_LATIN)})\b|{'|'.join(_AGAIN_IN_PLACE)}"
    r"|再次|再看|再检查|再檢查|再确认|重新|等等|等一下|核对|核對|核实|检查|檢查|确认|確認|验证|驗證|其实|其實|"
    r"实际上|實際上|不对|不對|回到|回头|仔细看|纠正|更正"
    r"|もう一度|もういちど|再度|再確認|待って|待てよ|見直|実際には|実は|間違|訂正|戻って"
    r"|다시|확인|잠깐|잠시만|사실은?|검증|되돌아|잘못|정정"
    r"|(?:ещ[её] раз|снова|провер\w+|подожд\w+|на самом деле|верн[её]\w+)"
    r"|फिर से|दोबारा|जाँच|जांच|पुष्टि|रुको|रुकिए|वास्तव में"
    r"|مرة أخرى|مجدد[اً]*|تحقق|أتحقق|التحقق|انتظر|في الواقع|أعود إلى"
    r"|อีกครั้ง|ตรวจสอบ|ยืนยัน|เดี๋ยวก่อน|จริง ?ๆ แล้ว|กลับไป",
    regex.IGNORECASE,
)
# The same for a text of small ASCII letters alone, many times as fast.
_ASCII_AGAIN = re.compile(
    rf"\b(?:{'|'.join(word for word in _AGAIN_LATIN if word.isascii())})\b"
    rf"|{'|'.join(_AGAIN_IN_PLACE)}",
    re.ASCII,
)


def sentence_ends(text: str) -> list[int]:
    """Return where the sentences of a text end: positions behind their marks, in order."""
    end = _ASCII_END if text.isascii() else _END
    return [match.end() for match in end.finditer(text)]


def sentences(text: str) -> list[str]:
    """Split a text into sentences, at the same ends as steps; the last may lack its end mark."""
    ends = sentence_ends(text)
    cuts = zip([0, *ends], [*ends, len(text)], strict=True)
    return [part for start, end in cuts if (part := text[start:end].strip())]


def sentence_around(ends: Sequence[int], start: int, end: int, length: int) -> tuple[int, int]:
    """Return the start and the end of the sentence around `start` to `end`, given all ends."""
    before, after = bisect.bisect_right(ends, start), bisect.bisect_left(ends, end)
    return ends[before - 1] if before else 0, ends[after] if after < len(ends) else length


def says_again(thought: str) -> bool:
    """Return whether a thought announces a second look: it verifies, or turns back."""
    if thought.isascii():
        return _ASCII_AGAIN.search(thought.lower()) is not None
    return _AGAIN.search(thought) is not None

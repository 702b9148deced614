"""Words that announce an answer and are no part of it: "The answer is B", "答案：B", "Ответ: B".

    without_lead_in("Final answer: left")       # "left"
    without_lead_in("I think it is left")       # unchanged: this is a sentence
    without_variable("The answer is $x = 12$")  # "12"

Only a word for *answer*, *option* or *choose* announces, and only at the beginning; what follows is
compared whole, so "the answer is not B" is not B. What only says so behind it, as in "B is
correct", is left out too.
"""

from __future__ import annotations

import regex

from curation.grading.formulas import unwrap

_ANSWER = (
    # Latin: English, Spanish, Portuguese, French, Italian, German, Dutch, Swedish, Danish, Polish,
    # Czech, Turkish, Indonesian, Vietnamese, Romanian, Hungarian, Finnish.
    "answer", "ans", "respuesta", "resposta", "réponse", "risposta", "antwort", "lösung",
    "antwoord", "svar", "odpowiedź", "odpověď", "cevap", "jawaban", "đáp án", "câu trả lời",
    "răspuns", "válasz", "vastaus",
    # Cyrillic, Greek, Arabic, Persian, Hebrew, Hindi, Bengali, Tamil, Urdu.
    "ответ", "відповідь", "отговор", "απάντηση", "الإجابة", "الجواب", "إجابة", "جواب", "پاسخ",
    "תשובה", "उत्तर", "जवाब", "উত্তর", "பதில்",
)  # fmt: skip
_OPTION = (
    "option", "choice", "letter", "opción", "opção", "alternativa", "opzione", "optie", "opcja",
    "možnost", "seçenek", "pilihan", "lựa chọn", "вариант", "варіант", "επιλογή", "الخيار",
    "گزینه", "אפשרות", "विकल्प",
)  # fmt: skip
_BEFORE = (
    "the", "my", "so", "therefore", "thus", "hence", "final", "correct", "right", "best", "la",
    "el", "le", "a", "o", "il", "die", "der", "das", "het", "de", "bonne", "correcta", "correta",
    "richtige", "correcte", "juiste", "rätt", "правильный", "окончательный", "верный",
    "правильна", "सही", "अंतिम", "صحیح",
)  # fmt: skip
_BEHIND = (
    "is", "would be", "should be", "must be", "es", "est", "ist", "é", "è", "är", "er", "jest",
    "je", "là", "adalah", "yaitu", "correcta", "correta", "correcte", "corretta", "correct",
    "final", "finale", "finala", "है", "هو", "هي", "είναι", "است", "הוא", "היא",
)  # fmt: skip


def _any_of(words: tuple[str, ...]) -> str:
    return "|".join(sorted(map(regex.escape, words), key=len, reverse=True))


_APART = r"[*_]{0,3}\s*(?:[:=]|\s[-–—]\s+(?=\p{L}))"  # behind a dash may stand a negative number
# Behind a word for an option alone stands what marks one: "option B", and no "letter box".
_MARK = r"""(?=[(\[{*_"'“]*(?:\p{L}|\d+(?:[.,]\d+)?)(?![\p{L}\p{M}\d]))"""
_SPACED = (
    rf"(?:(?:{_any_of(_BEFORE)}),?\s+)*"
    rf"(?:(?:{_any_of(_ANSWER)})(?:\s+(?:{_any_of(_BEHIND)}))*(?:{_APART}|\s)|"
    rf"(?:{_any_of(_OPTION)})(?:(?:\s+(?:{_any_of(_BEHIND)}))+(?:{_APART}|\s)|{_APART}|"
    rf"\s+{_MARK}))\s*"
)
# Chinese, Japanese, Korean, Thai: no space need follow.
_UNSPACED_ANSWER = (
    "答案", "选项", "選項", "选择", "選擇", "答え", "正解", "回答", "解答", "選択肢", "정답",
    "답변", "선택지", "보기", "คำตอบ", "ตัวเลือก",
)  # fmt: skip
# These begin other words as well, so that a mark, a verb or an option must follow.
_UNSPACED_SHORT = ("选", "選", "答", "답", "ข้อ")
_FOLLOWED = (
    r"""(?=\s*(?:[:：、]|是|为|為|は|은|는|คือ)|[\s(\[（【*_"'“]*[A-Za-z\d](?![\p{L}\p{M}\d]))"""
)
_UNSPACED = (
    r"(?:因此|所以|故|综上)?[,，、]?(?:我|应该?|應該?|故|只)?(?:的)?(?:最终|最終|正确|正確|最佳|标准)?的?"
    rf"(?:{_any_of(_UNSPACED_ANSWER)}|(?:{_any_of(_UNSPACED_SHORT)}){_FOLLOWED})"
    r"(?:\s*(?:应该?|應該?)?\s*(?:是|为|為|選|选|は|은|는|คือ))?\s*[:：、]?\s*(?:选项|選項|选|選)?\s*"
)
_LEAD_IN = regex.compile(
    rf"\s*(?P<bold>[*_]+)?(?:{_SPACED}|{_UNSPACED})(?(bold)(?P=bold)?|)\s*", regex.IGNORECASE
)
# Not `x = y = 5`, nor `2x = 10`.
_VARIABLE = regex.compile(
    r"(?:\p{L}|\\[a-zA-Z]+)(?:_?\d|_\{?\w{1,3}\}?|')?\s*=\s*(?P<value>[^=]*[^=\s])"
)
_LONGEST_LEAD_IN = 400
_COPULA = regex.compile(
    r"\s+is (?:correct|the (?:correct|right) (?:answer|option|choice|one))[.!]?\s*$|"
    r"\s*(?:です|である|입니다|이다|ครับ|ค่ะ|\s है|(?<=[A-Za-z]\s*)(?:项|項|选项|選項))[。.!！]?\s*$"
)


def readings(text: str) -> list[str]:
    """Return the text, and what is left of it without what announces it, from strict to lax: an
    option may be called "Option A", and say of something that it "is correct"."""
    found, without_end = [text], list[str]()
    if len(text) <= _LONGEST_LEAD_IN:
        stripped: str | None = text
        while stripped and len(without_end) < 3:  # "Answer: option B" has two
            found += [stripped, unwrap(stripped)]
            without_end.append(_COPULA.sub("", stripped))
            stripped = _without_one(stripped)
    return [one for one in dict.fromkeys([*found, *without_end]) if one]


def without_lead_in(text: str) -> str:
    """Strip what announces an answer; the text itself where nothing does, or nothing follows."""
    found = readings(text) if len(text) <= _LONGEST_LEAD_IN else []
    return found[-1] if found else text


def _without_one(text: str) -> str | None:
    """Strip one lead-in, and the bold type that began before it; None where there is none."""
    match = _LEAD_IN.match(text)
    if match is None or not (rest := text[match.end() :].strip()):
        return None
    bold = match["bold"]
    if bold and match[0].count(bold) == 1:
        rest = rest.removesuffix(bold).strip()
    return rest or None


def without_variable(text: str) -> str:
    """Strip the variable that a free answer names, `x = 12`; the text itself where none is."""
    match = _VARIABLE.fullmatch(unwrap(without_lead_in(text)))
    return match["value"] if match else text

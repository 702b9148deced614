"""Reads the options of a multiple-choice question, however a dataset writes them.

    found = read_options(["(A) left", "", "(C) right"])
    found.choices                     # ("left", "right"): an empty option is not shown
    found.by_letter("C")              # "right": each option keeps the letter of its place
    found.by_letter("(B)")            # Unusable: option B is empty
    text, found = cut_options("Where is it?\n(A) left\n(B) right\nAnswer with the letter.")

The gold answer is always resolved here, among the places as published, and then stored as the
option's text: what is left out afterwards moves no letter and no index. Missing are null, NaN and
white space. Options that repeat are kept; where the gold answer is one of them, the row is refused
(`warehouse.sources.reading.accept_drafts`), since no answer could be told from another.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from curation.grading.normalize import normalize, normalize_spaces
from warehouse.sources.reading.drafts import Unusable
from warehouse.sources.reading.literals import read_literal

_BARE = r"[A-Za-zＡ-Ｚａ-ｚ]"
_MARK = rf"(?:[(（\[【]\s*({_BARE})\s*[)）\]】]|({_BARE})\s*[.):．）：、])"
_LETTERED = re.compile(rf"^\s*{_MARK}[.:：、．]?\s*(.*?)\s*$", re.DOTALL)
# One option behind the other in a line: a mark stands at the start, or behind a gap.
_INLINE = re.compile(rf"(?:^|(?<=[\s,;，；、。]))\s*{_MARK}[.:：、．]?")
_LETTER = re.compile(
    r"(?i:(?:the\s+)?(?:option|answer|choice)\b[\s:]*)?"
    r"[(\[【\"'*]*([A-Za-z])[)\]】\"'*]*[.:;,、。)]?"
)
# Where the first of them may begin without an introduction: behind a sentence.
_FIRST = re.compile(
    r"(?<=[?？:：.。!！])\s*(?=[(（\[【]\s*[AaＡａ]\s*[)）\]】])|(?<=[?？])\s*(?=[AＡ]\s*[.):．）：、])"
)
_GAP = " \t\r\n,;，；、"
_OR = re.compile(r"(?:^|[\s,;，；、])(?:or|and|或|和|または)\s*$", re.IGNORECASE)
_INTRODUCED = re.compile(
    r"(?:^|(?<=\s)|(?<=[.?!。？！]))(?:choose (?:between|from|one of) the following(?: options)?|"
    r"(?:the )?(?:options|choices)(?: are)?|选项|選項|選択肢)\s*[:：]\s*",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"^\s*(?:please\s+)?(?:answer|select|choose|respond|reply)\b.*(?:letter|option|choice|word|"
    r"number|phrase)s?\b.*$",
    re.IGNORECASE,
)
_LABELS, _TEXTS = ("label", "letter", "key", "id"), ("text", "content", "value", "option")


def is_missing(value: object) -> bool:
    """Whether a cell says nothing: null, NaN (as pandas writes a missing value), white space."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True, slots=True)
class Options:
    """Options in the places in which they were published."""

    places: tuple[tuple[str, str], ...]
    """Label (`A`, or a number where they are numbered) and text of each; empty where it is missing.
    """

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts, without those that are missing."""
        return tuple(text for _, text in self.places if text)

    @property
    def numbered(self) -> bool:
        """Whether they bear numbers of their own, which an answer names."""
        return any(label.isdecimal() for label, _ in self.places)

    def by_letter(self, answer: str, field: str = "answer") -> str:
        """The option that a letter names: `B`, `(B)`, `b)`, `B. right`, full-width forms too.

        Raises:
            Unusable: there is no such option, it is empty, or the words beside the letter are
                those of another.
        """
        name, text = letter_of(answer), None
        if name is None and (both := lettered(answer)):
            name, text = both
        at = next((i for i, (label, _) in enumerate(self.places) if label == name), None)
        if name is None or at is None:
            many = f"{len(self.choices)} options"
            raise Unusable(field, f"the answer {answer!r} is not a letter of {many}")
        return self._at(at, answer, field, text)

    def by_number(self, number: object, first: int = 0, field: str = "answer") -> str:
        """The option that a number names, as text or as a number, counted from `first`.

        Raises:
            Unusable: there is no such option, or it is empty.
        """
        at = whole_number(number)
        if at is None or not 0 <= at - first < len(self.places):
            shown = str(number).strip()
            many = f"{len(self.choices)} options, counted from {first}"
            raise Unusable(field, f"the answer {shown!r} is not a number of {many}")
        return self._at(at - first, str(number), field, None)

    def resolve(self, answer: str, first: int | None = None, field: str = "answer") -> str:
        """The option that an answer names by its text, else by its index or letter; or itself.

        Args:
            first: what an index counts from; None where answers are no indexes.

        Raises:
            Unusable: it names an option that is empty, or a letter beside another's words.
        """
        if not self.choices or normalize(answer) in {normalize(text) for text in self.choices}:
            return answer
        labels = {label for label, _ in self.places}
        at = whole_number(answer)
        if at is not None and str(at) in labels:
            place = next(i for i, (label, _) in enumerate(self.places) if label == str(at))
            return self._at(place, answer, field, None)
        if at is not None and first is not None and 0 <= at - first <= len(self.places):
            if at - first == len(self.places):
                many = f"{len(self.places)} choices, counted from {first}"
                hint = "; with --columns, count_from=1 counts from 1" if first == 0 else ""
                raise Unusable(field, f"the answer {answer!r} is no index of {many}{hint}")
            return self._at(at - first, answer, field, None)
        name = letter_of(answer)
        both = lettered(answer)
        if (name or (both[0] if both else "")) in labels:
            return self.by_letter(answer, field)
        return answer

    def by_text(self, answer: str, *, alike: bool = True) -> str | None:
        """The option that is this text; None if none is.

        Args:
            alike: whether case, quotes and number words make no other text.
        """
        for read in (normalize_spaces, normalize) if alike else (normalize_spaces,):
            for text in self.choices:
                if read(text) == read(answer):
                    return text
        return None

    def named(self, answer: str, first: int) -> str | None:
        """The option whose number, index from `first` or letter an answer is; None if none is.

        Where options are numbered, their own numbers count.
        """
        at, letter = whole_number(answer), letter_of(answer)
        texts = dict(self.places)
        if at is not None and self.numbered:
            return texts.get(str(at)) or None
        if at is not None:
            return self.places[at - first][1] or None if 0 <= at - first < len(texts) else None
        return texts.get(letter) or None if letter else None

    def _at(self, at: int, answer: str, field: str, text: str | None) -> str:
        label, found = self.places[at]
        if not found:
            raise Unusable(field, f"the answer {answer!r} names option {label}, which is empty")
        if text and normalize(text) != normalize(found):
            raise Unusable(field, f"the answer {answer!r} names option {label}, which is {found!r}")
        return found


NO_OPTIONS = Options(())


def letter_of(answer: str) -> str | None:
    """The letter that an answer is, however it is bracketed or ended; None if it is no letter."""
    found = _LETTER.fullmatch(unicodedata.normalize("NFKC", answer).strip())
    return found[1].upper() if found else None


def whole_number(value: object) -> int | None:
    """A whole number, also as tables write it (`3`, `3.0`, `1e1`); None if it is none."""
    if isinstance(value, bool):
        return None
    text = unicodedata.normalize("NFKC", str(value)).strip()
    if not re.fullmatch(r"\+?\d{1,6}(?:\.0*)?(?:[eE]\+?0?[0-3])?", text):
        return None
    return int(float(text))


def lettered(line: str) -> tuple[str, str] | None:
    """The letter and the text of `(A) text`, `A. text`, `a) text` or `A：text`; else None."""
    match = _LETTERED.match(line)
    return (_upper(match[1] or match[2]), match[3]) if match else None


def read_options(
    value: Any, field: str = "choices", as_text: Callable[[Any], str] = str
) -> Options:
    """Read options from a list, an object by letter, or a text that writes down either.

    Raises:
        Unusable: it is none of these.
    """
    if isinstance(value, str):
        return _written(value, field, as_text)
    if is_missing(value):
        return NO_OPTIONS
    if isinstance(value, Mapping):
        return _from_object(value, field, as_text)
    if not isinstance(value, list | tuple):
        raise Unusable(field, "this is not a list of choices")
    if value and all(isinstance(one, Mapping) for one in value):
        return _from_objects(value, field, as_text)
    if any(isinstance(one, list | tuple | Mapping) for one in value):
        raise Unusable(field, "an option is no text but a list or an object")
    texts = ["" if is_missing(one) else as_text(one).strip() for one in value]
    return _labelled(list(zip(_letters(len(texts), field), texts, strict=True)))


def lettered_places(texts: Mapping[str, str]) -> Options:
    """The options of columns that bear the letters as their names."""
    return _labelled(sorted(texts.items()))


def cut_options(text: str) -> tuple[str, Options]:
    """Split a question into its text and its lettered options at its end; none if in doubt.

    They stand a line each, or one behind the other (`Options: A. left, B. right`). A last line that
    only says how to answer is removed with them.
    """
    lines = text.strip().splitlines()
    whole = ""
    while len(lines) > 1 and _INSTRUCTION.match(lines[-1]) and not lettered(lines[-1]):
        lines.pop()
        whole = whole or "\n".join(lines).strip()
    whole = whole or "\n".join(lines).strip()
    found: list[tuple[str, str]] = []
    while lines and (not lines[-1].strip() or (one := lettered(lines[-1]))):
        if lines[-1].strip() and one:
            found.insert(0, one)
        lines.pop()
    if _rises(found) and (question := "\n".join(lines).strip()):
        return question, Options(tuple(found))
    return _cut_inline(whole)


def introduced_list(text: str) -> re.Match[str] | None:
    """The last `Options:` or the like, behind which a question lists them."""
    every = list(_INTRODUCED.finditer(text))
    return every[-1] if every else None


def _cut_inline(text: str) -> tuple[str, Options]:
    """Options that stand one behind the other at the end of a text."""
    if at := introduced_list(text):
        found = inline_options(text[at.end() :])
        if found.places and (question := text[: at.start()].strip()):
            return question, found
    for mark in reversed(list(_FIRST.finditer(text))):
        found = inline_options(text[mark.end() :])
        if found.places and (question := text[: mark.end()].strip()):
            return question, found
    return text, NO_OPTIONS


def inline_options(text: str) -> Options:
    """The options of `A. left, B. right`, which fill the whole text; none if they don't."""
    marks: list[re.Match[str]] = []
    for mark in _INLINE.finditer(text):
        letter, wanted = mark[1] or mark[2], ascii_uppercase[len(marks) : len(marks) + 1]
        first = marks[0][1] or marks[0][2] if marks else letter
        if _upper(letter) == wanted and letter.isupper() == first.isupper():
            marks.append(mark)
    if len(marks) < 2 or text[: marks[0].start()].strip():
        return NO_OPTIONS
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    *before, last = [re.sub(_OR, "", one.strip(_GAP)).strip(_GAP) for one in texts]
    if last.endswith((".", "。")) and not any(one.endswith((".", "。")) for one in before):
        last = last[:-1].strip()  # the end of the sentence that lists them
    if not last and not any(before):
        return NO_OPTIONS
    return Options(tuple(zip(ascii_uppercase, [*before, last], strict=False)))


def _written(text: str, field: str, as_text: Callable[[Any], str]) -> Options:
    """Options that a cell writes down as text."""
    text = text.strip()
    if not text:
        return NO_OPTIONS
    if text[0] in "[{":
        for read in (json.loads, read_literal):  # both read values and run nothing
            try:
                found = read(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, list | tuple | dict):
                return read_options(found, field, as_text)
    lines = [one for line in text.splitlines() if line.strip() and (one := lettered(line))]
    if len(lines) == sum(bool(line.strip()) for line in text.splitlines()) and _rises(lines):
        return Options(tuple(lines))
    found = inline_options(_INTRODUCED.sub("", text, count=1))
    if found.places:
        return found
    raise Unusable(field, f"it should be a list, not {text[:60]!r}")


def _from_object(value: Mapping[Any, Any], field: str, as_text: Callable[[Any], str]) -> Options:
    """Options by letter or number (`{"A": …}`), or labels beside texts (`{"label": […], …}`)."""
    label = next((name for name in _LABELS if isinstance(value.get(name), list)), None)
    text = next((name for name in _TEXTS if isinstance(value.get(name), list)), None)
    if label and text:
        if len(value[label]) != len(value[text]):
            raise Unusable(field, f"{label} and {text} have not the same number of members")
        return _from_object(dict(zip(value[label], value[text], strict=True)), field, as_text)
    texts = {
        (letter_of(str(key)) or str(key).strip()): "" if is_missing(one) else as_text(one).strip()
        for key, one in value.items()
    }
    if len(texts) < len(value):
        raise Unusable(field, f"two options have one letter: {', '.join(map(str, value))}")
    if all(name in ascii_uppercase and len(name) == 1 for name in texts):
        return lettered_places(texts)
    if all(name.isdecimal() for name in texts):
        return Options(tuple(sorted(texts.items(), key=lambda place: int(place[0]))))
    raise Unusable(field, f"an object of options has letters as its keys, not {next(iter(texts))}")


def _from_objects(
    value: Sequence[Mapping[str, Any]], field: str, as_text: Callable[[Any], str]
) -> Options:
    """Options as a list of objects, each with its text and perhaps its label."""
    texts: dict[str, Any] = {}
    for letter, one in zip(_letters(len(value), field), value, strict=True):
        name = next((n for n in _TEXTS if n in one), None)
        if name is None:
            raise Unusable(field, f"an option is an object of {', '.join(one)}, without a text")
        label = next((one[n] for n in _LABELS if not is_missing(one.get(n))), letter)
        texts[str(label)] = one[name]
    return _from_object(texts, field, as_text)


def _labelled(places: list[tuple[str, str]]) -> Options:
    """Take the letters off texts that all bear their own."""
    parsed = [(label, text, lettered(text) if text else None) for label, text in places]
    own = [one for _, _, one in parsed if one]
    borne = len(own) == sum(bool(text) for _, text, _ in parsed) and any(one[1] for one in own)
    if borne and all(one is None or one[0] == label for label, _, one in parsed):
        return Options(tuple((label, one[1] if one else "") for label, _, one in parsed))
    while places and not places[-1][1]:
        places = places[:-1]
    return Options(tuple(places))


def _rises(places: Sequence[tuple[str, str]]) -> bool:
    """Whether these are options with every letter from A on; a text or the other may be missing."""
    labels = "".join(label for label, _ in places)
    return len(labels) > 1 and ascii_uppercase.startswith(labels) and any(t for _, t in places)


def _upper(letter: str) -> str:
    return unicodedata.normalize("NFKC", letter).upper()


def _letters(count: int, field: str) -> str:
    if count > len(ascii_uppercase):
        raise Unusable(field, f"there are {count} options, more than letters")
    return ascii_uppercase[:count]

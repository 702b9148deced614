"""Filters of what a text or image holds: personal data by rule; others as packages bring them.

    verdict = NoPersonalData().apply(trace, question, Context())

Two more, for abuse and nudity, ask models of optional packages (`curation.filters.content_models`).
A package brings its own under the entry-point group `vigorl.content_filters`: a function without
arguments that returns a `ContentFilter`. Like those two it runs when a filter file names it, never
because its package is installed.

The rule looks for e-mail addresses, telephone numbers, payment cards (Luhn) and IBANs (mod 97) in
the question, its choices and gold answers, the thoughts and the answer. What is reserved for
examples (example.com, 555-01xx) belongs to no person, and a coordinate is no telephone number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from curation.filters.base import CORPUS, Context, TraceFilter
from curation.grading.normalize import fold
from mcts.data import Question, Trace, Verdict

GROUP = "vigorl.content_filters"

Images = Callable[[], Sequence[bytes]]

SIGNS = "|".join((
    "@",
    "[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2}",
    "[0-9](?:[ -]?[0-9]){12}",
    r"\+[0-9]{1,3}(?:[ .-]?\(?[0-9]{1,4}\)?){2}",
    r"(?:\([0-9]{3}\) ?|[0-9]{3}[.-])[0-9]{3}[.-][0-9]{4}",
))  # fmt: skip
"""The patterns of `_RULES` in their order, without what may stand around them and cut where they
repeat: a text that none of them is in has no personal data."""
_ANY_SIGN = re.compile(SIGNS)


@dataclass(frozen=True, slots=True)
class ContentFilter:
    """A filter of content that a package brings; it has no values to set."""

    name: str
    """The name its verdicts carry, such as `no_personal_data`."""
    method: str
    """Name, version and settings of the rule or model; stored with each verdict."""
    decide: Callable[[Trace, Question, Images], Verdict]
    """Called with a trace, its question, and a function that loads the question's images."""


def personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Find what names or pays a person in a text: (kind, the matching text)."""
    text = fold(text)
    if not _ANY_SIGN.search(text):
        return
    taken: list[tuple[int, int]] = []  # the digits of an IBAN may look like a card, and so on
    for kind, pattern, holds in _RULES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if holds(match[0]) and not any(a < end and start < b for a, b in taken):
                taken.append((start, end))
                yield kind, match[0]


def texts_of(trace: Trace, question: Question) -> list[tuple[str, str]]:
    """Return all texts in and about a trace: (where, the text)."""
    return [
        ("the question", question.text),
        *((f"choice {i + 1}", choice) for i, choice in enumerate(question.choices)),
        *(("a gold answer", gold) for gold in question.answers if gold not in question.choices),
        *((f"step {i + 1}", step.thought) for i, step in enumerate(trace.steps)),
        ("the answer", trace.answer or ""),
    ]


class NoPersonalData(TraceFilter):
    """No e-mail address, telephone number, payment card or IBAN is in its texts or its question."""

    name = "no_personal_data"
    maker = "rules/2"
    stage = CORPUS
    signs = SIGNS
    max_found: int = Field(
        default=0, ge=0, description="addresses and numbers of persons in all texts"
    )

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        places = texts_of(trace, question)
        found = [(where, kind) for where, text in places for kind, _ in personal_data(text)]
        keep = len(found) <= self.max_found
        # The reason says where and what kind; the datum itself must not spread to another table.
        reason = "" if keep else f"{found[0][0]} holds {found[0][1]}"
        return Verdict(self.name, keep, reason, float(len(found)))


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _a_mailbox(text: str) -> bool:
    domain = text.rpartition("@")[2].casefold()
    last = domain.rpartition(".")[2]
    reserved = re.fullmatch(
        r"(.+\.)?(example\.(com|net|org)|.*\.?(example|test|invalid|localhost))", domain
    )
    return not reserved and last not in _FILE_ENDINGS


def _a_card(text: str) -> bool:
    digits = _digits(text)
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456" or len(set(digits)) < 2:
        return False
    doubled = [int(d) * (2 - (i % 2 == 0)) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _an_iban(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper()
    # Read as a number after its first four characters went to the end, letters as 10 to 35.
    number = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
    return 15 <= len(plain) <= 34 and int(number) % 97 == 1


def _a_telephone(text: str) -> bool:
    digits = _digits(text)
    if text.startswith("+"):
        return 8 <= len(digits) <= 15 and not re.fullmatch(r"1\d{3}55501\d\d", digits)
    area, exchange = digits[-10:-7], digits[-7:-4]
    fictional = exchange == "555" and digits[-4:-2] == "01"
    return area[0] not in "01" and exchange[0] not in "01" and not fictional


_FILE_ENDINGS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "pdf"})
# ASCII words: a number or address ends where Chinese goes on without a space.
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    (
        "an e-mail address",
        re.compile(
            r"(?<![\w.+-])[\w+-]+(?:\.[\w+-]+)*@(?:[\w-]+\.)+[a-z]{2,24}(?![\w-])", re.I | re.A
        ),
        _a_mailbox,
    ),
    (
        "an IBAN",
        re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)", re.A),
        _an_iban,
    ),
    (
        "a card number",
        re.compile(r"(?<![\w.,-])(?<![A-Z]{2}\d\d )\d(?:[ -]?\d){12,18}(?![\w-])", re.A),
        _a_card,
    ),
    (
        "a telephone number",
        re.compile(
            r"(?<![\w+.])\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}(?![\w-])"
            r"|(?<![\w.,-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-])",
            re.A,
        ),
        _a_telephone,
    ),
)

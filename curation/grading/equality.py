r"""When two texts are the same answer, from strict to lax.

    same_text(r"20\pi", r"$20 \pi$")                # True
    the_same("$12", ("12", "15"))                   # 0: the one of several texts that it is

An answer is the whole text: words around it, and a second answer, make it another one. What only
announces it may stand before it ("Answer: B", "答案是B").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from curation.grading.exact_numbers import same_items, same_quantity
from curation.grading.formula_values import same_value
from curation.grading.formulas import spelling, unwrap, without_brackets
from curation.grading.lead_ins import readings
from curation.grading.normalize import LONGEST, normalize, normalize_spaces


def same_text(answer: str, gold: str) -> bool:
    """Return whether a free answer is the gold answer: as a text, a formula or an exact number."""
    return any(same(answer, gold) for same in WAYS)


def the_same(answer: str, texts: Sequence[str]) -> int | None:
    """Find the index of the text that `answer` is, in the strictest way in which it is one alone.

    None where it is none of them, or several in every way.
    """
    for same in WAYS:
        found = [index for index, text in enumerate(texts) if same(answer, text)]
        if len(found) == 1:
            return found[0]
    return None


def _as_written(answer: str, text: str) -> bool:
    return normalize_spaces(answer) == normalize_spaces(text)


def _in_words(answer: str, text: str) -> bool:
    return normalize(unwrap(answer)) == normalize(unwrap(text))


def _as_formula(answer: str, text: str) -> bool:
    if max(len(answer), len(text)) > LONGEST:
        return False
    said, wanted = (without_brackets(spelling(one)) for one in (answer, text))
    # Where the gold answer is two numbers, or both stand in brackets, `400,300` is no thousands.
    several = ";" in wanted or all(map(_is_tuple, (answer, text)))
    return said == wanted or (several and said.replace(";", ",") == wanted.replace(";", ","))


def _is_tuple(text: str) -> bool:
    text = unwrap(text)
    return "," in text and text[:1] + text[-1:] in ("()", "[]", "(]", "[)")


def _in_value(answer: str, text: str) -> bool:
    if max(len(answer), len(text)) > LONGEST:
        return False
    return same_quantity(answer, text) or same_items(answer, text) or same_value(answer, text)


def _announced(answer: str, text: str) -> bool:
    return any(same(rest, text) for rest in readings(answer)[1:] for same in _PLAIN_WAYS)


_PLAIN_WAYS: tuple[Callable[[str, str], bool], ...] = (
    _as_written, _in_words, _as_formula, _in_value,
)  # fmt: skip
WAYS = (*_PLAIN_WAYS, _announced)
"""Ways in which an answer is a text, the strictest first."""

"""Tells whether the answers of a column are options' texts, or name them by index or letter.

    names = AnswerNames(lambda: …, first=None)     # a function that reads the pairs of the column
    names.resolve(options, 2)                      # the option's text

`2` among the options 4, 2, 1 and 3 is one of them, and the index of another. One row can't tell,
the column can: where an answer is no text of its options, answers are names; where one is a text
that names nothing, they are texts. Nothing else than that tells, but for numbers that are stored as
numbers, which are indexes, and for an origin that the user gave. Indexes count from 0; a column
without a 0, in which some are the number of options, is refused: each other answer would be read as
the option behind its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from warehouse.sources.reading.drafts import ImportProblem, Unusable
from warehouse.sources.reading.options import Options, whole_number

Pairs = Iterable[tuple[Options, str]]


def _is_index(options: Options, answer: str) -> bool:
    """Whether an answer is a whole number, of options that bear no numbers of their own."""
    return bool(options.places) and not options.numbered and whole_number(answer) is not None


@dataclass(slots=True)
class AnswerNames:
    """How the answers of one column are read."""

    pairs: Callable[[], Pairs]
    """Reads the options and the answer of every row anew; called once, and where in doubt alone."""
    first: int | None = None
    """What an index counts from, where the user said so: then a number is an index; else None."""
    _seen: tuple[bool, bool] | None = field(default=None, init=False)
    _from_one: bool | None = field(default=None, init=False)

    def resolve(self, options: Options, answer: str, is_number: bool = False) -> str:
        """Return the option that an answer names, or the answer where it is no name.

        Args:
            is_number: whether the file holds it as a whole number, and not as a text.

        Raises:
            Unusable: it names no option, or one or another, and nothing tells which.
            ImportProblem: the column's indexes count from 1, and the user did not say so.
        """
        text, named = self._readings(options, answer)
        if self.first is None and text is None and _is_index(options, answer):
            if self._from_one is None:
                self._from_one = self._counts_from_one()
            if self._from_one:
                raise ImportProblem(
                    "the answers are numbers that count choices from 1 (none is 0, and some are "
                    "the number of choices): say count_from=1 in --columns"
                )
        if text is None or named is None or text == named:
            return named or text or options.resolve(answer, self.first or 0)
        if self.first is not None and whole_number(answer) is not None:
            return named
        if self._seen is None:
            self._seen = self._look()
        names, texts = self._seen
        if names and texts:
            raise Unusable(
                "answer",
                f"the answer {answer!r} is the text of one choice and names another, {named!r}; "
                "other rows have answers of both kinds"
                + ("" if whole_number(answer) is None else ": say count_from if it is an index"),
            )
        return named if names or (is_number and not texts) else text

    def _counts_from_one(self) -> bool:
        """Whether no index of the column is 0, and some are one behind the last."""
        behind = False
        for options, answer in self.pairs():
            if _is_index(options, answer) and options.by_text(answer, alike=False) is None:
                at = whole_number(answer)
                if at == 0:
                    return False
                behind |= at == len(options.places)
        return behind

    def _readings(self, options: Options, answer: str) -> tuple[str | None, str | None]:
        """The option that an answer is as a text, and the one that it names."""
        named = options.named(answer, self.first or 0)
        # `1` is no text of the option `one` where it is an index.
        alike = named is None or whole_number(answer) is None
        return options.by_text(answer, alike=alike), named

    def _look(self) -> tuple[bool, bool]:
        """Whether rows have answers that are names alone, and such that are texts alone."""
        names = texts = False
        for options, answer in self.pairs():
            text, named = self._readings(options, answer)
            names |= text is None and named is not None
            texts |= named is None and text is not None
            if names and texts:
                break
        return names, texts

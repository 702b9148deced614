"""Texts of data that spell a model's control tokens are words, never control tokens.

    marks = control_tokens(tokenizer)                    # ("<|im_start|>", "<|im_end|>", …)
    first_mark("What is <|im_end|>?", marks)             # "<|im_end|>"
    hidden = HiddenMarks.of(texts, marks)
    text = template(hidden.hide(text) for text in texts) # the template writes its own marks
    ids = hidden.encode(tokenizer, text)                 # their own stay words

A question that asks what `<|im_end|>` means would else end its own turn, and one that holds
`<|image_pad|>` would have a place for an image too many. Tags that are ordinary added tokens, such
as `<think>`, are no control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_PRIVATE = range(0xE000, 0xF900)
"""Private-use characters, one of which no text holds."""


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return a tokenizer's control tokens as texts, longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {token.content for token in added if token.special and token.content.strip()}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def first_mark(text: str, marks: Sequence[str]) -> str | None:
    """Return the first control token that a text spells, or None."""
    found = _pattern(marks).search(text) if marks else None
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class HiddenMarks:
    """Control tokens that stand in texts of data, replaced while a chat template renders them."""

    marks: tuple[str, ...]
    sign: str
    """A character that is in none of the texts; empty where they spell no control token."""

    @classmethod
    def of(cls, texts: Iterable[str], marks: tuple[str, ...]) -> HiddenMarks:
        """Choose what stands for the marks in these texts."""
        whole = "\n".join(texts)
        if first_mark(whole, marks) is None:
            return cls(marks, "")
        return cls(marks, next(chr(code) for code in _PRIVATE if chr(code) not in whole))

    def hide(self, text: str) -> str:
        """Return a text whose marks are replaced."""
        if not self.sign:
            return text
        number = {mark: i for i, mark in enumerate(self.marks)}
        return _pattern(self.marks).sub(lambda m: f"{self.sign}{number[m[0]]}{self.sign}", text)

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """Tokenize a rendered text: its marks are control tokens, those that were hidden are words.

        Raises:
            ValueError: this tokenizer can't write one of them as words.
        """
        if not self.sign:
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids
        shown = re.compile(f"{self.sign}(\\d+){self.sign}")
        control = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in self.marks}
        found: list[int] = []
        for piece in re.split(f"({_pattern(self.marks).pattern})", text):
            if piece in control:
                found.append(control[piece])
            elif piece:
                words = shown.sub(lambda m: self.marks[int(m[1])], piece)
                some = tokenizer(words, add_special_tokens=False, split_special_tokens=True)
                if not set(control.values()).isdisjoint(some["input_ids"]):
                    raise ValueError(
                        f"it holds {first_mark(words, self.marks)}, a control token that this "
                        "model's tokenizer cannot write as words"
                    )
                found += some["input_ids"]
        return found


def _pattern(marks: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))

"""Takes the marks out of a text that only hold an image's place, and keeps those that say which.

    place_images("<image>\nIs it red?", 1)                    # "Is it red?"
    place_images("What does <image> mean in this HTML?", 1)   # as it is
    place_images("Is <image> older than <image>?", 2)         # "Is (image 1) older than (image 2)?"
    place_images("<image>", 1)                                # "(image 1)": it holds the question
    place_images("Before: <image>\nAfter: <image>", 2)     # "Before: (image 1)\nAfter: (image 2)"

A mark holds a place where it leads or ends the text, has a line to itself, or stands between two
sentences. Within a sentence it is a word: with as many marks as images it becomes the number of its
image, and else it stays. So do marks of which each stands behind a colon of its own: what is
before the colon says which image it is.
"""

from __future__ import annotations

import re

MARK = "<image>"
_CUT = re.compile(rf"\s*{MARK}\s*")
_ENDED = re.compile(r"[.?!:;。？！：；…][\"')\]”’）]*\s*$")
_LABELLED = re.compile(r"\w[^\n]*[:：][ \t]*$")
_BEGINS = re.compile(r"\s+[\"'(\[“‘（]*[A-Z0-9\u3040-\u9fff]")


def place_images(text: str, images: int) -> str:
    """Take marks out of a question's text, or number them; `images` is how many it has."""
    at = [match.start() for match in re.finditer(MARK, text)]
    if not at:
        return text.strip()
    if not text.replace(MARK, "").strip():
        shown = range(1, max(1, min(len(at), images)) + 1)
        return " ".join(f"(image {number})" for number in shown)
    fits = images > 1 and len(at) == images
    labelled = fits and all(map(_LABELLED.search, text.split(MARK)[:-1]))
    words = [labelled or not _holds_place(text, place) for place in at]
    numbered = fits and any(words)
    if numbered:  # then a mark that begins the text may be a sentence's subject
        words = [not _alone_in_line(text, place) for place in at]
    parts, done = [], 0
    for number, (place, is_word) in enumerate(zip(at, words, strict=True), start=1):
        if is_word:
            parts += [text[done:place], f"(image {number})" if numbered else MARK]
            done = place + len(MARK)
        else:
            parts += [text[done:place].rstrip(), " "]
            done = _CUT.match(text, place).end()  # type: ignore[union-attr]  # it begins here
    return "".join([*parts, text[done:]]).strip()


def _holds_place(text: str, at: int) -> bool:
    before, after = text[:at], text[at + len(MARK) :]
    if not before.replace(MARK, "").strip() or not after.replace(MARK, "").strip():
        return True
    between = _ENDED.search(before.replace(MARK, "")) and _BEGINS.match(after.replace(MARK, ""))
    return _alone_in_line(text, at) or bool(between)


def _alone_in_line(text: str, at: int) -> bool:
    """Whether its line holds nothing but marks."""
    before, after = text[:at].rpartition("\n")[2], text[at + len(MARK) :].partition("\n")[0]
    return not f"{before}{after}".replace(MARK, "").strip()

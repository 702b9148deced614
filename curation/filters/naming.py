"""Finds which of an image's known objects a text names.

    labels_in("I look at the red boxes.", ["box", "red box"])      # ["red box"]

An object is named when its label stands in the text as whole words, in singular or plural; of
labels that overlap, the longest counts. `curation.filters.grounding` has the whole rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import regex

from curation.filters.words import is_sign, words_of
from mcts.data import Box
from mcts.parsing import points_in, sentences

# What is visible in each of a question's images, in their order; None where it is unknown.
Objects = Sequence[Sequence[Box] | None]


def labels_in(thought: str, labels: Sequence[str]) -> list[str]:
    """Find which of `labels` a thought names, by the rule above, in the order it names them."""
    if not labels:
        return []
    longest = sorted(labels, key=lambda label: (-len(label), label))
    names = regex.compile("|".join(map(_whole_words, longest)), regex.IGNORECASE)
    pointing = [sentence for sentence in sentences(thought) if points_in(sentence)]
    for text in (" ".join(pointing), thought):
        # One group a label and none inside, so the group that matched tells which it was.
        found = [longest[match.lastindex - 1] for match in names.finditer(text) if match.lastindex]
        if found:
            return list(dict.fromkeys(found))
    return []


def _whole_words(label: str) -> str:
    """A label as a pattern with one group; it ends where words end, where its script shows that."""
    before, after = (
        "" if len(words_of(label)) > 1 and is_sign(edge) else boundary
        for edge, boundary in ((label.strip()[0], r"(?<!\w)"), (label.strip()[-1], r"(?!\w)"))
    )
    return f"{before}({_words(label)}){after}"


def _words(label: str) -> str:
    """A label as a pattern: any white space between its words, the last in singular or plural."""
    *first, last = label.split()
    forms = [rf"{re.escape(last)}(?:e?s)?"]
    for end, plural in ((r"(?<=[^aeiou])y", "ies"), (r"fe?", "ves")):
        if found := re.search(f"{end}$", last, re.IGNORECASE):
            forms.append(re.escape(last[: found.start()]) + plural)
    return r"\s+".join([*map(re.escape, first), f"(?:{'|'.join(forms)})"])

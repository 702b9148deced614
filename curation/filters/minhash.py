"""Texts that are nearly the same: shingles, MinHash, and bands that bring candidates together.

    words = shingles_of(["the red chair is left of it", "the red chair is right of it"])
    jaccard(*words)                                 # 0.25: runs of three words in both, of all
    copies(words, groups=[0, 0], threshold=0.8)     # [None, None]: neither copies the other

`copies` goes through the texts in the order given and keeps a text unless one kept before is
similar: what is dropped is similar to the very text that is named, never only to a third one.
MinHash only proposes; what decides is the Jaccard similarity itself. Before it, texts are passed
over that share too few shingles with all others of their group together: that is exact, and quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from curation.filters.words import runs_of, words_of

WIDTH = 3
"""Words in a shingle."""
BANDS, ROWS = 20, 6
"""Two texts are compared when all hashes of some band agree: at similarity 0.8 that happens with
probability 1 - (1 - 0.8 ** 6) ** 20 = 0.998, at 0.5 with 0.27, at 0.3 with 0.01. For a lower
threshold than 0.8 the same hashes make more and shorter bands, see `rows_of_a_band`."""
SEED = 1

_AT_ONCE = 1 << 15  # shingles hashed at once
_WORDS_AT_ONCE = 1 << 20
_ROUNDING = 1e-6
_SLACK = 0.2  # how far below the threshold an estimate of 120 hashes may be: over five sigma


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    """Return a word as 64 bits, the same in every process."""
    data = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def shingles(text: str, width: int = WIDTH) -> np.ndarray:
    """Hash the distinct runs of `width` words, sorted, 64 bits; a shorter text is one run."""
    by_length: dict[int, list[tuple[str, ...]]] = {}
    for run in runs_of(words_of(text), width):
        by_length.setdefault(len(run), []).append(run)
    return np.unique(np.concatenate([_mixed(runs) for runs in by_length.values()]))


def shingles_of(texts: Sequence[str], width: int = WIDTH) -> list[np.ndarray]:
    """Return the `shingles` of each text; those of texts in ASCII are hashed together.

    Args:
        texts: words with a space between, as `words_of` gives them.
    """
    found: dict[int, np.ndarray] = {}
    batch: dict[int, list[str]] = {}
    held = 0
    for number, text in enumerate(texts):
        if not text.isascii():
            found[number] = shingles(text, width)
            continue
        batch[number] = text.split(" ") if text else []
        held += len(batch[number])
        if held > _WORDS_AT_ONCE:
            found.update(zip(batch, _plain_shingles(list(batch.values()), width), strict=True))
            batch, held = {}, 0
    found.update(zip(batch, _plain_shingles(list(batch.values()), width), strict=True))
    return [found[number] for number in range(len(texts))]


def _plain_shingles(texts: Sequence[Sequence[str]], width: int) -> Iterator[np.ndarray]:
    """Yield the shingles of texts whose words all count for one (`words.runs_of`)."""
    number = {word: _number(word) for word in {word for words in texts for word in words}}
    words = np.array([number[word] for words in texts for word in words], np.uint64)
    lengths = np.array([len(words) for words in texts], np.int64)
    text = np.repeat(np.arange(len(texts)), lengths)
    last = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here on
    starts = np.flatnonzero(last >= width)
    mixed = np.zeros(len(starts), np.uint64)
    for at in range(width if len(starts) else 0):
        mixed = _mix(mixed + words[starts + at])
    order = np.lexsort((mixed, text[starts]))
    text, mixed = text[starts][order], mixed[order]
    new = np.ones(len(mixed), bool)
    new[1:] = (mixed[1:] != mixed[:-1]) | (text[1:] != text[:-1])
    text, mixed = text[new], mixed[new]
    edges = np.searchsorted(text, np.arange(len(texts) + 1))
    for i, (start, end) in enumerate(pairwise(edges.tolist())):
        yield mixed[start:end] if end > start else np.unique(_mixed([tuple(texts[i])]))


def _mixed(runs: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Hash runs of equally many words."""
    numbers = np.array([[_number(word) for word in run] or [0] for run in runs], dtype=np.uint64)
    mixed = np.zeros(len(runs), np.uint64)
    for column in numbers.T:
        mixed = _mix(mixed + column)
    return mixed


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of the shingles in either that are in both, 0 to 1."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def signatures(texts: Sequence[np.ndarray], seed: int = SEED) -> np.ndarray:
    """Hash each text to a row of BANDS * ROWS 32-bit values, the least of its shingles' hashes.

    Two rows agree in a place with the probability that is the texts' Jaccard similarity.
    """
    count = BANDS * ROWS
    drawn = [_number(f"{seed}:{i}") for i in range(2 * count)]
    odd, add = np.array(drawn[:count], np.uint64) | np.uint64(1), np.array(drawn[count:], np.uint64)
    found = np.empty((len(texts), count), np.uint32)
    start = 0
    while start < len(texts):
        end, size = start + 1, len(texts[start])
        while end < len(texts) and size + len(texts[end]) <= _AT_ONCE:
            size += len(texts[end])
            end += 1
        lengths = [len(text) for text in texts[start:end]]
        firsts = np.cumsum([0, *lengths[:-1]])
        every = np.concatenate(texts[start:end])
        for k in range(count):
            hashes = ((every * odd[k] + add[k]) >> np.uint64(32)).astype(np.uint32)
            found[start:end, k] = np.minimum.reduceat(hashes, firsts)
        start = end
    return found


def rows_of_a_band(threshold: float) -> int:
    """Return the longest bands with which 99 of 100 texts that similar are compared."""
    count = BANDS * ROWS
    for rows in (6, 5, 4, 3, 2):
        if 1 - (1 - threshold**rows) ** (count // rows) >= 0.99:
            return rows
    return 1


def copies(
    texts: Sequence[np.ndarray], groups: Sequence[int], threshold: float
) -> list[tuple[int, float] | None]:
    """Find for each text the number of an earlier, kept one it is similar to, and how similar.

    Args:
        texts: their shingles, the ones to prefer first.
        groups: texts are compared only within a group.
        threshold: Jaccard similarity from which a text is a copy.
    """
    answer: list[tuple[int, float] | None] = [None] * len(texts)
    numbers = np.flatnonzero(_may_be_similar(texts, groups, threshold)).tolist()
    if not numbers:
        return answer
    texts, of_group = [texts[i] for i in numbers], np.array(groups, np.uint64)[numbers]
    signed = signatures(texts)
    rows = rows_of_a_band(threshold)
    bands = np.arange(BANDS * ROWS // rows, dtype=np.uint64)
    keys = _mix((of_group[:, None] + bands) * np.uint64(0x9E3779B97F4A7C15))
    for row in range(rows):
        keys = _mix(keys + signed[:, row::rows])
    buckets: dict[int, list[int]] = {}
    for i, repeated in enumerate(_repeated(keys)):
        here = keys[i][repeated].tolist()  # in another bucket a text is alone
        near = sorted({j for key in here for j in buckets.get(key, ())})
        found = _most_similar(i, near, texts, signed, threshold)
        if found is None:
            for key in here:
                buckets.setdefault(key, []).append(i)
        else:
            answer[numbers[i]] = numbers[found[0]], found[1]
    return answer


def _may_be_similar(
    texts: Sequence[np.ndarray], groups: Sequence[int], threshold: float
) -> np.ndarray:
    """Return of each text whether enough of its shingles are also in others of its group.

    A text as similar to another has that share of its shingles in common with it alone. Shingles
    are met by part of their hash, so that some count that are in no other: that errs on the side of
    comparing.
    """
    if not len(texts):
        return np.zeros(0, bool)
    lengths = np.array([len(text) for text in texts], np.int64)
    of_group = np.repeat(_mix(np.array(groups, np.uint64)), lengths)
    keys = _mix(np.concatenate(texts) + of_group)
    bits = min(26, len(keys).bit_length() + 2)
    slots = (keys >> np.uint64(64 - bits)).astype(np.int64)
    number = np.arange(len(slots))
    last = np.empty(1 << bits, np.int64)
    last[slots] = number
    met = np.zeros(1 << bits, bool)
    met[slots[last[slots] != number]] = True
    shared = np.add.reduceat(met[slots], np.cumsum(lengths) - lengths, dtype=np.int64)
    return shared + _ROUNDING >= threshold * lengths


def _repeated(keys: np.ndarray) -> np.ndarray:
    """Return of each value whether it occurs again."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (counts > 1)[inverse].reshape(keys.shape)


def _most_similar(
    i: int, near: list[int], texts: Sequence[np.ndarray], signed: np.ndarray, threshold: float
) -> tuple[int, float] | None:
    """Return the most similar of the candidates `near`, the first among equals, if it is enough."""
    if not near:
        return None
    agree = (signed[near] == signed[i]).mean(axis=1)
    likely = [near[k] for k in np.flatnonzero(agree >= threshold - _SLACK)]
    measured = [(jaccard(texts[i], texts[j]), -j) for j in likely]
    best = max(measured, default=(0.0, 0))
    return (-best[1], best[0]) if best[0] >= threshold else None


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values over all bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

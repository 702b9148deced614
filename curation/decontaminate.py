"""Training questions that an evaluation set knows already, by picture and by words.

    found = contaminated(training, evaluation, hashes)  # {question_id: [Match(way=…, …)]}

An evaluation set is every question whose split is not `train`, and every question of a benchmark,
whatever its file called the split. A training question matches one when they share an image, when
images of theirs look alike, or when it holds at least half of the evaluation question's runs of
eight words, a rare word among them: the same words about another picture are often but the same
template ("Is there a … in the room?"), and a template is made of words that many questions use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from curation import phash
from curation.minhash import words_of

WORDS = 8
"""Words in a run; a shorter question is one run."""
OVERLAP = 0.5
"""Share of an evaluation question's runs from which a training question matches it."""
RARE = 3
"""A word is rare when at most so many evaluation questions, and training questions, use it."""
METHODS = {
    "same_image": "sha-256 of the encoded bytes",
    "similar_image": f"{phash.METHOD} <= {phash.ALIKE} of 64 bits",
    "same_words": f"{WORDS}-grams/1 >= {OVERLAP:g}, a word of at most {RARE} questions a side",
}
"""How two questions can match, strongest first, with the method's version and settings."""
BENCHMARKS = frozenset({
    "blink", "mathvision", "pope", "realworldqa", "robospatial", "screenspot", "screenspot-pro",
    "screenspot-v2", "visualwebarena", "vstar-bench", "wemath",
})  # fmt: skip
"""Tasks that exist to measure with: no question of theirs is training material."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is compared."""

    question_id: str
    task: str
    split: str
    text: str
    image_ids: tuple[str, ...]

    @property
    def evaluates(self) -> bool:
        """Whether it belongs to an evaluation set."""
        return self.split != "train" or self.task in BENCHMARKS

    @property
    def set_name(self) -> str:
        """The set it belongs to: `task/split`."""
        return f"{self.task}/{self.split}"


@dataclass(frozen=True, slots=True)
class Match:
    """Which evaluation question a training question matches, and how."""

    question_id: str
    """The evaluation question."""
    set_name: str
    """The evaluation set it is in: `task/split`."""
    way: str
    """One of METHODS."""
    reason: str
    """In words, with the ids."""
    closeness: float
    """1 for the same image, else the share of equal bits or of shared runs."""


def contaminated(
    training: Iterable[Asked], evaluation: Sequence[Asked], hashes: Mapping[str, int | None]
) -> dict[str, list[Match]]:
    """Training questions that match an evaluation question: the best match of each way, strongest
    way first.

    Args:
        hashes: perceptual hashes by image id; a missing or blank image matches by its id only.
    """
    asked = sorted(training, key=lambda one: one.question_id)
    known = sorted(evaluation, key=lambda one: one.question_id)
    found: dict[str, list[Match]] = {}
    for matches in (
        _same_image(asked, known), _similar_image(asked, known, hashes), _same_words(asked, known)
    ):  # fmt: skip
        for question_id, match in matches.items():
            found.setdefault(question_id, []).append(match)
    return found


def _same_image(asked: list[Asked], known: list[Asked]) -> dict[str, Match]:
    there: dict[str, Asked] = {}
    for other in known:
        for image_id in other.image_ids:
            there.setdefault(image_id, other)
    found: dict[str, Match] = {}
    for one in asked:
        shared = [image_id for image_id in one.image_ids if image_id in there]
        if shared:
            its = there[shared[0]]
            reason = f"it shares image {shared[0]} with {_told(its)}"
            found[one.question_id] = Match(its.question_id, its.set_name, "same_image", reason, 1.0)
    return found


def _similar_image(
    asked: list[Asked], known: list[Asked], hashes: Mapping[str, int | None]
) -> dict[str, Match]:
    def by_hash(side: list[Asked]) -> dict[int, tuple[str, Asked]]:
        first: dict[int, tuple[str, Asked]] = {}
        for one in side:
            for image_id in one.image_ids:
                value = hashes.get(image_id)
                if value is not None:
                    first.setdefault(value, (image_id, one))
        return first

    ours, theirs = by_hash(asked), by_hash(known)
    nearest: dict[int, tuple[int, int]] = {}
    for mine, its in phash.pairs(ours, theirs):
        near = (phash.distance(mine, its), its)
        nearest[mine] = min(near, nearest.get(mine, near))
    found: dict[str, Match] = {}
    shared = {image_id for other in known for image_id in other.image_ids}
    for one in asked:
        for image_id in one.image_ids:
            value = hashes.get(image_id)
            if (
                value is None or value not in nearest or image_id in shared
            ):  # the very image: told of already
                continue
            bits, hashed = nearest[value]
            its_image, other = theirs[hashed]
            reason = (
                f"its image {image_id} looks like image {its_image} of {_told(other)} "
                f"({bits} of 64 bits differ)"
            )
            close = 1 - bits / 64
            match = Match(other.question_id, other.set_name, "similar_image", reason, close)
            if one.question_id not in found or close > found[one.question_id].closeness:
                found[one.question_id] = match
    return found


def _same_words(asked: list[Asked], known: list[Asked]) -> dict[str, Match]:
    theirs = {other.question_id: runs(other.text) for other in known}
    use = [Counter(w for one in side for w in set(words_of(one.text))) for side in (asked, known)]
    rare = {word for word, count in use[1].items() if count <= RARE and 0 < use[0][word] <= RARE}
    where: dict[str, list[Asked]] = {}
    for other in known:
        for run in theirs[other.question_id]:
            if not rare.isdisjoint(run.split()):
                where.setdefault(run, []).append(other)
    found = {}
    for one in asked:
        ours = runs(one.text)
        near = {other.question_id: other for run in ours for other in where.get(run, ())}
        shares = [(len(ours & theirs[i]) / len(theirs[i]), i) for i in near]
        share, other_id = min(shares, key=lambda s: (-s[0], s[1]), default=(0.0, ""))
        if share >= OVERLAP:
            other = near[other_id]
            reason = f"it has {share:.0%} of the {WORDS}-word runs of {_told(other)}"
            match = Match(other_id, other.set_name, "same_words", reason, share)
            found[one.question_id] = match
    return found


def runs(text: str) -> frozenset[str]:
    """The distinct runs of eight words of a question; a shorter one is a single run."""
    words = words_of(text)
    last = max(1, len(words) - WORDS + 1)
    return frozenset(" ".join(words[i : i + WORDS]) for i in range(last))


def _told(other: Asked) -> str:
    return f"question {other.question_id} of the evaluation set {other.set_name}"

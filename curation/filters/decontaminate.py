"""Training questions that an evaluation set knows already, by picture and by words.

    found = compare(training, evaluation, hashes)
    found.contaminated       # {question_id: [Match(way=…, …)]}: left out of training
    found.words_alone        # {question_id: Match}: told of, and not left out

An evaluation set is every question whose split is not `train`, and every question of a benchmark,
whatever its file called the split. A training question is contaminated by one when they share an
image, when images of theirs look alike, or when it holds at least half of the evaluation question's
runs of eight words and either their images are at least akin or the words are that question's own:
twelve or more, in pairs that hardly another question uses. The same words about another picture are
otherwise but the same template ("Is there a … in the room?"): such a question teaches a form that
is no secret, and the certificate only counts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from curation.filters import image_hash as phash
from curation.filters.minhash import words_of

WORDS = 8
"""Words in a run; a shorter question is one run."""
OVERLAP = 0.5
"""Share of an evaluation question's runs from which a training question matches it."""
AKIN = 12
"""Images are akin when at most so many of 64 bits differ: looser than alike, since words say the
same besides. On the embedded sample, different rooms with the same words: 16 at least."""
OWN_WORDS, OWN_PAIRS, RARE = 12, 0.75, 3
"""Words are a question's own when they are so many, and so large a share of their neighbouring
pairs stands in questions about at most `RARE` pictures of either side. On the embedded sample, all
templates, the largest share is 0.33."""
METHODS = {
    "same_image": "sha-256 of the encoded bytes",
    "similar_image": f"{phash.METHOD} <= {phash.ALIKE} of 64 bits",
    "same_words": f"{WORDS}-grams/2 >= {OVERLAP:g}, and {phash.METHOD} <= {AKIN} or {OWN_WORDS} "
    f"words with {OWN_PAIRS:g} of pairs of at most {RARE} pictures a side",
}
"""How two questions can match, strongest first, with the method's version and settings."""
WORDS_ALONE = f"{WORDS}-grams/2 >= {OVERLAP:g}, about another picture"
"""What is told of and counts for nothing."""
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
    """One of METHODS, or `words_alone`."""
    reason: str
    """In words, with the ids."""
    closeness: float
    """1 for the same image, else the share of equal bits or of shared runs."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a comparison found, by training question."""

    contaminated: dict[str, list[Match]]
    """The best match of each way, strongest way first."""
    words_alone: dict[str, Match]
    """Questions that are not contaminated, with an evaluation question of the same words."""


def compare(
    training: Iterable[Asked], evaluation: Sequence[Asked], hashes: Mapping[str, int | None]
) -> Found:
    """Compare training questions with evaluation questions.

    Args:
        hashes: perceptual hashes by image id; a missing or blank image matches by its id only.
    """
    asked = sorted(training, key=lambda one: one.question_id)
    known = sorted(evaluation, key=lambda one: one.question_id)
    same_words, words_alone = _same_words(asked, known, hashes)
    found: dict[str, list[Match]] = {}
    ways = _same_image(asked, known), _similar_image(asked, known, hashes), same_words
    for matches in ways:
        for question_id, match in matches.items():
            found.setdefault(question_id, []).append(match)
    return Found(found, {i: match for i, match in words_alone.items() if i not in found})


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


def _same_words(
    asked: list[Asked], known: list[Asked], hashes: Mapping[str, int | None]
) -> tuple[dict[str, Match], dict[str, Match]]:
    """Matches by words that count, and those that do not."""
    of_text, asked_so = _by_text(known), _by_text(asked)
    where: dict[str, list[str]] = {}
    for text in of_text:
        for run in runs(text):
            where.setdefault(run, []).append(text)
    own = _own_words(asked, known)
    counting: dict[str, Match] = {}
    alone: dict[str, Match] = {}
    for asking, ones in asked_so.items():
        shared = Counter(text for run in runs(asking) for text in where.get(run, ()))
        near = [(n / len(runs(text)), text) for text, n in shared.items()]
        for share, text in sorted(near, key=lambda found: (-found[0], found[1])):
            if share < OVERLAP:
                break
            others = of_text[text]
            akin = _akin(ones, others, hashes)
            for one in ones:
                other = akin.get(one.question_id, others[0])
                has = f"it has {share:.0%} of the {WORDS}-word runs of {_told(other)}"
                match = Match(other.question_id, other.set_name, "same_words", has, share)
                if one.question_id in akin:
                    match = replace(match, reason=f"{has}, whose image is akin to its own")
                elif not own(text):
                    reason = f"{has}, about another picture"
                    match = replace(match, way="words_alone", reason=reason)
                (alone if match.way == "words_alone" else counting).setdefault(
                    one.question_id, match
                )
    return counting, alone


def _by_text(side: Iterable[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = {}
    for one in side:
        found.setdefault(one.text, []).append(one)
    return found


def _akin(
    ones: Sequence[Asked], others: Sequence[Asked], hashes: Mapping[str, int | None]
) -> dict[str, Asked]:
    """Of those that share an image with one of the others, or have an akin one: which that is."""
    by_hash: dict[int, Asked] = {}
    by_id: dict[str, Asked] = {}
    for other in others:
        for image_id in other.image_ids:
            by_id.setdefault(image_id, other)
            value = hashes.get(image_id)
            if value is not None:
                by_hash.setdefault(value, other)
    mine = {hashes.get(image_id) for one in ones for image_id in one.image_ids} - {None}
    near: dict[int, Asked] = {}
    for a, b in phash.pairs([value for value in mine if value is not None], by_hash, AKIN):
        near.setdefault(a, by_hash[b])
    found: dict[str, Asked] = {}
    for one in ones:
        for image_id in one.image_ids:
            value = hashes.get(image_id)
            its = by_id.get(image_id) or (None if value is None else near.get(value))
            if its:
                found.setdefault(one.question_id, its)
    return found


def _own_words(asked: list[Asked], known: list[Asked]) -> Callable[[str], bool]:
    """Whether a text's words are its own, and not those of a template."""

    def pairs(text: str) -> set[tuple[str, str]]:
        return set(pairwise(words_of(text)))

    # By picture: a benchmark may ask a question several times, with its options in other orders.
    use = [
        Counter(pair for pair, _ in {(p, o.image_ids) for o in side for p in pairs(o.text)})
        for side in (asked, known)
    ]

    def own(text: str) -> bool:
        mine = pairs(text)
        rare = sum(all(side[pair] <= RARE for side in use) for pair in mine)
        return len(words_of(text)) >= OWN_WORDS and rare >= OWN_PAIRS * len(mine)

    return own


def runs(text: str) -> frozenset[str]:
    """The distinct runs of eight words of a question; a shorter one is a single run."""
    words = words_of(text)
    last = max(1, len(words) - WORDS + 1)
    return frozenset(" ".join(words[i : i + WORDS]) for i in range(last))


def _told(other: Asked) -> str:
    return f"question {other.question_id} of the evaluation set {other.set_name}"

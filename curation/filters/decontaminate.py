"""Training questions that an evaluation set knows already, by image and by words.

    found = compare(training, evaluation, hashes)
    found.contaminated       # {question_id: [Match(way=…, …)]}: left out of training
    found.words_alone        # {question_id: Match}: reported, and not left out

An evaluation set is every question whose split is not `train`, and every question of a benchmark,
whatever its file called the split. A training question is contaminated by one when they share an
image, when images of theirs look alike, or when it holds at least half of the evaluation question's
runs of eight words and either their images are at least akin or the words are that question's own:
twelve or more, in pairs that hardly another question uses. The same words about another image are
otherwise but the same template ("Is there a … in the room?"): such a question teaches a form that
is no secret, and the certificate only counts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from curation.filters import image_hash
from curation.filters.base import CORPUS, Filter
from curation.filters.words import amount, runs_of, words_of


class NotInEvaluation(Filter):
    """No evaluation set has its question: the same image, one that looks alike, or the words."""

    name = "not_in_evaluation"
    maker = "decontaminate/2"
    stage = CORPUS
    max_hash_bits: int = Field(
        default=image_hash.SIMILAR_BITS,
        ge=0,
        le=16,
        description="bits of 64 in which the hashes of two images that look alike may differ",
    )
    run_words: int = Field(
        default=8, ge=1, description="words in a run; a shorter question is one run"
    )
    min_overlap: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of an evaluation question's runs from which the words match, 0 to 1",
    )
    # Looser than alike, since the words say the same besides. On the embedded sample, different
    # rooms with the same words differ in 16 at least.
    max_akin_bits: int = Field(
        default=12,
        ge=0,
        le=24,
        description="bits of 64 in which the images may differ where the words match too",
    )
    # On the embedded sample, all templates, the largest share of such pairs is 0.33.
    min_own_words: int = Field(
        default=12, ge=1, description="words from which a question's words can be its own"
    )
    min_own_pairs: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="share of a question's neighbouring words that hardly another one uses, from "
        "which its words are its own, 0 to 1",
    )
    max_pair_images: int = Field(
        default=3,
        ge=1,
        description="images of either side with such a pair of words in their questions",
    )

    def methods(self) -> dict[str, str]:
        """Return how two questions can match, strongest first, with the values."""
        return {
            "same_image": "sha-256 of the encoded bytes",
            "similar_image": f"{image_hash.METHOD} <= {self.max_hash_bits} of 64 bits",
            "same_words": f"{self.run_words}-grams/2 >= {self.min_overlap:g}, and "
            f"{image_hash.METHOD} <= {self.max_akin_bits} or {self.min_own_words} words with "
            f"{self.min_own_pairs:g} of pairs of at most {self.max_pair_images} pictures a side",
        }


DEFAULT = NotInEvaluation()
METHODS = DEFAULT.methods()
NotInEvaluation.default_method = "; ".join(f"{way}: {how}" for way, how in METHODS.items())
WORDS_ALONE = f"{DEFAULT.run_words}-grams/2 >= {DEFAULT.min_overlap:g}, about another picture"
"""What is reported and counts for nothing."""
BENCHMARKS = frozenset({
    "blink", "mathvision", "pope", "realworldqa", "robospatial", "screenspot", "screenspot-pro",
    "screenspot-v2", "visualwebarena", "vstar-bench", "wemath",
})  # fmt: skip
"""Tasks that exist to measure with: no question of theirs is training material."""


@dataclass(frozen=True, slots=True)
class ComparedQuestion:
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
class Contamination:
    """What a comparison found, by training question."""

    contaminated: dict[str, list[Match]]
    """The best match of each way, strongest way first."""
    words_alone: dict[str, Match]
    """Questions that are not contaminated, with an evaluation question of the same words."""


def compare(
    training: Iterable[ComparedQuestion],
    evaluation: Sequence[ComparedQuestion],
    hashes: Mapping[str, int | None],
    rule: NotInEvaluation = DEFAULT,
) -> Contamination:
    """Compare training questions with evaluation questions.

    Args:
        hashes: perceptual hashes by image id; a missing or blank image matches by its id only.
    """
    comparison = _Comparison(
        sorted(training, key=lambda one: one.question_id),
        sorted(evaluation, key=lambda one: one.question_id),
        hashes,
        rule,
    )
    same_words, words_alone = comparison.same_words()
    found: dict[str, list[Match]] = {}
    for matches in (comparison.same_image(), comparison.similar_image(), same_words):
        for question_id, match in matches.items():
            found.setdefault(question_id, []).append(match)
    return Contamination(found, {i: match for i, match in words_alone.items() if i not in found})


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Training questions and evaluation questions, both in order of id."""

    ours: list[ComparedQuestion]
    known: list[ComparedQuestion]
    hashes: Mapping[str, int | None]
    rule: NotInEvaluation

    def same_image(self) -> dict[str, Match]:
        first = _first_by_image(self.known)
        found: dict[str, Match] = {}
        for one in self.ours:
            if shared := next((i for i in one.image_ids if i in first), None):
                reason = f"it shares image {shared} with {_named(first[shared])}"
                found[one.question_id] = _match(first[shared], "same_image", reason, 1.0)
        return found

    def similar_image(self) -> dict[str, Match]:
        ours, known = self._first_by_hash(self.ours), self._first_by_hash(self.known)
        nearest: dict[int, tuple[int, int]] = {}
        for mine, its in image_hash.close_pairs(ours, known, self.rule.max_hash_bits):
            near = (image_hash.distance(mine, its), its)
            nearest[mine] = min(near, nearest.get(mine, near))
        found: dict[str, Match] = {}
        shared = _first_by_image(self.known)
        for one in self.ours:
            for image_id in one.image_ids:
                value = self.hashes.get(image_id)
                if value is None or value not in nearest or image_id in shared:
                    continue  # a shared image is reported as such
                bits, hashed = nearest[value]
                its_image, other = known[hashed]
                reason = (
                    f"its image {image_id} looks like image {its_image} of {_named(other)} "
                    f"({bits} of 64 bits differ)"
                )
                close = 1 - bits / 64
                if one.question_id not in found or close > found[one.question_id].closeness:
                    found[one.question_id] = _match(other, "similar_image", reason, close)
        return found

    def same_words(self) -> tuple[dict[str, Match], dict[str, Match]]:
        """Return the matches by words that count, and those that do not."""
        n = self.rule.run_words
        of_text, ours_by_text = _by_text(self.known), _by_text(self.ours)
        where: dict[str, list[str]] = {}
        for text in of_text:
            for run in runs(text, n):
                where.setdefault(run, []).append(text)
        own = self._own_words()
        counting: dict[str, Match] = {}
        alone: dict[str, Match] = {}
        for text_of_ours, ones in ours_by_text.items():
            shared = Counter(t for run in runs(text_of_ours, n) for t in where.get(run, ()))
            near = [(count / len(runs(text, n)), text) for text, count in shared.items()]
            for share, text in sorted(near, key=lambda found: (-found[0], found[1])):
                if share < self.rule.min_overlap:
                    break
                akin = self._akin(ones, of_text[text])
                for one in ones:
                    other = akin.get(one.question_id, of_text[text][0])
                    has = f"it has {share:.0%} of the {n}-word runs of {_named(other)}"
                    if one.question_id in akin or own(text):
                        why = ", whose image is akin to its own" * (one.question_id in akin)
                        match = _match(other, "same_words", has + why, share)
                        counting.setdefault(one.question_id, match)
                    else:
                        match = _match(other, "words_alone", f"{has}, about another picture", share)
                        alone.setdefault(one.question_id, match)
        return counting, alone

    def _akin(
        self, ones: Sequence[ComparedQuestion], others: Sequence[ComparedQuestion]
    ) -> dict[str, ComparedQuestion]:
        """Return the one of `others` that shares an image with a question, or has an akin one."""
        by_image, by_hash = _first_by_image(others), self._first_by_hash(others)
        near: dict[int, ComparedQuestion] = {}
        for a, b in image_hash.close_pairs(
            self._first_by_hash(ones), by_hash, self.rule.max_akin_bits
        ):
            near.setdefault(a, by_hash[b][1])
        found: dict[str, ComparedQuestion] = {}
        for one in ones:
            for image_id in one.image_ids:
                value = self.hashes.get(image_id)
                its = by_image.get(image_id) or (None if value is None else near.get(value))
                if its:
                    found.setdefault(one.question_id, its)
        return found

    def _own_words(self) -> Callable[[str], bool]:
        """Return whether a text's words are its own, and not those of a template."""

        def pairs(text: str) -> set[tuple[str, ...]]:
            words = words_of(text)
            return set(runs_of(words, 2, full=True)) if len(words) > 1 else set()

        # By image: a benchmark may ask a question several times, with its options in other orders.
        use = [
            Counter(pair for pair, _ in {(p, o.image_ids) for o in side for p in pairs(o.text)})
            for side in (self.ours, self.known)
        ]
        rule = self.rule

        def own(text: str) -> bool:
            mine = pairs(text)
            rare = sum(all(side[pair] <= rule.max_pair_images for side in use) for pair in mine)
            enough = amount(words_of(text)) >= rule.min_own_words
            return enough and rare >= rule.min_own_pairs * len(mine)

        return own

    def _first_by_hash(
        self, questions: Iterable[ComparedQuestion]
    ) -> dict[int, tuple[str, ComparedQuestion]]:
        """Return the first image of each hash, with its question."""
        first: dict[int, tuple[str, ComparedQuestion]] = {}
        for one in questions:
            for image_id in one.image_ids:
                if (value := self.hashes.get(image_id)) is not None:
                    first.setdefault(value, (image_id, one))
        return first


def runs(text: str, n: int) -> frozenset[str]:
    """Return the distinct runs of `n` words of a question; a shorter one is a single run."""
    return frozenset(" ".join(run) for run in runs_of(words_of(text), n, full=True))


def _first_by_image(questions: Iterable[ComparedQuestion]) -> dict[str, ComparedQuestion]:
    return {i: one for one in reversed(list(questions)) for i in one.image_ids}


def _by_text(questions: Iterable[ComparedQuestion]) -> dict[str, list[ComparedQuestion]]:
    found: dict[str, list[ComparedQuestion]] = {}
    for one in questions:
        found.setdefault(one.text, []).append(one)
    return found


def _match(other: ComparedQuestion, way: str, reason: str, closeness: float) -> Match:
    return Match(other.question_id, other.set_name, way, reason, closeness)


def _named(other: ComparedQuestion) -> str:
    return f"question {other.question_id} of the evaluation set {other.set_name}"

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
from functools import cached_property, lru_cache

from pydantic import Field

from curation.filters import image_hash
from curation.filters.base import CORPUS, Filter
from curation.filters.words import amount, runs_of, words_of
from mcts.data import AnswerKind


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
    "ai2d", "blink", "hr-bench-4k", "hr-bench-8k", "mathvision", "mmmu", "pope", "realworldqa",
    "robospatial", "screenspot", "screenspot-pro", "screenspot-v2", "tree-bench",
    "visualwebarena", "vstar-bench", "wemath",
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
    choices: tuple[str, ...] = ()
    kind: AnswerKind = AnswerKind.TEXT
    """Of its answer; with the choices it says what an answer means."""

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
    evaluation: Iterable[ComparedQuestion],
    hashes: Mapping[str, int | None],
    rule: NotInEvaluation = DEFAULT,
) -> Contamination:
    """Compare training questions with evaluation questions.

    Args:
        hashes: perceptual hashes by image id; a missing or blank image matches by its id only.
    """
    ours = list(training)
    return Comparison(evaluation, hashes, lambda: ours, rule).compare(ours, hashes)


class Comparison:
    """Evaluation questions, made ready to compare training questions with them, part by part.

    Args:
        evaluation: every evaluation question.
        hashes: perceptual hashes of their images; a missing or blank one matches by its id only.
        training: gives all training questions, of which `compare` is given some at a time. It is
            called at most once, and only where it matters which words hardly a question uses.
    """

    def __init__(
        self,
        evaluation: Iterable[ComparedQuestion],
        hashes: Mapping[str, int | None],
        training: Callable[[], Iterable[ComparedQuestion]],
        rule: NotInEvaluation = DEFAULT,
    ) -> None:
        self._known = sorted(evaluation, key=lambda one: one.question_id)
        self._hashes, self._training, self._rule = hashes, training, rule
        self._by_text = _by_text(self._known)
        self._by_image = _first_by_image(self._known)
        self._by_hash = _first_by_hash(self._known, hashes)
        self._with_run: dict[str, list[str]] = {}
        self._run_counts: dict[str, int] = {}
        self._own: dict[str, bool] = {}
        """Of evaluation texts that were met, whether their words are their own."""
        for text in self._by_text:
            has = runs(text, rule.run_words)
            self._run_counts[text] = len(has)
            for run in has:
                self._with_run.setdefault(run, []).append(text)

    def compare(
        self, training: Iterable[ComparedQuestion], hashes: Mapping[str, int | None]
    ) -> Contamination:
        """Compare some training questions.

        Args:
            hashes: perceptual hashes of their images.
        """
        if not self._known:
            return Contamination({}, {})
        ours = sorted(training, key=lambda one: one.question_id)
        same_words, words_alone = self._same_words(ours, hashes)
        found: dict[str, list[Match]] = {}
        for matches in (self._same_image(ours), self._similar_image(ours, hashes), same_words):
            for question_id, match in matches.items():
                found.setdefault(question_id, []).append(match)
        return Contamination(
            found, {i: match for i, match in words_alone.items() if i not in found}
        )

    def _same_image(self, ours: Iterable[ComparedQuestion]) -> dict[str, Match]:
        first = self._by_image
        found: dict[str, Match] = {}
        for one in ours:
            if shared := next((i for i in one.image_ids if i in first), None):
                reason = f"it shares image {shared} with {_named(first[shared])}"
                found[one.question_id] = _match(first[shared], "same_image", reason, 1.0)
        return found

    def _similar_image(
        self, ours: Sequence[ComparedQuestion], hashes: Mapping[str, int | None]
    ) -> dict[str, Match]:
        known = self._by_hash
        nearest: dict[int, tuple[int, int]] = {}
        mine_by_hash = _first_by_hash(ours, hashes)
        for mine, its in image_hash.close_pairs(mine_by_hash, known, self._rule.max_hash_bits):
            near = (image_hash.distance(mine, its), its)
            nearest[mine] = min(near, nearest.get(mine, near))
        found: dict[str, Match] = {}
        for one in ours:
            for image_id in one.image_ids:
                value = hashes.get(image_id)
                if value is None or value not in nearest or image_id in self._by_image:
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

    def _same_words(
        self, ours: Sequence[ComparedQuestion], hashes: Mapping[str, int | None]
    ) -> tuple[dict[str, Match], dict[str, Match]]:
        """Return the matches by words that count, and those that do not."""
        n = self._rule.run_words
        counting: dict[str, Match] = {}
        alone: dict[str, Match] = {}
        near_images = {
            mine
            for mine, _ in image_hash.close_pairs(
                _first_by_hash(ours, hashes), self._by_hash, self._rule.max_akin_bits
            )
        }
        for text_of_ours, ones in _by_text(ours).items():
            may_be_akin = any(
                image_id in self._by_image or hashes.get(image_id) in near_images
                for one in ones for image_id in one.image_ids
            )  # fmt: skip
            shared = Counter(
                t for run in runs(text_of_ours, n) for t in self._with_run.get(run, ())
            )
            near = [(count / self._run_counts[text], text) for text, count in shared.items()]
            for share, text in sorted(near, key=lambda found: (-found[0], found[1])):
                if share < self._rule.min_overlap:
                    break
                left = [one for one in ones if one.question_id not in counting]
                if not left:
                    break  # the others have a match that shares as much or more
                akin = self._akin(left, self._by_text[text], hashes) if may_be_akin else {}
                for one in left:
                    other = akin.get(one.question_id, self._by_text[text][0])
                    has = f"it has {share:.0%} of the {n}-word runs of {_named(other)}"
                    if one.question_id in akin or self._own_words(text):
                        why = ", whose image is akin to its own" * (one.question_id in akin)
                        match = _match(other, "same_words", has + why, share)
                        counting[one.question_id] = match
                    else:
                        match = _match(other, "words_alone", f"{has}, about another picture", share)
                        alone.setdefault(one.question_id, match)
        return counting, alone

    def _akin(
        self,
        ones: Sequence[ComparedQuestion],
        others: Sequence[ComparedQuestion],
        hashes: Mapping[str, int | None],
    ) -> dict[str, ComparedQuestion]:
        """Return the one of `others` that shares an image with a question, or has an akin one."""
        by_image, by_hash = _first_by_image(others), _first_by_hash(others, self._hashes)
        near: dict[int, ComparedQuestion] = {}
        for a, b in image_hash.close_pairs(
            _first_by_hash(ones, hashes), by_hash, self._rule.max_akin_bits
        ):
            near.setdefault(a, by_hash[b][1])
        found: dict[str, ComparedQuestion] = {}
        for one in ones:
            for image_id in one.image_ids:
                value = hashes.get(image_id)
                its = by_image.get(image_id) or (None if value is None else near.get(value))
                if its:
                    found.setdefault(one.question_id, its)
        return found

    def _own_words(self, text: str) -> bool:
        """Return whether an evaluation text's words are its own, and not those of a template."""
        if text not in self._own:
            self._own[text] = self._has_own_words(text)
        return self._own[text]

    def _has_own_words(self, text: str) -> bool:
        if amount(words_of(text)) < self._rule.min_own_words:
            return False
        mine = _pairs(text)
        rare = sum(all(pair not in common for common in self._common) for pair in mine)
        return rare >= self._rule.min_own_pairs * len(mine)

    @cached_property
    def _common(self) -> list[set[tuple[str, ...]]]:
        """On either side, the pairs of words of evaluation questions that many images have.

        They are counted by image: a benchmark may ask a question several times, with its options in
        other orders.
        """
        every = {pair for text in self._by_text for pair in _pairs(text)}
        most = self._rule.max_pair_images
        sides: list[set[tuple[str, ...]]] = []
        for side in (self._training(), self._known):
            images: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
            common: set[tuple[str, ...]] = set()
            for one in side:
                for pair in (_pairs(one.text) & every) - common:
                    having = images.setdefault(pair, set())
                    having.add(one.image_ids)
                    if len(having) > most:
                        common.add(pair)
                        del images[pair]
            sides.append(common)
        return sides


def runs(text: str, n: int) -> frozenset[str]:
    """Return the distinct runs of `n` words of a question; a shorter one is a single run."""
    return frozenset(" ".join(run) for run in runs_of(words_of(text), n, full=True))


@lru_cache(maxsize=1 << 12)  # questions made by template repeat
def _pairs(text: str) -> frozenset[tuple[str, ...]]:
    words = words_of(text)
    return frozenset(runs_of(words, 2, full=True)) if len(words) > 1 else frozenset()


def _first_by_hash(
    questions: Iterable[ComparedQuestion], hashes: Mapping[str, int | None]
) -> dict[int, tuple[str, ComparedQuestion]]:
    """Return the first image of each hash, with its question."""
    first: dict[int, tuple[str, ComparedQuestion]] = {}
    for one in questions:
        for image_id in one.image_ids:
            if (value := hashes.get(image_id)) is not None:
                first.setdefault(value, (image_id, one))
    return first


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

"""A file says which filters run and with which values; what is wrong with it is one sentence."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from curation.filters import config, content, dedup
from curation.filters.base import Context, FilterProblem, TraceFilter, apply_filters
from curation.filters.config import (
    BUILT_IN,
    DEFAULT_FILTERS,
    describe_change,
    filters_yaml,
    load_filters,
    trace_filters,
)
from curation.filters.decontaminate import ComparedQuestion, NotInEvaluation, compare
from curation.filters.grounding import PointsOnTheirObjects
from curation.filters.minhash import BANDS, ROWS, copies, jaccard, rows_of_a_band, shingles
from curation.filters.rules import (
    InsideImage,
    NoRepeatedPoint,
    PointInEveryStep,
    RightAnswer,
    WellFormed,
)
from mcts.data import Box, Point, Step, Trace, Verdict
from mcts.parsing import points_in
from tests.support.scripted import QUESTION


def trace(*thoughts: str, **fields) -> Trace:
    steps = tuple(Step(thought, points_in(thought)) for thought in thoughts)
    made = Trace(QUESTION.question_id, steps, "left", 1.0, "direct")
    return replace(made, **fields)


def keeps(one: TraceFilter, of: Trace, *objects) -> bool:
    (verdict,) = apply_filters(of, QUESTION, [one], Context(objects))
    return verdict.keep


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        (tmp_path / "filters.yaml").write_text(text)
        return load_filters(tmp_path / "filters.yaml")

    return load


# ---- values move verdicts --------------------------------------------------------------------


def test_every_threshold_of_a_rule_moves_its_verdict():
    near = trace("A cup (100, 100).", "A lamp (130, 100).")  # 30 of 1000 px apart, or less
    share = 30 / max(QUESTION.images[0].width, QUESTION.images[0].height)
    assert keeps(NoRepeatedPoint(min_distance=share * 0.9), near)
    assert not keeps(NoRepeatedPoint(min_distance=share * 1.1), near)
    assert keeps(NoRepeatedPoint(min_distance=share * 1.1, max_repeats=1), near)
    half = replace(near, reward=0.5)
    assert not keeps(RightAnswer(), half) and keeps(RightAnswer(min_reward=0.5), half)
    bad = replace(near, problems=("no_answer",))
    assert not keeps(WellFormed(), bad) and keeps(WellFormed(ignored_problems=["no_answer"]), bad)
    assert not keeps(WellFormed(min_steps=3), near)
    some = trace("A cup (3, 4).", "Nothing here.", "A lamp (30, 40).")
    assert not keeps(PointInEveryStep(), some) and keeps(PointInEveryStep(min_share=0.6), some)
    out = trace("A cup (-5, 4).")
    assert not keeps(InsideImage(), out) and keeps(InsideImage(max_outside=1), out)
    boxes = (Box(0, 0, 9, 9, label="cup"),)
    wrong = trace("The cup (3, 4).", "The cup (90, 90).")
    assert not keeps(PointsOnTheirObjects(), wrong, boxes)
    assert keeps(PointsOnTheirObjects(min_share=0.5), wrong, boxes)
    card = trace("Ask jane@acme.org (3, 4).")
    assert not keeps(content.NoPersonalData(), card)
    assert keeps(content.NoPersonalData(max_found=1), card)


def test_copies_are_nearer_or_farther_by_similarity_cells_and_hash_bits():
    words = [f"word{i}" for i in range(40)]
    one, other = " ".join(words), " ".join([*words[:35], "a", "b", "c", "d", "e"])
    documents = [
        dedup.Document(i, "direct", "left", ("p",), t) for i, t in (("a", one), ("b", other))
    ]
    found = jaccard(shingles(one), shingles(other))
    assert dedup.find_copies(documents, dedup.NoNearCopy(min_similarity=found - 0.01))
    assert not dedup.find_copies(documents, dedup.NoNearCopy(min_similarity=found + 0.01))
    size = [(320, 320)]
    a, b = "The cup (100, 100).", "The cup (109, 100)."
    assert dedup.canonical(a, size) == dedup.canonical(b, size)
    assert dedup.canonical(a, size, 320) != dedup.canonical(b, size, 320)


def test_without_the_filter_of_exact_copies_that_of_near_ones_finds_them():
    twins = [dedup.Document(i, "direct", "left", ("p",), "the very same words") for i in "ab"]
    assert dedup.near_copies(twins, dedup.NoNearCopy()) == {"b": dedup.Copy("a", 1.0, False)}


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_bands_are_as_short_as_a_low_similarity_needs(threshold: float):
    rows = rows_of_a_band(threshold)
    assert 1 - (1 - threshold**rows) ** (BANDS * ROWS // rows) >= 0.9
    assert rows_of_a_band(0.8) == ROWS, "verdicts name this many"
    words = [f"word{i}" for i in range(200)]
    texts = [" ".join(words), " ".join([*words[: int(200 * threshold) + 20], *"abcdefghij"])]
    cut = [shingles(text) for text in texts]
    similar = jaccard(*cut) >= threshold
    assert (copies(cut, [0, 0], threshold)[1] is not None) == similar


def test_decontamination_is_stricter_or_looser_by_its_values():
    held = [ComparedQuestion("e", "sat2", "test", "Which cup?", ("x",))]
    ours = [ComparedQuestion("t", "sat2", "train", "What is red?", ("y",))]
    hashes = {"x": 0, "y": 0b1111}
    assert compare(ours, held, hashes).contaminated
    assert not compare(ours, held, hashes, NotInEvaluation(max_hash_bits=3)).contaminated
    akin = [ComparedQuestion("t", "sat2", "train", "Which cup?", ("y",))]
    hashes = {"x": 0, "y": 2**9 - 1}
    assert compare(akin, held, hashes).contaminated
    assert not compare(akin, held, hashes, NotInEvaluation(max_akin_bits=8)).contaminated


# ---- what is recorded ------------------------------------------------------------------------


def test_the_default_filters_record_what_they_always_did():
    copies_method = "minhash/2 3-words 20x6 seed 1 >= 0.8, 32 cells"
    assert [(one.name, one.stage, one.method) for one in DEFAULT_FILTERS] == [
        ("right_answer", None, "rules/4"),
        ("well_formed", None, "rules/4"),
        ("point_in_every_step", None, "rules/4"),
        ("inside_image", None, "rules/4"),
        ("no_repeated_point", None, "rules/4"),
        ("points_on_their_objects", None, "rules/4"),
        ("no_personal_data", "corpus", "rules/2"),
        (
            "not_in_evaluation",
            "corpus",
            "same_image: sha-256 of the encoded bytes; similar_image: dct-phash/1 <= 6 of 64 bits; "
            "same_words: 8-grams/2 >= 0.5, and dct-phash/1 <= 12 or 12 words with 0.75 of pairs of "
            "at most 3 pictures a side",
        ),
        ("no_exact_copy", "corpus", copies_method),
        ("no_near_copy", "corpus", copies_method),
    ]


def test_a_method_says_which_values_are_not_the_default():
    assert NoRepeatedPoint(min_distance=0.02).method == "rules/4 min_distance=0.02"
    assert NoRepeatedPoint(min_distance=0.01).method == "rules/4"
    assert dedup.NoNearCopy(cells=16, min_similarity=0.9).method == (
        "minhash/2 cells=16 min_similarity=0.9"
    )
    assert WellFormed(ignored_problems=["a b", "c"]).method == "rules/4 ignored_problems=a_b,c"


def test_a_change_of_values_is_told_by_name_from_old_to_new():
    default, changed = dedup.NoNearCopy(), dedup.NoNearCopy(min_similarity=0.9)
    assert describe_change("no_near_copy", default.method, changed.method) == (
        "min_similarity 0.8 -> 0.9"
    )
    assert describe_change("no_repeated_point", None, "rules/4 min_distance=0.02") == (
        "min_distance 0.01 -> 0.02"
    )
    assert describe_change("no_repeated_point", "rules/4", None) == ""
    assert describe_change("mine", "mine:short/1 max_steps=4", "mine:short/1 max_steps=9") == (
        "max_steps 4 -> 9"
    )
    assert describe_change("no_toxic_text", "p/1 < 0.9", "p/1 < 0.8") == "p/1 < 0.9 -> p/1 < 0.8"


# ---- the file --------------------------------------------------------------------------------


def test_filters_run_in_the_order_of_the_file_and_no_others(load):
    filters = load("filters: [well_formed, no_near_copy, {right_answer: {min_reward: 0.5}}]")
    assert [one.name for one in filters] == ["well_formed", "no_near_copy", "right_answer"]
    verdicts = apply_filters(trace("A cup (3, 4)."), QUESTION, trace_filters(filters, None))
    assert [verdict.filter for verdict in verdicts] == ["well_formed", "right_answer"]


def test_what_the_list_command_prints_is_the_default_as_a_file(load):
    text = filters_yaml()
    assert load(text) == DEFAULT_FILTERS
    for name, kind in BUILT_IN.items():
        assert f"- {name}:" in text
        for field in kind.model_fields.values():
            assert field.description and " ".join(field.description.split()[:4]) in text
    uncommented = re.sub(r"^#(  .*)$", r"\1", text, flags=re.MULTILINE)
    assert "\n  - no_toxic_text:" in uncommented


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("filters: [right_answer", "line 1: expected ',' or ']'"),
        ("[right_answer]", "it must hold one list, `filters:`"),
        ("filters: []", "it must hold one list, `filters:`"),
        ("filters: {right_answer: 1}", "must be a list"),
        ("filter: [right_answer]", "it must hold one list, `filters:`"),
        ("filters: [3]", "entry 1: it must be a name, or name: {value: ...} (it was 3)"),
        (
            "filters: [right_answer, right_anwser]",
            "entry 2 (right_anwser): there is no such filter; there are: right_answer,",
        ),
        (
            "filters: [no_repeated_point: {min_distance: 3}]",
            "entry 1 (no_repeated_point): min_distance: Input should be less than or equal to 1 "
            "(it was 3)",
        ),
        (
            "filters: [no_repeated_point: {radius: 3}]",
            "entry 1 (no_repeated_point): radius: no such value; there are: min_distance, "
            "max_repeats",
        ),
        ("filters: [right_answer, right_answer]", "entry 2 (right_answer): a filter of that name"),
        ("filters: [no_near_copy]", "it names no filter of single traces"),
        ("filters: [no_such_module_x:f]", "entry 1 (no_such_module_x:f): it cannot be loaded: No"),
        ("filters: [json:loads2]", "entry 1 (json:loads2): it cannot be loaded: module 'json'"),
        ("filters: [json:JSONDecoder]", "neither a class derived from TraceFilter nor a function"),
    ],
)
def test_a_bad_file_is_named_with_its_entry_and_field(load, tmp_path, text, sentence):
    with pytest.raises(FilterProblem) as problem:
        load(text)
    said = str(problem.value)
    assert said.startswith(str(tmp_path / "filters.yaml")) and sentence in said
    assert "\n" not in said


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FilterProblem, match=r"nothing\.yaml: No such file"):
        load_filters(tmp_path / "nothing.yaml")


# ---- filters of others -----------------------------------------------------------------------

OWN = """
from pydantic import Field
from curation.filters.base import TraceFilter
from mcts.data import Verdict

class Short(TraceFilter):
    name = "short"
    maker = "own/3"
    max_steps: int = Field(2, ge=1, description="steps of a trace")

    def apply(self, trace, question, context):
        return Verdict("whatever", len(trace.steps) <= self.max_steps, "too long")

def brief(trace, question, *, max_words: int = 5):
    n = sum(len(step.thought.split()) for step in trace.steps)
    return Verdict("brief", n <= max_words, f"{n} words", float(n))

def right_answer(trace, question):
    return Verdict("right_answer", True, "")

def bare(trace, question, words):
    return Verdict("bare", True, "")
"""


def test_an_own_filter_is_a_class_or_a_function_beside_the_file(load, tmp_path):
    (tmp_path / "own_filters_a.py").write_text(OWN)
    short, brief = load(
        "filters: [own_filters_a:Short: {max_steps: 1}, own_filters_a:brief: {max_words: 9}]"
    )
    assert (short.name, short.method) == ("short", "own/3 max_steps=1")
    assert (brief.name, brief.method) == ("brief", "own_filters_a:brief max_words=9")
    two = trace("A cup (3, 4).", "Another cup, on the table over there (30, 40).")
    verdicts = apply_filters(two, QUESTION, [short, brief])
    assert [(v.filter, v.keep) for v in verdicts] == [("short", False), ("brief", False)]
    assert keeps(load("filters: [own_filters_a:Short]")[0], two)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("own_filters_b:Short: {max_steps: 0}", "max_steps: Input should be greater than or equal"),
        ("own_filters_b:brief: {max_words: many}", "max_words: Input should be a valid integer"),
        ("own_filters_b:right_answer", "the name right_answer is taken"),
        ("own_filters_b:bare", "its parameters need default values"),
    ],
)
def test_what_is_wrong_with_an_own_filter_is_said(load, tmp_path, entry, sentence):
    (tmp_path / "own_filters_b.py").write_text(OWN)
    with pytest.raises(FilterProblem, match=sentence):
        load(f"filters: [{entry}]")


class EntryPointStub:
    """An entry point of some package."""

    dist = None

    def __init__(self, name, made):
        self.name, self.value, self.made = name, f"package:{name}", made

    def load(self):
        return self.made


def test_filters_of_packages_run_when_they_are_named_and_only_then(load, monkeypatch):
    def judge(trace, question, images):
        return Verdict("no_bad_words", not images(), "bad")

    def few(trace, question, *, max_steps: int = 1):
        return Verdict("few", len(trace.steps) <= max_steps, "many")

    points = {
        config.GROUP: [EntryPointStub("few", few)],
        content.GROUP: [
            EntryPointStub(
                "words", lambda: content.ContentFilter("no_bad_words", "words/1", judge)
            ),
            EntryPointStub(
                "taken", lambda: content.ContentFilter("right_answer", "words/1", judge)
            ),
        ],
    }
    monkeypatch.setattr(config, "entry_points", lambda group: points.get(group, []))
    assert load("filters: [right_answer]") == (RightAnswer(),)
    few_steps, words, right = load("filters: [few: {max_steps: 3}, no_bad_words, right_answer]")
    assert few_steps.method == "package:few max_steps=3"
    assert (words.name, words.method, words.stage) == ("no_bad_words", "words/1", "corpus")
    assert right == RightAnswer(), "a package cannot replace a built-in filter"
    assert keeps(words, trace("A cup (3, 4).")) and keeps(few_steps, trace("A cup (3, 4)."))
    assert "- few" in filters_yaml() and "- words" in filters_yaml()
    with pytest.raises(FilterProblem, match=r"there are: right_answer, .*few, words"):
        load("filters: [nothing]")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise ValueError('oh no')", "failed on trace .*: ValueError: 'oh no'"),
        ("raise SystemExit(0)", "failed on trace .*: SystemExit"),
        ("return None", "returned None, which is no Verdict"),
        ("return Verdict('x', 'yes', '')", "keep is 'yes', not True or False"),
        ("return Verdict('x', True, '\\ud800')", "reason is no text"),
        ("return Verdict('x', True, '', float('nan'))", "score is nan"),
    ],
)
def test_what_a_filter_of_the_users_own_does_wrong_is_a_sentence(
    tmp_path, monkeypatch, body, sentence
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(
        f"from mcts.data import Verdict\ndef own(trace, question):\n    {body}\n"
    )
    file = tmp_path / "filters.yaml"
    file.write_text(f"filters: [right_answer, '{name}:own']")
    trace = Trace("q", (Step("A cup (1, 2).", (Point(1, 2),)),), "yes", 1.0, "direct")
    with pytest.raises(FilterProblem, match=f"^the filter own .*{sentence}"):
        apply_filters(trace, QUESTION, trace_filters(load_filters(file), None))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def own(trace): ...", "must take a trace and its question"),
        ("def own(trace, question, stage=1): ...", "cannot be called stage"),
        ("raise SystemExit(0)", "it cannot be loaded"),
    ],
)
def test_a_filter_that_cannot_work_is_refused_when_it_is_loaded(tmp_path, text, sentence) -> None:
    name = f"refused_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "filters.yaml").write_text(f"filters: [right_answer, '{name}:own']")
    with pytest.raises(FilterProblem, match=sentence):
        load_filters(tmp_path / "filters.yaml")

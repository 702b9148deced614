"""The second pass over a growing warehouse: it reads what is new, and says what a full one says."""

import random
from dataclasses import replace

import pytest

from curation.filters import image_hash
from curation.filters.config import DEFAULT_FILTERS
from curation.filters.decontaminate import NotInEvaluation
from curation.filters.dedup import NoExactCopy, NoNearCopy
from flows.stages.corpus import passes, workers
from tests.support.sat_files import row, sat2
from tests.warehouse.test_dedup_corpus import (
    SAYINGS,
    commit,
    corpus,
    dropped,
    questions,
    scene,
    smaller,
    traced,
)
from warehouse.maintenance.compact import compact
from warehouse.maintenance.delete import delete_source
from warehouse.query import corpus_parts
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_questions

OWN = "Which of the {} small brass figures by the broken window wears the {} hat of straw today?"
TEMPLATE = "Is the cup left of lamp {}?"


def ask(warehouse, folder, rng, split, source, n=1):
    """Import questions about pictures that are new, seen before, or like one seen before."""
    rows = []
    for _ in range(n):
        data = scene(rng.randrange(20))
        data = smaller(data) if rng.random() < 0.3 else data
        text = OWN.format(rng.randrange(2), rng.randrange(2)) if rng.random() < 0.4 else TEMPLATE
        rows.append(row(0, data, question=text.format(rng.randrange(30))))
    file = sat2(folder / f"{rng.random()}.parquet", rows)
    import_questions(warehouse, "sat2", file, split=split, licence="MIT", source=source)


def trace_some(warehouse, rng, n=1):
    """Commit traces, some of which say what others say."""
    asked = list(read_questions(warehouse, "sat2"))
    for question in rng.sample(asked, min(n, len(asked))):
        words = list(rng.choice(SAYINGS).split(" "))
        words[rng.randrange(len(words))] = rng.choice(["blue", "old", words[0]])
        said = [" ".join(words), *rng.sample(SAYINGS, 2)]
        if rng.random() < 0.2:
            said.append("Write to jane@acme.org, who has seen it (3, 4).")
        answer = rng.choice(["left", "left", "right"])
        trace = replace(traced(question, *said, answer=answer), maker="linearize/1")
        tree = f"tree {rng.randrange(40)} of {question.question_id}"
        later = replace(trace, tree_id=tree, maker=f"linearize/{rng.randint(1, 2)}")
        commit(warehouse, question, trace, *([later] if rng.random() < 0.3 else []))


def judge_again(warehouse, rng):
    traces = query(warehouse, "SELECT trace_id FROM traces ORDER BY 1")["trace_id"].to_pylist()
    for trace_id in rng.sample(traces, min(2, len(traces))):
        rows = query(
            warehouse, f"SELECT max(version) AS v FROM verdicts WHERE trace_id = '{trace_id}'"
        )
        version = rows["v"].to_pylist()[0] + 1
        verdict = {"trace_id": trace_id, "filter": "right_answer", "version": version}
        insert_new(warehouse, "verdicts", [{**verdict, "keep": rng.random() < 0.5}])


def choose_filters(rng):
    kept = [one for one in DEFAULT_FILTERS if rng.random() < 0.9 or one.stage is None]
    changed = {
        "no_exact_copy": NoExactCopy(max_hash_bits=rng.choice([0, 6])),
        "no_near_copy": NoNearCopy(max_hash_bits=rng.choice([6, 12]), min_similarity=0.6),
        "not_in_evaluation": NotInEvaluation(max_akin_bits=rng.choice([6, 16])),
    }
    return [changed.get(one.name, one) if rng.random() < 0.5 else one for one in kept]


def note_of(warehouse):
    return warehouse.objects.get(passes._note_key("sat2"))


def state(warehouse):
    tables = ("verdicts", "folds")
    return [query(warehouse, f"FROM {table} ORDER BY ALL").to_pylist() for table in tables]


# More of them: pytest -m slow tests/warehouse/test_corpus_growth.py
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]
)
def test_a_pass_over_what_is_new_says_what_a_pass_over_everything_says(tmp_path, seed, monkeypatch):
    rng = random.Random(seed)
    warehouse = Warehouse(str(tmp_path / "home"))
    filters = DEFAULT_FILTERS
    ask(warehouse, tmp_path, rng, "train", "a", 12)
    trace_some(warehouse, rng, 12)
    monkeypatch.setattr(corpus_parts, "PART", 3)
    monkeypatch.setattr(corpus_parts, "ROUND", 7)
    monkeypatch.setattr(passes, "_COMMIT_ROWS", 8)
    monkeypatch.setattr(workers, "MOST_PROCESSES", 1 + seed % 2)
    for turn in range(12 if seed else 5):
        kind = rng.random()
        if kind < 0.3:
            ask(warehouse, tmp_path, rng, "train", rng.choice("ab"))
        elif kind < 0.45:
            ask(warehouse, tmp_path, rng, "test", "c")
        elif kind < 0.55:
            judge_again(warehouse, rng)
        elif kind < 0.62:
            compact(warehouse)
        elif kind < 0.7:
            filters = choose_filters(rng)
        elif kind < 0.73 and turn > 5:
            delete_source(warehouse, "b", force=True)
        else:
            trace_some(warehouse, rng)
        corpus(warehouse, filters)
        note, told = note_of(warehouse), state(warehouse)
        warehouse.objects.delete(passes._note_key("sat2"))
        assert corpus(warehouse, filters) == 0, f"turn {turn}"
        assert state(warehouse) == told, f"turn {turn}"
        path = tmp_path / "home" / passes._note_key("sat2")
        path.write_bytes(note)


@pytest.fixture
def two(tmp_path):
    """Two training questions."""
    warehouse = Warehouse(str(tmp_path / "home"))
    questions(warehouse, tmp_path, "train", [(i, scene(i)) for i in range(2)])
    return warehouse, *read_questions(warehouse)


def test_what_is_new_is_compared_with_what_was_there(two, tmp_path, monkeypatch):
    warehouse, one, another = two
    commit(warehouse, one, traced(one, *SAYINGS))
    commit(warehouse, another, traced(another, SAYINGS[0]))
    assert corpus(warehouse) == 2
    read = []
    parts = corpus_parts.read_parts
    monkeypatch.setattr(
        passes, "read_parts", lambda con, task, groups, content: parts(
            con, task, read.extend(groups) or groups, content
        )
    )  # fmt: skip
    assert corpus(warehouse) == 0 and read == [], "nothing is new"
    same = [(i, scene(i)) for i in range(2) if f"lamp {i}" in one.text]
    questions(warehouse, tmp_path, "train", same, "Is the cup round? {}")
    (other,) = (q for q in read_questions(warehouse) if q.text.startswith("Is the cup round?"))
    commit(warehouse, other, traced(other, *SAYINGS))
    corpus(warehouse)
    assert [set(group) for group in read] == [{one.question_id, other.question_id}]
    ((_, name),) = dropped(warehouse)
    assert name == "no_exact_copy"


def test_words_that_training_questions_make_common_contaminate_no_longer(two, tmp_path):
    warehouse, *_ = two
    own = "Which of the small brass figures by the broken window wears the tall hat of straw today?"
    questions(warehouse, tmp_path, "test", [(0, scene(40))], own)
    questions(warehouse, tmp_path, "train", [(0, scene(41))], own)
    known = next(q for q in read_questions(warehouse, split="train") if q.text == own)
    commit(warehouse, known, traced(known, SAYINGS[0]))
    corpus(warehouse)
    assert [name for _, name in dropped(warehouse)] == ["not_in_evaluation"]
    questions(warehouse, tmp_path, "train", [(i, scene(i)) for i in range(50, 54)], own)
    assert corpus(warehouse) == 1
    assert dropped(warehouse) == {}


def test_an_image_that_links_two_others_has_their_questions_compared(two, tmp_path):
    """Whatever question shows it: hashes that differ in ten bits, and one between them."""
    warehouse, one, another = two

    def hashed(questions, value):
        ids = [image.image_id for question in questions for image in question.images]
        rows = [{"image_id": i, "method": image_hash.METHOD, "hash": value} for i in ids]
        assert insert_new(warehouse, "image_hashes", rows)

    hashed([one], f"{0:016x}")
    hashed([another], f"{0b1111111111:016x}")
    for question in (one, another):
        commit(warehouse, question, traced(question, *SAYINGS))
    filters = [one for one in DEFAULT_FILTERS if one.name != "not_in_evaluation"]
    assert corpus(warehouse, filters) == 2 and dropped(warehouse) == {}
    questions(warehouse, tmp_path, "test", [(9, scene(9))], "How many chairs does room {} have?")
    hashed(read_questions(warehouse, split="test"), f"{0b11111:016x}")
    assert corpus(warehouse, filters) > 0
    assert [name for _, name in dropped(warehouse)] == ["no_exact_copy"]

"""The second pass on a real warehouse: what it drops and why, what grows, what is reported."""

import asyncio
import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from PIL import Image

from curation.filters.base import apply_filters
from curation.filters.config import DEFAULT_FILTERS
from curation.filters.rules import FILTERS
from flows.cli import app as cli
from flows.stages.corpus import passes
from flows.stages.corpus.passes import filter_corpus
from mcts.data import Step, Trace
from mcts.parsing import points_in
from tests.support.sat_files import picture, row, sat2
from warehouse.query import corpus_parts
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new
from warehouse.tables.rows import read_questions, trace_rows, verdict_row
from warehouse.tables.schema import TABLES
from warehouse.versions.versions import open_version, publish, show

SIZE = (120, 90)
SAYINGS = (
    "The cup is standing here on the small round table (20, 30), close to the edge of it.",
    "Behind the sofa there is a tall lamp with a green shade (80, 40), lit from below.",
    "A window fills most of the wall on that side (100, 20), and nothing is in front of it.",
)


def smaller(data):
    with Image.open(io.BytesIO(data)) as shown:
        file = io.BytesIO()
        shown.convert("RGB").resize((84, 63)).save(file, "JPEG", quality=60)
    return file.getvalue()


def scene(i):
    """A picture that is its own however it is encoded: coarse blocks, no noise."""
    with Image.open(io.BytesIO(picture(i, size=(8, 6)))) as small:
        file = io.BytesIO()
        small.resize(SIZE, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def questions(warehouse, folder, split, scenes, text="Is the cup left of lamp {}?"):
    rows = [row(i, data, question=text.format(i)) for i, data in scenes]
    file = sat2(folder / f"{split}-{len(rows)}-{scenes[0][0]}.parquet", rows)
    import_questions(warehouse, "sat2", file, split=split, licence="MIT")
    return {q.text: q for q in read_questions(warehouse)}


def traced(question, *thoughts, answer="left", kind="direct"):
    steps = tuple(Step(thought, points_in(thought)) for thought in thoughts)
    return Trace(question.question_id, steps, answer, float(answer == "left"), kind)


def commit(warehouse, question, *traces, judged=True):
    rows, steps, verdicts = [], [], []
    for trace in traces:
        text = " ".join(step.thought for step in trace.steps)
        trace_row, its_steps = trace_rows(trace, task="sat2", text=text, model="teacher@1")
        rows.append(trace_row)
        steps += its_steps
        if judged:
            verdicts += [
                verdict_row(trace.trace_id, v, 7) for v in apply_filters(trace, question, FILTERS)
            ]
    commit_traces(warehouse, rows, steps=steps, verdicts=verdicts, run_id="r")
    return [trace.trace_id for trace in traces]


def corpus(warehouse, filters=DEFAULT_FILTERS):
    return asyncio.run(filter_corpus(warehouse, "c", "sat2", filters))


def kept(warehouse):
    return set(query(warehouse, "SELECT trace_id FROM kept_traces")["trace_id"].to_pylist())


def dropped(warehouse):
    sql = "SELECT * FROM latest_verdicts WHERE stage = 'corpus' AND NOT keep"
    return {(r["trace_id"], r["filter"]): r for r in query(warehouse, sql).to_pylist()}


@pytest.fixture
def filled(tmp_path):
    """Three training questions; every trace below is right and well formed by itself."""
    warehouse = Warehouse(str(tmp_path / "home"))
    by_text = questions(warehouse, tmp_path, "train", [(i, scene(i)) for i in range(3)])
    return warehouse, [by_text[f"Is the cup left of lamp {i}?"] for i in range(3)]


def test_copies_are_dropped_once_with_the_trace_they_copy(filled):
    warehouse, (one, two, _) = filled
    a, b, c = SAYINGS
    first = traced(one, a, b, c)
    word_for_word = replace(first, steps=(Step(a.upper(), first.steps[0].points), *first.steps[1:]))
    nearly = traced(one, a, b, c.replace("fills most of", "is in"))
    wrong = traced(one, a, b, c, answer="right")
    elsewhere = traced(two, a, b, c)
    ids = commit(warehouse, one, first, word_for_word, nearly, wrong)
    (other,) = commit(warehouse, two, elsewhere)
    assert kept(warehouse) == {*ids[:3], other}
    assert corpus(warehouse) == 5
    found = dropped(warehouse)
    (left,) = kept(warehouse) - {other}
    assert {trace_id for trace_id, _ in found} == set(ids[:3]) - {left}, "not the wrong one, too"
    for (trace_id, name), verdict in found.items():
        assert verdict["other"] == left and left in verdict["reason"]
        exact = {trace_id, left} == set(ids[:2])
        assert name == ("no_exact_copy" if exact else "no_near_copy")
        assert "minhash/2" in verdict["method"]
    funnel = {r["filter"]: r for r in query(warehouse, "FROM verdict_funnel").to_pylist()}
    assert sum(funnel[name]["dropped"] for name in ("no_exact_copy", "no_near_copy")) == 2
    assert funnel["right_answer"]["dropped"] == 1


def test_how_its_answer_is_spelled_makes_no_other_trace_of_a_copy(filled):
    warehouse, (one, *_) = filled
    first = traced(one, *SAYINGS)
    ids = commit(warehouse, one, first, replace(first, answer="(A) Left."))
    corpus(warehouse)
    ((trace_id, name),) = dropped(warehouse)
    assert trace_id in ids and name == "no_exact_copy"


def test_what_an_evaluation_set_knows_is_dropped_with_the_question_and_the_way(filled, tmp_path):
    warehouse, trained = filled
    ids = [commit(warehouse, q, traced(q, SAYINGS[i]))[0] for i, q in enumerate(trained)]
    corpus(warehouse)
    assert kept(warehouse) == set(ids)
    held = [(10, scene(0)), (11, smaller(scene(1)))]
    by_text = questions(warehouse, tmp_path, "test", held, "What colour is vase {}?")
    assert corpus(warehouse) == 2, "only those whose verdict changed are judged anew"
    assert kept(warehouse) == {ids[2]}
    found = dropped(warehouse)
    same, alike = (found[ids[i], "not_in_evaluation"] for i in (0, 1))
    assert same["other"] == by_text["What colour is vase 10?"].question_id
    assert "it shares image" in same["reason"] and "set sat2/test" in same["reason"]
    assert alike["other"] == by_text["What colour is vase 11?"].question_id
    assert "looks like image" in alike["reason"]
    versions = "SELECT DISTINCT trace_id, version FROM latest_verdicts WHERE stage = 'corpus'"
    assert {r["trace_id"]: r["version"] for r in query(warehouse, versions).to_pylist()} == {
        ids[0]: 2, ids[1]: 2, ids[2]: 1,
    }  # fmt: skip


def test_judging_again_adds_nothing_and_leaves_the_other_filters_alone(filled):
    warehouse, (one, *_) = filled
    commit(warehouse, one, traced(one, SAYINGS[0]), traced(one, SAYINGS[1]))
    alone = query(warehouse, "FROM latest_verdicts ORDER BY ALL").to_pylist()
    assert corpus(warehouse) == 2
    before = query(warehouse, "FROM verdicts ORDER BY ALL").to_pylist()
    assert corpus(warehouse) == 0
    assert query(warehouse, "FROM verdicts ORDER BY ALL").to_pylist() == before
    sql = "FROM latest_verdicts WHERE stage IS NULL ORDER BY ALL"
    assert query(warehouse, sql).to_pylist() == alone


def test_a_filter_that_no_longer_runs_is_out_and_so_is_one_of_the_other_stage(filled):
    warehouse, (one, *_) = filled
    trace = traced(one, SAYINGS[0].replace("cup", "card of jane@acme.org"))
    (trace_id,) = commit(warehouse, one, trace)
    corpus(warehouse)
    assert kept(warehouse) == set()
    assert dropped(warehouse)[trace_id, "no_personal_data"]["reason"] == (
        "step 1 holds an e-mail address"
    )
    others = [one for one in DEFAULT_FILTERS if one.name != "no_personal_data"]
    assert corpus(warehouse, others) == 1
    assert kept(warehouse) == {trace_id}
    # The stages' versions are counted apart: a first filter of a newer version 8 ends version 7
    # of its own stage only.
    newer = {"trace_id": trace_id, "filter": "right_answer", "version": 8, "keep": True}
    insert_new(warehouse, "verdicts", [newer])
    names = query(warehouse, "SELECT filter FROM latest_verdicts ORDER BY filter")
    assert names["filter"].to_pylist() == [
        "no_exact_copy", "no_near_copy", "not_in_evaluation", "right_answer",
    ]  # fmt: skip


def test_only_traces_with_signs_of_personal_data_are_read_whole(filled, tmp_path, monkeypatch):
    warehouse, (one, two, _) = filled
    asked = questions(warehouse, tmp_path, "train", [(4, scene(4))], "Who is max@uni-bonn.de?")
    (signed,) = (q for q in asked.values() if "@" in q.text)
    plain = commit(warehouse, one, traced(one, *SAYINGS), traced(one, "红色的椅子在这里 (3, 4)。"))
    found = commit(
        warehouse,
        two,
        traced(two, SAYINGS[0], "Call (212) 736-5000 now (5, 6)."),
        traced(two, "请拨打 ＋４９ ３０ ９０１８２０ 找他 (3, 4)。"),
        traced(two, SAYINGS[1], answer="jane@acme.org"),
    )
    found += commit(warehouse, signed, traced(signed, SAYINGS[2]))
    options = [row(5, scene(5), question="Whose card?", answers=["left", "jane@acme.org"])]
    import_questions(warehouse, "sat2", sat2(tmp_path / "options.parquet", options), split="train")
    (optional,) = (q for q in read_questions(warehouse) if q.text == "Whose card?")
    found += commit(warehouse, optional, traced(optional, SAYINGS[0]))
    read = {}
    parts = corpus_parts.read_parts

    def noted(*given):
        for part in parts(*given):
            read.update(part.unfiltered)
            yield part

    monkeypatch.setattr(passes, "read_parts", noted)
    corpus(warehouse)
    assert set(read) == set(found)
    assert {i for i, name in dropped(warehouse) if name == "no_personal_data"} == set(found)
    sql = "FROM latest_verdicts WHERE filter = 'no_personal_data' AND keep"
    rows = query(warehouse, sql).to_pylist()
    assert {(r["trace_id"], r["reason"], r["score"], r["method"]) for r in rows} == {
        (trace_id, "", 0.0, "rules/2") for trace_id in plain
    }


def test_a_trace_that_no_filter_has_judged_is_not_kept_by_the_second_pass(filled):
    warehouse, (one, *_) = filled
    commit(warehouse, one, traced(one, SAYINGS[0]), judged=False)
    assert corpus(warehouse) == 0
    assert kept(warehouse) == set()


def test_verdicts_written_before_there_were_stages_still_count(filled):
    warehouse, (one, *_) = filled
    table = TABLES["verdicts"]
    old = [f for f in table.schema if f.name not in ("stage", "method", "other")]
    DeltaTable.create(warehouse.table_uri("verdicts"), pa.schema(old))
    trace = traced(one, SAYINGS[0])
    rows, steps = trace_rows(trace, task="sat2", text=SAYINGS[0])
    verdicts = [verdict_row(trace.trace_id, v, 1) for v in apply_filters(trace, one, FILTERS)]
    commit_traces(warehouse, [rows], steps=steps, verdicts=verdicts, run_id="old")
    assert kept(warehouse) == {trace.trace_id}
    assert corpus(warehouse) == 1 and corpus(warehouse) == 0
    assert kept(warehouse) == {trace.trace_id}


def test_two_passes_at_once_say_it_once(filled):
    warehouse, (one, *_) = filled
    commit(warehouse, one, *(traced(one, s) for s in SAYINGS))
    with ThreadPoolExecutor(3) as pool:
        changed = list(pool.map(lambda _: corpus(Warehouse(warehouse.root)), range(3)))
    assert sorted(changed) == [0, 0, 3]
    sql = "SELECT max(version) AS v, count(*) AS n FROM verdicts WHERE stage = 'corpus'"
    assert query(warehouse, sql).to_pylist() == [{"v": 1, "n": 3 * 4}]


# ---- the split, the certificate, the gallery ------------------------------------------------


def folds(warehouse):
    rows = query(warehouse, "SELECT question_id, group_id, place, fold FROM question_folds")
    return {r.pop("question_id"): r for r in rows.to_pylist()}


def test_questions_about_similar_images_share_a_side_that_growth_does_not_change(filled, tmp_path):
    warehouse, trained = filled
    assert {side["fold"] for side in folds(warehouse).values()} == {None}, "not placed yet"
    corpus(warehouse)
    before = folds(warehouse)
    assert len({side["group_id"] for side in before.values()}) == 3
    grown = [(10, smaller(scene(0))), *((i, scene(i)) for i in range(20, 60))]
    by_text = questions(warehouse, tmp_path, "train", grown)
    questions(warehouse, tmp_path, "test", [(70, scene(70))])
    questions(warehouse, tmp_path, "train", [(i, scene(i)) for i in range(3)])  # again
    corpus(warehouse)
    after = folds(warehouse)
    assert all(after[q]["place"] == side["place"] for q, side in before.items())
    first, copy = trained[0].question_id, by_text["Is the cup left of lamp 10?"].question_id
    assert after[first] == after[copy]
    counted = [side["fold"] for side in after.values()]
    assert counted.count("test") == 1 and None not in counted
    assert counted.count("validation") == sum(
        side["place"] is not None and side["place"] < 0.1 for side in after.values()
    )
    corpus(warehouse)
    assert folds(warehouse) == after


def test_the_documented_statements_put_each_side_of_the_split_into_a_version(filled, tmp_path):
    warehouse, _ = filled
    scenes = [(i, scene(i)) for i in range(20, 60)]
    for question in questions(warehouse, tmp_path, "train", scenes).values():
        commit(warehouse, question, Trace(question.question_id, (), "left", 1.0, "direct"))
    page = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text("utf-8")
    corpus(warehouse)
    statements = re.findall(r'SELECT .* question_folds [^"\n]*', page)
    for side, statement in zip(("train", "validation"), statements, strict=True):
        query(warehouse, statement)
        version = publish(warehouse, side, statement.replace("kept_traces", "traces"))
        on = [q for q, found in folds(warehouse).items() if found["fold"] == side]
        with open_version(warehouse, version) as folder:
            held = pq.read_table(folder / "rows.parquet")["question_id"].to_pylist()
        assert held and set(held) <= set(on)


def test_a_version_carries_a_certificate_of_what_it_was_compared_with(filled, tmp_path):
    warehouse, trained = filled
    for i, question in enumerate(trained):
        commit(warehouse, question, traced(question, SAYINGS[i]))
    alone = publish(warehouse, "a", "SELECT trace_id FROM kept_traces")
    assert alone.card["decontamination"]["against"] == []
    assert "held no evaluation set to compare with" in show(warehouse, "a")
    held = [(0, scene(5)), (11, smaller(scene(1))), (12, scene(6))]
    questions(warehouse, tmp_path, "test", held)
    everything = "SELECT trace_id FROM traces"
    made = publish(warehouse, "b", everything).card["decontamination"]
    assert made["against"] == [{"set": "sat2/test", "questions": 3, "images": 3}]
    assert (made["questions"], made["images"], made["traces"]) == (3, 3, 3)
    # Lamp 1 by its picture; lamp 0 is asked about in the same words, about another picture.
    assert made["matches"] == {"same_image": 0, "similar_image": 1, "same_words": 0}
    assert (made["questions_matched"], made["traces_matched"]) == (1, 1)
    assert made["words_alone"]["questions"] == 1
    assert set(made["tables"]) == {"questions", "images", "traces"}
    assert "dct-phash/1" in made["methods"]["similar_image"]
    card = show(warehouse, "b")
    assert "| sat2/test | 3 | 3 |" in card
    assert "**1 question (1 trace) matches an evaluation question**" in card
    assert "1 question uses the words of an evaluation question about another image" in card
    corpus(warehouse)
    clean = publish(warehouse, "c", "SELECT trace_id FROM kept_traces")
    assert clean.card["decontamination"]["questions_matched"] == 0
    assert "No question matches one of an evaluation set." in show(warehouse, "c")
    stored = query(warehouse, "SELECT card FROM dataset_versions WHERE name = 'c'")
    (trace_row,) = stored["card"].to_pylist()
    assert json.loads(trace_row)["decontamination"] == clean.card["decontamination"]


def run(monkeypatch, warehouse, *arguments):
    monkeypatch.setattr(sys, "argv", ["vigorl", *map(str, arguments), "--home", warehouse.root])
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
    return 0


def test_the_gallery_shows_what_a_filter_dropped_beside_what_it_names(
    filled, tmp_path, monkeypatch, capsys
):
    warehouse, (one, two, _) = filled
    first = traced(one, *SAYINGS)
    copy = traced(one, SAYINGS[0].upper(), *SAYINGS[1:])
    (unseen,) = commit(warehouse, two, traced(two, SAYINGS[1]))
    commit(warehouse, one, first, copy)
    corpus(warehouse)
    out = tmp_path / "pages"
    assert (
        run(monkeypatch, warehouse, "gallery", "--dropped-by", "no_exact_copy", "--out", out) == 0
    )
    assert "2 traces" in capsys.readouterr().out
    ((dropped_id, _),) = dropped(warehouse)
    text = (out / "data" / "traces-00000.js").read_text("ascii")
    (other,) = {first.trace_id, copy.trace_id} - {dropped_id}
    assert unseen not in text and text.index(f'"id":"{other}"') < text.index(f'"id":"{dropped_id}"')
    page = (out / "index.html").read_text("utf-8")
    assert "2 of 3 traces are kept by every filter" in page
    assert re.search(r"no_exact_copy</th>.*?<td>2</td><td>1</td><td>1</td>", page, re.DOTALL)
    assert run(monkeypatch, warehouse, "gallery", "--dropped-by", "no_near_copy", "--out", out) == 0
    assert "0 traces" in capsys.readouterr().out
    for arguments, sentence in (
        (("--dropped-by", "no'thing"), 'no filter "no\'thing" has judged a trace; there are: '),
        (("--dropped-by", "x", "--sql", "SELECT 1"), "--sql and --dropped-by: give one of them"),
    ):
        assert run(monkeypatch, warehouse, "gallery", *arguments, "--out", out) == 2
        assert sentence in capsys.readouterr().err

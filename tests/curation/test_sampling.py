"""Choosing traces: capped, balanced, the same whatever the order, steady when rows are added."""

import random
from collections import Counter
from dataclasses import replace

from curation.traces.linearize import linearize
from tests.support.grown import fork
from tests.support.trace_sampling import Candidate, draw, select, trust

FAMILIES = {"left_right": 60, "count": 12, "depth": 3}


def crowd(n=None):
    """Questions of three families, very unlike in number, five traces each."""
    rows = []
    for family, questions in FAMILIES.items():
        for q in range(questions):
            band = ("hard", "easy")[q % 2]
            for t in range(5):
                name = f"{family}-{q}"
                rows.append(Candidate(f"{name}-{t}", name, family, band, 0.2 + 0.15 * t))
    return rows[:n]


BY_ID = {row.trace_id: row for row in crowd()}


def test_order_of_the_rows_does_not_matter_and_the_seed_does():
    rows = crowd()
    shuffled = random.Random(1).sample(rows, len(rows))
    limits = {"per_question": 2, "per_cell": 20, "total": 50}
    assert select(rows, **limits) == select(shuffled, **limits) == select(rows * 2, **limits)
    assert select(rows, **limits) != select(rows, **limits, seed="other")
    assert select(rows) == sorted(BY_ID), "without a limit, all"


def test_no_question_gets_more_than_its_cap():
    chosen = select(crowd(), per_question=2)
    counts = Counter(BY_ID[i].question_id for i in chosen)
    assert set(counts.values()) == {2} and len(counts) == sum(FAMILIES.values())


def test_a_total_is_spread_evenly_over_families_and_difficulties():
    chosen = select(crowd(), total=60)
    cells = Counter((BY_ID[i].family, BY_ID[i].band) for i in chosen)
    assert len(chosen) == 60
    # `depth` has 5 easy traces and 10 hard ones, all of them taken; the others share the rest.
    assert sorted(cells.values()) == [5, 10, 11, 11, 11, 12]
    assert (cells["depth", "easy"], cells["depth", "hard"]) == (5, 10)


def test_a_cell_takes_every_question_once_before_any_twice():
    chosen = select(crowd(), per_cell=30)
    counts = Counter(BY_ID[i].question_id for i in chosen if "left_right" in i)
    assert len(counts) == 60 and set(counts.values()) == {1}


def test_rows_added_later_move_only_their_own_cell():
    rows = crowd()
    before = set(select(rows, per_question=3, per_cell=10))
    added = [Candidate(f"new-{i}", f"new-{i}", "count", "hard", 0.9) for i in range(5)]
    after = set(select(rows + added, per_question=3, per_cell=10))
    moved = {i for i in before ^ after if not i.startswith("new")}
    assert after - before <= {row.trace_id for row in added}
    assert 0 < len(moved) <= 5 and all("count" in i and BY_ID[i].band == "hard" for i in moved)


def test_what_the_search_bears_out_is_drawn_first_more_often():
    first = Counter(
        min((0.2, 0.4), key=lambda trust: draw(f"{trust}", trust, str(seed)))
        for seed in range(3000)
    )
    assert 1.8 < first[0.4] / first[0.2] < 2.2


def test_trust_rests_on_visits_and_values_and_forgives_the_wrong_attempt():
    tree = fork()
    traces = linearize(tree)
    through_100, through_200 = traces[1], traces[2]
    assert trust(through_100, tree) == (1 + 1) / (2 + 2)
    assert trust(through_200, tree) == (2 + 1) / (2 + 2)
    sibling = next(t for t in traces if t.kind == "corrected" and t.wrong_from == 0)
    assert {o.node_id for o in sibling.origins} == {1, 2}
    assert trust(sibling, tree) == trust(through_200, tree)
    assert trust(replace(through_200, origins=()), tree) == 0.5

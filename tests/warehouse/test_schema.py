"""The tables' definitions: names that users wrote SQL against, and the sentences beside them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from warehouse.tables.schema import CHILDREN, TABLES

PUBLISHED = {
    "traces": "trace_id question_id tree_id run_id task origin kind text answer reward n_steps "
    "n_points",
    "steps": "trace_id step thought x y image grounded",
    "behaviors": "trace_id behavior count method",
    "nodes": "tree_id node_id parent_id depth thought x y visits value terminal answer reward",
}


def test_all_tables_of_the_design_are_there() -> None:
    assert list(TABLES) == [
        "runs", "images", "questions", "responses", "trees", "nodes", "rollouts", "traces", "steps",
        "verdicts", "behaviors", "step_scores", "reviews", "dataset_versions", "models",
        "evaluations", "predictions", "promotions", "revocations", "image_hashes", "folds",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_columns_keep_their_names(name: str) -> None:
    assert set(PUBLISHED[name].split()) <= set(TABLES[name].schema.names)


@pytest.mark.parametrize("name", TABLES)
def test_every_column_says_what_it_means_and_every_row_who_wrote_it(name: str) -> None:
    table = TABLES[name]
    assert {"run_id", "revision", "created_at"} <= set(table.schema.names)
    assert set(table.key) <= set(table.schema.names)
    assert len(set(table.schema.names)) == len(table.schema.names)
    for column in table.schema.names:
        sentence = table.describe(column)
        assert len(sentence.split()) >= 3 or sentence.endswith(".")


def test_children_carry_their_parents_key_and_commit() -> None:
    for parent, children in CHILDREN.items():
        for name in children:
            assert TABLES[name].parent == parent
            assert {"commit_id", *TABLES[parent].key} <= set(TABLES[name].schema.names)


def test_points_and_boxes_are_structs_of_doubles_with_their_image() -> None:
    point = TABLES["steps"].schema.field("points").type.value_type
    assert [(f.name, f.type) for f in point] == [
        ("x", pa.float64()), ("y", pa.float64()), ("image", pa.int32())
    ]  # fmt: skip
    seen = TABLES["images"].schema.field("objects").type.value_type
    assert [f.name for f in seen] == ["label", "x1", "y1", "x2", "y2"]

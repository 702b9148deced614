"""Every statement of docs/sql.md runs on a small warehouse, and has rows where that has them."""

from __future__ import annotations

import pytest

from benchmarks.warehouse.sql_questions import sql_questions
from tests.flows.test_build import build, import_sat, vigorl
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

# Of what the small warehouse has none: problems of the parser, steps held against boxes, pairs,
# crops.
MAY_BE_EMPTY = {15, 21, 23, 24}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Six questions, searched by a stub, curated and published."""
    home = tmp_path_factory.mktemp("home")
    import_sat(write_sat(home / "SAT_train.parquet", sat_rows(6)), home)
    with StubServer() as server:
        build(server, home)
    vigorl("dataset", "publish", "a", "--sql", "SELECT trace_id FROM traces", home=home)
    return Warehouse(str(home))


def test_the_gallery_has_its_questions_in_order() -> None:
    numbers = [entry.number for entry in sql_questions()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 20


@pytest.mark.parametrize("entry", sql_questions(), ids=lambda entry: f"{entry.number}")
def test_every_question_of_the_gallery_is_answered(small: Warehouse, entry) -> None:
    answer = query(small, entry.sql)
    assert answer.num_rows or entry.number in MAY_BE_EMPTY, entry.title

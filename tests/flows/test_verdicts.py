"""Which verdicts are new beside those that are stored, and under which version they are written."""

from __future__ import annotations

from typing import Any

from curation.filters import rules
from curation.filters.base import CORPUS
from flows.stages.verdicts import NO_FILTER, Stored, as_row, as_stored, changed_rows, changed_table
from mcts.data import Verdict
from warehouse.tables.delta import rows_to_arrow

METHOD = "near/1:threshold=0.5"


def verdict(keep: bool = True, method: str = METHOD, other: str | None = None) -> dict[str, Any]:
    return as_row(Verdict("near", keep, "a reason", 0.25), method, other)


def row(trace_id: str, name: str, version: int, method: str | None = METHOD) -> dict[str, Any]:
    values = {"keep": True, "reason": "", "score": None, "method": method, "other": None}
    return {"trace_id": trace_id, "filter": name, "version": version, **values}


def test_stored_rows_are_arranged_by_trace_and_filter() -> None:
    stored = as_stored([row("a", "near", 3), row("a", "far", 3), row("b", NO_FILTER, 7)])
    assert stored.versions == {"a": 3, "b": 7}
    assert list(stored.verdicts) == ["a"] and set(stored.verdicts["a"]) == {"near", "far"}
    assert stored.verdicts["a"]["near"] == {
        "keep": True, "reason": "", "score": None, "method": METHOD, "other": None,
    }  # fmt: skip
    first = as_stored([row("a", "near", 1, None), row("b", "near", 1, "mine/1")], None)
    assert first.verdicts["a"]["near"]["method"] == "rules/1", "of rows that did not say it"
    assert first.verdicts["b"]["near"]["method"] == "mine/1"
    assert as_stored([row("a", "near", 1, None)]).verdicts["a"]["near"]["method"] is None


def test_only_traces_whose_verdicts_differ_are_written_under_the_next_version() -> None:
    stored = Stored({"same": {"near": verdict()}, "other": {"near": verdict()}}, {"other": 4})
    given = {
        "same": {"near": verdict()},
        "other": {"near": verdict(keep=False, other="x")},
        "new": {"near": verdict()},
    }
    made = changed_rows(given, stored, CORPUS, "r")
    assert [(one["trace_id"], one["version"], one["keep"], one["other"]) for one in made] == [
        ("other", 5, False, "x"), ("new", 1, True, None),
    ]  # fmt: skip
    assert {name: made[0][name] for name in ("filter", "reason", "score")} == {
        "filter": "near", "reason": "a reason", "score": 0.25,
    }  # fmt: skip
    assert (made[0]["run_id"], made[0]["stage"], made[0]["method"]) == ("r", CORPUS, METHOD)
    assert [one["version"] for one in changed_rows(given, stored, CORPUS, "r", 2)] == [7, 3]
    table = changed_table(given, stored, "r")
    assert table.schema.equals(rows_to_arrow("verdicts", made).schema)
    assert [{name: row[name] for name in made[0]} for row in table.to_pylist()] == made
    assert all(row["revision"] and row["created_at"] for row in table.to_pylist())
    assert changed_table({}, stored, "r").num_rows == 0


def test_of_the_first_stage_only_methods_are_compared() -> None:
    stored = Stored({"a": {"near": verdict(keep=False, method=rules.MAKER)}}, {"a": 1})
    assert changed_rows({"a": {"near": verdict(method=rules.MAKER)}}, stored, None, "r") == []
    (made,) = changed_rows({"a": {"near": verdict(method="mine/9")}}, stored, None, "r")
    assert (made["version"], made["method"]) == (max(2, rules.VERSION), "mine/9")
    assert "stage" not in made and "other" not in made


def test_a_verdict_of_todays_rules_needs_no_method() -> None:
    (made,) = changed_rows({"a": {"near": verdict(method=rules.MAKER)}}, Stored(), None, "r")
    assert made["version"] == rules.VERSION and "method" not in made
    ahead = Stored(versions={"a": rules.VERSION})
    (made,) = changed_rows({"a": {"near": verdict(method=rules.MAKER)}}, ahead, None, "r")
    assert (made["version"], made["method"]) == (rules.VERSION + 1, rules.MAKER)


def test_where_no_filter_runs_any_more_a_row_says_so() -> None:
    stored = Stored({"a": {"near": verdict()}}, {"a": 2})
    (made,) = changed_rows({"a": {}, "b": {}}, stored, CORPUS, "r")
    assert (made["trace_id"], made["filter"], made["keep"], made["version"]) == (
        "a", NO_FILTER, True, 3,
    )  # fmt: skip

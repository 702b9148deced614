"""Curation with a file of filters: what it changes, what it records, and that a preview is true."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation.filters import rules
from curation.filters.config import filters_yaml
from flows.cli import app
from flows.settings import BuildSettings, CurateSettings
from flows.settings_base import Problem
from flows.stages.build import build
from flows.stages.curate import Summary, curate
from flows.stages.curate_preview import preview_curation
from tests.warehouse.test_old_warehouse import unpack
from warehouse.query.run_query import query, table_versions
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import append
from warehouse.versions.diff import diff
from warehouse.versions.versions import publish, show

KEPT = "SELECT trace_id FROM kept_traces"
STRICT = """
filters:
  - well_formed
  - no_repeated_point: {min_distance: 0.05}
  - right_answer
  - no_near_copy: {min_similarity: 0.6}
"""


CUT = ("traces", "steps", "verdicts", "behaviors")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Two trees that an earlier release searched, with today's 123 traces, all filters at default:
    one of the trees has no wrong attempt but "yellow" for "yellow ball", which nothing turns back
    from."""
    folder = tmp_path_factory.mktemp("stored")
    warehouse = unpack(folder / "home")
    take_away(warehouse)
    again(warehouse)
    return folder / "home"


@pytest.fixture
def warehouse(stored, tmp_path) -> Warehouse:
    shutil.copytree(stored, tmp_path / "home")
    return Warehouse(str(tmp_path / "home"))


def take_away(warehouse: Warehouse, *tables: str) -> None:
    """Leave the trees, and nothing that was cut from them."""
    for table in tables or CUT:
        shutil.rmtree(Path(warehouse.root) / "tables" / table)


@pytest.fixture
def strict(tmp_path) -> str:
    file = tmp_path / "strict.yaml"
    file.write_text(STRICT)
    return str(file)


def settings(warehouse: Warehouse, filters: str | None = None, **more) -> CurateSettings:
    return CurateSettings.checked(task="sat2", home=warehouse.root, filters=filters, **more)


def again(warehouse: Warehouse, filters: str | None = None) -> Summary:
    return asyncio.run(curate(settings(warehouse, filters)))


def preview(warehouse: Warehouse, filters: str | None = None):
    return asyncio.run(preview_curation(settings(warehouse, filters)))


def kept(warehouse: Warehouse) -> set[str]:
    return set(query(warehouse, KEPT)["trace_id"].to_pylist())


def by_filter(warehouse: Warehouse) -> dict[str, dict[str, bool]]:
    found: dict[str, dict[str, bool]] = {}
    for row in query(warehouse, "SELECT trace_id, filter, keep FROM latest_verdicts").to_pylist():
        found.setdefault(row["filter"], {})[row["trace_id"]] = row["keep"]
    return found


def verdicts(warehouse: Warehouse) -> list[dict]:
    return query(warehouse, "FROM verdicts ORDER BY ALL").to_pylist()


def test_what_earlier_rules_decided_is_decided_anew_once(warehouse, tmp_path):
    rows, decided = verdicts(warehouse), by_filter(warehouse)
    take_away(warehouse, "verdicts")
    former = [{**row, "version": 2} if row["stage"] is None else row for row in rows]
    append(warehouse, "verdicts", former, "former")
    of_old = verdicts(warehouse)
    assert {row["version"] for row in of_old if row["stage"] is None} == {2}
    again(warehouse)
    before = verdicts(warehouse)
    known = [row["trace_id"] for row in of_old if row["stage"] is None]
    anew = [row for row in before if row not in of_old]
    assert sorted(row["trace_id"] for row in anew) == sorted(known)
    assert {(row["version"], row["stage"]) for row in anew} == {(rules.VERSION, None)}
    assert by_filter(warehouse) == decided, "where nothing zooms both decide alike"
    again(warehouse)
    assert verdicts(warehouse) == before
    listed = tmp_path / "default.yaml"
    listed.write_text(filters_yaml())
    again(warehouse, str(listed))
    assert verdicts(warehouse) == before, "the printed file is the default"


@pytest.mark.parametrize("commit_id", [None, "not committed yet"])
def test_verdicts_of_two_curations_at_once_are_never_mixed(
    warehouse, strict, monkeypatch, commit_id
):
    from flows.stages import curate as stage

    insert, raced = stage.insert_new, []

    def overtaken(home, name, rows, **options):
        if name == "verdicts" and not raced:
            raced.append(rows[0]["trace_id"])  # one row of another process is there first
            theirs = {**rows[0], "run_id": "other", "commit_id": commit_id}
            assert insert(home, name, [theirs]) == 1
        return insert(home, name, rows, **options)

    monkeypatch.setattr(stage, "insert_new", overtaken)
    again(warehouse, strict)
    given = "FROM verdicts WHERE run_id = 'other' OR starts_with(run_id, 'curate-')"
    mixed = f"SELECT trace_id {given} GROUP BY trace_id, version HAVING count(DISTINCT run_id) > 1"
    assert query(warehouse, mixed).num_rows == 0
    newest = f"SELECT filter FROM latest_verdicts WHERE trace_id = '{raced[0]}' AND stage IS NULL"
    assert set(query(warehouse, newest)["filter"].to_pylist()) == {
        "well_formed", "no_repeated_point", "right_answer",
    }  # fmt: skip


def test_default_verdicts_made_anew_are_the_rows_of_the_earlier_release(warehouse, tmp_path):
    """Cut, filtered and written again from the same trees: each trace that both have."""
    said = (
        "SELECT kind, text, filter, keep, reason, score FROM verdicts JOIN traces USING (trace_id) "
        "WHERE stage IS NULL"
    )

    def rows(home: Warehouse) -> dict[tuple[str, str], set[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for row in query(home, said).to_pylist():
            found.setdefault((row.pop("kind"), row.pop("text")), set()).add(json.dumps(row))
        return found

    earlier, now = rows(unpack(tmp_path / "earlier")), rows(warehouse)
    assert len(earlier) == 170 and len(now) == 123
    both = earlier.keys() & now.keys()
    assert len(both) > 110
    assert {key: now[key] for key in both} == {key: earlier[key] for key in both}


def test_a_preview_writes_nothing_and_foretells_what_curation_then_does(warehouse, strict):
    before, versions = verdicts(warehouse), table_versions(warehouse)
    good, judged = kept(warehouse), by_filter(warehouse)
    foretold = preview(warehouse, strict)
    assert (verdicts(warehouse), table_versions(warehouse)) == (before, versions)
    summary = again(warehouse, strict)
    then, judged_then = kept(warehouse), by_filter(warehouse)
    assert foretold.total.kept_now == len(good) and foretold.total.kept_then == len(then)
    assert set(foretold.total.newly_dropped) == good - then != set()
    assert set(foretold.total.newly_kept) == then - good
    assert summary.kept == len(then)
    assert set(judged_then) == {"well_formed", "no_repeated_point", "right_answer", "no_near_copy"}
    for change in foretold.filters:
        was, is_now = judged.get(change.name, {}), judged_then.get(change.name, {})
        assert change.kept_now == (sum(was.values()) if was else None)
        assert change.kept_then == (sum(is_now.values()) if is_now else None)
        assert set(change.newly_dropped) == {
            i for i, k in is_now.items() if not k and was.get(i, True)
        }
        assert set(change.newly_kept) == {
            i for i, k in was.items() if not k and is_now.get(i, True)
        }
    assert [c.name for c in foretold.filters[:4]] == [
        "well_formed", "no_repeated_point", "right_answer", "no_near_copy",
    ]  # fmt: skip
    assert preview(warehouse, strict).total.newly_dropped == []


def test_a_preview_of_trees_that_were_never_curated_foretells_their_traces(warehouse, strict):
    take_away(warehouse)
    foretold = preview(warehouse, strict)
    assert (foretold.traces_now, foretold.total.kept_now) == (0, None)
    again(warehouse, strict)
    assert foretold.traces_then == 123 and foretold.total.kept_then == len(kept(warehouse))


def test_other_values_judge_stored_traces_anew_and_back_again(warehouse, strict):
    good, judged = kept(warehouse), by_filter(warehouse)
    again(warehouse, strict)
    assert kept(warehouse) < good
    methods = query(warehouse, "SELECT DISTINCT filter, stage, method FROM latest_verdicts")
    assert {(r["filter"], r["stage"], r["method"]) for r in methods.to_pylist()} == {
        ("right_answer", None, "rules/4"),  # judged again together with the one that changed
        ("well_formed", None, "rules/4"),
        ("no_repeated_point", None, "rules/4 min_distance=0.05"),
        ("no_near_copy", "corpus", "minhash/2 min_similarity=0.6"),
    }
    count = len(verdicts(warehouse))
    again(warehouse, strict)
    assert len(verdicts(warehouse)) == count, "the same file again adds nothing"
    again(warehouse)
    assert (kept(warehouse), by_filter(warehouse)) == (good, judged)


def test_a_file_without_filters_of_the_second_pass_ends_its_verdicts_for_good(warehouse, tmp_path):
    good = kept(warehouse)
    few = tmp_path / "few.yaml"
    few.write_text("filters: [right_answer]")
    again(warehouse, str(few))
    assert set(by_filter(warehouse)) == {"right_answer"}
    assert len(kept(warehouse)) == 101
    count = len(verdicts(warehouse))
    again(warehouse, str(few))
    assert len(verdicts(warehouse)) == count
    again(warehouse)
    assert kept(warehouse) == good


def test_an_own_filter_runs_in_both_passes_and_its_verdicts_are_stored(warehouse, tmp_path):
    (tmp_path / "own_of_curate.py").write_text(
        "from curation.filters.base import TraceFilter\n"
        "from mcts.data import Verdict\n"
        "def short(trace, question, *, max_steps: int = 3):\n"
        "    return Verdict('', len(trace.steps) <= max_steps, 'too long')\n"
        "class Pictured(TraceFilter):\n"
        "    name, maker, stage = 'pictured', 'own/1', 'corpus'\n"
        "    def apply(self, trace, question, context):\n"
        "        return Verdict('', len(context.images()) == len(question.images), 'lost')\n"
    )
    file = tmp_path / "own.yaml"
    file.write_text(
        "filters: [right_answer, own_of_curate:short: {max_steps: 4}, own_of_curate:Pictured]"
    )
    again(warehouse, str(file))
    sql = (
        "SELECT filter, stage, method, bool_and(keep = (n_steps <= 4)) AS so, bool_and(keep) AS k "
    )
    sql += "FROM latest_verdicts JOIN traces USING (trace_id) GROUP BY ALL"
    rows = {row["filter"]: row for row in query(warehouse, sql).to_pylist()}
    assert rows["short"]["so"] and rows["short"]["method"] == "own_of_curate:short max_steps=4"
    assert rows["pictured"] == {
        "filter": "pictured", "stage": "corpus", "method": "own/1", "so": False, "k": True,
    }  # fmt: skip


def test_card_and_diff_say_which_values_decided(warehouse, strict):
    first = publish(warehouse, "a", KEPT)
    again(warehouse, strict)
    second = publish(warehouse, "a", KEPT)
    assert "| no_repeated_point | 99 | 24 | rules/4 min_distance=0.05 |" in show(warehouse, "a@v2")
    assert "| no_near_copy | 88 | 35 | minhash/2 min_similarity=0.6 |" in show(warehouse, "a@v2")
    for one, other in ((first, second), (second, first)):
        found = diff(warehouse, one, other)
        assert found.differences and {d.reason for d in found.differences} == {"filter"}
        assert {d.what for d in found.differences} == {
            "no_repeated_point (min_distance 0.01 -> 0.05)",
            "no_near_copy (min_similarity 0.8 -> 0.6)",
            "no_near_copy (min_similarity 0.8 -> 0.6), "
            "no_repeated_point (min_distance 0.01 -> 0.05)",
        }


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vigorl", *map(str, arguments)])
    try:
        app.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def test_the_command_shows_a_preview_and_names_what_is_wrong_with_a_file(
    warehouse, strict, tmp_path, monkeypatch, capsys
):
    home = ("--home", warehouse.root)
    assert run(monkeypatch, "curate", "sat2", "--filters", strict, "--dry-run", *home) == 0
    shown = capsys.readouterr().out
    assert "newly dropped" in shown and "all filters                    87         53" in shown
    assert "nothing was written" in shown
    before, versions = verdicts(warehouse), table_versions(warehouse)
    bad = tmp_path / "bad.yaml"
    bad.write_text("filters: [no_repeated_point: {min_distance: far}]")
    for command in (["curate", "sat2"], ["curate", "sat2", "--dry-run"], ["build", "sat2"]):
        assert run(monkeypatch, *command, "--filters", bad, *home) == 2
        said = capsys.readouterr().err
        assert "bad.yaml: entry 1 (no_repeated_point): min_distance: Input should be" in said
    assert (verdicts(warehouse), table_versions(warehouse)) == (before, versions)
    assert run(monkeypatch, "curate", "sat2", "--dry-run", "--publish", "x", *home) == 2
    assert run(monkeypatch, "filters") == 0
    assert capsys.readouterr().out.strip() == filters_yaml()


def test_a_build_finds_a_bad_file_before_anything_is_written(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("filters: [nothing]")
    home = tmp_path / "home"
    wanted = BuildSettings.checked(task="sat2", home=str(home), filters=str(bad))
    with pytest.raises(Problem, match=r"bad\.yaml: entry 1 \(nothing\)"):
        asyncio.run(build(wanted))
    assert not home.exists()


def test_a_build_filters_by_its_file(tmp_path, strict):
    home = str(tmp_path / "home")
    wanted = BuildSettings.checked(task="sat2", limit=1, simulations=2, home=home, filters=strict)
    asyncio.run(build(wanted))
    assert set(by_filter(Warehouse(home))) == {
        "well_formed", "no_repeated_point", "right_answer", "no_near_copy",
    }  # fmt: skip


def test_a_build_judges_the_other_traces_of_its_task_by_its_filters(warehouse, strict):
    again(warehouse, strict)
    few = query(warehouse, KEPT).num_rows
    wanted = BuildSettings.checked(task="sat2", limit=1, simulations=2, home=warehouse.root)
    assert "the default ones" in asyncio.run(build(wanted)).extra["filters"]
    assert query(warehouse, KEPT).num_rows > few
    judged = query(warehouse, "SELECT count(*) AS n FROM verdicts").to_pylist()
    asyncio.run(build(wanted))
    again(warehouse)
    assert query(warehouse, "SELECT count(*) AS n FROM verdicts").to_pylist() == judged


def test_verdicts_that_another_process_wrote_meanwhile_are_not_written_twice(warehouse, strict):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: again(Warehouse(warehouse.root), strict), range(2)))
    doubled = "SELECT trace_id, filter, version FROM verdicts GROUP BY ALL HAVING count(*) > 1"
    assert query(warehouse, doubled).num_rows == 0
    assert set(by_filter(warehouse)) == {
        "well_formed", "no_repeated_point", "right_answer", "no_near_copy",
    }  # fmt: skip


def test_filters_that_replace_those_of_the_run_before_are_remarked(warehouse, strict) -> None:
    assert "filters" not in again(warehouse).extra, "the default ones, as ever"
    assert again(warehouse, strict).extra["filters"] == (
        f"the filters were those of {strict}; the run before applied the default ones"
    )
    assert "filters" not in again(warehouse, strict).extra
    assert again(warehouse).extra["filters"].endswith(f"--filters {strict} applies them again")

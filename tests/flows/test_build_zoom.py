"""Builds that zoom: what is searched with crops, killed, replayed, scored anew and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.traces import linearize
from flows.stages.curate import find_uncurated, read_filters
from tests.flows.test_build import contents, fingerprints, import_sat, journal_lines, vigorl
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

ZOOM = ("--response-style", "zoom", "--lens", "14:56", "--max-crops", 2)
Straight = tuple[Path, dict[str, list[str]], int, str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sat(tmp_path_factory.mktemp("sat") / "SAT_train.parquet", sat_rows(6))


def build(server: StubServer, home: Path, *more: object, **options: object):
    given = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", 2, "--limit", 3)
    return vigorl("build", "sat2", *given, *ZOOM, *more, home=home, **options)


@pytest.fixture(scope="module")
def straight(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The warehouse of a build that nothing interrupted, its rows, requests and report."""
    home = tmp_path_factory.mktemp("straight")
    with StubServer() as server:
        import_sat(sample, home)
        said = build(server, home).stdout
        requests = server.request_count()
    return home, contents(home), requests, said


def test_a_tree_holds_what_its_steps_were_shown_and_what_that_cost(straight: Straight) -> None:
    home, _, _, said = straight
    warehouse = Warehouse(str(home))
    trees = query(warehouse, "SELECT config, crops, image_tokens FROM trees").to_pylist()
    assert all(json.loads(tree["config"])["zoom"]["lens"]["half_width"] == 14 for tree in trees)
    shown = query(
        warehouse,
        "SELECT observation FROM nodes WHERE observation.x1 IS NOT NULL AND discarded IS NULL",
    ).to_pylist()
    crops = sum(tree["crops"] for tree in trees)
    assert crops > len(shown) > 0, "rollouts see crops as well"
    images = sum(tree["image_tokens"] for tree in trees)
    assert f", {crops} crops shown, {images} image tokens" in said
    asked = query(warehouse, "SELECT sum(image_tokens)::BIGINT AS n FROM responses")
    assert asked.to_pylist() == [{"n": images}]


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param("after_response:25", marks=pytest.mark.slow),
        pytest.param("after_journal:28", marks=pytest.mark.slow),
        "between_tables:2",
    ],
)
def test_a_killed_build_ends_with_the_same_crops(
    failpoint: str, sample: Path, straight: Straight, tmp_path: Path
) -> None:
    _, expected, requests, _ = straight
    with StubServer() as server:
        import_sat(sample, tmp_path)
        killed = build(server, tmp_path, failpoint=failpoint, check=False)
        assert killed.returncode == 137, killed.stderr
        journaled, before = journal_lines(tmp_path), fingerprints(server)
        build(server, tmp_path)
        after = fingerprints(server)
        again = [fingerprint for fingerprint in before if after[fingerprint] > 1]
        assert len(again) <= before.total() - journaled, "only what was in flight"
        assert after.total() - len(again) == requests
    assert contents(tmp_path) == expected


def test_trees_that_zoom_are_cut_anew_by_a_newer_linearizer_of_theirs(
    straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, filters = Warehouse(str(straight[0])), read_filters(None)
    trees = query(warehouse, "SELECT tree_id FROM trees ORDER BY 1")["tree_id"].to_pylist()
    assert find_uncurated(warehouse, trees, filters) == []
    monkeypatch.setattr(linearize, "MAKER", "linearize/9")
    assert find_uncurated(warehouse, trees, filters) == [], "that of other trees"
    monkeypatch.setattr(linearize, "ZOOM_MAKER", "linearize/9")
    assert find_uncurated(warehouse, trees, filters) == trees


def test_a_replay_gives_the_same_trees_with_the_settings_of_the_build(straight: Straight) -> None:
    home, before, _, _ = straight
    with StubServer() as away:
        pass
    done = build(away, home, "--replay", check=False)
    assert done.stdout.startswith("3 of 3 trees rebuilt"), done.stderr
    assert "3 are those of the warehouse, 0 are new, 0 differ" in done.stdout
    for path in (home / "journal").glob("*.jsonl"):
        path.rename(path.with_suffix(".away"))  # the tables alone are enough
    assert "3 are those of the warehouse" in build(away, home, "--replay").stdout
    regraded = build(away, home, "--regrade")
    assert "3 trees scored anew: 0 scores in 0 trees are others" in regraded.stdout
    vigorl("curate", "sat2", home=home)
    assert contents(home, ("trees", "nodes", "traces")) == {
        name: before[name] for name in ("trees", "nodes", "traces")
    }
    other = build(away, home, "--replay", "--max-turns", 3, check=False)
    assert other.returncode == 2 and "nothing is recorded" in other.stderr


@pytest.mark.slow
def test_a_forecast_counts_crops_and_the_baselines_zoom_as_well(
    sample: Path, tmp_path: Path
) -> None:
    with StubServer() as server:
        import_sat(sample, tmp_path)
        said = build(server, tmp_path, "--dry-run", "--pilot", 2).stdout
        assert "  crops shown" in said and "    of images" in said
        for strategy in ("best-of-n", "linear"):
            said = build(server, tmp_path, "--strategy", strategy, "--samples", 3).stdout
            assert " crops shown, " in said

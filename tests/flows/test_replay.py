"""Trees rebuilt from what is recorded: byte for byte, at any concurrency, with no server."""

import asyncio
import json
import shutil
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from flows import build_traces as flow
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages import build as stages
from flows.stages import replay as replaying
from flows.stages.regrade import regrade, regrade_tree
from flows.stages.replay import Replayed, stored_rows
from mcts.data import Grade
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

N = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A warehouse of a build, and its settings; its server is gone."""
    folder = tmp_path_factory.mktemp("built")
    home = Warehouse(str(folder / "home"))
    import_questions(home, "sat2", write_sat(folder / "SAT_train.parquet", sat_rows(N)))
    with StubServer(poison="scene 2?") as server:
        settings = BuildSettings(
            task="sat2", teacher=server.url, space="qwen3-vl", simulations=3, wave=2, shard=4,
            home=home.root,
        )  # fmt: skip
        asyncio.run(stages.build(settings))
    return home, settings


@pytest.fixture
def copy(built, tmp_path):
    """A copy of it to change."""
    home, settings = built
    shutil.copytree(home.root, tmp_path / "home")
    return Warehouse(str(tmp_path / "home")), replace_home(settings, tmp_path / "home")


def replace_home(settings, home, **changed):
    return BuildSettings(**{**settings.model_dump(), "home": str(home), **changed})


def replay(settings):
    return asyncio.run(replaying.replay(settings))


def forget_tables(home):
    """Leave the questions and the journal, as if nothing had ever been committed."""
    for table in ("trees", "nodes", "rollouts", "responses", "traces", "steps", "verdicts"):
        shutil.rmtree(f"{home.root}/tables/{table}")


def tree_ids(home):
    return query(home, "SELECT tree_id FROM trees ORDER BY tree_id")["tree_id"].to_pylist()


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_a_replay_makes_the_warehouses_trees_byte_for_byte(built, concurrency):
    home, settings = built
    found = replay(replace_home(settings, home.root, concurrency=concurrency, shard=concurrency))
    assert (found.same, found.new, found.differing, found.missing) == (N, [], [], {})
    assert found.sentence().startswith(f"{N} of {N} trees rebuilt from recorded responses")


def test_trees_of_older_code_have_the_fields_that_came_later_at_their_defaults(built, monkeypatch):
    _, settings = built
    read = replaying.rows_about

    def older(warehouse, ids, sql):
        rows = read(warehouse, ids, sql)
        for row in rows:
            if "config" in row:
                config = json.loads(row["config"])
                assert config.pop("policy_prior") == 0 and not config.pop("keep_rollouts")
                row["config"] = json.dumps(config)
        return rows

    monkeypatch.setattr(replaying, "rows_about", older)
    assert replay(settings).same == N


def test_a_journal_alone_is_enough_to_make_the_warehouse_again(built, copy):
    home, settings = copy
    forget_tables(home)
    found = replay(replace_home(settings, home.root, concurrency=8))
    assert len(found.new) == N and not found.missing
    original, _ = built
    ids = tree_ids(original)
    assert stored_rows(home, ids) == stored_rows(original, ids)
    count = "SELECT count(*) AS n, sum(reward) AS r FROM kept_traces"
    assert query(home, count).to_pylist() == query(original, count).to_pylist()


def test_the_warehouses_responses_are_enough_where_the_journal_is_gone(copy):
    home, settings = copy
    shutil.rmtree(home.journal_dir)
    found = replay(settings)
    assert (found.same, found.missing) == (N, {})


def test_what_was_likely_is_recorded_in_the_journal_and_in_the_warehouse(tmp_path):
    home = Warehouse(str(tmp_path / "home"))
    import_questions(home, "sat2", write_sat(tmp_path / "SAT_train.parquet", sat_rows(3)))
    with StubServer() as server:
        given = {"task": "sat2", "teacher": server.url, "space": "qwen3-vl", "home": home.root}
        plain = BuildSettings(**given, simulations=4)
        guided = BuildSettings(**given, simulations=4, policy_prior=1.0)
        for settings in (plain, guided):
            asyncio.run(stages.build(settings))
    known = "SELECT purpose, bool_and(mean_logprob <= 0) AS known FROM responses GROUP BY purpose"
    told = query(home, f"{known} HAVING bool_or(mean_logprob IS NOT NULL)").to_pylist()
    assert told == [{"purpose": "expand", "known": True}]
    paths = "SELECT string_agg(path, ' ' ORDER BY node_id) FROM nodes GROUP BY tree_id"
    assert len(set(query(home, paths).column(0).to_pylist())) > 3, "it is another search"
    assert (replay(guided).same, replay(plain).same) == (3, 3)
    shutil.rmtree(home.journal_dir)
    found = replay(guided)
    assert (found.same, found.missing) == (3, {})


def test_a_tree_with_a_missing_response_is_told_and_the_others_are_rebuilt(copy):
    home, settings = copy
    forget_tables(home)
    (segment, *_) = sorted(home.journal_dir.glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    found = replay(settings)
    assert len(found.missing) == 1 and len(found.new) == N - 1
    assert "no answer for node" in next(iter(found.missing.values()))


def test_the_journals_of_two_workers_in_one_folder_are_one(copy):
    home, settings = copy
    forget_tables(home)
    (segment, *_) = sorted(home.journal_dir.glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[::2]))
    segment.with_name("9-other-worker.jsonl").write_bytes(b"".join(lines[1::2]))
    assert len(replay(settings).new) == N


def test_a_tree_that_is_not_what_its_responses_make_is_told(built, monkeypatch):
    _, settings = built

    def same_score(question, answer):
        return replace(grade(question, answer), reason="told anew")

    monkeypatch.setattr(replaying, "grade", same_score)
    found = replay(settings)
    assert (found.same, len(found.differing)) == (1, N - 1), "the failed tree was graded by nobody"
    assert "differs from the warehouse's" in found.sentence()


def test_other_settings_have_nothing_recorded(built):
    home, settings = built
    with pytest.raises(Problem, match="nothing is recorded"):
        replay(replace_home(settings, home.root, seed=7))
    with pytest.raises(Problem, match="give one of them"):
        BuildSettings.checked(task="sat2", replay=True, dry_run=True)


def test_the_journal_is_compact_and_says_each_prompt_by_its_fingerprint_only(built):
    home, _ = built
    data = b"".join(path.read_bytes() for path in home.journal_dir.glob("*.jsonl"))
    texts = query(home, "SELECT text FROM responses WHERE text IS NOT NULL")["text"].to_pylist()
    requests = query(home, "SELECT count(DISTINCT request_id) AS n FROM responses").to_pylist()
    assert b"Which" not in data and b"scene 1" not in data
    # Beside the texts themselves a request costs a few hundred bytes, an image or prompt none.
    assert len(data) < len(json.dumps(texts)) + 400 * requests[0]["n"]


def test_scoring_anew_keeps_every_node_and_counts_what_changes(built):
    home, settings = built
    found = asyncio.run(regrade(settings))
    assert (found.trees, found.outcomes, found.changed) == (N, 0, ())
    for tree, _ in read_trees(home, tree_ids(home)):
        before = [(n.path, n.visits, n.value, n.reward) for n in tree.nodes]
        assert list(regrade_tree(tree, grade)) == []
        assert [(n.path, n.visits, n.value, n.reward) for n in tree.nodes] == before
        scored = len(tree.outcomes())
        right = sum(score >= 1.0 for _, score in tree.outcomes())
        assert len(list(regrade_tree(tree, lambda *_: Grade(0.0, "strict")))) == right
        assert [(n.path, n.visits) for n in tree.nodes] == [(p, v) for p, v, *_ in before]
        assert len(tree.outcomes()) == scored and not tree.root.total


def test_a_replay_names_the_first_trees_that_differ_or_are_missing():
    found = Replayed(9, 2, ["n"], [f"d{i}" for i in range(4)], {f"m{i}": "gone" for i in range(4)})
    first, *rest = found.sentence().splitlines()
    assert first == (
        "7 of 9 trees rebuilt from recorded responses: 2 are those of the warehouse, 1 are new, "
        "4 differ"
    )
    assert rest == [
        *(f"d{i} differs from the warehouse's" for i in range(3)),
        *(f"m{i} cannot be rebuilt: gone" for i in range(3)),
    ]


def test_a_deployed_replay_fails_where_its_command_does(monkeypatch):
    found = Replayed(2, 2)

    async def replayed(settings):
        return found

    monkeypatch.setattr(flow, "replay", replayed)
    run = flow.build_traces.fn
    assert asyncio.run(run(task="sat2", replay=True)) == found.sentence()
    for found in (Replayed(2, 1, differing=["d"]), Replayed(2, 1, missing={"m": "gone"})):
        with pytest.raises(Problem, match=r"of 2 trees") as failed:
            asyncio.run(run(task="sat2", replay=True))
        assert str(failed.value) == found.sentence()

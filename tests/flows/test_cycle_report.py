"""The report of a real cycle, and the checks of what a champion searched itself."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from curation.render.cycle_report import render_summary
from curation.scores.collapse import FEWEST
from flows.stages.retrain.came_in import dataset_changes, published_by
from flows.stages.retrain.collapse import check_collapse, read_searches
from flows.stages.retrain.cycle import Cycle, begin_cycle, cycles
from flows.stages.retrain.inbox import Inbox
from flows.stages.retrain.report import read_report, write_report
from tests.curation.test_cycle_report import words_of
from tests.flows.test_cli import run, searched
from tests.flows.test_retrain import SMALL
from tests.support.fixtures import sat_rows, unlike_rows, write_sat
from tests.support.stub_server import StubServer
from tests.warehouse.test_versions import KEPT
from warehouse.query.run_query import query
from warehouse.registry import Decision, decide
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish, resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A warehouse whose first cycle came to a decision; one of its files had a bad row."""
    folder = tmp_path_factory.mktemp("reported")
    home = searched(folder, 6, simulations=6)
    rows = unlike_rows(7)
    gate = write_sat(folder / "SAT_gate.parquet", [*rows[1:], {**rows[0], "correct_answer": ""}])
    assert run("import", "sat2", gate, "--split", "gate", home=home) == 0
    # Such a step leaves a student that answers nothing, so that questions are lost.
    assert run(*SMALL, "--sft-override", "learning_rate=1.0", home=home) == 0
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


def first_cycle(home):
    return Cycle(Warehouse.at(str(home)), "sat2", 1)


def test_a_cycle_ends_with_a_page_that_is_made_again_from_what_is_stored(home, capsys):
    (page,) = Path(home).glob("retrain/sat2/*/report.html")
    before = page.read_text()
    reason = first_cycle(home).outcome("gate")["reason"]
    assert "Refused" in words_of(before) and reason[1:] in words_of(before)
    page.unlink()
    assert run("models", "report", "sat2", home=home) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_text() == before
    page.unlink()  # as after a kill between the cycle's end and its page
    assert run(*SMALL, home=home) == 0
    assert page.read_text() == before


def test_the_report_holds_what_the_tables_hold(home):
    cycle = first_cycle(home)
    report, warehouse = read_report(cycle), cycle.warehouse
    assert report.unread == () and report.first
    assert [stage.name for stage in report.stages if stage.done][-1] == "gate"
    (kept,) = query(
        warehouse,
        "SELECT count(*) AS n FROM kept_traces JOIN questions USING (question_id) "
        "WHERE origin = 'search' AND split = 'train'",
    )["n"].to_pylist()
    assert report.steps["new questions"] == 6 and report.steps["kept by every filter"] == kept
    assert report.sources == {"SAT_train.parquet": 6} and sum(report.teachers.values()) == 6
    assert [row.kept for row in report.arrived] == [kept]
    assert all(row["kept"] + row["dropped"] >= kept for row in report.funnel)
    assert len(report.rejects) == 1 and "1 rows of" in report.rejects[0]
    dataset = published_by(cycle)
    assert report.dataset == dataset.ref and report.before == ""
    assert sum(change.traces_gained for change in report.changes) == dataset.n_rows
    (training,) = report.trainings
    assert training.stage == "sft" and training.curves[0].title == "loss"
    (read,) = (stage.tokens for stage in report.stages if stage.name == "sft")
    assert read, "tokens that the SFT read"
    assert [stage.words for stage in report.stages if stage.name == "measure"] == ["not asked for"]
    everything = report.compared[0]
    assert everything.gain.n == 6
    assert everything.gain.value == pytest.approx(cycle.outcome("gate")["gain"]["value"])
    won, lost = everything.gain.only_first, everything.gain.only_second
    assert (len(report.gained), len(report.lost)) == (min(won, 3), min(lost, 3))
    assert report.lost, "the base has some right"
    for example in (*report.gained, *report.lost):
        assert example.champion.right != example.challenger.right
        assert len(example.champion.images) == len(example.question.images)
    assert report.behaviors and report.gate.attempt == 1
    (tokens,) = (stage.tokens for stage in report.stages if stage.name == "evaluate")
    both = report.gate.costs["tokens"]
    assert tokens >= 6 * sum(both) > 0, "of both models, with blank images too"
    assert f"vigorl lineage {dataset.ref}" in [command for _, command in report.commands]


def test_every_command_on_the_page_works(home, capsys):
    report = read_report(first_cycle(home))
    assert len(report.commands) > 5
    for _, command in report.commands:
        assert run(*command.split()[1:], home=home) == 0, command


def test_what_is_decided_later_is_on_the_page(home):
    cycle = first_cycle(home)
    model = cycle.outcome("gate")["model"]
    assert (
        run("models", "promote", "sat2", model, "--reason", "a try", "--by", "anna", home=home) == 0
    )
    assert read_report(cycle).since == ("promoted by anna, a try",)
    back = ("models", "rollback", "sat2", "--by", "ben", "--reason", "it is worse")
    assert run(*back, home=home) == 0
    assert read_report(cycle).since == (
        "promoted by anna, a try",
        "rolled back by ben, it is worse",
    )


def test_what_is_lost_is_named_and_the_rest_is_shown(home):
    shutil.rmtree(Path(home) / "images")
    shutil.rmtree(Path(home) / "training")
    shutil.rmtree(Path(home) / "datasets")
    report = read_report(first_cycle(home))
    assert any("there is no dataset sat2-cycle@v1" in line for line in report.unread)
    assert report.compared and report.trainings[0].curves == ()
    assert all(e.champion.images == () for e in (*report.gained, *report.lost))
    assert "What could not be read" in words_of(Path(write_report(first_cycle(home))).read_text())


def test_a_cycle_that_has_not_come_to_a_decision_has_a_page_too(home):
    warehouse = Warehouse.at(str(home))
    cycle = begin_cycle(warehouse, "sat2", {"questions": 0, "traces": 3, "settings": {}})
    assert read_report(cycle).outcome == "unfinished"
    cycle.store_pause("build", "stopped by --run-tokens 10")
    report = read_report(cycle)
    assert report.outcome == "paused" and "--run-tokens 10" in report.reason
    cycle.store("build", {"trees": 0, "traces": 3})
    cycle.store("end", {"outcome": "too_few", "reason": "3 new traces were kept, 50 are wanted"})
    text = render_summary(read_report(cycle))
    assert text.startswith("## Too few new traces: sat2, cycle 2\n\n3 new traces were kept")
    report = read_report(cycle)
    assert report.steps["new questions"] == 0, "the first cycle had them"
    assert not re.search(r"gate|evaluate", text) and report.unread == ()


def test_a_file_that_the_watched_folder_refused_is_on_the_page(home):
    warehouse = Warehouse.at(str(home))
    folder = Path(home) / "inbox" / "sat2"
    folder.mkdir(parents=True)
    (folder / "notes.parquet").write_text("no table")
    inbox = Inbox(warehouse)
    inbox.look()
    (taken,) = inbox.look()
    assert not taken.imported
    cycle = begin_cycle(warehouse, "sat2", {"questions": 0, "traces": 3, "settings": {}})
    assert read_report(cycle).rejects == (f"notes.parquet: {taken.sentence}",)
    assert len(read_report(first_cycle(home)).rejects) == 1, "it came later"


def test_a_dataset_is_compared_by_family(home):
    warehouse = Warehouse.at(str(home))
    ids = query(warehouse, f"SELECT trace_id FROM ({KEPT}) ORDER BY 1")["trace_id"].to_pylist()
    for some in (ids[:4], ids[2:8]):
        listed = ", ".join(f"'{name}'" for name in some)
        publish(warehouse, "cut", f"SELECT trace_id FROM traces WHERE trace_id IN ({listed})")
    (row,) = dataset_changes(warehouse, resolve(warehouse, "cut@v1"), resolve(warehouse, "cut@v2"))
    assert (row.traces_gained, row.traces_lost, row.traces) == (4, 2, 6)
    assert row.family == "left_right" and row.questions_lost <= 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("vstar",), "vstar has not been retrained: `vigorl retrain vstar --sft-recipe RECIPE`"),
        (("sat2", "9"), "sat2 has no cycle 9: there are 1 to 1"),
    ],
)
def test_a_page_of_no_cycle_is_one_sentence(home, capsys, arguments, sentence):
    capsys.readouterr()
    assert run("models", "report", *arguments, home=home) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


# ---- what a champion searched itself -----------------------------------------------------------


class Narrow(StubServer):
    """A model that says `left` of everything, and looks at one place."""

    def answer(self, body):
        found = super().answer(body)
        for choice in found["choices"]:
            text = re.sub(r"\(\d+, \d+\)", "(500, 500)", choice["message"]["content"])
            choice["message"]["content"] = re.sub(r"<answer>\w+", "<answer>left", text)
        return found


def search(home, server, limit=FEWEST):
    options = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", 4, "--only-new")
    assert run("build", "sat2", *options, "--limit", limit, home=home) == 0
    models = query(Warehouse.at(str(home)), "SELECT DISTINCT model FROM trees")["model"]
    return [model for model in models.to_pylist() if model.startswith(server.model)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A third of the questions searched; the rest for the champions to search."""
    folder = tmp_path_factory.mktemp("wide")
    sample = write_sat(folder / "SAT_train.parquet", sat_rows(3 * FEWEST))
    gate = write_sat(folder / "SAT_gate.parquet", unlike_rows(4))
    home = folder / "home"
    assert run("import", "sat2", sample, home=home) == 0
    assert run("import", "sat2", gate, "--split", "gate", home=home) == 0
    with StubServer(model="wide") as server:
        search(home, server)
    return home


def promoted_search(home, server, limit=FEWEST):
    """Promote the server's model, and let it search some questions."""
    warehouse = Warehouse.at(str(home))
    with server:
        (model,) = search(home, server, limit)
    decide(warehouse, Decision("sat2", model, "promoted", "a try"))
    return warehouse


def test_a_champion_that_narrows_ends_the_cycle_before_it_trains(wide, tmp_path, capsys):
    home = shutil.copytree(wide, tmp_path / "home")
    # All that is left, so that the cycle need not search with the embedded teacher.
    warehouse = promoted_search(home, Narrow(model="narrow"), 2 * FEWEST)
    assert run(*SMALL, home=home) == 0
    said = capsys.readouterr().out.strip()
    assert "sat2-cycle-1: collapsed; " in said and "places falls from" in said
    assert "answers falls from" in said and "since the searches of other models" in said
    cycle = Cycle(warehouse, "sat2", 1)
    assert cycle.done["outcome"] == "collapsed" and cycle.outcome("publish") is None
    report = read_report(cycle)
    assert {check.name for check in report.collapse if check.failed} >= {"places", "answers"}
    # Revoked, as the sentence says, its searches are out of the way.
    command = re.search(r"`vigorl (revoke run \S+ --reason collapse)`", said)[1]
    assert run(*command.split(), home=home) == 0
    assert check_collapse(begin_cycle(warehouse, "sat2", {})) == {"checks": []}


def test_a_champion_that_does_not_narrow_passes_and_other_models_are_not_checked(wide, tmp_path):
    home = shutil.copytree(wide, tmp_path / "home")
    warehouse = Warehouse.at(str(home))
    assert check_collapse(begin_cycle(warehouse, "sat2", {})) == {"checks": []}
    promoted_search(home, StubServer(model="as-wide"))
    outcome = check_collapse(Cycle(warehouse, "sat2", 1))
    assert "ends" not in outcome
    assert {check["name"] for check in outcome["checks"]} >= {"answers", "places", "pass@4"}


@pytest.mark.slow
def test_searches_are_held_against_the_last_cycle_and_the_first(wide, tmp_path):
    home = shutil.copytree(wide, tmp_path / "home")
    warehouse = Warehouse.at(str(home))
    for number, server in ((1, None), (2, StubServer(model="as-wide"))):
        if server:
            promoted_search(home, server)
        cycle = begin_cycle(warehouse, "sat2", {"settings": {}})
        cycle.store("publish", {"dataset": publish(warehouse, "sat2-cycle", KEPT).ref})
        cycle.store("gate", {"outcome": "refused"})
        cycle.store("end", {"outcome": "refused", "reason": "it was refused"})
        assert cycle.number == number
    promoted_search(home, Narrow(model="narrow"))
    outcome = check_collapse(begin_cycle(warehouse, "sat2", {}))
    failed = {(check["name"], check["since"]) for check in outcome["checks"] if check["failed"]}
    assert failed >= {("places", "sat2-cycle-1"), ("places", "sat2-cycle-2")}
    assert outcome["ends"]["outcome"] == "collapsed"


def test_what_is_measured_of_a_search_is_what_it_holds(wide):
    warehouse = Warehouse.at(str(wide))
    (tree,) = query(warehouse, "FROM trees ORDER BY tree_id LIMIT 1").to_pylist()
    (found,) = read_searches(warehouse, [tree["tree_id"]])
    assert found.right == tree["right_rollouts"] and found.ends >= found.right
    assert set(found.answers) <= {"left", "right"} and found.gold in ("left", "right")
    (row,) = query(
        warehouse,
        "SELECT count(DISTINCT trace_id) AS traces, count(x) AS points FROM traces JOIN steps "
        f"USING (trace_id) WHERE tree_id = '{tree['tree_id']}' AND kind <> 'corrected'",
    ).to_pylist()
    assert len(found.lengths) == row["traces"] and sum(found.places.values()) == row["points"]


# ---- as a flow ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefect_server():
    """A Prefect server, kept for both tests of it."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_prefect_shows_the_summary(home, prefect_server):
    from prefect.client.orchestration import get_client

    from flows.retrain import retrain

    settings = {"task": "sat2", "sft_recipe": "nano-sft", "home": str(home)}
    chosen = {name: value for name, value in settings.items() if name != "home"}
    looked = {"questions": 0, "traces": 3, "settings": chosen}
    cycle = begin_cycle(Warehouse.at(str(home)), "sat2", looked)
    cycle.store("build", {"trees": 0, "traces": 3})

    async def artifacts():
        async with get_client() as client:
            return await client.read_artifacts()

    said = asyncio.run(retrain(**settings))
    (shown,) = asyncio.run(artifacts())
    assert "too few; 3 new traces were kept, 50 are wanted" in said
    assert (shown.type, shown.key, shown.description) == ("markdown", "retrain-sat2", said)
    assert shown.data == render_summary(read_report(cycle))


@pytest.mark.slow
def test_prefect_does_not_begin_again_with_what_collapsed(wide, tmp_path, prefect_server):
    from flows.retrain import retrain

    home = shutil.copytree(wide, tmp_path / "home")
    warehouse = promoted_search(home, Narrow(model="narrow"))
    settings = {"task": "sat2", "sft_recipe": "nano-sft", "home": str(home), "min_new_traces": 1}
    looked = {"questions": 0, "traces": 9, "settings": {"task": "sat2", "sft_recipe": "nano-sft"}}
    begin_cycle(warehouse, "sat2", looked).store("build", {"trees": 0, "traces": 99})
    said = asyncio.run(retrain(**settings))
    assert "sat2-cycle-1: collapsed; " in said
    assert [cycle.number for cycle in cycles(warehouse, "sat2")] == [1]

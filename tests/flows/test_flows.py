"""Commands, deployments and settings say the same thing, and a deployment's flow really runs."""

import asyncio
import importlib
import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.settings import BuildSettings, TeacherSettings
from flows.settings_base import Problem
from flows.teachers.resolve import resolve
from flows.teachers.spaces import checkpoint_space
from mcts.coordinates import CoordinateSpace, SpaceKind
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from vigorl_nano import TEACHER
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

PROJECT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]


def flow_of(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"])
def test_every_deployment_loads_and_its_parameters_are_the_flows(deployment):
    flow = flow_of(deployment)
    assert set(deployment.get("parameters", ())) <= set(inspect.signature(flow.fn).parameters)
    assert flow.name == deployment["entrypoint"].rpartition(".")[2].replace("_", "-")


def test_a_bad_setting_is_a_sentence_that_names_it():
    with pytest.raises(Problem, match=r"top_p: .* less than or equal to 1 \(it was 2\)"):
        BuildSettings.checked(task="sat2", top_p=2)


def test_help_answers_without_loading_heavy_libraries():
    code = (
        "import sys; from flows import cli; "
        "heavy = {'torch','transformers','prefect','duckdb','pyarrow','pandas'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"loaded for --help: {done.stderr}"


def test_a_checkpoint_says_which_coordinates_it_speaks(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (tmp_path / "preprocessor_config.json").write_text('{"min_pixels": 3136, "max_pixels": 501760}')
    assert checkpoint_space(tmp_path) == CoordinateSpace.qwen25_vl(3136, 501760)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(Problem, match="'llava' model are not known; give --space"):
        checkpoint_space(tmp_path)
    nano = checkpoint_space(TEACHER)
    assert (nano.kind, nano.max_pixels) == (SpaceKind.NORMALIZED_1000, 196 * 196)


@pytest.mark.parametrize(
    ("model", "space"),
    [
        ("Qwen/Qwen2.5-VL-72B-Instruct", CoordinateSpace.qwen25_vl()),
        ("Qwen/Qwen3-VL-8B", CoordinateSpace.qwen3_vl()),
        ("qwen2-vl-7b", CoordinateSpace.qwen2_vl()),
    ],
)
def test_a_servers_coordinates_follow_from_a_model_name_that_says_them(model, space):
    assert resolve(TeacherSettings(teacher="http://gpu:8000", model=model)).space == space


@pytest.fixture(scope="module")
def prefect_server():
    """A Prefect server, kept for both tests of it."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def artifacts(evaluations):
    """What the server of `prefect_server` shows: of evaluations, or of the other flows."""
    from prefect.client.orchestration import get_client

    async def read():
        async with get_client() as client:
            return await client.read_artifacts()

    shown = asyncio.run(read())
    return [one for one in shown if str(one.key).startswith("evaluation-") == evaluations]


def test_the_flow_builds_traces_and_shows_them(tmp_path, monkeypatch, prefect_server):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.settings import get_current_settings

    from flows.build_traces import build_traces
    from flows.curate_traces import curate_traces
    from flows.judge_traces import judge_traces
    from flows.orchestration import gpu_slots as gpus

    warehouse = Warehouse(str(tmp_path / "home"))
    import_questions(warehouse, "sat2", write_sat(tmp_path / "SAT_train.parquet", sat_rows(3)))

    async def one_at_a_time():
        """Two flows that want the GPU, and how many held it at once, at most."""
        async with get_client() as client:
            await client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name="gpu", limit=1)
            )
        now = most = 0

        async def wants():
            nonlocal now, most
            async with gpus.gpu_slot(True):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.3)
                now -= 1

        await asyncio.gather(wants(), wants())
        async with gpus.gpu_slot(False):
            return most

    secrets = {"OPENAI_API_KEY": "sk-test-9f8e7d6c5b", "SERVER_PASSWORD": "p4ssw0rd-of-a-server"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with StubServer() as server:
        assert asyncio.run(one_at_a_time()) == 1
        said = asyncio.run(
            build_traces(
                task="sat2",
                teacher=server.url.replace("://", "://me:$SERVER_PASSWORD@"),
                headers=["x-key=$OPENAI_API_KEY"],
                space="qwen3-vl",
                simulations=2,
                shard=2,
                home=warehouse.root,
            )
        )
        curated = asyncio.run(curate_traces(task="sat2", home=warehouse.root))
        judged = asyncio.run(
            judge_traces(
                task="sat2", what="behaviors", judge=server.url, limit=1, home=warehouse.root
            )
        )
        end = time.monotonic() + 20  # artifacts are written behind the flow's back
        while len(shown := artifacts(evaluations=False)) < 3 and time.monotonic() < end:
            time.sleep(0.5)
        database = get_current_settings().server.database.connection_url.get_secret_value()
        stored = b"".join(
            p.read_bytes()
            for p in Path(database.partition("///")[2]).parent.iterdir()
            if p.is_file()
        )
    assert b"$SERVER_PASSWORD" in stored, "this is the database, and it holds the parameters"
    assert not [name for name, value in secrets.items() if value.encode() in stored]
    assert said.startswith("3 questions searched, ")
    assert curated == said, "nothing has changed since"
    assert judged.startswith("1 traces judged: ")
    assert {artifact.type for artifact in shown} == {"progress", "table", "image"}
    (progress,) = [a for a in shown if a.type == "progress"]
    assert progress.data == 100.0
    rows = query(warehouse, "SELECT count(*) AS n FROM trees WHERE status = 'complete'")
    assert rows["n"].to_pylist() == [3]


def test_the_flow_measures_and_shows_a_table(tmp_path, prefect_server):
    from flows.evaluate_model import evaluate_model

    warehouse = Warehouse(str(tmp_path / "home"))
    sample = write_sat(tmp_path / "SAT_test.parquet", sat_rows(12))
    import_questions(warehouse, "sat2", sample, split="test")
    with StubServer() as server:
        output = asyncio.run(
            evaluate_model(
                model=server.url,
                benchmark="sat2",
                against=server.url,
                space="qwen3-vl",
                response_style="zoom",
                max_crops=1,
                home=warehouse.root,
            )
        )
    (shown,) = artifacts(evaluations=True)
    assert "12 questions" in output and "which includes 0" in output
    assert "zoom minus no zoom: " in output
    assert shown.type == "table" and shown.key == "evaluation-sat2"
    rows = json.loads(shown.data)
    assert [row["questions"] for row in rows] == ["12", "12", "12"]
    assert [row["family"] for row in rows] == ["all", "no zoom", "all"]

"""Models trained here as teachers: by alias, looked up once, and recorded by id."""

import json
import shutil

import pytest

from flows.settings import BuildSettings
from flows.teachers.resolve import resolve
from flows.teachers.spaces import checkpoint_space
from flows.teachers.trained import name_once, served_model, teacher_id
from mcts.teachers.checkpoints import find_checkpoint
from tests.flows.test_cli import run
from tests.support.fixtures import sat_rows, write_sat
from warehouse.models import ModelInfo, store_model
from warehouse.query.run_query import query
from warehouse.registry import Decision, decide
from warehouse.storage.home import Warehouse, WarehouseError


@pytest.fixture
def made(tmp_path):
    """A warehouse with two questions whose champion is the embedded model, and the model's row."""
    warehouse, folder = Warehouse.at(str(tmp_path / "home")), find_checkpoint("nano")
    shutil.copytree(folder, tmp_path / "student")
    space = checkpoint_space(folder)
    info = ModelInfo("sat2-cycle-1-sft", None, "sat2-cycle@v1", {}, space, {}, "train-1")
    row = store_model(warehouse, tmp_path / "student", info)
    decide(warehouse, Decision("sat2", row["model_id"], "promoted", "the first"))
    sample = write_sat(tmp_path / "SAT_train.parquet", sat_rows(2))
    assert run("import", "sat2", sample, home=warehouse.root) == 0
    return warehouse, row


def test_the_champion_searches_and_the_run_and_its_trees_hold_its_id(made):
    warehouse, row = made
    options = ("--teacher", "champion:sat2", "--simulations", "1", "--limit", "1")
    assert run("build", "sat2", *options, home=warehouse.root) == 0
    (built,) = query(warehouse, "SELECT params FROM runs WHERE kind = 'build'").to_pylist()
    assert json.loads(built["params"])["teacher"] == row["model_id"]
    (tree,) = query(warehouse, "SELECT model, n_nodes FROM trees").to_pylist()
    assert tree["model"] == row["model_id"] and tree["n_nodes"] > 1
    # A name or an id means it too, so nothing is searched again.
    for name in ("sat2-cycle-1-sft", row["model_id"]):
        assert run("build", "sat2", "--teacher", name, *options[2:], home=warehouse.root) == 0
    assert query(warehouse, "SELECT count(*) AS n FROM trees").to_pylist() == [{"n": 1}]


def test_an_alias_is_looked_up_once(made, tmp_path):
    warehouse, row = made
    settings = BuildSettings.checked(task="sat2", teacher="champion:sat2", home=warehouse.root)
    settings = name_once(settings)
    assert teacher_id(warehouse.root, "vllm-cpu:champion:sat2") == f"vllm-cpu:{row['model_id']}"
    decide(warehouse, Decision("sat2", "other@2", "promoted", "meanwhile"))
    assert resolve(settings).teacher.identity == row["model_id"]
    for other in ("nano", "http://gpu:8000", "vllm:student", str(tmp_path / "nowhere")):
        settings = BuildSettings.checked(task="sat2", teacher=other, home=warehouse.root)
        assert name_once(settings) is settings


def test_vllm_is_given_the_champions_folder_where_it_is_on_this_machine(made):
    warehouse, row = made
    assert served_model(warehouse.root, "champion:sat2") == f"{warehouse.root}/{row['path']}"
    assert served_model(warehouse.root, "Qwen/Qwen2.5-VL-7B-Instruct").startswith("Qwen/")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("champion:vstar", "vstar has no champion: `vigorl models promote vstar MODEL`"),
        ("challenger:sat2", "sat2 has no challenger"),
        ("sat2-cycle-2", "'sat2-cycle-2' is no registered model"),
    ],
)
def test_a_teacher_that_is_not_there_is_one_sentence(made, name, sentence, capsys):
    warehouse, _ = made
    capsys.readouterr()
    assert run("build", "sat2", "--teacher", name, home=warehouse.root) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_champion_whose_files_are_lost_is_one_sentence(made):
    warehouse, row = made
    shutil.rmtree(f"{warehouse.root}/{row['path']}")
    settings = BuildSettings.checked(task="sat2", teacher="champion:sat2", home=warehouse.root)
    with pytest.raises(WarehouseError, match="the files of model sat2-cycle-1-sft are not in"):
        resolve(settings)

"""A model folder that can't be loaded: one sentence, status 2, and nothing is left of it."""

import shutil
import sys

import pytest
from PIL import Image

from flows.cli.app import main
from tests.flows.test_cli import run
from vigorl_nano import BASE
from vigorl_nano.claims.parts import EVERY_BAND
from warehouse.query.run_query import query
from warehouse.sources.importing import import_sample
from warehouse.storage.home import Warehouse


@pytest.fixture
def cut_off(tmp_path):
    """A copy of the embedded base whose weights end in their header."""
    folder = shutil.copytree(BASE, tmp_path / "cut-off")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return folder


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def ask(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vigorl", "ask", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def said(capsys):
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


def test_damaged_weights_are_one_sentence(cut_off, picture, capsys, monkeypatch):
    assert ask(monkeypatch, cut_off, picture, "Which?") == 2
    assert f"cannot load the model in {cut_off}: " in said(capsys)


def test_a_folder_without_weights_is_one_sentence(cut_off, picture, capsys, monkeypatch):
    (cut_off / "model.safetensors").unlink()
    assert ask(monkeypatch, cut_off, picture, "Which?") == 2
    assert f"{cut_off} holds no model" in said(capsys)


def test_a_training_from_damaged_weights_leaves_nothing(cut_off, tmp_path, capsys):
    home = tmp_path / "home"
    warehouse = Warehouse(str(home))
    import_sample(warehouse, "sat2")
    given = ("nano-grpo", "--task", "sat2", "--model", str(cut_off), "--limit", "16")
    assert run("train", "grpo", *given, "-o", f"bands={EVERY_BAND}", home=home) == 2
    assert f"cannot load the model in {cut_off}: " in said(capsys)
    assert query(warehouse, "FROM runs WHERE kind LIKE 'train%'").num_rows == 0
    assert not [path for path in home.glob("training/*") if path.is_dir()]

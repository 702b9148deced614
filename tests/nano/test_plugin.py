"""The embedded models are a plugin: the product runs without them, and with another package's."""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from flows.cli import app as cli
from mcts.teachers import checkpoints
from mcts.teachers.checkpoints import PromptStyle, prompt_style, write_prompt_style
from tests.support.fixtures import picture
from training.students import open_student
from vigorl_nano import BASE
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

ROOT = Path(__file__).parents[2]
WITHOUT = """
import importlib.metadata, sys

every = importlib.metadata.entry_points

def entry_points(**selection):
    points = every(**selection)
    return importlib.metadata.EntryPoints(p for p in points if "vigorl_nano" not in p.value)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "vigorl_nano":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

importlib.metadata.entry_points = entry_points
sys.meta_path.insert(0, Missing())
from flows.cli.app import main
main()
"""


def vigorl_alone(*arguments):
    """Run `vigorl` where the package of the embedded models is not installed."""
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_product_works_without_the_embedded_models(tmp_path):
    shown = vigorl_alone("--help")
    assert shown.returncode == 0 and "build" in shown.stdout and not shown.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("build", "sat2", "--limit", "1"),
        ("build", "sat2", "--limit", "1", "--dry-run"),
    ],
)
def test_without_a_default_model_one_sentence_says_so(command, tmp_path):
    refused = vigorl_alone(*command, "--home", tmp_path / "home")
    assert refused.returncode == 2 and not refused.stdout
    (sentence,) = refused.stderr.splitlines()
    assert "no model is registered as the default; name one" in sentence


@pytest.mark.slow
def test_without_the_embedded_models_a_folder_still_is_a_teacher(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(BASE, folder)
    write_prompt_style(folder, PromptStyle(step_tokens=16))  # asked with the product's prompts
    build = ("build", "sat2", "--limit", "1", "--dry-run", "--home", tmp_path / "home")
    planned = vigorl_alone(*build, "--teacher", folder)
    assert planned.returncode == 0 and "1 question" in planned.stdout, planned.stderr


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """Install a package that registers the checkpoint `acme-tiny`; return the checkpoint."""
    site = tmp_path / "site"
    info = site / "acme_models-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vigorl.models]\nacme-tiny = acme_models:TINY\n")
    folder = site / "acme_tiny"
    shutil.copytree(BASE, folder)  # a model that can answer
    (site / "acme_models.py").write_text(
        "from pathlib import Path\n\nTINY = Path(__file__).with_name('acme_tiny')\n"
    )
    monkeypatch.syspath_prepend(site)
    caches = (checkpoints.registered_checkpoints, checkpoints.default_model)
    for cached in caches:
        cached.cache_clear()
    yield folder
    sys.modules.pop("acme_models", None)
    for cached in caches:
        cached.cache_clear()


def vigorl(monkeypatch, *arguments):
    """Run `vigorl` in this process; its status."""
    monkeypatch.setattr(sys, "argv", ["vigorl", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
    return 0


def test_another_packages_checkpoint_is_found_by_its_name(acme, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    build = ("build", "sat2", "--limit", "1", "--simulations", "1", "--home", home)
    assert vigorl(monkeypatch, *build, "--teacher", "acme-tiny") == 0
    evaluate = ("evaluate", "acme-tiny", "sat2", "--limit", "1", "--home", home)
    assert vigorl(monkeypatch, *evaluate) == 0
    warehouse = Warehouse(str(home))
    (row,) = query(warehouse, "SELECT model_id FROM evaluations").to_pylist()
    assert row["model_id"].startswith("acme_tiny@")

    image = tmp_path / "room.png"
    image.write_bytes(picture(3, (64, 64)))
    ask = ("ask", "acme-tiny", image, "Where is it?", "--choice", "left", "--choice", "right")
    assert vigorl(monkeypatch, *ask, "--out", tmp_path / "seen.png") == 0
    assert (tmp_path / "seen.png").is_file()

    with open_student(warehouse, "acme-tiny") as found:
        assert found.folder == acme and found.prompt_style == prompt_style(BASE)


def test_this_packages_entry_points_are_folders_of_checkpoints():
    points = metadata.entry_points(group=checkpoints.GROUP)
    ours = [point for point in points if point.module == "vigorl_nano"]
    named = {p.name: p for p in ours if p.name.partition("-")[0] != checkpoints.DEFAULT}
    folders = [point.load() for point in named.values()]
    assert {point.name for point in ours} >= {"nano", "nano-base", "nano-reader", "default"}
    assert all((Path(folder) / checkpoints.STYLE_FILE).is_file() for folder in folders)
    for task in ("", "sat2", "vstar"):
        assert checkpoints.default_model(task) in checkpoints.registered_checkpoints()


def test_no_file_of_the_product_names_these_models():
    for package in ("mcts", "curation", "warehouse", "training", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            found = re.search(r"(?<![a-z])(vigorl_)?nano(?![a-z])", path.read_text("utf-8"))
            assert found is None, f"{path.relative_to(ROOT)} names {found[0]}"

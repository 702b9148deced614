"""The house rules that code must keep; each failure names the file and the line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.house import PACKAGES, ROOT, Import, imports_in, imports_of, project_files, pyproject

# A library with one door: only these packages import it.
DOORS = {
    "prefect": {"flows"},
    "duckdb": {"warehouse"},
    "deltalake": {"warehouse"},
    "boto3": {"warehouse"},
    "botocore": {"warehouse"},
    "datasets": {"warehouse", "training"},
    "selenium": {"warehouse"},
    "trl": {"training"},
    "peft": {"training"},
    "accelerate": {"training"},
}
HEAVY = {"torch", "transformers", "prefect", "duckdb", "deltalake", "boto3", "datasets", "trl"}
# Of mcts: values in, values out.
PURE = ["search", "running", "lookahead", "tree", "data", "coordinates", "parsing"]
DISK = {"glob", "io", "os", "pathlib", "shutil", "sqlite3", "subprocess", "tempfile"}
COMES_WITH = {  # imported under one name, declared under another
    "botocore": "boto3",
    "profanity_check": "alt-profanity-check",
}

MOST_LINES = 300
LONGER = {  # files that may be longer, and why splitting them would make them harder to read
    "mcts/openai_teacher.py": "one client: its requests, its retries and its probing share state",
    "mcts/tree.py": "one Node: its statistics, and its way to rows and back",
}

IMPORTS = [found for path in project_files() for found in imports_in(path)]


def against_the_arrow(found: Import) -> bool:
    """A package of ours that imports one of ours to its right."""
    own = found.file.split("/")[0]
    return found.top in PACKAGES and PACKAGES.index(found.top) > PACKAGES.index(own)


def through_the_wall(found: Import) -> bool:
    return found.top in DOORS and found.file.split("/")[0] not in DOORS[found.top]


def shown(problems: list) -> str:
    return "\n" + "\n".join(dict.fromkeys(map(str, problems)))


# ---- who imports whom -----------------------------------------------------------------------


def test_packages_import_only_to_their_left() -> None:
    wrong = [found for found in IMPORTS if against_the_arrow(found)]
    assert not wrong, f"the arrow is {' <- '.join(PACKAGES)}{shown(wrong)}"


def test_each_library_is_imported_by_its_own_package_only() -> None:
    wrong = [found for found in IMPORTS if through_the_wall(found)]
    assert not wrong, shown(wrong)


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        ("import warehouse", 1),
        ("import warehouse.tables as t", 1),
        ("from flows.settings import BuildSettings", 1),
        ("def late():\n    from training.nano import config", 2),
        ("class A:\n    async def b(self):\n        import curation.filters", 3),
        ("try:\n    import flows\nexcept ImportError:\n    pass", 2),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import curation", 3),
        ("from .. import flows", 1),
        ("from ..warehouse import catalog", 1),
        ("import importlib\nimportlib.import_module('flows.cli')", 2),
        ("x = __import__('training')", 1),
    ],
)
def test_the_walker_sees_a_planted_violation(planted: str, line: int) -> None:
    # As if written in a module one folder deep, so that two dots lead out of the package.
    caught = [found for found in imports_of(planted, "mcts/planted.py") if against_the_arrow(found)]
    assert caught
    assert all(str(found).startswith(f"mcts/planted.py:{line}: imports ") for found in caught)


def test_the_walker_sees_a_planted_library_and_leaves_the_rest_alone() -> None:
    source = "import os\nfrom mcts.data import Point\ndef f():\n    from prefect import flow\n"
    found = list(imports_of(source, "curation/planted.py"))
    assert {str(f) for f in found if through_the_wall(f)} == {
        "curation/planted.py:4: imports prefect",
        "curation/planted.py:4: imports prefect.flow",
    }
    assert not [f for f in found if against_the_arrow(f)]
    assert [f.lazy for f in found] == [False, False, False, True, True]


def test_every_library_imported_is_a_declared_dependency() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requirements}

    base, train = names(project["dependencies"]), names(extras["train"])
    filters, web = names(extras["filters"]), names(extras["web"])
    providers = metadata.packages_distributions()
    wrong = []
    for found in IMPORTS:
        if found.top in PACKAGES or found.top in sys.stdlib_module_names:
            continue
        allowed = base | train if found.file.startswith("training/") else base
        if found.file == "curation/content_models.py":
            allowed = base | filters  # off where they are not installed
        if found.file.startswith("warehouse/browser/"):
            allowed = base | web  # it says what to install where they are not there
        top = COMES_WITH.get(found.top, found.top)
        if not allowed & {p.lower().replace("_", "-") for p in providers.get(top, [top])}:
            wrong.append(found)
    assert not wrong, shown(wrong)


# ---- what loads when ------------------------------------------------------------------------


def loaded_by(module: str) -> set[str]:
    """The top-level modules in a fresh interpreter that has imported only this."""
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", [f"mcts.{name}" for name in PURE] + ["flows.cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    assert not loaded_by(module) & HEAVY


@pytest.mark.parametrize("name", PURE)
def test_the_search_and_its_nouns_touch_no_disk(name: str) -> None:
    path = ROOT / "mcts" / f"{name}.py"
    wrong: list = [found for found in imports_in(path) if found.top in DISK]
    wrong += [
        f"mcts/{name}.py:{node.lineno}: calls open"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "open"
    ]
    assert not wrong, shown(wrong)


# ---- what code may not do -------------------------------------------------------------------


def unsafe(source: str, file: str) -> list[str]:
    """Lines that would run code from data: unpickling, remote code, eval."""
    found = [
        f"{i.file}:{i.line}: imports {i.module}"
        for i in imports_of(source, file)
        if i.top in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    ]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
        says = {name: ast.unparse(value) for name, value in options.items()}
        if (
            (called == "torch.load" and says.get("weights_only") != "True")
            or (called in ("yaml.load", "yaml.unsafe_load") and "Safe" not in ast.unparse(node))
            or says.get("trust_remote_code", "False") != "False"
            or says.get("allow_pickle", "False") != "False"
            or called in ("eval", "exec")
        ):
            found.append(f"{file}:{node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_nothing_runs_code_that_came_as_data() -> None:
    wrong = [
        line for p in project_files() for line in unsafe(p.read_text(), str(p.relative_to(ROOT)))
    ]
    assert not wrong, shown(wrong)


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("import pickle", True),
        ("def f():\n    from dill import loads", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("AutoModel.from_pretrained(p, trust_remote_code=True)", True),
        ("AutoModel.from_pretrained(p, trust_remote_code=False)", False),
        ("np.load(p, allow_pickle=True)", True),
        ("yaml.load(text)", True),
        ("yaml.safe_load(text)", False),
        ("eval('1')", True),
        ("model.eval()", False),
    ],
)
def test_a_planted_unsafe_load_is_seen(line: str, bad: bool) -> None:
    assert bool(unsafe(line, "mcts/planted.py")) is bad


def test_no_file_hides_a_library() -> None:
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions()) - set(PACKAGES)
    wrong = [
        f"{path.relative_to(ROOT)} has the name of a library"
        for path in project_files() + project_files("tests")
        if path.stem in taken and not path.stem.startswith("__")
    ]
    assert not wrong, shown(wrong)
    assert not any(p.is_dir() and p.name in PACKAGES for p in (ROOT / "tests").iterdir())


def test_files_stay_short() -> None:
    wrong = []
    for path in project_files():
        name, lines = path.relative_to(ROOT).as_posix(), len(path.read_text().splitlines())
        if lines > MOST_LINES and name not in LONGER:
            wrong.append(f"{name}: {lines} lines; at most {MOST_LINES}, or a reason in LONGER")
    assert not wrong, shown(wrong)
    assert not [name for name in LONGER if not Path(ROOT, name).is_file()]

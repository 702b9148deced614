"""The house rules that code must keep; each failure names the file and the line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.project_files import (
    PACKAGES,
    ROOT,
    Import,
    imports_in,
    imports_of,
    project_files,
    pyproject,
)

HEAVY = {"torch", "transformers", "prefect", "duckdb", "deltalake", "boto3", "datasets", "trl"}
# Of mcts: values in, values out.
PURE = [
    *("search", "config", "engine", "policy", "budget", "baselines", "prefetch", "concurrency"),
    *("tree", "data", "coordinates", "parsing"),
]
DISK = {"glob", "io", "os", "pathlib", "shutil", "sqlite3", "subprocess", "tempfile"}
COMES_WITH = {  # imported under one name, declared under another
    "botocore": "boto3",
    "profanity_check": "alt-profanity-check",
}

MOST_LINES = 500
LONGER: dict[str, str] = {}  # files that may be longer, and why they are one unit
MOST_FILES = 20
MOST_FUNCTION_LINES = 60
FULLER = {"warehouse/sources/benchmarks"}  # one file a published format


@cache
def every_import() -> list[Import]:
    return [found for path in project_files() for found in imports_in(path)]


def shown(problems: list) -> str:
    return "\n" + "\n".join(dict.fromkeys(map(str, problems)))


# ---- who imports whom -----------------------------------------------------------------------


def test_the_import_contracts_of_pyproject_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_library_imported_is_a_declared_dependency() -> None:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requirements}

    base, train = names(project["dependencies"]), names(extras["train"])
    filters, web = names(extras["filters"]), names(extras["web"])
    providers = metadata.packages_distributions()
    wrong = []
    for found in every_import():
        if found.top in PACKAGES or found.top in sys.stdlib_module_names:
            continue
        allowed = base | train if found.file.startswith(("training/", "vigorl_nano/")) else base
        if found.file == "curation/filters/content_models.py":
            allowed = base | filters  # a filter file that names them says what to install
        if found.file in ("flows/ray_cluster.py", "flows/teachers/ray_replicas.py"):
            allowed = base | names(extras["ray"])  # it says what to install
        if found.file == "flows/stages/shards/ray_workers.py":
            allowed = base | names(extras["ray"])  # in what Ray itself runs
        if found.file == "benchmarks/dedup.py":
            allowed = base | {"daft"}  # an option, which says what to install
        if found.file.startswith("vigorl_nano/browser/"):
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


@pytest.mark.parametrize("module", [f"mcts.{name}" for name in PURE] + ["flows.cli.app"])
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


def test_no_package_hides_a_library() -> None:
    installed = metadata.packages_distributions()
    others = {name for name in PACKAGES if set(installed.get(name, ())) - {"vigorl"}}
    assert not others | (set(PACKAGES) & sys.stdlib_module_names)


def test_files_stay_units() -> None:
    wrong = []
    for path in project_files():
        name, lines = path.relative_to(ROOT).as_posix(), len(path.read_text().splitlines())
        if lines > MOST_LINES and name not in LONGER:
            wrong.append(f"{name}: {lines} lines; at most {MOST_LINES}, or a reason in LONGER")
    assert not wrong, shown(wrong)
    assert not [name for name in LONGER if not Path(ROOT, name).is_file()]


def test_folders_stay_small() -> None:
    files = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for path in project_files()
        if path.name != "__init__.py"
    )
    wrong = [f"{folder}: {n} files" for folder, n in files.items() if n > MOST_FILES]
    assert not [line for line in wrong if line.split(":")[0] not in FULLER], shown(wrong)


def test_functions_stay_short() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines"
        for path in project_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert not wrong, shown(wrong)


def test_a_class_name_means_one_thing_in_the_product() -> None:
    places: dict[str, list[str]] = {}
    for path in project_files(*PACKAGES[:-1]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: files for name, files in places.items() if len(files) > 1}

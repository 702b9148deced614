"""What is installed is this project, whole: packages, data files, versions, named commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from tests.support.project_files import PACKAGES, ROOT, project_files, pyproject

PROJECT = pyproject()["project"]
SETUPTOOLS = pyproject()["tool"]["setuptools"]
DOCUMENTS = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.is_file()]


def import_places(python_path: Path | None = None) -> dict[str, Path]:
    """Where each package is imported from, asked of an interpreter far from the tree."""
    code = (
        "import importlib\n"
        f"for name in {PACKAGES}: print(name, importlib.import_module(name).__file__)"
    )
    env = {"PYTHONPATH": str(python_path)} if python_path else {}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd="/",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {name: Path(file).parent.parent for name, file in places}


def is_installed() -> bool:
    try:
        metadata.version("vigorl")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not is_installed(), reason="vigorl is not installed; `make test` installs it")
def test_every_package_is_ours_not_a_namesake_from_pypi() -> None:
    # PyPI has distributions that install a `mcts` or a `flows`.
    assert import_places() == dict.fromkeys(PACKAGES, ROOT)
    installed = metadata.packages_distributions()
    assert {name: set(installed[name]) for name in PACKAGES if name in installed} == {
        name: {"vigorl"} for name in PACKAGES if name in installed
    }


FOLDERS = {path.parent.relative_to(ROOT).as_posix() for path in project_files()}


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    found = find_packages(str(ROOT), include=SETUPTOOLS["packages"]["find"]["include"])
    assert sorted(folder.replace("/", ".") for folder in FOLDERS) == sorted(found)


def test_every_data_file_is_listed_as_package_data() -> None:
    covered = {
        file
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for folder in (FOLDERS if package == "*" else [package.replace(".", "/")])
        for file in (ROOT / folder).glob(pattern)
    }
    data = [path for path in project_files(suffix="") if path.suffix != ".py"]
    missing = [str(path.relative_to(ROOT)) for path in data if path not in covered]
    assert not missing, f"add to [tool.setuptools.package-data]: {missing}"


def test_the_wheel_holds_the_tree_and_imports_from_it(tmp_path: Path) -> None:
    source, built, unpacked = (tmp_path / name for name in ("source", "built", "unpacked"))
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", built),
            *("--no-deps", "--no-build-isolation", "--no-index", source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wheel = next(built.glob(f"vigorl-{PROJECT['version']}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    tree = {path.relative_to(ROOT).as_posix() for path in project_files(suffix="")}
    inside = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    inside = {name for name in inside if (unpacked / name).is_file() and ".dist-info/" not in name}
    assert inside == tree
    assert import_places(unpacked) == dict.fromkeys(PACKAGES, unpacked)


# ---- the lock -------------------------------------------------------------------------------


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_the_lock_pins_versions_that_any_index_can_serve() -> None:
    for requirement in (r for group in locked().values() for r in group):
        pin = str(requirement.specifier)
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", pin), f"{requirement}: a plain version, no build"
        assert requirement.url is None


def test_the_lock_has_every_declared_dependency_within_its_bounds() -> None:
    extras, pins = PROJECT["optional-dependencies"], locked()
    for text in [*PROJECT["dependencies"], *extras["train"], *extras["dev"]]:
        wanted = Requirement(text)
        pinned = pins.get(canonicalize_name(wanted.name), [])
        assert pinned, f"{wanted.name} is not locked: run `make lock`"
        for pin in pinned:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version), f"{text}, locked {version}: `make lock`"


# ---- documents that fail when stale ----------------------------------------------------------


def test_the_changelog_has_a_section_for_this_version() -> None:
    newest = re.search(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == PROJECT["version"]


def test_every_make_target_that_is_named_exists_and_is_listed_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (help .*)$", makefile, re.MULTILINE)[1].split())
    assert targets == phony
    workflow = (ROOT / ".ci" / "run").read_text()
    for name, text in [(p.name, p.read_text()) for p in DOCUMENTS] + [(".ci/run", workflow)]:
        named = re.findall(r"(?:^\s*|`|&& )make ([a-z][a-z-]*)", text, re.MULTILINE)
        assert set(named) <= targets, f"{name} names a make target that is not there"


def test_make_runs_modules_and_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for module in re.findall(rf"-m ((?:{'|'.join(PACKAGES)})[\w.]*)", makefile):
        path = ROOT / module.replace(".", "/")
        runs = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        assert runs, f"no module {module}"
    from flows.cli.app import app

    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    for command in re.findall(r"\$\(BIN\)/vigorl (\w+)", makefile):
        assert command in commands


def test_generated_files_are_not_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    left_over = ("*.pyc", "*.egg-info/*", ".venv/*", "dist/*", "build/*", "vigorl-data/*")
    wrong = [f for f in tracked.stdout.split("\n") if any(fnmatch(f, p) for p in left_over)]
    assert not wrong

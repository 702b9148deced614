"""The drawing of single-point changes: every kind is found, what cannot matter is not."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

from tests.mutants.__main__ import (
    PACKAGES,
    Outcome,
    choose,
    draw,
    equivalents,
    report,
    run,
    wilson,
)
from tests.mutants.coverage_map import CoverageMap
from tests.mutants.draw import Mutant, mutants_of
from tests.mutants.warm import WarmTests

SOURCE = '''"""Text 1."""
import os


def first(a: int = 3, *, b: bool = True) -> int:
    """Two or 2."""
    if a < 2 and not b:
        raise ValueError(f"{a + 1} is wrong")
    log(a + 5)
    os.remove("x", dir_fd=a)
    a += 4
    return max(a, 7) - 6


def __repr__() -> str:
    return "x" * 9
'''


def test_every_kind_of_change_is_found_and_what_cannot_matter_is_not() -> None:
    found = mutants_of("x.py", SOURCE)
    changes = {(m.kind, m.change) for m in found}
    assert ("comparison", "a < 2 -> (a <= 2)") in changes
    assert ("and/or", "a < 2 and not b -> ((a < 2) or (not b))") in changes
    assert ("not dropped", "not b -> (b)") in changes
    (product, _) = mutants_of("x.py", "x = y * (a - z)")
    assert product.change == "y * (a - z) -> (y / (a - z))"
    assert ("argument dir_fd dropped", 'os.remove("x", dir_fd=a) -> os.remove("x")') in changes
    assert ("statement dropped", "a += 4 -> pass") in changes
    assert ("function", "max -> min") in changes
    assert ("arithmetic", "max(a, 7) - 6 -> (max(a, 7) + 6)") in changes
    assert ("returns None", "max(a, 7) - 6 -> None") in changes
    assert {("constant", "3 -> 4"), ("constant", "True -> False")} <= changes
    assert any(m.kind == "statement dropped" and "raise" in m.before for m in found)
    assert not any(
        "1" in m.before and m.kind in ("constant", "arithmetic") and "+ 1" in m.before
        for m in found
    )
    assert not any("5" in m.before or '"x" * 9' in m.before for m in found)
    for mutant in found:
        assert ast.dump(ast.parse(mutant.apply(SOURCE))) != ast.dump(ast.parse(SOURCE))


def test_letters_of_several_bytes_do_not_move_a_change() -> None:
    source = 'x = "äö€"; y = x < 3\n'
    (found,) = [m for m in mutants_of("x.py", source) if m.kind == "comparison"]
    assert found.apply(source) == 'x = "äö€"; y = (x <= 3)\n'


def test_a_sample_is_seeded_and_has_every_package() -> None:
    one = draw(PACKAGES[:2], 3, seed=4)
    assert one == draw(PACKAGES[:2], 3, seed=4) != draw(PACKAGES[:2], 3, seed=5)
    assert [m.file.partition("/")[0] for m in one] == ["mcts"] * 3 + ["curation"] * 3


def test_known_equivalents_name_files_that_are_there() -> None:
    root = Path(__file__).resolve().parents[2]
    assert all((root / file).is_file() for file, _ in equivalents())


def test_the_status_says_whether_enough_was_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    mutant = Mutant("mcts/tree.py", 7, "constant", 0, 1, "1", "2")
    assert report([Outcome(mutant, "noticed", 1.0)] * 9 + [Outcome(mutant, "unnoticed", 1.0)]) == 0
    assert report([Outcome(mutant, "noticed", 1.0), Outcome(mutant, "untested", 1.0)]) == 1
    printed = capsys.readouterr().out
    assert "untested mcts/tree.py:7 constant: 1 -> 2" in printed
    assert "9/10 noticed, 90% [60, 98]" in printed
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_change_that_a_test_notices_is_told_from_one_that_none_does(tmp_path: Path) -> None:
    (tmp_path / "mcts").mkdir()
    (tmp_path / "tests" / "mcts").mkdir(parents=True)
    source = "def bigger(a):\n    return a > 1\n"
    (tmp_path / "mcts" / "size.py").write_text(source)
    test = tmp_path / "tests" / "mcts" / "test_size.py"
    mutant = next(m for m in mutants_of("mcts/size.py", source) if m.kind == "comparison")
    test.touch()
    groups = choose(tmp_path, mutant, None)
    assert groups == (["tests/mcts/test_size.py"], [])
    asked = {
        "noticed": "assert not bigger(1)",
        "unnoticed": "assert bigger(5)",
        "undecided": "__import__('time').sleep(60)",
    }
    with WarmTests(tmp_path, libraries=()) as tests:
        for verdict, line in asked.items():
            test.write_text(f"from mcts.size import bigger\n\ndef test_it():\n    {line}\n")
            seconds = 3 if verdict == "undecided" else 60
            assert run(tests, tmp_path, mutant, groups, seconds).verdict == verdict
            assert (tmp_path / "mcts" / "size.py").read_text() == source
        assert run(tests, tmp_path, mutant, ([], []), 60).verdict == "untested"


def test_what_runs_once_counts_for_every_test_of_its_file() -> None:
    source = """LIMIT = 3

def small(a=7):
    if a:
        b = max(
            1, a)
    return b < LIMIT

def other():
    return 1
    return 2
"""
    hashed = {"mcts/size.py": hashlib.sha256(source.encode()).hexdigest()}
    lines = {"mcts/size.py": {1: [], 3: [1], 4: [0, 1], 5: [0], 7: [], 10: [1]}}
    covered = CoverageMap(["t::one", "t::two"], lines, hashed)
    one, two = covered.names
    for line in (1, 3, 7):
        assert covered.tests("mcts/size.py", line, source) == [one, two]
    assert covered.tests("mcts/size.py", 6, source) == [one], "its statement begins above"
    assert covered.tests("mcts/size.py", 10, source) == [two]
    assert covered.tests("mcts/size.py", 11, source) == [], "no test reaches it"
    assert covered.tests("mcts/size.py", 11, source + "\n") == [one, two], "another file by now"


def test_a_test_that_is_newer_than_the_map_is_run() -> None:
    source = "def test_old(): ...\n\ndef helper(): ...\n\ndef test_new(): ...\n"
    covered = CoverageMap(["tests/mcts/test_size.py::test_old[3]"], {}, {})
    assert covered.newer("tests/mcts/test_size.py", source) == ["tests/mcts/test_size.py::test_new"]

"""Which tests reach which line: made by one run of the tests, kept in a file.

made = CoverageMap.build(tree, out)              # minutes: the whole suite under coverage
made = CoverageMap.read(out)
made.tests("mcts/tree.py", 48)                   # ["tests/mcts/test_tree.py::test_…", …]
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """Tests by file and line."""

    names: list[str]
    lines: dict[str, dict[int, list[int]]]
    """Numbers of `names` by file and line."""
    hashes: dict[str, str]
    """Of each file as it was; where it has changed, its tests count whatever line they reach."""

    def tests(self, file: str, line: int, source: str) -> list[str]:
        """Return the tests that reach the statement of a line.

        What stands outside functions runs once, in whatever test imports the file first, and what
        is cached may run before any test: they count for all tests of their file.
        """
        by_line = self.lines.get(file, {})
        if self.hashes.get(file) == _hash(source):
            lines = _statement(source, line)
            reach = {i for number in lines for i in by_line.get(number, ())}
            if reach or not any(number in by_line for number in lines):
                return [self.names[i] for i in sorted(reach)]
        return [self.names[i] for i in sorted({i for some in by_line.values() for i in some})]

    def newer(self, file: str, source: str) -> list[str]:
        """Return the tests of a test file that the map has not seen: they may reach any line."""
        seen = {name.partition("[")[0] for name in self.names}
        tests = [
            f"{file}::{node.name}" for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]  # fmt: skip
        return [test for test in tests if test not in seen]

    @classmethod
    def read(cls, path: Path) -> CoverageMap | None:
        """Read a stored map, or return None where there is none."""
        if not path.is_file():
            return None
        found = json.loads(path.read_text())
        lines = {f: {int(n): t for n, t in some.items()} for f, some in found["lines"].items()}
        return cls(found["names"], lines, found["hashes"])

    @classmethod
    def build(cls, tree: Path, out: Path) -> None:
        """Run the tests in a copy of the tree, and store which line each reaches."""
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile",
             "-p", "no:cacheprovider", "--cov", "--cov-context=test", "--cov-report="],
            cwd=tree, check=False,
        )  # fmt: skip
        cls.store(tree, out)

    @classmethod
    def store(cls, tree: Path, out: Path) -> None:
        """Store the map from the coverage data in a tree."""
        from coverage import CoverageData

        data = CoverageData(str(tree / ".coverage"))
        data.read()
        numbers: dict[str, int] = {}
        lines: dict[str, dict[int, list[int]]] = {}
        hashes: dict[str, str] = {}
        for measured in data.measured_files():
            path = Path(measured)
            if not path.is_relative_to(tree) or not path.is_file():
                continue
            name = str(path.relative_to(tree))
            hashes[name] = _hash(path.read_text())
            found = lines.setdefault(name, {})
            for line, contexts in data.contexts_by_lineno(measured).items():
                tests = {c.rpartition("|")[0] for c in contexts if "::" in c}
                found[line] = sorted(numbers.setdefault(t, len(numbers)) for t in tests)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"names": list(numbers), "lines": lines, "hashes": hashes}))


def _statement(source: str, line: int) -> range:
    """Return the lines of the statement that a line is of, of a block those of its head.

    What stands outside functions is of no statement: every line of the file.
    """
    functions = [
        node for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body[0].lineno <= line <= (node.end_lineno or 0)
    ]  # fmt: skip
    if not functions:
        return range(1, source.count("\n") + 2)
    inner = functions[-1]  # what lies within comes later
    heads = [_head(node) for node in ast.walk(inner) if isinstance(node, ast.stmt)]
    return [head for head in (range(line, line + 1), *heads) if line in head][-1]


def _head(statement: ast.stmt) -> range:
    body: list[ast.stmt] = getattr(statement, "body", [])
    return range(statement.lineno, body[0].lineno if body else (statement.end_lineno or 0) + 1)


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()

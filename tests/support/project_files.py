"""Reads the project as a tree of files: what each one imports, and where. Nothing is executed.

for found in imports_in(project_files()[0]):
    print(found)                     # mcts/data.py:12: imports hashlib
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "mcts",
    "curation",
    "warehouse",
    "training",
    "flows",
    "vigorl_nano",
)  # each imports only to its left


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def project_files(*folders: str, suffix: str = ".py") -> list[Path]:
    """Files of the packages (or of the folders named), without what Python leaves behind."""
    found = (p for name in folders or PACKAGES for p in (ROOT / name).rglob(f"*{suffix}"))
    hidden = ("__pycache__", ".")
    return sorted(
        p
        for p in found
        if p.is_file() and not any(part.startswith(hidden) for part in p.relative_to(ROOT).parts)
    )


@dataclass(frozen=True)
class Import:
    """One module that a line asks for; `lazy` when only a call or a type checker gets there."""

    file: str
    line: int
    module: str
    lazy: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.module}"


def imports_in(path: Path) -> list[Import]:
    return list(imports_of(path.read_text(), path.relative_to(ROOT).as_posix()))


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands: statements, relative ones, import_module("x").

    `from a import b` counts as a and as a.b, since b may be a module.
    """
    package = file.removesuffix(".py").split("/")[:-1]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for module in _modules(node, package):
            yield Import(file, node.lineno, module, lazy)  # type: ignore[attr-defined]
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            deferred = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or deferred)

    yield from visit(ast.parse(source, file), False)


def _modules(node: ast.AST, package: list[str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = package[: len(package) - level + 1] if level else []
            origin = [*base, *([module] if module else [])]
            if origin:
                yield ".".join(origin)
            yield from (".".join([*origin, name.name]) for name in names if name.name != "*")
        case ast.Call(func=func, args=[ast.Constant(value=str(module)), *_]):
            if ast.unparse(func).split(".")[-1] in ("import_module", "__import__"):
                yield module

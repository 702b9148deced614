"""Lists single-point changes of a source file: one comparison, number, condition or call each.

    for mutant in mutants_of(Path("mcts/tree.py"), source):
        mutant.apply(source)

What cannot matter is skipped by rule: docstrings, annotations, texts of errors and messages,
`assert`, `__repr__`, `TYPE_CHECKING`, and lines marked `pragma: no cover`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_COMPUTED = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*",
    ast.Pow: "*",
}  # fmt: skip
_SPOKEN = {"message", "print", "warning", "warn", "info", "debug", "echo", "log"}
"""Calls that only tell people something."""
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file."""

    file: str
    line: int
    kind: str
    start: int
    """Offsets in the file's bytes."""
    end: int
    before: str
    after: str

    def apply(self, source: str) -> str:
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    @property
    def change(self) -> str:
        """The change in one line."""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{before[:100]} -> {after[:100]}"


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return every change of a file that the operators know; few of them do not compile."""
    return list(_Finder(file, source).all())


def compiles(mutant: Mutant, source: str) -> bool:
    """Return whether the changed file is Python; compiling every change would take minutes."""
    try:
        compile(mutant.apply(source), mutant.file, "exec")
    except (SyntaxError, ValueError):
        return False
    return True


class _Finder:
    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        lines = source.encode().splitlines(keepends=True)
        self._offsets = [0]
        for line in lines:
            self._offsets.append(self._offsets[-1] + len(line))
        self._ignored = {i for i, line in enumerate(lines, 1) if b"pragma: no cover" in line}

    def all(self) -> Iterator[Mutant]:
        yield from self._visit(ast.parse(self.source), quiet=False)

    def _visit(self, node: ast.AST, quiet: bool) -> Iterator[Mutant]:
        """Yield the changes of a node and of all below it; only deletions where it is `quiet`."""
        if getattr(node, "lineno", None) in self._ignored or _skipped(node):
            return
        yield from self._statements(node)
        if not quiet:
            yield from self._expressions(node)
        quiet = quiet or isinstance(node, ast.Raise | ast.JoinedStr) or _spoken(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._visit(child, quiet)

    def _statements(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.Raise):
            yield self._of(node, "statement dropped", "pass")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
            if not _spoken(node.value):
                yield self._of(node, "statement dropped", "pass")
        elif isinstance(node, ast.AugAssign):
            yield self._of(node, "statement dropped", "pass")
        elif isinstance(node, ast.Return):
            value = node.value
            if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
                yield self._of(value, "returns None", "None")
        elif isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
            yield self._of(node.test, "condition", f"not ({self._text(node.test)})")
        elif isinstance(node, ast.Continue):
            yield self._of(node, "continue", "break")

    def _expressions(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            one, other = self._text(node.left), self._text(node.comparators[0])
            yield self._of(node, "comparison", f"({one} {_COMPARED[type(node.ops[0])]} {other})")
        elif isinstance(node, ast.BoolOp):
            word = "or" if isinstance(node.op, ast.And) else "and"
            parts = f" {word} ".join(self._text(value) for value in node.values)
            yield self._of(node, "and/or", f"({parts})")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self._of(node, "not dropped", f"({self._text(node.operand)})")
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            value = node.value
            yield self._of(node, "constant", str(not value if value in (True, False)
                           and isinstance(value, bool) else value + 1))  # fmt: skip
        elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
            if not _is_text(node.left) and not _is_text(node.right):
                one, other = self._text(node.left), self._text(node.right)
                yield self._of(node, "arithmetic", f"({one} {_COMPUTED[type(node.op)]} {other})")
        elif isinstance(node, ast.Call):
            yield from self._calls(node)

    def _calls(self, node: ast.Call) -> Iterator[Mutant]:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _SWAPPED:
            yield self._of(node.func, "function", _SWAPPED[name])
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in ("description", "help", "from_"):
                continue
            rest = [k for k in node.keywords if k is not keyword]
            texts = [self._text(a) for a in node.args]
            texts += [f"{k.arg}={self._text(k.value)}" if k.arg else f"**{self._text(k.value)}"
                      for k in rest]  # fmt: skip
            call = f"{self._text(node.func)}({', '.join(texts)})"
            yield self._of(node, f"argument {keyword.arg} dropped", call)

    def _of(self, node: ast.AST, kind: str, after: str) -> Mutant:
        start, end = self._span(node)
        before = self.source.encode()[start:end].decode()
        line: int = node.lineno  # type: ignore[attr-defined]
        return Mutant(self.file, line, kind, start, end, before, after)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        at: Any = node
        return (
            self._offsets[at.lineno - 1] + at.col_offset,
            self._offsets[at.end_lineno - 1] + at.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        text = self.source.encode()[start:end].decode()
        # A part keeps its meaning whatever stands beside it; its own parentheses are not in it.
        plain = (
            ast.Name, ast.Constant, ast.Attribute, ast.Call, ast.Subscript, ast.Tuple, ast.Starred,
            ast.List, ast.Dict,
        )  # fmt: skip
        return text if isinstance(node, plain) and "\n" not in text else f"({text})"


def _skipped(node: ast.AST) -> bool:
    """Whether nothing in a node matters by rule."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__", "__reduce__"):
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        return node.test.id == "TYPE_CHECKING"
    return False


def _spoken(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
    return name in _SPOKEN


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str)

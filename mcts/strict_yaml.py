"""YAML that people write: settings, filters, recipes. What is wrong is one sentence with its line.

    root, values = parse_yaml(text, "run.yaml")        # the nodes with their lines, and the values
    raise Problem(f"it was {shorten(value)}")          # never a page of somebody's file

Stricter than YAML: no key twice, no aliases (a few lines of them can stand for gigabytes), no value
that only looks like a date or a number.
"""

from __future__ import annotations

import reprlib
from typing import Any

import yaml

MOST_CHARACTERS = 1_000_000
"""Of one file."""

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80  # Python 3.11 takes them in no other way


class YamlProblem(ValueError):
    """A text is not YAML as it is read here; the message begins with its source and line."""


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                name = shorten(key.value)[1:-1]
                raise yaml.MarkedYAMLError(
                    problem=f"{name} stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> tuple[Any, Any]:
    """Parse a text into its node tree and its values; None and None where it is empty.

    Raises:
        YamlProblem: `source`, the line where that is known, and what is wrong.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlProblem(f"{source}: it is longer than {MOST_CHARACTERS} characters")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlProblem(f"{source}{line}: {error.problem}") from None
    except RecursionError:
        raise YamlProblem(f"{source}: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        message = shorten(" ".join(str(error).split()))
        raise YamlProblem(f"{source}: it is no YAML: {message}") from None


def parse_value(text: Any) -> Any:
    """Read one typed value as YAML does; a text where it is none; `1e-4` is a number here."""
    if not isinstance(text, str):
        return text
    try:
        _, value = parse_yaml(text, "")
    except YamlProblem:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def shorten(value: Any) -> str:
    """Show a value in at most some eighty characters."""
    return _REPR.repr(value)

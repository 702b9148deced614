"""Which filters run, in which order and with which values: read from a file, or the default ones.

    filters = load_filters("filters.yaml")        # FilterProblem names file, entry and field
    filters = DEFAULT_FILTERS                     # what runs without a file
    print(filters_yaml())                         # every filter with its values, as such a file

A file is YAML, a list under `filters`: each entry a name, or a name with values that differ from
the default. Filters of others are named like ours where a package registers them under the
entry-point group `vigorl.filters` (a class derived from `TraceFilter`, or a function), or as
`module:name`. A function takes a trace, a question and thresholds by keyword, and returns a
`Verdict`. Nothing runs that the file does not name.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from curation.filters import content, content_models, decontaminate, dedup, grounding, rules
from curation.filters.base import (
    CORPUS,
    Context,
    Filter,
    FilterProblem,
    TraceFilter,
    format_values,
)
from mcts.data import Question, Trace, Verdict
from mcts.strict_yaml import YamlProblem, parse_yaml, shorten

GROUP = "vigorl.filters"

DEFAULT_FILTERS: tuple[Filter, ...] = (
    *rules.FILTERS,
    grounding.PointsOnTheirObjects(),
    content.NoPersonalData(),
    decontaminate.NotInEvaluation(),
    dedup.NoExactCopy(),
    dedup.NoNearCopy(),
)
"""What runs where no file says otherwise, in order."""

BUILT_IN: dict[str, type[Filter]] = {
    **{one.name: type(one) for one in DEFAULT_FILTERS},
    **{one.name: one for one in (content_models.NoToxicText, content_models.NoNsfwImage)},
}


def load_filters(path: str | Path) -> tuple[Filter, ...]:
    """Read the filters of a file, in its order.

    Raises:
        FilterProblem: it cannot be read, names an unknown filter, or gives a bad value.
    """
    try:
        _, data = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise FilterProblem(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FilterProblem(f"{path}: it is no text in UTF-8") from None
    except YamlProblem as problem:
        raise FilterProblem(str(problem)) from None
    if not isinstance(data, dict) or set(data) != {"filters"} or not data["filters"]:
        raise FilterProblem(f"{path}: it must hold one list, `filters:`, of names or name: values")
    if not isinstance(data["filters"], list):
        raise FilterProblem(f"{path}: filters: must be a list, with a dash before each name")
    found: dict[str, Filter] = {}
    for number, entry in enumerate(data["filters"], 1):
        place = f"{path}: entry {number}"
        reference, values = _entry(entry, place)
        shown = shorten(reference)[1:-1]
        with _importable(Path(path).resolve().parent):
            one = make_filter(reference, values, f"{place} ({shown})")
        if one.name in found:
            raise FilterProblem(f"{place} ({shown}): a filter of that name is there already")
        found[one.name] = one
    if all(one.stage == CORPUS for one in found.values()):
        raise FilterProblem(f"{path}: it names no filter of single traces, such as right_answer")
    return tuple(found.values())


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules in `folder` be imported, behind those of the Python path."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _entry(entry: Any, place: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the values of one entry of the list."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, values),) = entry.items()
        if isinstance(name, str) and isinstance(values or {}, dict):
            return name, {str(field): value for field, value in (values or {}).items()}
    shown = shorten(entry)
    raise FilterProblem(f"{place}: it must be a name, or name: {{value: ...}} (it was {shown})")


def make_filter(reference: str, values: Mapping[str, Any], place: str) -> Filter:
    """Make the filter of a name or of `module:name`, with these values.

    Raises:
        FilterProblem: beginning with `place`.
    """
    kind = BUILT_IN.get(reference) or _of_others(reference, place)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            there = ", ".join(kind.model_fields) or "none"
            raise FilterProblem(f"{place}: {field}: no such value; there are: {there}") from None
        message = first["msg"].removeprefix("Value error, ")
        was = f" (it was {shorten(first['input'])})" if field else ""
        raise FilterProblem(f"{place}: {f'{field}: ' * bool(field)}{message}{was}") from None


def _of_others(reference: str, place: str) -> type[Filter]:
    """Load the filter that a package registers under this name, or that is in a module."""
    module, _, attribute = reference.partition(":")
    try:
        if attribute:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
            return _as_filter(found, reference, attribute.rpartition(".")[2])
        for point in entry_points(group=GROUP):
            if point.name == reference:
                return _as_filter(point.load(), _maker(point), reference)
        brought = sorted(entry_points(group=content.GROUP), key=lambda p: p.name != reference)
        for point in brought:
            one = point.load()()
            if reference in (point.name, one.name):
                return _from_content_filter(one)
    except (Exception, SystemExit) as error:  # code of others may raise anything
        raise FilterProblem(f"{place}: it cannot be loaded: {shorten(str(error))[1:-1]}") from error
    known = [*BUILT_IN, *(point.name for point in [*entry_points(group=GROUP), *brought])]
    raise FilterProblem(
        f"{place}: there is no such filter; there are: {', '.join(known)}, or module:name"
    )


def _maker(point: EntryPoint) -> str:
    return f"{point.dist.name}/{point.dist.version}" if point.dist else point.value


def _as_filter(found: Any, maker: str, name: str) -> type[Filter]:
    """Make a class of filters, all of whose values are recorded, of what a package gives."""

    def method(self: Filter) -> str:
        return " ".join([maker_of, *format_values(self.model_dump())])

    if inspect.isclass(found) and issubclass(found, TraceFilter):
        base, name = found, getattr(found, "name", name)
    elif callable(found) and not inspect.isclass(found):
        base = _from_function(found, name)
    else:
        raise TypeError("it is neither a class derived from TraceFilter nor a function")
    if name in BUILT_IN:
        raise TypeError(f"the name {name} is taken")
    if base.stage not in (None, CORPUS):
        raise TypeError(f"its stage is None or {CORPUS!r}, not {base.stage!r}")
    maker_of = getattr(found, "maker", maker)
    own: dict[str, Any] = {"name": name, "maker": maker_of, "method": property(method)}
    own |= {"external": True, "__doc__": found.__doc__}
    return type(base.__name__, (base,), {**own, "__module__": base.__module__})


def _from_function(function: Callable[..., Verdict], name: str) -> type[TraceFilter]:
    """Make a class of filters that calls a function; its keywords are the values."""
    hints = inspect.get_annotations(function, eval_str=True)
    fields: dict[str, Any] = {
        parameter.name: (hints.get(parameter.name, Any), parameter.default)
        for parameter in list(inspect.signature(function).parameters.values())[2:]
    }
    if len(inspect.signature(function).parameters) < 2:
        raise TypeError("it must take a trace and its question")
    if taken := [field for field in fields if hasattr(TraceFilter, field)]:
        raise TypeError(f"a parameter cannot be called {taken[0]}")
    if any(default is inspect.Parameter.empty for _, default in fields.values()):
        raise TypeError("behind trace and question, its parameters need default values")

    def apply(self: TraceFilter, trace: Trace, question: Question, context: Context) -> Verdict:
        return function(trace, question, **self.model_dump())

    made = create_model(name, __base__=TraceFilter, **fields)
    return type(name, (made,), {"apply": apply, "__module__": function.__module__})


def _from_content_filter(one: content.ContentFilter) -> type[Filter]:
    """Make a class of filters without values of a `ContentFilter`."""

    def apply(self: TraceFilter, trace: Trace, question: Question, context: Context) -> Verdict:
        return one.decide(trace, question, context.images)

    own = {"name": one.name, "maker": one.method, "stage": CORPUS, "apply": apply}
    own["external"] = True
    return type(one.name, (TraceFilter,), {**own, "__module__": __name__})


def trace_filters(filters: Sequence[Filter], stage: str | None) -> list[TraceFilter]:
    """Select the filters of one stage that see one trace at a time, in order."""
    return [one for one in filters if isinstance(one, TraceFilter) and one.stage == stage]


# ---- in words ------------------------------------------------------------------------------------


def filters_yaml() -> str:
    """Write every built-in filter with its values, units and defaults, as a file to start from."""
    lines = [
        "# The filters that run by default, with their default values: a file to start from.",
        "# `vigorl curate TASK --filters FILE --dry-run` shows what a change keeps and drops.",
        "filters:",
    ]
    for one in DEFAULT_FILTERS:
        lines += _entry_lines(type(one), "  ")
    lines += ["", "# These run only when they are named:"]
    for kind in list(BUILT_IN.values())[len(DEFAULT_FILTERS) :]:
        lines += _entry_lines(kind, "#  ")
    for point in [*entry_points(group=GROUP), *entry_points(group=content.GROUP)]:
        lines.append(f"#  - {point.name}    # of {_maker(point)}")
    return "\n".join(lines)


def _entry_lines(kind: type[Filter], indent: str) -> Iterator[str]:
    yield f"{indent}# {(kind.__doc__ or '').splitlines()[0]}"
    yield f"{indent}- {kind.name}:"
    for name, field in kind.model_fields.items():
        for line in textwrap.wrap(field.description or "", 86):
            yield f"{indent}    # {line}"
        yield f"{indent}    {name}: {json.dumps(field.default)}"  # JSON is YAML


def describe_change(name: str, old: str | None, new: str | None) -> str:
    """Describe which values differ between two methods: `min_distance 0.01 -> 0.02`.

    A method of None is that of a rule with its default values. Empty where both are the same.
    """
    before, after = _recorded(name, old), _recorded(name, new)
    if before is None or after is None or set(before) != set(after):
        return f"{old} -> {new}" if old != new else ""
    return ", ".join(f"{k} {v} -> {after[k]}" for k, v in before.items() if v != after[k])


def _recorded(name: str, method: str | None) -> dict[str, str] | None:
    """Return the values that a method stands for; None where it does not say them one by one."""
    kind = BUILT_IN.get(name)
    defaults: dict[str, str] = {}
    if kind:
        fields = kind.model_fields.items()
        defaults = _split(format_values({field: given.default for field, given in fields}))
        if method is None or method in (kind.default_method, getattr(kind, "maker", None)):
            return defaults
    values = (method or "").split(" ")[1:]
    return {**defaults, **_split(values)} if all("=" in value for value in values) else None


def _split(values: Sequence[str]) -> dict[str, str]:
    return dict(value.split("=", 1) for value in values)

"""What a filter is: a small model whose fields are its thresholds, and a verdict on each trace.

    class ShortEnough(TraceFilter):
        name = "short_enough"
        max_steps: int = Field(default=8, ge=1, description="steps of a trace")

        def apply(self, trace, question, context):
            n = len(trace.steps)
            return Verdict(self.name, n <= self.max_steps, f"it has {n} steps", float(n))

    verdicts = apply_filters(trace, question, [ShortEnough(max_steps=4)])

Every filter sees every trace, so that a reject's reasons are complete. Rejects are kept with them.
A verdict is stored with its filter's `method`: name and version of what decides, and its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mcts.data import Box, Question, Trace, Verdict

CORPUS = "corpus"
"""The stage of filters that need more than one trace, or are slow."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a filter may need beside a trace and its question."""

    objects: Sequence[Sequence[Box] | None] = ()
    """What is visible in each of the question's images, in their order; None where unknown."""
    images: Callable[[], Sequence[bytes]] = list
    """Loads the question's encoded images."""


class Filter(BaseModel):
    """A filter with its thresholds; each field's description names its unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    """What its verdicts are stored under, such as `right_answer`."""
    maker: ClassVar[str]
    """Name and version of the code that decides; raise it when a filter decides otherwise."""
    stage: ClassVar[str | None] = None
    """`corpus`, or None for what is judged as soon as a trace is cut from its tree."""
    default_method: ClassVar[str] = ""
    """What is recorded while no value is changed, where that is not `maker`."""

    @property
    def method(self) -> str:
        """Name and version of what decides, and the values that are not the default."""
        changed = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.default
        }
        if not changed:
            return self.default_method or self.maker
        return " ".join([self.maker, *format_values(changed)])


class TraceFilter(Filter):
    """A filter that sees one trace at a time."""

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        """Return the verdict on `trace`."""
        raise NotImplementedError


def format_values(values: dict[str, Any]) -> list[str]:
    """Format values as a method holds them: `name=value` without spaces."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:g}"
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [f"{name}={text(value)}".replace(" ", "_") for name, value in values.items()]


def apply_filters(
    trace: Trace,
    question: Question,
    filters: Sequence[TraceFilter],
    context: Context = Context(),
) -> list[Verdict]:
    """Apply `filters` to a trace; one verdict each, in their order, under their names."""
    return [replace(one.apply(trace, question, context), filter=one.name) for one in filters]

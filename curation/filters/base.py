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
from math import isfinite
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mcts.data import AnswerKind, Box, Question, Trace, Verdict
from mcts.strict_yaml import shorten


class FilterProblem(ValueError):
    """A filter, or the file that names it, is wrong; the message is one sentence for its writer."""


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
    external: ClassVar[bool] = False
    """Whether it is code of others."""

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

    signs: ClassVar[str] = ""
    """A regular expression, the same to RE2 and `re`. A trace that has no match of it in any of its
    texts as `normalize.fold` leaves them (question, thoughts, answer) is judged like one without
    words, which spares reading it. Empty where every trace must be seen."""

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
    return [_checked(one, trace, question, context) for one in filters]


def verdict_without_words(one: TraceFilter) -> Verdict:
    """Return the verdict of a filter on each trace in which nothing matches its `signs`."""
    question = Question("", "", (), AnswerKind.TEXT)
    trace = Trace(question.question_id, (), None, None, "direct")
    return _checked(one, trace, question, Context())


def _checked(one: TraceFilter, trace: Trace, question: Question, context: Context) -> Verdict:
    """Apply one filter; code of others may raise, or return, anything.

    Raises:
        FilterProblem: it did.
    """
    try:
        verdict = one.apply(trace, question, context)
    except (Exception, SystemExit) as error:
        if not one.external:
            raise
        raise FilterProblem(
            f"the filter {one.name} failed on trace {trace.trace_id}: "
            f"{type(error).__name__}: {shorten(str(error))}"
        ) from error
    if one.external and (wrong := _wrong_with(verdict)):
        raise FilterProblem(f"the filter {one.name} returned {wrong}")
    return replace(verdict, filter=one.name)


def _wrong_with(verdict: Any) -> str:
    """Say why something is no verdict that can be stored; empty where it is one."""
    if not isinstance(verdict, Verdict):
        return f"{shorten(verdict)}, which is no Verdict"
    if not isinstance(verdict.keep, bool):
        return f"a verdict whose keep is {shorten(verdict.keep)}, not True or False"
    if not isinstance(verdict.reason, str) or (
        not verdict.reason.isascii()
        and any("\ud800" <= character <= "\udfff" for character in verdict.reason)
    ):
        return f"a verdict whose reason is no text: {shorten(verdict.reason)}"
    if verdict.score is not None and not isfinite(verdict.score):
        return f"a verdict whose score is {verdict.score}"
    return ""

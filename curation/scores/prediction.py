"""A model's answer to a question, parsed and graded: the noun of every evaluation.

prediction.answer, prediction.score, prediction.valid       # in original pixels
"""

from __future__ import annotations

from dataclasses import dataclass

from mcts.data import Step


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer to one question, once."""

    question_id: str
    sample: int
    """Number of the sample, from 0."""
    response: str
    """The text as the model wrote it, in its own coordinates; of a zoom, a turn after the other."""
    finish_reason: str
    """`stop`, or `length` when it was cut off."""
    error: str | None
    """Kind of the failure where the request failed for good; None where it was answered."""
    steps: tuple[Step, ...]
    """All of its reasoning, the prefix that it was given included."""
    answer: str | None
    """In original pixels; None if none was given."""
    score: float | None
    """The grader's; None where the request failed."""
    reason: str
    """The grader's words."""
    valid: bool
    """Whether the answer is of the expected kind: one of the options, one point, one action."""
    problems: tuple[str, ...]
    """What the parser found wrong, one word each."""
    looked_at: float | None
    """Share of the objects the question names that a point lies on, the prefix's points included;
    None if none is known."""
    grounded: tuple[bool | None, ...]
    """Step by step, whether it points at what it names; None for the steps of a prefix."""
    shows_asked: tuple[bool | None, ...] = ()
    """Step by step, whether the crop that it was shown has an object in question in it; None for
    the steps of a prefix."""
    prefix: tuple[str, int] | None = None
    """Tree and node that the first steps are of, where it was asked to go on behind those."""
    given: int = 0
    """How many steps are of that prefix, and so not the model's."""
    tokens: int = 0
    """Tokens written for it; those of a shared request are all on the first of its samples."""
    seconds: float = 0.0
    """Time of its requests, waiting included, counted as the tokens."""

    @property
    def own_steps(self) -> tuple[Step, ...]:
        """The steps that the model wrote; without a remark that was folded into its prefix."""
        return self.steps[self.given :]

"""One question answered by a model: its responses, turn by turn where it zooms, read as answers.

    policy = AskedAgain(name, journal, lambda name: TeacherPolicy(shown, config, name, …))
    for answer in await sample_answers(policy, frame, config): answer.steps, answer.text

An answer is one request where the model doesn't zoom, else an episode of turns
(`mcts.zoom.episode`), each of them journaled before the next is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcts.budget import Cost
from mcts.concurrency import gather
from mcts.config import SearchConfig
from mcts.coordinates import Frame
from mcts.data import Step, content_id
from mcts.journal.journal import Journal
from mcts.parsing import fold_remark
from mcts.policy import Continuation, Policy, RequestKey, complete_steps, parse_response
from mcts.teachers.base import TeacherError
from mcts.zoom.episode import play
from warehouse.query.read_back import PrefixStart


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample, read."""

    response: str
    """All that the model wrote, a turn after the other, in its own coordinates."""
    finish_reason: str
    """Of the last turn."""
    steps: tuple[Step, ...]
    answer: str | None
    """In original pixels; None if none was given."""
    problems: tuple[str, ...]
    """What the parser found wrong, one word each."""
    costs: tuple[Cost, ...] = ()
    """Of its requests; of samples that share one, on the first sample only."""


async def sample_answers(
    policy: Policy,
    frame: Frame,
    config: SearchConfig,
    prefix: PrefixStart | None = None,
) -> list[Answered]:
    """Sample a question's answers, `config.samples` of them; a reply that is empty answers nothing.

    Args:
        prefix: what the answers go on from, and begin with.

    Raises:
        TeacherError: a request failed for good.
    """
    n, nothing = config.samples, Continuation("", "stop", "")
    node, before = (prefix.name, prefix.steps) if prefix else ("", ())
    samples: list[Continuation] = []
    try:
        while len(samples) < n:  # a server may give fewer where one of them fails
            left = n - len(samples)
            samples += await policy.sample(node, "chain", before, left, first=len(samples))
    except TeacherError as failure:
        if failure.kind != "empty":
            raise
    if config.zoom is None:
        answers = [_read(sample, frame, before) for sample in samples]
    else:
        answers = await gather(
            _played(policy, frame, config, sample, i, node, before)
            for i, sample in enumerate(samples)
        )
    return [*answers, *[_read(nothing, frame, before)] * (n - len(answers))]


def _read(sample: Continuation, frame: Frame, before: tuple[Step, ...]) -> Answered:
    parsed = parse_response(sample, frame)
    own = complete_steps(sample, parsed)
    steps = before + own
    steps = fold_remark(steps) if own and parsed.answer is not None else steps
    problems = tuple(problem.kind for problem in parsed.problems)
    return Answered(sample.text, sample.finish_reason, steps, parsed.answer, problems, sample.costs)


async def _played(
    policy: Policy, frame: Frame, config: SearchConfig, first: Continuation, number: int,
    node: str, before: tuple[Step, ...],
) -> Answered:  # fmt: skip
    assert config.zoom is not None
    episode = await play(
        policy, frame, config.zoom, node=node, before=before, first=first, number=number,
        limit=config.max_depth,
    )  # fmt: skip
    if episode.failure is not None and episode.failure.kind != "empty":
        raise episode.failure
    response = "\n".join(turn.text for turn in episode.responses)
    reason = episode.responses[-1].finish_reason
    costs = tuple(cost for turn in episode.responses for cost in turn.costs)
    steps = (*before, *episode.steps)
    return Answered(response, reason, steps, episode.answer, episode.problems, costs)


class AskedAgain:
    """A policy that asks once more for what failed for good before, under another name.

    What was answered keeps its name, so it is not asked again.
    """

    def __init__(self, name: str, journal: Journal, policy_of: Callable[[str], Policy]) -> None:
        self.names = [name]
        """Names under which requests are journaled, in the order of attempts."""
        self._journal, self._policy_of = journal, policy_of
        self._policies: dict[str, Policy] = {}
        self._failed: dict[str, set[RequestKey]] = {}

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Continuation]:
        """See `mcts.policy.Policy`."""
        attempt = 0
        while (node, purpose, first) in self._failures(self.names[attempt]):
            attempt += 1
            if attempt == len(self.names):
                self.names.append(content_id(self.names[-1], "again"))
        name = self.names[attempt]
        if name not in self._policies:
            self._policies[name] = self._policy_of(name)
        return await self._policies[name].sample(node, purpose, steps, n, first)

    def _failures(self, name: str) -> set[RequestKey]:
        """Return the requests of that name that had failed when it was first asked for."""
        if name not in self._failed:
            self._failed[name] = {
                (record.key.node, record.key.purpose, record.key.sample)
                for record in self._journal.records(name)
                if record.failure and record.failure.kind != "empty"
            }
        return self._failed[name]

"""Monte Carlo tree search over reasoning steps that each cite a point.

    tree = await search(question, config, policy, grade, tree_id)

Select a promising leaf, expand it into a few next steps, roll each of them out to an answer, back
the answers' rewards up (ViGoRL, section 3.2 and Table A4). The search is a pure function of the
question, the configuration, the seed and what the policy answers: no disk, no clock, no torch.
Simulations run in waves of a fixed width; inside a wave requests overlap and virtual loss keeps
the simulations apart, and rewards are backed up in a fixed order, so the same responses always
make the same tree. Width 1 is the textbook search.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Grade, Question, Step, content_id
from mcts.parsing import Parsed, fold_remark, parse, revisits
from mcts.teacher import TeacherError
from mcts.tree import Node, Rollout, Tree, backup, mark_pending, select


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """What decides a search, apart from its question, seed and teacher. Part of its identity."""

    space: CoordinateSpace
    """The frame the teacher speaks."""
    prompt: str = "points"
    """Which file of `mcts/prompts` asks the question."""
    prompt_digest: str = ""
    """Content hash of that file."""
    simulations: int = 8
    children: int = 3
    """Steps sampled when a node is expanded."""
    rollouts: int = 2
    """Answers sampled from each new child."""
    max_depth: int = 10
    """Steps after which only an answer may follow."""
    rollout_steps: int = 5
    """Steps a rollout may think before its answer is forced."""
    exploration: float = 2.0
    """The constant c of UCT."""
    wave: int = 1
    """Simulations that run at once within a tree."""
    temperature: float = 1.0
    top_p: float = 1.0
    step_tokens: int = 512
    """Most tokens of one step; a rollout may use `rollout_steps + 1` times as many."""
    min_thoughts: tuple[int, int] = (3, 7)
    """The prompt demands at least k thoughts, k drawn from this range, ends included."""
    repeat_radius: float = 0.01
    """Two points closer than this share of the image's longer side are the same place."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, as the search sees it."""

    text: str
    finish_reason: str
    """`stop`, or `length` when it was cut off by the token limit."""
    response_id: str


class Policy(Protocol):
    """Who proposes: a teacher behind a prompt and a journal (`mcts.policy`)."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Sample]:
        """`n` continuations of `steps` at tree position `node`.

        `purpose` is `expand` (the next step), `rollout` (all the way to an answer), or nothing but
        the answer: `answer` for children, `finish` for rollouts. Samples are numbered from `first`;
        node, purpose and number name a sample for ever. Raises TeacherError when the request
        failed for good.
        """
        ...


# How the reason of a rollout begins whose answer could not be asked for.
FAILED = "failed: "

Grader = Callable[[Question, str | None], Grade]


def search_id(question: Question, config: SearchConfig, seed: int, teacher: str) -> str:
    """The name of a search: equal exactly when everything that decides it is equal."""
    return content_id(question.question_id, asdict(config), seed, teacher)


def thoughts_demanded(tree_id: str, config: SearchConfig) -> int:
    """The k of "at least k steps", the same for a whole tree and drawn anew for each."""
    return random.Random(tree_id).randint(*config.min_thoughts)


async def search(
    question: Question, config: SearchConfig, policy: Policy, grade: Grader, tree_id: str
) -> Tree:
    """Search one question and return the tree.

    A request that fails for good costs its own branch, never the tree: what was found stands, and
    the failure is listed in `tree.errors`. The search ends after `config.simulations`, or sooner
    when every branch has ended and nothing is left to learn.
    """
    return await _Search(question, config, policy, grade, tree_id).run()


T = TypeVar("T")


async def together(awaitables: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of `awaitables`, run side by side; the first failure cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(awaitable) for awaitable in awaitables]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]


def _said(sample: Sample, frame: Frame, opened: bool) -> Parsed:
    """What a response says; a turn that ends right after its answer has ended the answer too."""
    inside = "answer" if opened else None
    parsed = parse(sample.text, frame, inside=inside)
    if parsed.answer is None and sample.finish_reason == "stop" and "</answer>" not in sample.text:
        ended = parse(f"{sample.text}</answer>", frame, inside=inside)
        return Parsed(parsed.steps, ended.answer, parsed.problems)
    return parsed


def _whole_thoughts(sample: Sample, parsed: Parsed) -> tuple[Step, ...]:
    """The steps of a response, but for a last one that the token limit cut off in mid-thought."""
    kinds = {problem.kind for problem in parsed.problems}
    cut = parsed.answer is None and sample.finish_reason == "length"
    return parsed.steps[:-1] if cut and "unclosed_answer" not in kinds else parsed.steps


class _Search:
    """One running search: the tree, and the arguments every part of it needs.

    Requests overlap, but the tree changes only between them and in a fixed order: whatever order
    the answers arrive in, node numbers, statistics and the list of errors come out the same.
    """

    def __init__(
        self, question: Question, config: SearchConfig, policy: Policy, grade: Grader, tree_id: str
    ) -> None:
        self.config, self.policy, self.grade = config, policy, grade
        self.frame = Frame(config.space, question.images)
        self.tree = Tree(tree_id, question, Node(0, "", None))
        self.n_nodes, self.n_rollouts = 1, 0

    async def run(self) -> Tree:
        tree, root, config = self.tree, self.tree.root, self.config
        while tree.simulations < config.simulations and root.open:
            leaves: list[Node] = []
            width = min(config.wave, config.simulations - tree.simulations)
            while len(leaves) < width and root.free:
                leaves.append(select(root, config.exploration))
                mark_pending(leaves[-1], +1)
            offers = await together(self.propose(leaf) for leaf in leaves)
            new = [
                node
                for leaf, samples in zip(leaves, offers, strict=True)
                for node in self.expand(leaf, samples)
            ]
            rollouts = await together(self.roll_out(node) for node in new)
            for leaf in leaves:
                mark_pending(leaf, -1)
            for node, sampled in zip(new, rollouts, strict=True):
                self.settle(node, sampled)
            tree.simulations += len(leaves)
        return tree

    async def propose(self, leaf: Node) -> Sequence[Sample] | TeacherError:
        """Ask for what may follow `leaf`: next steps, or at the greatest depth only answers."""
        purpose = "answer" if self.at_the_end(leaf) else "expand"
        n, first = self.config.children, leaf.attempts * self.config.children
        try:
            return await self.policy.sample(leaf.path, purpose, leaf.steps(), n, first)
        except TeacherError as error:
            return error

    def expand(self, leaf: Node, offer: Sequence[Sample] | TeacherError) -> list[Node]:
        """Hang what was proposed under `leaf`; return what deserves a rollout or a grade."""
        first, leaf.attempts = leaf.attempts * self.config.children, leaf.attempts + 1
        if isinstance(offer, TeacherError):
            self.note(leaf, offer)
            return []
        new = [self.graft(leaf, sample, first + i) for i, sample in enumerate(offer)]
        return [node for node in new if not node.discarded]

    def at_the_end(self, node: Node) -> bool:
        return node.depth >= self.config.max_depth

    def graft(self, leaf: Node, sample: Sample, number: int) -> Node:
        """Hang a response under `leaf`, one node a step, and return the last of them.

        Mostly that is one node. A response that thinks twice, or thinks and answers at once, keeps
        all it said as a chain.
        """
        parsed = _said(sample, self.frame, opened=self.at_the_end(leaf))
        problems = tuple(problem.kind for problem in parsed.problems)
        thoughts = fold_remark(_whole_thoughts(sample, parsed))
        steps = thoughts[: self.config.max_depth - leaf.depth]
        node = leaf

        def add(step: Step | None, answer: str | None, discarded: str | None) -> Node:
            path = f"{node.path}.{len(node.children)}" if node.path else str(len(node.children))
            child = Node(self.n_nodes, path, node, step, answer, sample.response_id, number)
            child.discarded, child.problems = discarded, problems
            self.n_nodes += 1
            node.children.append(child)
            return child

        for step in steps:
            reason = self.objection(node, step) or self.copy_of_sibling(node, step)
            node = add(step, None, reason)
            if reason:
                return node
        if parsed.answer is not None:
            # Equal answers all count: how often an answer comes is what a value is made of.
            node = add(None, parsed.answer, None)
        elif node is leaf:
            cut_off = sample.finish_reason == "length"
            node = add(None, None, "cut_off" if cut_off else "nothing_said")
        return node

    def objection(self, node: Node, step: Step) -> str | None:
        """Why `step` must not follow `node`, or None: its point is outside, or seen already."""
        if any(not self.frame.inside(point) for point in step.points):
            return "point_outside_image"
        if step.point is None or revisits(step.thought):
            return None
        seen = (point for earlier in node.steps() for point in earlier.points)
        if any(self.frame.same_place(step.point, p, self.config.repeat_radius) for p in seen):
            return "repeated_point"
        return None

    def copy_of_sibling(self, node: Node, step: Step) -> str | None:
        """The reason to drop a step that a sibling holds already, or None."""
        same = any(child.step == step for child in node.children if not child.discarded)
        return "copy_of_sibling" if same else None

    async def roll_out(self, node: Node) -> list[Rollout] | TeacherError:
        """Sample answers from a new node; none for a terminal one, which has its own."""
        if node.terminal:
            return []
        path, n = node.steps(), self.config.rollouts
        try:
            if self.at_the_end(node):
                forced = await self.policy.sample(node.path, "finish", path, n)
                return [self.answered(sample, i, ()) for i, sample in enumerate(forced)]
            samples = await self.policy.sample(node.path, "rollout", path, n)
        except TeacherError as error:
            return error
        return await together(
            self.finish(node, path, sample, i) for i, sample in enumerate(samples)
        )

    async def finish(
        self, node: Node, path: tuple[Step, ...], sample: Sample, number: int
    ) -> Rollout:
        """Read one rollout; where it did not reach an answer in time, ask for the answer alone."""
        raw = parse(sample.text, self.frame)
        problems = tuple(problem.kind for problem in raw.problems)
        steps = _whole_thoughts(sample, raw)
        if raw.answer is not None:
            steps = fold_remark(steps)
        answer = _said(sample, self.frame, opened=False).answer
        limit = min(self.config.rollout_steps, self.config.max_depth - node.depth)
        if answer is not None and len(steps) <= limit:
            grade = self.grade(self.tree.question, answer)
            ids = (sample.response_id,)
            return Rollout(steps, answer, grade.score, grade.reason, ids, number, problems)
        steps = steps[:limit]
        try:
            (forced,) = await self.policy.sample(node.path, "finish", (*path, *steps), 1, number)
        except TeacherError as error:
            ids = (sample.response_id,)
            return Rollout(steps, None, None, f"{FAILED}{error}", ids, number, problems)
        return self.answered(forced, number, steps, sample.response_id, problems)

    def answered(
        self,
        forced: Sample,
        number: int,
        steps: tuple[Step, ...],
        begun_in: str | None = None,
        problems: tuple[str, ...] = (),
    ) -> Rollout:
        """A rollout that ends in a forced answer."""
        parsed = _said(forced, self.frame, opened=True)
        grade = self.grade(self.tree.question, parsed.answer)
        ids = (begun_in, forced.response_id) if begun_in else (forced.response_id,)
        found = (*problems, "answer_forced", *(problem.kind for problem in parsed.problems))
        return Rollout(steps, parsed.answer, grade.score, grade.reason, ids, number, found)

    def settle(self, node: Node, rollouts: list[Rollout] | TeacherError) -> None:
        """Number a new node's rollouts and back up what they, or its own answer, earned."""
        if isinstance(rollouts, TeacherError):
            self.note(node, rollouts)
            return
        if node.terminal:
            grade = self.grade(self.tree.question, node.answer)
            node.reward, node.reason = grade.score, grade.reason
        for rollout in rollouts:
            rollout.rollout_id = self.n_rollouts
            self.n_rollouts += 1
            node.rollouts.append(rollout)
            if rollout.reason.startswith(FAILED):
                self.note(node, rollout.reason)
        for reward in node.rewards:
            backup(node, reward)

    def note(self, node: Node, error: TeacherError | str) -> None:
        self.tree.errors = (*self.tree.errors, f"at {node.path or 'the root'}: {error}")

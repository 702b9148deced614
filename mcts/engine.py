"""A search under way: how a place in its tree is asked for, and how an answer becomes nodes.

    search = RunningSearch(question, config, policy, grade, tree_id)
    offer = await search.propose(leaf, n=3, first=0)
    for node in search.expand(leaf, offer):
        search.settle(node, await search.roll_out(node))

`mcts.search` says in which order: what is here is the same for the tree search and its baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcts.budget import Budget, Meter
from mcts.coordinates import Frame
from mcts.data import Question, Step
from mcts.parsing import fold_remark, parse, revisits
from mcts.samples import Policy, Sample, said, together, whole_thoughts
from mcts.teachers.base import TeacherError
from mcts.tree import Node, Rollout, Tree, backup

if TYPE_CHECKING:
    from mcts.search import Grader, SearchConfig

# How the reason of a rollout begins whose answer could not be asked for.
FAILED = "failed: "


class RunningSearch:
    """One running search: the tree, and the arguments every part of it needs.

    Requests overlap, but the tree changes only between them and in a fixed order: whatever order
    the answers arrive in, node numbers, statistics and the list of errors come out the same.
    """

    def __init__(
        self, question: Question, config: SearchConfig, policy: Policy, grade: Grader, tree_id: str
    ) -> None:
        self.config, self.grade = config, grade
        self.policy = Meter(policy)
        self.frame = Frame.of(config.space, question)
        root, places = Node(0, "", None), self.policy.places
        self.tree = Tree(tree_id, question, root, spent=self.policy.spent, places=places)
        self.n_nodes, self.n_rollouts = 1, 0

    def reason_to_stop(self) -> str | None:
        """`enough`, the limit of the budget that is reached, or None; asked between waves."""
        enough = self.config.enough
        if enough is not None and self.tree.right_lines() >= enough:
            return "enough"
        return self.config.budget.reached(self.tree.spent)

    def simulations_left(self) -> int:
        """How many may follow, as far as limits on other things let it be foreseen."""
        config, tree = self.config, self.tree
        used = [config.budget.share(tree.spent)]
        if config.enough:
            used.append(tree.right_lines() / config.enough)
        left = config.simulations - tree.simulations
        if not any(used):
            limited = config.enough or config.budget != Budget()
            return min(left, 1) if limited else left
        return min(left, int(tree.simulations * (1 - max(used)) / max(used)))

    async def propose(self, leaf: Node, n: int, first: int) -> Sequence[Sample] | TeacherError:
        """Ask for what may follow `leaf`: next steps, or at the greatest depth only answers."""
        purpose = "answer" if self.at_the_end(leaf) else "expand"
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

    def graft(self, leaf: Node, sample: Sample, number: int, choosy: bool = True) -> Node:
        """Hang a response under `leaf`, one node a step, and return the last of them.

        Mostly that is one node. A response that thinks twice, or thinks and answers at once, keeps
        all it said as a chain. If not `choosy`, repeated points and copies are followed as well.
        """
        parsed = said(sample, self.frame, opened=self.at_the_end(leaf))
        problems = tuple(problem.kind for problem in parsed.problems)
        thoughts = fold_remark(whole_thoughts(sample, parsed))
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
            dropped = self.objection(node, step) or self.copy_of_sibling(node, step)
            reason = dropped if choosy else None
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
        limit = min(self.config.rollout_steps, self.config.max_depth - node.depth)
        return await together(
            self.finish(node, path, sample, i, limit) for i, sample in enumerate(samples)
        )

    async def finish(
        self, node: Node, path: tuple[Step, ...], sample: Sample, number: int, limit: int
    ) -> Rollout:
        """Read one rollout; with no answer within `limit` steps, ask for the answer alone."""
        raw = parse(sample.text, self.frame)
        problems = tuple(problem.kind for problem in raw.problems)
        steps = whole_thoughts(sample, raw)
        if raw.answer is not None:
            steps = fold_remark(steps)
        answer = raw.answer or said(sample, self.frame, opened=False).answer
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
        parsed = said(forced, self.frame, opened=True)
        grade = self.grade(self.tree.question, parsed.answer)
        ids = (begun_in, forced.response_id) if begun_in else (forced.response_id,)
        found = (*problems, "answer_forced", *(problem.kind for problem in parsed.problems))
        return Rollout(steps, parsed.answer, grade.score, grade.reason, ids, number, found)

    def settle(self, node: Node, rollouts: list[Rollout] | TeacherError) -> None:
        """Number a node's new rollouts and back up what they, or its own answer, earned."""
        if isinstance(rollouts, TeacherError):
            self.note(node, rollouts)
            return
        if node.terminal:
            grade = self.grade(self.tree.question, node.answer)
            node.reward, node.reason = grade.score, grade.reason
            if node.reward is not None:
                backup(node, node.reward)
        for rollout in rollouts:
            rollout.rollout_id = self.n_rollouts
            self.n_rollouts += 1
            node.rollouts.append(rollout)
            if rollout.reason.startswith(FAILED):
                self.note(node, rollout.reason)
            if rollout.reward is not None:
                backup(node, rollout.reward)

    def note(self, node: Node, error: TeacherError | str) -> None:
        self.tree.errors = (*self.tree.errors, f"at {node.path or 'the root'}: {error}")

"""One search under way: how a node is turned into requests, and a response into nodes.

    run = SearchRun(question, config, policy, grade, tree_id)
    proposals = await run.propose(leaf, n=3, first=0)
    for node in run.expand(leaf, proposals):
        run.record_rollouts(node, await run.rollout(node))

`mcts.search` calls these in the order of the tree search, `mcts.baselines` in that of a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mcts.budget import Budget
from mcts.concurrency import gather
from mcts.config import Grader, SearchConfig
from mcts.coordinates import Frame
from mcts.data import Question, Step
from mcts.parsing import fold_remark, parse, revisits
from mcts.policy import Continuation, MeteredPolicy, Policy, complete_steps, parse_response
from mcts.selection.policy_prior import policy_priors
from mcts.selection.uct import Bound, backpropagate, mark_pending, select_wave, uct
from mcts.selection.value_model import Valuer
from mcts.teachers.base import TeacherError
from mcts.tree import Node, Rollout, Tree
from mcts.zoom.config import ZoomConfig
from mcts.zoom.episode import play
from mcts.zoom.observe import ZoomProblem, same_region
from mcts.zoom.turns import read_turn

FAILURE_PREFIX = "failed: "
"""Begins the reason of a rollout whose answer could not be requested."""
COPY = "copy_of_sibling"
"""The reason for which a step is discarded that a sibling holds, too."""
PLACE_OF_SIBLING = "place_of_sibling"
"""The reason for which a step is discarded whose place is a sibling's: `SearchConfig.distinct`."""
DRY_EXPANSIONS = 3
"""Expansions of a node in a row that bring nothing new, after which it is widened no more."""
CALL_AFTER_LIMIT = "call_after_limit"
"""The problem of a response that calls although the answer was asked for."""


def bound_of(config: SearchConfig) -> Bound:
    """Return the upper confidence bound of a node's child, as the configuration says."""
    return partial(
        uct, exploration=config.exploration, value_weight=config.value_weight,
        scaling=config.scale_exploration, policy_weight=config.policy_prior,
    )  # fmt: skip


class SearchRun:
    """The state of one search: the tree, and what every part of it needs.

    Requests overlap, but the tree changes only between them and in a fixed order: node numbers,
    statistics and the list of errors do not depend on the order in which answers arrive.
    """

    def __init__(
        self,
        question: Question,
        config: SearchConfig,
        policy: Policy,
        grade: Grader,
        tree_id: str,
        valuer: Valuer | None = None,
    ) -> None:
        if config.value_model and valuer is None:
            raise ValueError(f"this search is guided by {config.value_model}, which is not here")
        self.config, self.grade, self.valuer = config, grade, valuer
        self.policy = policy = MeteredPolicy(policy)
        self.frame = Frame.of(config.space, question)
        root, keys = Node(0, "", None), policy.request_keys
        self.tree = Tree(
            tree_id, question, root, usage=policy.usage, request_keys=keys, zoom=config.zoom
        )
        self.n_nodes, self.n_rollouts = 1, 0
        self.bound = bound_of(config)
        self.start = root
        """Where the next selection begins (`stay`)."""

    @property
    def limit(self) -> int:
        """Simulations, or chains of a baseline, at which the search ends; `auto` has both."""
        config = self.config
        chains = 0 if config.strategy == "mcts" else config.samples
        return chains + (config.simulations if config.strategy in ("mcts", "auto") else 0)

    def stop_reason(self) -> str | None:
        """Return why the search ends before its next wave, or None: `Tree.stopped_by`."""
        config, tree = self.config, self.tree
        if config.enough is not None and tree.right_lines() >= config.enough:
            return "enough"
        # Rollouts of the root are whole chains: the tree search has none there.
        if config.strategy == "auto" and any(reward >= 1.0 for reward in tree.root.rewards):
            return "sampled"
        return self.config.budget.reached(self.tree.usage)

    def simulations_left(self) -> int:
        """Estimate how many simulations may follow, given what the other limits allow."""
        config, tree = self.config, self.tree
        used = [config.budget.share(tree.usage)]
        if config.enough:
            used.append(tree.right_lines() / config.enough)
        left = self.limit - tree.simulations
        if not any(used):
            limited = config.enough or config.budget != Budget()
            return min(left, 1) if limited else left
        return min(left, int(tree.simulations * (1 - max(used)) / max(used)))

    def at_max_depth(self, node: Node) -> bool:
        """Return whether only an answer may follow `node`, as behind a call after the last one."""
        return node.depth >= self.config.max_depth or CALL_AFTER_LIMIT in node.problems

    async def propose(
        self, leaf: Node, n: int, first: int
    ) -> Sequence[Continuation] | TeacherError:
        """Request `n` continuations of `leaf`: next steps, or at the greatest depth answers."""
        purpose = "answer" if self.at_max_depth(leaf) else "expand"
        try:
            return await self.policy.sample(leaf.path, purpose, leaf.steps(), n, first)
        except TeacherError as error:
            return error

    def expand(self, leaf: Node, proposals: Sequence[Continuation] | TeacherError) -> list[Node]:
        """Add the proposals under `leaf`; return the nodes that deserve a rollout or a grade."""
        first, leaf.attempts = leaf.attempts * self.config.children, leaf.attempts + 1
        if isinstance(proposals, TeacherError):
            self.record_error(leaf, proposals)
            return []
        new = [self.add_response(leaf, sample, first + i) for i, sample in enumerate(proposals)]
        self.set_policy_priors(leaf)
        return [node for node in new if not node.discarded]

    def set_policy_priors(self, parent: Node) -> None:
        """Set how likely each step below `parent` is among those that the search follows."""
        if not self.config.policy_prior:
            return
        told = {
            child: child.mean_logprob
            for child in parent.children
            if child.mean_logprob is not None and not (child.terminal or child.discarded)
        }
        for child, prior in zip(told, policy_priors(list(told.values())), strict=True):
            child.policy_prior = prior

    def add_response(
        self, leaf: Node, sample: Continuation, number: int, *, reject_repeats: bool = True
    ) -> Node:
        """Add a response under `leaf`, one node per step, and return the last of them.

        Usually that is one node. A response with two thoughts, or with a thought and an answer,
        becomes a chain. Where the model may zoom, the last step of a response holds the call, and
        the node what that showed: its children see it.

        Args:
            reject_repeats: discard steps that `rejection_reason` objects to, and what follows them.
        """
        steps, answer, problems = self.read(leaf, sample)
        node = leaf

        def add_node(step: Step | None, answer: str | None, discarded: str | None) -> Node:
            child = self.add_node(node, step, answer, sample.response_id, number)
            child.discarded, child.problems = discarded, problems
            child.mean_logprob = sample.mean_logprob
            return child

        # A thought that only tells what a crop shows is often the same; its answers all count.
        counts = self.config.zoom is not None and answer is not None
        for step in steps[: self.config.max_depth - leaf.depth]:
            reason = self.rejection_reason(node, step) if reject_repeats else None
            if reason == COPY and counts:
                reason = None
            node = add_node(step, None, reason)
            if reason:
                return node
        if answer is not None:
            # Equal answers all count: a node's value is how often its answers are right.
            node = add_node(None, answer, None)
        elif node is leaf:
            cut_off = sample.finish_reason == "length"
            node = add_node(None, None, "cut_off" if cut_off else "nothing_said")
        return node

    def add_node(
        self, parent: Node, step: Step | None, answer: str | None, response_id: str, sample: int
    ) -> Node:
        """Add a node under `parent`."""
        number = len(parent.children)
        path = f"{parent.path}.{number}" if parent.path else str(number)
        node = Node(self.n_nodes, path, parent, step, answer, response_id, sample)
        self.n_nodes += 1
        parent.children.append(node)
        return node

    def read(
        self, leaf: Node, sample: Continuation
    ) -> tuple[tuple[Step, ...], str | None, tuple[str, ...]]:
        """Read a response under `leaf` into its steps, answer, and kinds of problems."""
        forced, zoom = self.at_max_depth(leaf), self.config.zoom
        if zoom is None:
            parsed = parse_response(sample, self.frame, answer_opened=forced)
            kinds = tuple(problem.kind for problem in parsed.problems)
            problems = ("answer_forced", *kinds) if forced else kinds
            return fold_remark(complete_steps(sample, parsed)), parsed.answer, problems
        turn = read_turn(
            sample.text, self.frame, zoom, leaf.steps(),
            finish_reason=sample.finish_reason, answer_opened=forced,
        )  # fmt: skip
        problems = ("answer_forced", *turn.problems) if forced else turn.problems
        return turn.steps, turn.answer, problems

    def rejection_reason(self, node: Node, step: Step) -> str | None:
        """Return why `step` must not follow `node`, or None.

        Its point lies outside the image or was cited above, it calls for what was shown already, or
        a sibling holds the same step. A call that can't be answered is no reason: what comes back
        tells the model, and it goes on.
        """
        if reason := self.unfollowed(step, node.steps()):
            return reason
        siblings = [child.step for child in node.children if not child.discarded and child.step]
        if step in siblings:
            return COPY
        same = self.config.distinct and any(self.same_place(step, other) for other in siblings)
        return PLACE_OF_SIBLING if same else None

    def unfollowed(self, step: Step, before: Sequence[Step]) -> str | None:
        """Return why `step` must not follow the steps `before` it, whatever its siblings are."""
        if any(not self.frame.inside(point) for point in step.points):
            return "point_outside_image"
        return "repeated_point" if self.repeats(step, before) else None

    def same_place(self, step: Step, other: Step) -> bool:
        """Return whether two steps are shown the same region, or cite the same place unshown."""
        frame, shown, before = self.frame, step.observation, other.observation
        if shown is not None or before is not None:
            crop = shown.crop if shown else None
            its_crop = before.crop if before else None
            return crop is not None and its_crop is not None and same_region(frame, crop, its_crop)
        a, b = step.point, other.point
        radius = self.config.repeat_radius
        return a is not None and b is not None and frame.same_place(a, b, radius)

    def select_leaves(self) -> list[Node]:
        """Select what the next wave expands, below the node where the search stays first."""
        config, root = self.config, self.tree.root
        width = min(config.wave, self.limit - self.tree.simulations)
        widens = self.widens if config.widening else None
        leaves = []
        if self.start is not root:
            leaves = select_wave(self.start, self.bound, width, widens)
        leaves += select_wave(root, self.bound, width - len(leaves), widens)
        if config.widening and not leaves and (again := self.explored_node()):
            mark_pending(again, +1)
            leaves = [again]
        return leaves

    def promising(self, leaves: Sequence[Node]) -> Node:
        """Return the node where the next selection begins: of the `leaves` that were expanded, the
        best of those behind which some answers are right and some wrong, or else the root.
        """
        mixed = [leaf for leaf in leaves if leaf.open and 0 < (leaf.value or 0) < 1]
        return max(mixed, key=lambda leaf: leaf.value or 0, default=self.tree.root)

    async def value(self, expanded: Sequence[Sequence[Node]]) -> list[Node]:
        """Value a wave's new nodes, grouped by leaf; return those to sample answers from, in order.

        Without a value model these are all. Answers are graded, and have no value from elsewhere.
        """
        new = [node for group in expanded for node in group]
        if self.valuer is None:
            return new
        steps = [node for node in new if not node.terminal]
        found = await self.valuer.values([node.steps() for node in steps])
        for node, prior in zip(steps, found, strict=True):
            node.prior = prior
        most = self.config.value_rollouts or len(steps)
        for group in expanded:
            valued = [node for node in group if not node.terminal]
            valued.sort(key=lambda node: -(node.prior if node.prior is not None else 0.5))
            for node in valued[most:]:
                node.skipped = self.config.rollouts
        return [node for node in new if not node.skipped]

    def widens(self, node: Node) -> bool:
        """Return whether an expanded node is to be given further children."""
        asked = node.attempts * self.config.children
        return 0 < asked < node.visits**self.config.widening

    def explored_node(self) -> Node | None:
        """Return the node to ask for further children when all are explored; None if all are dry.

        UCT descends, as in a selection, to a node that lacks children, or has none that is a step.
        """
        node = self.tree.root
        while below := [child for child in node.children if self.may_widen(child)]:
            if self.widens(node) and not self.dry(node):
                break
            node = max(below, key=partial(self.bound, node))
        return None if self.dry(node) else node

    def may_widen(self, node: Node) -> bool:
        """Return whether anything below a node might bring something new, if it is asked again."""
        if node.terminal or node.discarded:
            return False
        return not self.dry(node) or any(self.may_widen(child) for child in node.children)

    def dry(self, node: Node) -> bool:
        """Return whether the node's last expansions brought nothing that the search follows."""
        last = node.children[-DRY_EXPANSIONS * self.config.children :]
        return node.attempts >= DRY_EXPANSIONS and all(child.discarded for child in last)

    def repeats(self, step: Step, before: Sequence[Step]) -> bool:
        """Return whether a step shows or cites only what the steps `before` it did."""
        if step.observation is not None:
            return step.observation.problem == ZoomProblem.SHOWN_ALREADY
        point = step.point
        if point is None or revisits(step.thought):
            return False
        crops = (earlier.observation.crop for earlier in before if earlier.observation)
        if any(crop is not None and crop.contains(point) for crop in crops):
            return False  # it tells what the crop shows
        cited = (cited for earlier in before for cited in earlier.points)
        return any(self.frame.same_place(point, p, self.config.repeat_radius) for p in cited)

    async def rollout(self, node: Node) -> list[Rollout] | TeacherError:
        """Sample answers from a new node; none from a terminal one, which has its own."""
        if node.terminal:
            return []
        steps, n = node.steps(), self.config.rollouts
        try:
            if self.at_max_depth(node):
                forced = await self.policy.sample(node.path, "finish", steps, n)
                return [self.forced_rollout(sample, i, ()) for i, sample in enumerate(forced)]
            samples = await self.policy.sample(node.path, "rollout", steps, n)
        except TeacherError as error:
            return error
        limit = min(self.config.rollout_steps, self.config.max_depth - node.depth)
        return await gather(
            self.finish_rollout(node, sample, i, limit) for i, sample in enumerate(samples)
        )

    async def request_answer(self, node: Node, number: int) -> list[Rollout] | TeacherError:
        """Request nothing but the answer behind a node's steps."""
        try:
            (sample,) = await self.policy.sample(node.path, "finish", node.steps(), 1, number)
        except TeacherError as error:
            return error
        return [self.forced_rollout(sample, number, ())]

    async def finish_rollout(
        self, node: Node, sample: Continuation, number: int, limit: int
    ) -> Rollout:
        """Parse one rollout of `node`; without an answer in `limit` steps, request the answer."""
        if self.config.zoom is not None:
            return await self.play_rollout(self.config.zoom, node, sample, number, limit)
        raw = parse(sample.text, self.frame)
        problems = tuple(problem.kind for problem in raw.problems)
        steps = complete_steps(sample, raw)
        if raw.answer is not None:
            steps = fold_remark(steps)
        answer = raw.answer or parse_response(sample, self.frame).answer
        if answer is not None and len(steps) <= limit:
            grade = self.grade(self.tree.question, answer)
            ids, turns = (sample.response_id,), (len(steps),)
            return Rollout(
                steps, answer, grade.score, grade.reason, ids, number, problems, turn_steps=turns
            )
        steps = steps[:limit]
        prefix = (*node.steps(), *steps)
        try:
            (forced,) = await self.policy.sample(node.path, "finish", prefix, 1, number)
        except TeacherError as error:
            ids = (sample.response_id,)
            return Rollout(steps, None, None, f"{FAILURE_PREFIX}{error}", ids, number, problems)
        return self.forced_rollout(forced, number, steps, sample.response_id, problems)

    async def play_rollout(
        self, zoom: ZoomConfig, node: Node, sample: Continuation, number: int, limit: int
    ) -> Rollout:
        """Play a rollout of `node` turn by turn, from the response to its first."""
        episode = await play(
            self.policy, self.frame, zoom,
            node=node.path, before=node.steps(), first=sample, number=number, limit=limit,
        )  # fmt: skip
        ids = tuple(response.response_id for response in episode.responses)
        if episode.failure is not None:
            reward, reason = None, f"{FAILURE_PREFIX}{episode.failure}"
        else:
            grade = self.grade(self.tree.question, episode.answer)
            reward, reason = grade.score, grade.reason
        return Rollout(
            episode.steps, episode.answer, reward, reason, ids, number, episode.problems,
            turn_steps=episode.turn_steps,
        )  # fmt: skip

    def forced_rollout(
        self,
        sample: Continuation,
        number: int,
        steps: tuple[Step, ...],
        begun_in: str | None = None,
        problems: tuple[str, ...] = (),
    ) -> Rollout:
        """Make the rollout that ends in a forced answer, after `steps` of response `begun_in`."""
        parsed = parse_response(sample, self.frame, answer_opened=True)
        grade = self.grade(self.tree.question, parsed.answer)
        ids = (begun_in, sample.response_id) if begun_in else (sample.response_id,)
        kinds = (*problems, "answer_forced", *(problem.kind for problem in parsed.problems))
        return Rollout(steps, parsed.answer, grade.score, grade.reason, ids, number, kinds)

    def record_rollouts(self, node: Node, rollouts: list[Rollout] | TeacherError) -> None:
        """Number a node's new rollouts; backpropagate their rewards, or its own answer's."""
        if isinstance(rollouts, TeacherError):
            self.record_error(node, rollouts)
            return
        if node.terminal:
            grade = self.grade(self.tree.question, node.answer)
            node.reward, node.reason = grade.score, grade.reason
            if node.reward is not None:
                backpropagate(node, node.reward)
        for rollout in rollouts:
            if self.config.keep_rollouts and self.keep(node, rollout):
                continue
            rollout.rollout_id = self.n_rollouts
            self.n_rollouts += 1
            node.rollouts.append(rollout)
            if rollout.reason.startswith(FAILURE_PREFIX):
                self.record_error(node, rollout.reason)
            if rollout.reward is not None:
                backpropagate(node, rollout.reward)

    def keep(self, node: Node, rollout: Rollout) -> bool:
        """Add a rollout's steps below `node`, and its answer behind them, if it has no problem.

        Steps that are there already are shared. One with a step that the search would discard stays
        a rollout, and so do the whole chains of the strategy `auto`.

        Returns:
            Whether they were added.
        """
        if node.parent is None or rollout.problems or rollout.reward is None:
            return False
        tip, new = node, list(rollout.steps)
        while new and (same := tip.child_with(new[0])):
            tip, new = same, new[1:]
        before = tip.steps()
        if new and self.rejection_reason(tip, new[0]):
            return False
        if any(self.unfollowed(new[i], (*before, *new[:i])) for i in range(1, len(new))):
            return False
        counts = zip(rollout.response_ids, rollout.turn_steps, strict=True)
        said_in = [response_id for response_id, n in counts for _ in range(n)]
        for step, response_id in zip(new, said_in[len(said_in) - len(new) :], strict=True):
            tip = self.add_node(tip, step, None, response_id, rollout.sample)
            tip.kept = True
        end = self.add_node(tip, None, rollout.answer, rollout.response_ids[-1], rollout.sample)
        end.kept, end.reward, end.reason = True, rollout.reward, rollout.reason
        backpropagate(end, rollout.reward)
        return True

    def record_error(self, node: Node, error: TeacherError | str) -> None:
        """List a failed request of `node` in the tree's errors."""
        self.tree.errors = (*self.tree.errors, f"at {node.path or 'the root'}: {error}")

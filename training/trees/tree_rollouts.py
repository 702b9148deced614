"""GRPO whose groups are trees: chains from a question, then forks where the student is uncertain.

    trainer = TreeTrainer(…)                    # TRL's arguments
    trainer.begin_trees(recipe.tree, reporter.message)

The trees of a batch grow together, wave by wave, in the decoder that also samples chains. A wave is
the chains from each question, then forks that are chosen by all that was sampled before
(`training.trees.rollout_tree`), until a tree has written what `group` chains would have: `group`
times the mean length of its own chains. Where nothing can fork, further chains are sampled. A fork
is sampled where it is expected to fit, so a tree may write a little more or less. Each sample's
seed is a hash of the training's seed, the step, the prompt, and the path of the sample in its tree;
so a training that was killed grows the same trees.

TRL gets each leaf as a completion, with an advantage and a mask a token. How many leaves a batch
has varies; where it does not divide into micro batches, masked copies of the last one fill it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from mcts.teachers.base import seed_of
from mcts.teachers.local.decoder import BatchRow, Decoder
from training.batches.live_groups import SampledGroup, some_of, weighted_sums
from training.recipe_sections import TreeSettings
from training.rollouts import CAPACITY, PromptEncoder, RolloutTrainer, chats_of
from training.trees.comparison import SampledQuestion, compared_rows, comparison
from training.trees.rollout_tree import (
    RolloutTree,
    SampledStep,
    child_path,
    choose_forks,
    further_chains,
    grade_leaves,
    leaf_advantages,
    leaf_masks,
    step_ends,
)
from training.vision_cache import ImageInput
from warehouse.tables.schema import Row

_PREFIX_BYTES = 2**28
_ROUNDING = 1e-4
"""What TRL adds to the standard deviation that advantages are divided by."""


@dataclass(frozen=True, slots=True)
class TreeGroup(SampledGroup):
    """The leaves of one question's tree, and what they earned; `tokens` counts each once."""

    tree: RolloutTree


@dataclass(frozen=True, slots=True)
class Growth:
    """A place to sample on from, and the tree that it is in."""

    number: int
    """Of the tree in its batch."""
    place: SampledStep
    path: str
    """Of the first step that will follow."""


def first_wave(trees: Sequence[RolloutTree], chains: int) -> list[Growth]:
    """Return the chains that trees begin with, each from its question."""
    return [Growth(i, tree.root, str(n)) for i, tree in enumerate(trees) for n in range(chains)]


class TreeTrainer(RolloutTrainer):
    """See the top of the file."""

    chains: int
    """From each question, before its forks."""
    most_leaves: int
    most_forks: int
    """Of a tree at once."""
    compared: int
    """Questions that are sampled in both ways before the first step."""
    _report: Callable[[str], None]
    _graded: Sequence[RolloutTree] | None = None
    """The trees whose leaves are being scored; they were sampled before."""

    def begin_trees(self, settings: TreeSettings, report: Callable[[str], None]) -> None:
        """Set what is needed beside TRL's arguments.

        Args:
            report: receives the comparison of trees and chains.
        """
        self.chains = settings.chains_of(self._group)
        self.most_leaves = settings.leaves_of(self._group)
        self.most_forks = settings.forks or self.chains
        self.compared, self._report = settings.compared, report

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        if not self._trains:
            whole: Row = super()._generate_and_score_completions(inputs)
            return whole
        if self.compared and self.state.global_step == 0:
            self._compare()
        groups = [group for group in self._live_groups(inputs) if isinstance(group, TreeGroup)]
        filled = [*groups, *self._filling(groups)]
        with self._groups_of_any_size():
            output = self._learned_from(filled)
        self._metrics["train"]["frac_reward_zero_std"][-1] = fmean(g.dead for g in groups)
        output["advantages"] = self._advantages(groups, output["completion_ids"])
        return output

    @contextmanager
    def _groups_of_any_size(self) -> Iterator[None]:
        """Have TRL take any number of completions; the advantages that it computes are replaced."""
        size, self.num_generations = self.num_generations, 1
        try:
            yield
        finally:
            self.num_generations = size

    def _filling(self, groups: Sequence[TreeGroup]) -> list[SampledGroup]:
        """Return masked copies of the last leaf, so that micro batches are of one size."""
        args: Any = self.args
        steps = int(args.steps_per_generation)
        lacking = -sum(len(group.rows) for group in groups) % steps
        last = groups[-1]
        ids, completions, masks, *rest = some_of(last.generated, slice(-1, None))
        generated = (ids, completions, [[0] * len(mask) for mask in masks], *rest)
        nothing = torch.full_like(last.parts[-1:], torch.nan)
        copy = SampledGroup(last.rows[-1:], generated, nothing, nothing.sum(1), 0)
        return [copy] * lacking

    def _sampled_groups(self, rows: list[Row]) -> list[SampledGroup]:
        return self._ask(rows[:: self._group])

    def _ask(self, rows: list[Row]) -> list[SampledGroup]:
        """Answer questions, a tree each; log how they grew."""
        trees = self.grow(rows)
        found = self.graded(rows, trees)
        sampled, whole = sum(t.tokens for t in trees), sum(t.chain_tokens for t in trees)
        for name, value in {
            "tree/trees": float(len(trees)),
            "tree/leaves": fmean(len(tree.leaves) for tree in trees),
            "tree/tokens": float(sampled),
            "tree/chain_tokens": float(whole),
            "tree/shared": 1 - sampled / whole,
            "tree/budget_used": sampled / sum(tree.budget for tree in trees),
        }.items():
            self._metrics["train"][name].append(value)
        return [*found]

    def graded(self, rows: Sequence[Row], trees: Sequence[RolloutTree]) -> list[TreeGroup]:
        """Score the leaves of each row's tree, and backpropagate their rewards."""
        leaf_rows = [row for row, tree in zip(rows, trees, strict=True) for _ in tree.leaves]
        self._graded = trees
        try:
            generated, parts = self._scored(leaf_rows)
        finally:
            self._graded = None
        rewards = weighted_sums(parts, self.reward_weights)
        groups, begin = [], 0
        for tree in trees:
            own = slice(begin, begin := begin + len(tree.leaves))
            ids, completions, _, *rest = some_of(generated, own)
            masks = [
                [0] * (len(tokens) - len(mask)) + mask  # a row's prefix is in front
                for tokens, mask in zip(completions, leaf_masks(tree), strict=True)
            ]
            some = (ids, completions, masks, *rest)
            earned = rewards[own]
            grade_leaves(tree, earned.tolist())
            groups.append(TreeGroup(leaf_rows[own], some, parts[own], earned, tree.tokens, tree))
        return groups

    def grow(
        self, rows: Sequence[Row], chains: int | None = None, budgets: Sequence[float] = ()
    ) -> list[RolloutTree]:
        """Sample a tree for each row.

        Args:
            chains: from the question; as the recipe says when left out. Trees of `group` chains
                have no forks: that is how chains are sampled for a comparison.
            budgets: tokens of each tree; those of `group` of its own chains when left out.
        """
        prompts = self._tokenize_prompts(chats_of(rows))
        first = self.chains if chains is None else chains
        with self._sampling() as model:
            trees, sample = self._planted(model, rows, *prompts)
            wave = first_wave(trees, first)
            while wave:
                sample(wave)
                for number, tree in enumerate(trees):
                    if math.isinf(tree.budget):
                        own = self._group * fmean(leaf.written for leaf in tree.leaves)
                        tree.budget = budgets[number] if budgets else own
                forking = trees if first < self._group else []
                wave = [fork for i, tree in enumerate(forking) for fork in self._forks(i, tree)]
        return [*trees]

    def _planted(
        self, model: Any, rows: Sequence[Row], ids: Any, shown: Any, fields: Row
    ) -> tuple[Sequence[RolloutTree], Callable[[Sequence[Growth]], None]]:
        """Return a tree without samples for each row, and what samples a wave into them.

        Args:
            ids, shown, fields: the rows' prompts as TRL tokenizes them: tokens, images, and the
                images as the model takes them.
        """
        images = self._split_images(model, ids, fields)
        prefixes = self._prefix_tokens(rows) or [[]] * len(rows)
        contexts = [[*map(int, a), *b] for a, b in zip(ids, prefixes, strict=True)]
        trees = [RolloutTree() for _ in rows]
        # The weights have changed since the last call: the decoder must keep nothing from it.
        decoder, encoder = Decoder(model, CAPACITY, _PREFIX_BYTES), PromptEncoder(model)
        return trees, lambda wave: self._sample(decoder, encoder, wave, trees, contexts, images)

    def _forks(self, number: int, tree: RolloutTree) -> list[Growth]:
        """Choose where a tree forks next; its root where it can't."""
        most = min(self.most_forks, self.most_leaves - len(tree.leaves))
        left = tree.budget - tree.tokens
        found: list[Growth] = []
        for place in choose_forks(tree, left, most) or further_chains(tree, left, most):
            before = sum(growth.place is place for growth in found)
            path = child_path(place, len(place.children) + before)
            found.append(Growth(number, place, path))
        return found

    def _sample(
        self, decoder: Decoder, encoder: PromptEncoder, wave: Sequence[Growth],
        trees: Sequence[RolloutTree], contexts: Sequence[list[int]],
        images: Sequence[list[ImageInput]],
    ) -> None:  # fmt: skip
        """Sample a wave, and add what comes of it to the trees, in its order."""
        begun = [growth.place.completion() for growth in wave]
        asked = [
            ([*contexts[growth.number], *tokens], images[growth.number])
            for growth, tokens in zip(wave, begun, strict=True)
        ]
        encoded = encoder.encode(asked)
        unique = {prompt.names: prompt for prompt in encoded}
        ran = {prefix.names: prefix for prefix, _ in decoder.prefill(list(unique.values()))}
        waiting = [
            (self._seeded(growth, i, contexts[growth.number]), ran[prompt.names])
            for i, (growth, prompt) in enumerate(zip(wave, encoded, strict=True))
        ]
        rows = self._decoded(decoder, waiting, lambda row: self._most - len(begun[row.owner]))
        for row in sorted(rows, key=lambda row: int(row.owner)):
            growth = wave[row.owner]
            tokens = self._cut(row.tokens)
            assert row.entropies is not None
            trees[growth.number].add(
                growth.place, tokens, row.entropies[: len(tokens)], self._step_ends(tokens),
                tokens[-1] in self.eos_token_ids,
            )  # fmt: skip

    def _seeded(self, growth: Growth, owner: int, context: list[int]) -> BatchRow:
        seed = self._growth_seed(growth, context)
        return BatchRow(owner, 0, seed, self.temperature, self.top_p, entropies=[])

    def _growth_seed(self, growth: Growth, context: Sequence[int], *turn: int) -> int:
        """Return the seed of what is sampled at a place, `context` being the tokens of its prompt.

        Args:
            turn: its number, where a sample has several.
        """
        numbers = (growth.number, growth.path, *turn, *self._process)
        return seed_of(self.args.seed, self.state.global_step, context, "tree", *numbers)

    def _step_ends(self, tokens: list[int]) -> list[int]:
        processor: Any = self.processing_class
        return step_ends(processor.tokenizer.batch_decode([[token] for token in tokens]))

    def _turn(
        self, prompt_ids: Any, images: Any, fields: Any, *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        if self._graded is not None:
            return [leaf.completion() for tree in self._graded for leaf in tree.leaves], None
        return super()._turn(prompt_ids, images, fields, *args, **options)

    def _advantages(self, groups: Sequence[TreeGroup], completion_ids: Tensor) -> Tensor:
        """Return the advantage of each token of each completion, 0 in padding and copies.

        They are divided by what `scale_rewards` says, as TRL divides those of chains.
        """
        found = torch.zeros(completion_ids.shape, device=completion_ids.device)
        every = [reward for group in groups for reward in group.rewards.tolist()]
        row = 0
        for group in groups:
            spread = {"group": group.rewards.tolist(), "batch": every}.get(self.scale_rewards)
            scale = 1.0 if spread is None else _deviation(spread) + _ROUNDING
            lengths = [len(tokens) for tokens in group.generated[1]]
            for length, advantages in zip(lengths, leaf_advantages(group.tree), strict=True):
                values = torch.tensor(advantages, device=found.device) / scale
                found[row, length - len(advantages) : length] = values
                row += 1
        return found

    def _compare(self) -> None:
        """Report what the same questions give in trees and in chains of as many tokens."""
        rows = compared_rows(self.train_dataset, self.args.seed, self.compared)
        with self._asking_further():
            chains = self.grow(rows, chains=self._group)
            trees = self.grow(rows, budgets=[chain.tokens for chain in chains])
            found = [self.graded(rows, some) for some in (chains, trees)]
        figures, sentence = comparison(*([self._outcome(g) for g in groups] for groups in found))
        for name, value in figures.items():
            self._metrics["train"][name].append(value)
        self._report(sentence)

    def _outcome(self, group: TreeGroup) -> SampledQuestion:
        """Return what is compared of a question's completions."""
        correct = group.parts[:, self.reward_func_names.index("correctness")]
        pairs = zip(group.generated[3], group.rows, strict=True)
        answers = [self._read(completion, row).answer for completion, row in pairs]
        right = [score >= 1 for score in correct.tolist()]
        return SampledQuestion(group.rewards.tolist(), right, answers, group.tokens)


def _deviation(rewards: Sequence[float]) -> float:
    """Return the sample's standard deviation without NaN; 0 of fewer than two."""
    known = torch.tensor([reward for reward in rewards if not math.isnan(reward)])
    return float(known.std()) if len(known) > 1 else 0.0

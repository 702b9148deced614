"""GRPO whose groups are trees of episodes: a student that zooms goes on from what a call showed.

    trainer = ZoomTreeTrainer(…)                # TRL's arguments
    trainer.begin_zooming(recipe, read_image, alarm)
    trainer.begin_trees(recipe.tree, reporter.message)

A step of the tree is a turn, with what its call showed behind it. So a fork is another way on from
a crop: another look, or another reading of it. What was shown costs nothing of a tree's budget and
is masked, and so are episodes that hit a limit, as in `training.zoom.rollouts`. Forks, advantages
and seeds are those of `training.trees.tree_rollouts`; a place is gone on from by writing its turns
again, which shows the same crops. The ledger, its alarms and the control with noise are of the
chains from each question: forks stand behind calls, so a tree's leaves call more than its student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from training.batches.live_groups import Generated, SampledGroup
from training.evaluation.controls import noise_crop
from training.rollouts import CAPACITY
from training.trees.rollout_tree import RolloutTree, SampledStep
from training.trees.tree_rollouts import Growth, TreeTrainer, first_wave
from training.zoom.episodes import Observer, SampledEpisode
from training.zoom.rollouts import ZoomTrainer
from warehouse.tables.schema import Row


class EpisodeTree(RolloutTree):
    """The episodes about one question."""

    def __init__(self, begun: SampledEpisode) -> None:
        """`begun` is the episode that all go on from: the question, or a prefix behind it."""
        super().__init__()
        self.begun = begun
        self.episodes: list[SampledEpisode] = []
        """Those of the leaves."""

    def episode_at(self, place: SampledStep, shown: Observer) -> SampledEpisode:
        """Return an episode that has come as far as `place`."""
        episode, first = self.begun.copied(), len(self.begun.texts)
        turns = [step for step in place.lineage() if step.parent is not None]
        if turns:
            of = next(e for e, at in zip(self.episodes, self.leaves, strict=True)
                      if place in at.lineage())  # fmt: skip
            for step, text in zip(turns, of.texts[first:], strict=False):
                episode.take(step.tokens[: len(step.tokens) - step.shown], text, True, shown)
        return episode

    def add_episode(self, place: SampledStep, episode: SampledEpisode) -> None:
        """Add what an episode wrote and was shown behind `place`."""
        at = len(self.begun.completion_ids) + len(place.completion())
        tokens, mask = episode.completion_ids[at:], episode.mask[at:]
        known = iter(episode.entropies)
        entropies = [next(known) if wrote else 0.0 for wrote in mask]
        begins = [i for i, (a, b) in enumerate(pairwise([0, *mask])) if b > a]
        ends = [*begins[1:], len(tokens)]
        shown = [mask[begin:end].count(0) for begin, end in zip(begins, ends, strict=True)]
        self.add(place, tokens, entropies, ends, learned=not episode.masked, shown=shown)
        self.episodes.append(episode)


class ZoomTreeTrainer(ZoomTrainer, TreeTrainer):
    """See the top of the file."""

    _measures_entropy = True
    _wave: Sequence[Growth] = ()
    """What is being sampled."""
    _planted_last: tuple[Sequence[EpisodeTree], tuple[Any, Any, Any]] | None = None
    """The trees of the batch that is sampled, and their prompts as TRL tokenizes them."""

    def grow(
        self, rows: Sequence[Row], chains: int | None = None, budgets: Sequence[float] = ()
    ) -> list[RolloutTree]:
        """See `TreeTrainer.grow`."""
        self.tools = []  # the prompt has said which there are; see `ZoomTrainer._generate`
        return super().grow(rows, chains, budgets)

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        try:
            output: Row = super()._generate_and_score_completions(inputs)
        finally:
            self._planted_last = None  # or its pixels were kept through the optimizer step
        return output

    def _sampled_groups(self, rows: list[Row]) -> list[SampledGroup]:
        groups = super()._sampled_groups(rows)
        if self._control_due and self._planted_last is not None:
            trees, prompts = self._planted_last
            asked = rows[:: self._group]
            begun, noise = self.begin(*prompts, asked, noise_crop)
            wave = first_wave(trees, self.chains)
            played = [trees[g.number].episodes[int(g.path)] for g in wave]
            noisy = [begun[growth.number].copied() for growth in wave]
            with self._sampled_as(wave):
                self._control(noisy, noise, played, [asked[g.number] for g in wave])
        return groups

    @contextmanager
    def _sampled_as(self, wave: Sequence[Growth]) -> Iterator[None]:
        """Have the episodes that are played meanwhile sampled with the seeds of a wave."""
        self._wave = wave
        try:
            yield
        finally:
            self._wave = ()

    def _planted(
        self, model: Any, rows: Sequence[Row], ids: Any, shown: Any, fields: Row
    ) -> tuple[Sequence[RolloutTree], Callable[[Sequence[Growth]], None]]:
        begun, observer = self.begin(ids, shown, fields, rows)
        trees = [EpisodeTree(episode) for episode in begun]
        self._planted_last = trees, (ids, shown, fields)
        sampler = self._sampler(model, CAPACITY)

        def sample(wave: Sequence[Growth]) -> None:
            episodes = [trees[g.number].episode_at(g.place, observer) for g in wave]
            with self._sampled_as(wave):
                self._play_locally(model, episodes, observer, sampler)
            for growth, episode in zip(wave, episodes, strict=True):
                trees[growth.number].add_episode(growth.place, episode)

        return trees, sample

    def _turn_seed(self, place: int, episode: SampledEpisode) -> int:
        if not self._wave:
            return super()._turn_seed(place, episode)
        return self._growth_seed(self._wave[place], episode.prompt_ids, len(episode.texts))

    def _answers(self, prompts: list[Any]) -> Generated:
        if self._graded is None:
            return super()._answers(prompts)
        trees = [tree for tree in self._graded if isinstance(tree, EpisodeTree)]
        rows = iter(self._inputs)
        own = [[(episode, next(rows)) for episode in tree.episodes] for tree in trees]
        chains = [pair for pairs in own for pair in pairs[: self.chains]]
        self._count_tokens([episode for episode, _ in chains], [row for _, row in chains])
        return self._answered([episode for pairs in own for episode, _ in pairs], None)

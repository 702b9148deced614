"""GRPO of a student that zooms: whole episodes are sampled, turn by turn.

    trainer = ZoomTrainer(…)                    # TRL's arguments
    trainer.begin_zooming(recipe, read_image, alarm)

With `engine: local` all episodes of a batch are in the decoder at once. One whose turn ends in a
call gets its crop, and joins again while the others go on: nobody waits for the slowest turn. The
other engines sample a turn of all episodes, then the next (TRL's own loop over tools parses calls
its own way, answers several a turn and drops those that it can't read, so no part of it is used;
`training.zoom.environment` is for trainings by TRL alone).

The trainer's probabilities are of the sampled tokens, over the whole episode with all its images.
What was shown is masked from the loss; episodes that hit a limit are, too (see
`training.zoom.episodes`), and have no reward, so that they are no members of their groups. Pictures
that get lost on the way stop the training (TRL goes on without any).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from mcts.coordinates import Frame
from mcts.data import Observation, ZoomCall
from mcts.teachers.base import seed_of
from mcts.teachers.local.checkpoint import Checkpoint
from mcts.teachers.local.decoder import BatchRow, Decoder
from mcts.teachers.local.prefix_cache import Prefix
from mcts.zoom.crops import CropImages
from mcts.zoom.render import render_crop
from mcts.zoom.turns import STOPS
from training.batches.live_groups import Generated
from training.errors import TrainingError
from training.evaluation.controls import noise_crop
from training.recipes import GrpoRecipe
from training.rewards.completions import ParsedCompletion, parse_dialogue, turns_of
from training.rewards.question_column import read_question, read_zoom
from training.rollouts import CAPACITY, PromptEncoder, RolloutTrainer
from training.zoom.episodes import EpisodeEnd, Observer, SampledEpisode
from training.zoom.ledger import GAIN, ZoomAlarm, ZoomLedger
from warehouse.tables.schema import Row

_PREFIX_BYTES = 2**28  # each turn's prompt is the last one's, and more
_JOINED = 8
"""Episodes join in groups of this share of those at once: a prefill delays the whole batch."""

Renderer = Callable[[bytes, Observation, ZoomCall | None], bytes]


class ZoomTrainer(RolloutTrainer):
    """See the top of the file."""

    _read_image: Callable[[str], bytes]
    _alarm: ZoomAlarm
    _processor: Any
    _turn_tokens: int
    _control_steps: int
    """Optimizer steps from one control to the next; 0 for none."""
    _masked: Sequence[bool]
    """Whether nothing is learned of each of its episodes."""
    _measures_entropy = False
    """Whether episodes are to know how uncertain their tokens were; the local sampler says it."""

    def begin_zooming(
        self,
        recipe: GrpoRecipe,
        read_image: Callable[[str], bytes],
        alarm: ZoomAlarm,
    ) -> None:
        """Set what is needed beside TRL's arguments.

        Args:
            read_image: the encoded bytes of an image by its id.
        """
        self._read_image, self._alarm = read_image, alarm
        self._processor = self.processing_class
        self._turn_tokens = recipe.turn_tokens or recipe.max_completion
        self._control_steps = recipe.alarm.controls and recipe.alarm.control_every * recipe.updates

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        try:
            output: Row = super()._generate_and_score_completions(inputs)
        finally:
            self.tools = []
        pad: Any = self._image_pad_token_id
        check_images(output, pad, self._processor.image_processor.merge_size**2)
        return output

    def _generate(self, prompts: list[Any]) -> Generated:
        # TRL takes images of completions, and masks, only where it has tools. The chat template
        # must not see any: the prompt has said which there are.
        self.tools = []
        generated = super()._generate(prompts)
        self.tools = [_zooms]
        return generated

    def _answers(self, prompts: list[Any]) -> Generated:
        """Return as TRL: token ids, masks, messages, log-probabilities, columns, images."""
        prompt_ids, images, fields = self._tokenize_prompts(prompts)
        episodes, observer = self.begin(prompt_ids, images, fields, self._inputs)
        logprobs = self.play(episodes, observer)
        if self._control_due:
            noisy, noise = self.begin(prompt_ids, images, fields, self._inputs, noise_crop)
            self._control(noisy, noise, episodes, self._inputs)
        self._count_tokens(episodes, self._inputs)
        return self._answered(episodes, logprobs)

    @property
    def _control_due(self) -> bool:
        """Whether the batch that is sampled is played once more with noise for crops."""
        every = self._control_steps
        due = every and self._trains and self.state.global_step % every == 0
        return bool(due) and not self._further

    def _answered(
        self, episodes: Sequence[SampledEpisode], logprobs: list[list[float]] | None
    ) -> Generated:
        """Return as TRL what was played to the rows in `_inputs`."""
        self._masked = [episode.masked for episode in episodes]
        self._written = [episode.written for episode in episodes]
        shown = [episode.images for episode in episodes]
        return (
            [e.prompt_ids for e in episodes], [e.completion_ids for e in episodes],
            [[0] * len(e.mask) if e.masked else e.mask for e in episodes],
            [e.messages for e in episodes], logprobs, {}, shown, shown,
        )  # fmt: skip

    def begin(
        self, prompt_ids: Sequence[Any], images: Sequence[Any], fields: Row, rows: Sequence[Row],
        render: Renderer = render_crop,
    ) -> tuple[list[SampledEpisode], Observer]:  # fmt: skip
        """Return an episode for each prompt, and what makes what they will be shown.

        Args:
            rows: with the columns `question`, `zoom`, `image_ids`, and maybe `prefix`: the turns
                that an episode goes on behind, as JSON; shown, and not learned.
            render: makes the pixels of a crop.
        """
        inputs = self._split_images(self._base_model, list(prompt_ids), fields)
        episodes = []
        for ids, shown, taken, row in zip(prompt_ids, images, inputs, rows, strict=True):
            question, zoom = read_question(row["question"]).question, read_zoom(row["zoom"])
            frame = Frame.of(self.space, question)
            episodes.append(
                SampledEpisode(question, frame, zoom, [*map(int, ids)], [*shown], taken)
            )
        names = sorted({name for row in rows for name in row["image_ids"]})
        encoded = CropImages({name: self._read_image(name) for name in names}, render)
        observer = Observer(self._processor, episodes[0].zoom.role, encoded)
        for episode, row in zip(episodes, rows, strict=True):
            if row.get("prefix"):
                episode.begin(json.loads(row["prefix"]), self._encode, observer)
        return episodes, observer

    def _encode(self, text: str) -> list[int]:
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def play(
        self, episodes: Sequence[SampledEpisode], observer: Observer
    ) -> list[list[float]] | None:
        """Play episodes to their ends; return log-probabilities of tokens where vLLM samples."""
        if self.use_vllm or not self.local:
            return self._play_by_waves(episodes, observer)
        with self._sampling() as model:
            self._play_locally(model, episodes, observer)
        return None

    def next_logits(self, episodes: Sequence[SampledEpisode]) -> torch.Tensor:
        """Return the local sampler's logits of each episode's next token."""
        with self._sampling() as model:
            prompts = PromptEncoder(model).encode([(e.context, e.inputs) for e in episodes])
            prefixes = Decoder(model, 1, 0).prefill(prompts)
        return torch.stack([prefix.logits for prefix, _ in prefixes])

    def _reader(self, model: Any) -> Checkpoint:
        """Return what reads sampled tokens: as a local teacher does, whose stops are the same."""
        tokenizer = self._processor.tokenizer
        context = int(model.config.get_text_config().max_position_embeddings)
        return Checkpoint(
            model, tokenizer, self._processor.image_processor,
            frozenset(self.eos_token_ids), context, 0,
        )  # fmt: skip

    def _play_locally(
        self, model: Any, episodes: Sequence[SampledEpisode], observer: Observer,
        sampler: tuple[Decoder, PromptEncoder] | None = None,
    ) -> None:  # fmt: skip
        """Play episodes to their ends.

        Args:
            sampler: one that sampled with these weights before; a new one when left out, since
                none may keep anything from before the last optimizer step.
        """
        reader = self._reader(model)
        decoder, encoder = sampler or self._sampler(model, len(episodes))
        waiting = deque(enumerate(episodes))
        most = min(decoder.capacity, len(episodes))
        while waiting or decoder.rows:
            free = decoder.capacity - len(decoder.rows)
            enough = min(free, max(1, most // _JOINED))
            if (free and len(waiting) >= enough) or not decoder.rows:
                some = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                grown = decoder.join(self._rows(decoder, encoder, some))
            else:
                grown = decoder.step()
            ended = []
            for row in grown:
                place, episode = row.owner
                found = self._ending(row.tokens, episode, reader)
                if found is None:
                    continue
                ended.append(row)
                if row.entropies is not None:
                    episode.entropies += row.entropies[: len(found[0])]
                episode.take(*found, observer)
                if episode.ended is None and self._fits(episode, reader):
                    waiting.append((place, episode))
            decoder.drop(ended)

    def _sampler(self, model: Any, episodes: int) -> tuple[Decoder, PromptEncoder]:
        """Return what samples up to so many episodes at once."""
        return Decoder(model, min(CAPACITY, episodes), _PREFIX_BYTES), PromptEncoder(model)

    def _rows(
        self, decoder: Decoder, encoder: PromptEncoder, some: Sequence[tuple[int, SampledEpisode]]
    ) -> list[tuple[BatchRow, Prefix]]:
        """Return each episode's next turn, and the prefix it follows; equal ones are run once."""
        prompts = encoder.encode([(episode.context, episode.inputs) for _, episode in some])
        unique = {prompt.names: prompt for prompt in prompts}
        prefixes = decoder.prefill(list(unique.values()))
        found = {prefix.names: prefix for prefix, _ in prefixes}
        rows = []
        for (place, episode), prompt in zip(some, prompts, strict=True):
            entropies: list[float] | None = [] if self._measures_entropy else None
            row = BatchRow(
                (place, episode), 0, self._turn_seed(place, episode), self.temperature,
                self.top_p, entropies=entropies,
            )  # fmt: skip
            rows.append((row, found[prompt.names]))
        return rows

    def _turn_seed(self, place: int, episode: SampledEpisode) -> int:
        """Return the seed of an episode's next turn."""
        numbers = (place, len(episode.texts), *self._process)
        return seed_of(self.args.seed, self.state.global_step, episode.prompt_ids, *numbers)

    def _ending(
        self, tokens: Sequence[int], episode: SampledEpisode, reader: Checkpoint
    ) -> tuple[list[int], str, bool] | None:
        """Return a turn that has ended: tokens, text, and whether it ended by itself."""
        if tokens[-1] in (self._image_pad_token_id, self._video_pad_token_id):
            # It stands for an image that is not there.
            return [*tokens[:-1], self.eos_token_ids[0]], reader.decode(tokens[:-1]), False
        text, complete = reader.read(tokens, STOPS)
        if complete:
            return list(tokens), text, True
        full = len(episode.context) + len(tokens) >= reader.context
        if full or len(tokens) >= min(self._turn_tokens, self._most - episode.written):
            return list(tokens), reader.decode(tokens), False
        return None

    def _fits(self, episode: SampledEpisode, reader: Checkpoint) -> bool:
        """Return whether there is room for another turn; else the episode ends here."""
        if len(episode.context) < reader.context and episode.written < self._most:
            return True
        episode.ended = EpisodeEnd.CUT_OFF
        return False

    def _play_by_waves(
        self, episodes: Sequence[SampledEpisode], observer: Observer
    ) -> list[list[float]] | None:
        """Play a turn of all episodes, then the next."""
        reader = self._reader(self._base_model)
        logprobs = [[0.0] * len(episode.completion_ids) for episode in episodes]
        known = False
        going = list(range(len(episodes)))
        while going:
            some = [episodes[i] for i in going]
            inputs = [image for episode in some for image in episode.inputs]
            fields: Row = {}
            if inputs:
                fields = {
                    "pixel_values": torch.cat([image.pixels for image in inputs]),
                    "image_grid_thw": torch.stack([image.grid for image in inputs]),
                }
            self.tools = [_zooms]  # TRL's sampler takes images of earlier turns only with tools
            sampled, found = super()._generate_single_turn(
                [e.context for e in some], [e.images or None for e in some], fields, 1, True
            )
            self.tools = []
            known = found is not None
            for number, i in enumerate(going):
                ids = [int(token) for token in sampled[number]]
                ends = (self._ending(ids[:n], episodes[i], reader) for n in range(1, len(ids) + 1))
                tokens, text, complete = next((e for e in ends if e is not None), (ids, "", False))
                episodes[i].take(tokens, text, complete, observer)
                if found is not None:
                    logprobs[i] += found[number][: len(tokens)]
                    logprobs[i] += [0.0] * (len(episodes[i].completion_ids) - len(logprobs[i]))
            going = [
                i for i in going
                if episodes[i].ended is None and self._fits(episodes[i], reader)
            ]  # fmt: skip
        return logprobs if known else None

    def _whole(self, completions: Any, ids: Any) -> Any:
        return completions  # its turns are read with their special tokens

    def _parts(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> torch.Tensor:
        scores = super()._parts(inputs, prompts, completions, ids)
        scores[torch.tensor(gather_object([*self._masked]))] = torch.nan
        return scores

    def _control(
        self, noisy: Sequence[SampledEpisode], noise: Observer, played: Sequence[SampledEpisode],
        rows: Sequence[Row],
    ) -> None:  # fmt: skip
        """Play again with noise for crops; log how much more often the true ones were right.

        Args:
            noisy: episodes that have not begun, with `noise` for crops.
            played: the same with the true crops.
            rows: theirs.
        """
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # the training goes on as if there were no control
            self.play(noisy, noise)
        true, other = self._ledger(played, rows), self._ledger(noisy, rows)
        if true.crops and true.accuracy is not None and other.accuracy is not None:
            self._metrics["train"]["zoom/noise_accuracy"].append(other.accuracy)
            self._metrics["train"][GAIN].append(true.accuracy - other.accuracy)

    def _ledger(self, episodes: Sequence[SampledEpisode], rows: Sequence[Row]) -> ZoomLedger:
        """Count episodes to these rows, over all processes."""
        parsed = [
            self._parsed(episode.texts, row) for episode, row in zip(episodes, rows, strict=True)
        ]
        own = ZoomLedger.of(
            parsed, [episode.forced for episode in episodes], [e.begun for e in episodes]
        )
        return sum(gather_object([own]), ZoomLedger())

    def _read(self, completion: Any, row: Row) -> ParsedCompletion:
        return self._parsed(turns_of(completion), row)

    def _steps_begun(self, row: Row) -> int:
        return len(self._parsed(json.loads(row["prefix"]), row).steps) if row.get("prefix") else 0

    def _parsed(self, texts: Sequence[str], row: Row) -> ParsedCompletion:
        graded, zoom = read_question(row["question"]), read_zoom(row["zoom"])
        return parse_dialogue(texts, graded, self.space, zoom)

    def _count_tokens(self, episodes: Sequence[SampledEpisode], rows: Sequence[Row]) -> None:
        """Log what TRL logs of completions, and the ledger, of episodes to these rows."""
        mode = "train" if self._trains else "eval"
        device = self.accelerator.device
        lengths = torch.tensor([episode.written for episode in episodes], device=device)
        prompts = torch.tensor([len(episode.prompt_ids) for episode in episodes], device=device)
        shown = torch.tensor(
            [len(episode.mask) - episode.written for episode in episodes], device=device
        )
        cut = torch.tensor([e.ended is EpisodeEnd.CUT_OFF for e in episodes], device=device)
        lengths, prompts, shown, cut = map(self.accelerator.gather, (lengths, prompts, shown, cut))
        if mode == "train":
            read = prompts.sum() + lengths.sum() + shown.sum()
            self.state.num_input_tokens_seen += int(read)
        metrics = self._metrics[mode]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        for name, value in {
            "completions/mean_length": lengths.float().mean(),
            "completions/min_length": lengths.min(),
            "completions/max_length": lengths.max(),
            "completions/mean_shown": shown.float().mean(),
            "completions/clipped_ratio": cut.float().mean(),
        }.items():
            metrics[name].append(float(value))
        for name, share in self._ledger(episodes, rows).metrics().items():
            metrics[name].append(share)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._alarm.recall()
        super().log(logs, start_time)
        self._alarm.check(logs)


def _zooms() -> None:
    """Stand for the tools, which are in the prompt."""


def check_images(batch: Row, pad: int, merge: int) -> None:
    """Check that a batch has the images that its tokens stand for.

    Args:
        batch: what the loss is computed of.
        pad: the token that stands for a part of an image.
        merge: how many patches such a part has.

    Raises:
        TrainingError: it has others, or none any more.
    """
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    tokens = [int(n) for n in (ids == pad).sum(1)]
    grids, counts = batch.get("image_grid_thw"), batch.get("num_images")
    if not any(tokens) and grids is None:
        return
    found = [0] * len(tokens)
    if grids is not None and counts is not None and batch.get("pixel_values") is not None:
        sizes = iter((grids.prod(-1) // merge).tolist())
        found = [sum(next(sizes) for _ in range(count)) for count in counts]
    if found != tokens:
        wrong = next(i for i, n in enumerate(tokens) if n != found[i])
        raise TrainingError(
            f"pictures were lost: episode {wrong + 1} of the batch has {tokens[wrong]} image "
            f"tokens and pixels for {found[wrong]}; the loss would be of other pictures than were "
            "sampled from"
        )

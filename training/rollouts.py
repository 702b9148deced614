"""TRL's GRPOTrainer with additions: a fast sampler for small models, metrics, and a guard.

- With `engine: local` completions are sampled by the decoder that also runs the embedded teacher
  (`mcts.teachers.local.decoder`): a prompt runs once for its whole group, and a sample that has
  ended leaves the batch. A sample depends on the seed, the step and the prompt alone.
- Points per answer, and the shares of answers that were finished, that verify and that turn back,
  are logged beside TRL's metrics.
- What the cited regions are worth to an answer can be measured (`training.batches.evidence`).
- Groups that teach nothing can be replaced by groups about further questions
  (`training.batches.live_groups`). TRL then gets the batch as it would have sampled it itself.
- Where vLLM samples, it must agree with the trainer: the mean ratio of both probabilities is near
  1. If images or prompts differ between the two, nothing is learned, silently; so training stops.

The private names of TRL that are overridden or read here are listed in `training.trainers`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.data_utils import prepare_multimodal_messages

from mcts.coordinates import CoordinateSpace
from mcts.data import ResponseStyle
from mcts.parsing import points_in
from mcts.teachers.base import seed_of
from mcts.teachers.local.decoder import BatchRow, Decoder, EncodedPrompt
from mcts.teachers.local.prefix_cache import Prefix
from mcts.teachers.local.small_model import SmallText
from training.batches.behaviors import behavior_shares
from training.batches.evidence import evidence
from training.batches.live_groups import (
    DEAD,
    DEAD_FIRST,
    EXTRA_SHARE,
    EXTRA_TOKENS,
    FIRST_REWARD,
    Generated,
    SampledGroup,
    all_equal,
    further_rows,
    joined,
    live_groups,
    split,
    weighted_sums,
)
from training.batches.log_probs import ChunkedTrainer
from training.batches.question_order import QuestionOrder
from training.errors import TrainingError
from training.rewards.completions import ParsedCompletion, parse_completion, text_of
from training.rewards.question_column import read_question
from training.vision_cache import ImageInput
from warehouse.tables.schema import Row

RATIO = "sampling/importance_sampling_ratio/mean"
CAPACITY = 64
_PREFIX_BYTES = 2**24  # each prompt is used once a rollout


@dataclass(slots=True)
class _Group:
    """A prompt and its samples."""

    ids: list[int]
    images: list[ImageInput]
    places: list[int]
    """Where its samples go in the batch."""


class RolloutTrainer(ChunkedTrainer):
    """See the top of the file; the first attributes are set after it is made."""

    space: CoordinateSpace
    """That the student writes in."""
    style = ResponseStyle.GROUNDED
    """In which it answers."""
    measures_evidence = False
    """Whether the rewards have a part that reads the column `evidence`."""
    local = False
    ratio_limits = (0.5, 2.0)
    """Between which the mean importance ratio must lie; only logged where vLLM samples."""
    dead_group_tokens = 0.0
    """The budget for replacing dead groups (`training.batches.live_groups`); 0 replaces none."""
    _inputs: Sequence[Row] = ()
    """The rows of the batch that is sampled."""
    _prefixes: Sequence[list[int]] = ()
    """The tokens that each answer begins with, where rows have a prefix."""
    _further = False
    """Whether further questions are being asked."""
    _written: Sequence[int] | None = None
    """How many tokens each answer wrote that was sampled last, where its mask does not say."""
    _ready: tuple[Generated, Tensor] | None = None
    """The answers of a batch, and the parts of their rewards, where it was sampled before."""
    _earned = torch.zeros(0)
    """The parts of the rewards of what was sampled last."""

    @property
    def _trains(self) -> bool:
        return self.model is None or self.model.training

    def _get_train_sampler(self, dataset: Any = None) -> QuestionOrder:
        made: Any = super()._get_train_sampler(dataset)
        names = ("mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        return QuestionOrder(made.data_source, **{name: getattr(made, name) for name in names})

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        self._inputs = inputs
        if self.dead_group_tokens and self._trains:
            return self._learned_from(self._live_groups(inputs))
        output: Row = super()._generate_and_score_completions(inputs)
        if self._trains:
            rewards = weighted_sums(self._earned, self.reward_weights).view(-1, self._group)
            dead = fmean(all_equal(own) for own in rewards.tolist())
            self._metrics["train"][DEAD_FIRST].append(dead)
        return output

    def _learned_from(self, groups: Sequence[SampledGroup]) -> Row:
        """Return the batch that TRL makes of groups that were sampled before."""
        rows, generated, parts = joined(groups)
        self._ready = generated, parts
        try:
            output: Row = super()._generate_and_score_completions(rows)
        finally:
            self._ready = None
        return output

    def _live_groups(self, inputs: list[Row]) -> list[SampledGroup]:
        """Sample a batch, and replace its dead groups; log what came of it."""
        step = self.state.global_step
        further = further_rows(
            self.train_dataset, (row["question_id"] for row in inputs), self.args.seed, step
        )
        first = self._sampled_groups(inputs)
        with self._asking_further():
            groups, extra = live_groups(first, self._ask, further, self.dead_group_tokens)
        metrics = self._metrics["train"]
        metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        rewards = torch.cat([group.rewards for group in first])
        for name, value in {
            DEAD_FIRST: fmean(group.dead for group in first),
            DEAD: fmean(group.dead for group in groups),
            EXTRA_TOKENS: extra,
            EXTRA_SHARE: extra / max(1, sum(group.tokens for group in first)),
            FIRST_REWARD: float(rewards.nanmean()),
        }.items():
            metrics[name].append(value)
        return groups

    @contextmanager
    def _asking_further(self) -> Iterator[None]:
        """Keep TRL's figures about answers to those of the batch as it was sampled first."""
        metrics, self._metrics["train"] = self._metrics["train"], defaultdict(list)
        self._further = True
        try:
            yield
        finally:
            self._metrics["train"] = metrics
            self._further = False

    def _ask(self, rows: list[Row]) -> list[SampledGroup]:
        """Answer questions, a group each."""
        return self._sampled_groups([row for row in rows for _ in range(self._group)])

    def _sampled_groups(self, rows: list[Row]) -> list[SampledGroup]:
        generated, parts = self._scored(rows)
        return split(rows, generated, parts, self.reward_weights, self._group, self._written)

    def _scored(self, rows: list[Row]) -> tuple[Generated, Tensor]:
        """Answer each row once; return the answers, and the parts of their rewards."""
        self._inputs = rows
        chats = chats_of(rows)
        generated = self._generate(chats)
        _, ids, _, completions, *_ = generated
        return generated, self._calculate_rewards(rows, chats, completions, ids)

    def _generate(self, prompts: list[Any]) -> Generated:
        return self._answers(prompts) if self._ready is None else self._ready[0]

    def _answers(self, prompts: list[Any]) -> Generated:
        """Sample answers to the rows in `_inputs`, whose prompts these are; return as TRL.

        A row's prefix is the beginning of its answers, for the rewards to read and the loss to
        pass over.
        """
        prefixes = self._prefix_tokens(self._inputs)
        if not prefixes:
            return super()._generate(prompts)
        self._prefixes = prefixes
        try:
            ids, completions, _, *rest = super()._generate(prompts)
        finally:
            self._prefixes = ()
        masks = [
            [0] * len(prefix) + [1] * (len(tokens) - len(prefix))
            for prefix, tokens in zip(prefixes, completions, strict=True)
        ]
        return ids, completions, masks, *rest

    def _prefix_tokens(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return the tokens that answers begin with, row by row; empty where rows have none."""
        if "prefix" not in (rows or [{}])[0]:
            return []
        processor: Any = self.processing_class
        texts = [row["prefix"] for row in rows]
        return [processor.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, *args: Any, **options: Any
    ) -> Any:
        if not self._prefixes:
            return self._turn(prompt_ids, images, multimodal_fields, *args, **options)
        fields = dict(multimodal_fields)
        for name in fields.keys() & {"token_type_ids", "mm_token_type_ids"}:
            kinds = zip(fields[name], self._prefixes, strict=True)
            fields[name] = [[*own, *[0] * len(prefix)] for own, prefix in kinds]
        contexts = [[*a, *b] for a, b in zip(prompt_ids, self._prefixes, strict=True)]
        sampled, logprobs = self._turn(contexts, images, fields, *args, **options)
        if logprobs is not None:
            pairs = zip(self._prefixes, logprobs, strict=True)
            logprobs = [[*[0.0] * len(prefix), *own] for prefix, own in pairs]
        return [[*a, *b] for a, b in zip(self._prefixes, sampled, strict=True)], logprobs

    def _turn(
        self, prompt_ids: Any, images: Any, fields: Any, *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        """Return what is sampled behind the prompts, and log-probabilities if they are known."""
        if not self.local or self.use_vllm:
            sample: Callable[..., tuple[Any, Any]] = super()._generate_single_turn
            return sample(prompt_ids, images, fields, *args, **options)
        with self._sampling() as model:
            return self._sampled(model, prompt_ids, fields), None

    @contextmanager
    def _sampling(self) -> Iterator[Any]:
        """Yield the model as it samples; a small one in one thread: more would mostly wait."""
        model = self._base_model
        training, threads = model.training, torch.get_num_threads()
        model.eval()
        torch.set_num_threads(1 if SmallText.fits(model) else threads)
        try:
            with torch.inference_mode():
                yield model
        finally:
            torch.set_num_threads(threads)
            model.train(training)

    @property
    def _base_model(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _sampled(self, model: Any, prompt_ids: list[Any], fields: dict[str, Any]) -> list[Any]:
        """Return completions as token ids, in the order of the prompts."""
        images = self._split_images(model, prompt_ids, fields)
        groups: dict[Any, _Group] = {}
        for place, (ids, shown) in enumerate(zip(prompt_ids, images, strict=True)):
            ids = [int(i) for i in ids]
            key = (tuple(ids), tuple(image.key for image in shown))
            groups.setdefault(key, _Group(ids, shown, [])).places.append(place)
        encoder = PromptEncoder(model)
        prompts = encoder.encode([(group.ids, group.images) for group in groups.values()])
        # The weights have changed since the last call: the decoder must keep nothing from it.
        decoder = Decoder(model, min(CAPACITY, len(prompt_ids)), _PREFIX_BYTES)
        prefixes = decoder.prefill(prompts)
        waiting = [
            (self._row(group, place, number), prefix)
            for group, (prefix, _) in zip(groups.values(), prefixes, strict=True)
            for number, place in enumerate(group.places)
        ]
        rows = self._decoded(decoder, waiting, lambda row: self._most)
        done = {row.owner: self._cut(row.tokens) for row in rows}
        return [done[i] for i in range(len(prompt_ids))]

    def _decoded(
        self, decoder: Decoder, waiting: list[tuple[BatchRow, Prefix]],
        most: Callable[[BatchRow], int],
    ) -> list[BatchRow]:  # fmt: skip
        """Decode samples to their ends, and return them as they end.

        Args:
            most: a sample's greatest number of tokens.
        """
        done: list[BatchRow] = []
        ends = set(self.eos_token_ids)
        while waiting or decoder.rows:
            free = decoder.capacity - len(decoder.rows)
            if waiting and free:
                grown = decoder.join(waiting[:free])
                waiting = waiting[free:]
            else:
                grown = decoder.step()
            over = [r for r in grown if r.tokens[-1] in ends or len(r.tokens) >= most(r)]
            done += over
            decoder.drop(over)
        return done

    @property
    def _process(self) -> tuple[int, ...]:
        """What the seeds of this process have more than those of the first: a group may be shared
        by several, and each counts its own part of it."""
        index = int(self.accelerator.process_index)
        return (index,) if index else ()

    @property
    def _group(self) -> int:
        assert self.num_generations is not None  # the recipe always says
        return int(self.num_generations)

    @property
    def _most(self) -> int:
        assert self.max_completion_length is not None  # the recipe always says
        return int(self.max_completion_length)

    def _row(self, group: _Group, place: int, number: int) -> BatchRow:
        numbers = (number, place, *self._process)
        seed = seed_of(self.args.seed, self.state.global_step, group.ids, *numbers)
        return BatchRow(place, number, seed, self.temperature, self.top_p)

    def _cut(self, tokens: list[int]) -> list[int]:
        """Cut the answer off before a sampled image token, which stands for no image: as one that
        was too long, it has no end that could be learned."""
        pads = (self._image_pad_token_id, self._video_pad_token_id)
        at = next((i for i, token in enumerate(tokens) if token in pads), None)
        return tokens if at is None else tokens[:at] or [self.eos_token_ids[0]]

    def _split_images(
        self, model: Any, prompt_ids: list[Any], fields: dict[str, Any]
    ) -> list[list[ImageInput]]:
        """Return each prompt's images, from the processor's output for all of them."""
        grids = fields.get("image_grid_thw")
        grids = torch.zeros(0, 3, dtype=torch.long) if grids is None else torch.as_tensor(grids)
        pixels = fields.get("pixel_values")
        pieces = [] if pixels is None else torch.as_tensor(pixels).split(grids.prod(-1).tolist())
        waiting = iter([ImageInput.of(p, g) for p, g in zip(pieces, grids, strict=True)])
        merge = model.config.vision_config.spatial_merge_size**2
        images = []
        for ids in prompt_ids:
            wanted = sum(int(i) == self._image_pad_token_id for i in ids)
            own: list[ImageInput] = []
            while wanted > 0:
                own.append(next(waiting))
                wanted -= int(own[-1].grid.prod()) // merge
            images.append(own)
        return images

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Any:
        if self._ready is not None:
            return self._ready[1]
        self._earned = self._parts(inputs, prompts, completions, completion_ids_list)
        return self._earned

    def _parts(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Tensor:
        """Return the parts of the answers' rewards, answers x parts, over all processes.

        An answer that was cut off is masked from the loss, and has none: it is no member of its
        group, whose others it would make look better than they are.
        """
        mode = "train" if self._trains else "eval"
        completions = self._whole(completions, ids)
        texts = [text_of(completion) for completion in completions]
        answered = [text.rstrip().endswith("</answer>") for text in texts]
        self._metrics[mode]["completions/points"].append(fmean(len(points_in(t)) for t in texts))
        self._metrics[mode]["completions/answered"].append(fmean(answered))
        answers = [self._read(c, row) for c, row in zip(completions, inputs, strict=True)]
        begun = [self._steps_begun(row) for row in inputs]
        for name, share in behavior_shares(answers, begun).items():
            self._metrics[mode][name].append(share)
        if self.measures_evidence:
            gains = evidence(self, inputs, ids, answers)
            known = [gain for gain in gains if gain is not None]
            self._metrics[mode]["evidence/asked"].append(len(known))
            self._metrics[mode]["evidence/gain"].append(fmean(known or [0.0]))
            inputs = [{**row, "evidence": g} for row, g in zip(inputs, gains, strict=True)]
        scores: Tensor = super()._calculate_rewards(inputs, prompts, completions, ids)
        if self.mask_truncated_completions:
            cut = [own[-1] not in self.eos_token_ids for own in ids]
            scores[torch.tensor(gather_object(cut), device=scores.device)] = torch.nan
        return scores

    def _whole(self, completions: Any, ids: Any) -> Any:
        """Return the answers with the special tokens in them, which an evaluation reads as well;
        TRL leaves them out, and an answer that has one would earn what it is not worth."""
        processor: Any = self.processing_class
        tokenizer = getattr(processor, "tokenizer", processor)
        texts = [
            tokenizer.decode(own[:-1] if own[-1] in self.eos_token_ids else own)
            for own in ([int(token) for token in some] for some in ids)
        ]
        return [[{"role": "assistant", "content": text}] for text in texts]

    def _read(self, completion: Any, row: Row) -> ParsedCompletion:
        """Return an answer as the rewards read it."""
        graded, least = read_question(row["question"]), int(row["min_thoughts"])
        return parse_completion(text_of(completion), graded, self.space, self.style, least)

    def _steps_begun(self, row: Row) -> int:
        """Return how many steps the row's prefix has."""
        if not row.get("prefix"):
            return 0
        return len(self._read(f"{row['prefix']}<answer>?</answer>", row).steps)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        check_ratio(logs, self.ratio_limits)


def chats_of(rows: Sequence[Row]) -> list[Any]:
    """Return rows' prompts as messages with their images."""
    return [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]


class PromptEncoder:
    """Makes prompts with their images what the decoder takes; each image is computed once."""

    _model: Any
    _features: dict[bytes, tuple[Tensor, ...]]
    """What the vision tower makes of each image."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._features = {}

    def encode(
        self, prompts: Sequence[tuple[Sequence[int], Sequence[ImageInput]]]
    ) -> list[EncodedPrompt]:
        """Encode prompts: token ids, in which each image has its places, and the images."""
        new = {i.key: i for _, images in prompts for i in images if i.key not in self._features}
        if new:
            device = self._model.device
            pixels = torch.cat([image.pixels for image in new.values()]).to(device)
            grids = torch.stack([image.grid for image in new.values()]).to(device)
            found = self._model.model.get_image_features(pixels, grids, return_dict=True)
            layers = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
            sizes = [len(embeds) for embeds in found.pooler_output]
            layers = [
                layer.split(sizes) if isinstance(layer, Tensor) else layer for layer in layers
            ]
            self._features |= zip(new, zip(*layers, strict=True), strict=True)
        return [self._encode(ids, images) for ids, images in prompts]

    def _encode(self, ids: Sequence[int], images: Sequence[ImageInput]) -> EncodedPrompt:
        model = self._model
        device = model.device
        tokens = torch.tensor(list(ids), device=device)
        visual = tokens == model.config.image_token_id
        embeds = model.get_input_embeddings()(tokens)
        grids = torch.stack([image.grid for image in images]).to(device) if images else None
        positions, delta = model.model.get_rope_index(
            tokens[None], mm_token_type_ids=visual.int()[None], image_grid_thw=grids
        )
        names, deep = list(ids), []
        if images:
            features = [self._features[image.key] for image in images]
            embeds = embeds.masked_scatter(visual[:, None], torch.cat([f[0] for f in features]))
            deep = [torch.cat(layer) for layer in zip(*(f[1:] for f in features), strict=True)]
            # Prompts share a prefix only where their images are the same, too.
            patches = iter([n for i, f in zip(images, features, strict=True) for n in _names(i, f)])
            names = [
                next(patches) if is_image else token
                for token, is_image in zip(ids, visual.tolist(), strict=True)
            ]
        return EncodedPrompt(tuple(names), embeds, positions[:, 0], int(delta), visual, deep)


def _names(image: ImageInput, features: tuple[Tensor, ...]) -> list[int]:
    """Name each token of an image by a number below 0, unlike those of other images."""
    first = int.from_bytes(image.key[:6], "big")
    return [-(first * 65536 + i) - 1 for i in range(len(features[0]))]


def check_ratio(logs: dict[str, float], limits: tuple[float, float]) -> None:
    """Stop a training in which vLLM and the trainer see different inputs.

    Raises:
        TrainingError: the mean ratio lies outside the limits.
    """
    ratio = logs.get(RATIO)
    low, high = limits
    if ratio is not None and not low <= ratio <= high:
        raise TrainingError(
            f"trainer and vLLM disagree about the same tokens: their mean probability ratio is "
            f"{ratio:.3g}, not within {low:g} to {high:g}; check that both have the same weights, "
            "the same chat template and the same limits of image sizes"
        )

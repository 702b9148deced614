"""Trains a value head and the model below it on soft targets, with transformers' own `Trainer`.

    trainer = value_trainer(run, recipe, model, processor, lines, reporter)
    check_values(trainer, examples)           # before the first step

TRL's `PRMTrainer` knows hard labels of text alone, and is gone since TRL 1. The loss is the binary
cross-entropy of a step's value less the entropy of its target, which is their Kullback-Leibler
divergence: the gradient is that of the cross-entropy, and what a perfect model has left is 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from training.errors import TrainingError
from training.examples import AddImages, Examples
from training.preflight import check_dataset_overfits
from training.recipes import PrmRecipe
from training.run_callbacks import run_callbacks
from training.runs import Run, process_count
from training.trainers import (
    TrainingReporter,
    common_arguments,
    freeze_vision,
    lora_config,
    one_device,
    quieted,
)
from training.values.model import HEAD, NO_TARGET, LineEncoder, attach_head, step_logits
from warehouse.tables.schema import Row

_SAID = 16
"""Rows whose targets are held against their texts before the first step."""
_TAGS = ("</think>", "</answer>")
"""What a step or an answer ends in; a call is valued where the next turn begins."""
_SEEN = 12
"""Characters in front of such a place that are compared; they are the chat template's."""


class ValueBatches:
    """Makes batches of rows: `labels` are targets at the tokens that end a step."""

    def __init__(self, processor: Any, mean_weight: float) -> None:
        self.encoder = LineEncoder(processor)
        self._mean_weight = mean_weight

    def __call__(self, rows: Sequence[Row]) -> Row:
        """Return rows as tensors; `weights` add up to 1 a row on average over the data."""
        lines = []
        for row in rows:
            text, ends = self.encoder.text(row)
            lines.append(self.encoder.encode(text, ends, row["images"]))
        batch = self.encoder.batch(lines)
        labels = torch.full(batch["input_ids"].shape, NO_TARGET)
        weights = torch.zeros_like(labels)
        for at, (row, line) in enumerate(zip(rows, lines, strict=True)):
            for token, value, weight in zip(line.ends, row["values"], row["weights"], strict=True):
                if value is not None:
                    labels[at, token] = value
                    weights[at, token] = weight / self._mean_weight
        return {**batch, "labels": labels, "weights": weights}


def value_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted divergence of the values from their targets, a row's on average.

    Args:
        logits: (rows, tokens).
        labels: soft targets, `NO_TARGET` where there is none.
        weights: of each target.
    """
    there = labels != NO_TARGET
    target = labels[there]
    cross = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[there].float(), target, reduction="none"
    )
    entropy = torch.special.entr(target) + torch.special.entr(1 - target)
    return (weights[there] * (cross - entropy)).sum() / len(labels)


class ValueTrainer(Trainer):
    """transformers' trainer with `value_loss`."""

    loss_is_scaled_for_ga = False  # a row's loss is its own, so micro-batches are averaged

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._metrics: Any = {"train": defaultdict(list)}  # where preflight looks, as in TRL's
        self._total_train_tokens = 0

    def compute_loss(
        self,
        model: Any,
        inputs: Row,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch of `ValueBatches`."""
        with self.accelerator.autocast():
            logits = step_logits(model, inputs)
        loss = value_loss(logits, inputs["labels"], inputs["weights"])
        return (loss, logits) if return_outputs else loss


def value_trainer(
    run: Run, recipe: PrmRecipe, model: Any, processor: Any, lines: Examples,
    reporter: TrainingReporter,
) -> ValueTrainer:  # fmt: skip
    """Build the trainer for a recipe.

    Raises:
        TrainingError: several processes train.
    """
    if process_count() > 1:
        raise TrainingError("a process reward model is trained in one process")
    length: Row = {"max_steps": recipe.steps} if recipe.steps else {}
    common = common_arguments(run, recipe, recipe.batch)
    del common["trust_remote_code"]  # TRL's, whose trainers may load a model themselves
    args = TrainingArguments(**common, **length, num_train_epochs=recipe.epochs)
    freeze_vision(model, recipe)
    attach_head(model, _logit_of_mean(lines.rows))
    if (adapters := lora_config(recipe)) is not None:
        from peft import get_peft_model

        adapters.modules_to_save = [HEAD]
        model = get_peft_model(model, adapters)
    weights = [sum(_weights(row)) for row in lines.rows]
    trainer = ValueTrainer(
        model=model,
        args=one_device(args),
        train_dataset=_dataset(lines),
        data_collator=ValueBatches(processor, sum(weights) / len(weights)),
        processing_class=processor,
        callbacks=run_callbacks(run, reporter.progress),
    )
    quieted(trainer)
    return trainer


def _dataset(lines: Examples) -> Any:
    from datasets import Dataset

    return Dataset.from_list(lines.rows).with_transform(_WithImages(lines))


class _WithImages(AddImages):
    """Adds `images` to rows as they are read, beside their messages as texts."""

    def __init__(self, lines: Examples) -> None:
        super().__init__(lines.read_image)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [[self.decoded(image_id) for image_id in ids] for ids in batch["image_ids"]]
        return {**batch, "images": images}

    def __reduce__(self) -> Any:
        return (_WithImages, ())


def mean_value(rows: Sequence[Row]) -> float:
    """Return the weighted mean of all targets, which the head begins with."""
    pairs = [(v, w) for row in rows for v, w in zip(row["values"], row["weights"], strict=True)]
    there = [(value, weight) for value, weight in pairs if value is not None]
    return sum(v * w for v, w in there) / sum(w for _, w in there)


def _logit_of_mean(rows: Sequence[Row]) -> float:
    mean = min(max(mean_value(rows), 0.01), 0.99)
    return float(torch.logit(torch.tensor(mean)))


def _weights(row: Row) -> list[float]:
    pairs = zip(row["values"], row["weights"], strict=True)
    return [weight for value, weight in pairs if value is not None]


def check_values(trainer: Any, lines: Examples) -> str:
    """Hold targets of real rows against their texts, then overfit one batch; return both outcomes.

    Raises:
        TrainingError: a value would be read where no step ends, or the loss does not fall.
    """
    tokenizer, encoder = trainer.processing_class.tokenizer, LineEncoder(trainer.processing_class)
    chosen = range(0, len(lines.rows), max(1, len(lines.rows) // _SAID))
    told = 0
    for i in chosen:
        row = trainer.train_dataset[i]
        batch = trainer.data_collator([row])
        rendered, places = encoder.text(row)
        before = [
            None if characters else rendered[max(0, place - _SEEN) : place]
            for place, (_, characters), value in zip(
                places, row["ends"], row["values"], strict=True
            )
            if value is not None
        ]
        found = (batch["labels"][0] != NO_TARGET).nonzero()[:, 0].tolist()
        for at, turn_begins in zip(found, before, strict=True):
            text = tokenizer.decode(batch["input_ids"][0, : at + 1])
            if not (text.endswith(turn_begins) if turn_begins else text.rstrip().endswith(_TAGS)):
                raise TrainingError(
                    f"{row['name']}: a value would be read behind {text[-30:]!r}, where no step "
                    "ends: the chat template or the tokenizer changes what steps end in"
                )
            told += 1
    where = f"{told} values of {len(chosen)} lines are read where a step ends"
    return f"{where}; {check_dataset_overfits(trainer, trainer.train_dataset)}"

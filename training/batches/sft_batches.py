"""Batches for SFT and DPO: TRL's, with all their images and labels on what is trained on alone.

    trainer.data_collator = SftBatches(trainer.data_collator, processor)    # PairBatches for DPO
    check_labels(trainer, examples, template)     # before the first step, token by token

TRL labels every turn of the assistant's. Here a turn whose call failed, or whose answer was
requested alone, loses its labels. A batch in which an image was lost, cut off or counted twice is
refused: a model would read other pixels at its places, and its loss would look as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mcts.data import ResponseStyle
from training.chat_templates import PAD, ChatTemplate, check_row
from training.errors import TrainingError
from training.examples import Examples
from warehouse.tables.schema import Row

_IGNORED = -100
"""The label of a token that is not trained on."""
_CHECKED_ROWS = 16


class _Batches:
    """A collator around TRL's that sees to the images."""

    def __init__(self, collate: Callable[[list[Row]], Row], processor: Any) -> None:
        self._collate = collate
        self._pad = processor.tokenizer.convert_tokens_to_ids(PAD)
        self._patches = processor.image_processor.merge_size**2
        """Patches of an image that one token stands for."""

    def _check_images(self, rows: Sequence[Row], batch: Row) -> None:
        grids = batch["image_grid_thw"].prod(-1).tolist() if "image_grid_thw" in batch else []
        patches = len(batch["pixel_values"]) if "pixel_values" in batch else 0
        wanted = sum(len(row["image_ids"]) for row in rows)
        if len(grids) != wanted or patches != sum(grids):
            raise TrainingError(
                f"of {wanted} images of {_names(rows)} the batch has {len(grids)}, with {patches} "
                f"of their {sum(grids)} patches: the processor lost some; it is not this model's"
            )
        at = 0
        for row, ids in zip(rows, batch["input_ids"], strict=True):
            own = grids[at : at + len(row["image_ids"])]
            at += len(own)
            tokens, places = sum(own) // self._patches, int((ids == self._pad).sum())
            if tokens != places:
                raise TrainingError(
                    f"{_names([row])}: its {len(own)} images have {tokens} tokens and {places} "
                    "places in the text; nothing may be cut off a row with images"
                )


class SftBatches(_Batches):
    """Batches of conversations."""

    def __call__(self, rows: list[Row]) -> Row:
        """Return the rows as tensors.

        Raises:
            TrainingError: an image of theirs is not in it, or has other places than tokens.
        """
        batch = self._collate(rows)
        self._check_images(rows, batch)
        for row, labels in zip(rows, batch["labels"], strict=True):
            if row.get("untrained"):
                self._unlabel(row, labels)
        return batch

    def _unlabel(self, row: Row, labels: Any) -> None:
        turns = list(_runs(labels.tolist()))
        if len(turns) != sum(message["role"] == "assistant" for message in row["messages"]):
            raise TrainingError(
                f"{_names([row])}: {len(turns)} of its turns are trained on apart; the chat "
                "template marks several as one: put {% generation %} around each of them"
            )
        for number in row["untrained"]:
            labels[slice(*turns[number])] = _IGNORED


class PairBatches(_Batches):
    """Batches of preference pairs: all better sides, then all worse ones."""

    def __call__(self, rows: list[Row]) -> Row:
        """Return the rows as tensors, two sequences a row.

        Raises:
            TrainingError: an image of theirs is not in it, or has other places than tokens.
        """
        batch = self._collate(rows)
        self._check_images([*rows, *rows], batch)
        return batch


def check_labels(trainer: Any, examples: Examples, template: ChatTemplate) -> str:
    """Hold labels of real rows, as the trainer has them, against their texts, token by token.

    Returns:
        The outcome as a sentence.

    Raises:
        TrainingError: a token is trained on that the student doesn't write, or another is not.
    """
    dataset = examples.dataset()
    trained = tokens = 0
    chosen = _varied(examples.rows)
    for i in chosen:
        row = examples.rows[i]
        batch = trainer.data_collator([dataset[i]])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        trained += _compare(template, row, f"row {i + 1} ({row['trace_id']})", ids, labels)
        tokens += len(ids)
    return _compared(f"{len(chosen)} rows", trained, tokens)


def check_pair_labels(trainer: Any, sides: Examples, template: ChatTemplate) -> str:
    """Hold what is trained on of real pairs against the texts of their sides, token by token.

    Args:
        sides: the better side of each of the trainer's pairs, and behind it the worse one.

    Returns:
        The outcome as a sentence.

    Raises:
        TrainingError: see `check_labels`.
    """
    trained = tokens = 0
    chosen = _varied(sides.rows[::2])
    for i in chosen:
        batch = trainer.data_collator([trainer.train_dataset[i]])
        for side, row in enumerate(sides.rows[2 * i : 2 * i + 2]):
            there = batch["attention_mask"][side].bool()
            learned = batch["completion_mask"][side].bool()
            ids = batch["input_ids"][side]
            labels = ids.masked_fill(~learned, _IGNORED)[there].tolist()
            trained += _compare(template, row, row["name"], ids[there].tolist(), labels)
            tokens += len(labels)
    return _compared(f"{len(chosen)} pairs", trained, tokens)


def _compared(rows: str, trained: int, tokens: int) -> str:
    return (
        f"labels of {rows} are right, token by token: {trained} of {tokens} tokens are "
        "trained on, the model's own"
    )


def _compare(
    template: ChatTemplate, row: Row, where: str, ids: Sequence[int], labels: Sequence[int]
) -> int:
    """Hold a row's labels against its text; return how many tokens are trained on.

    Raises:
        TrainingError: they differ.
    """
    pad = template.processor.tokenizer.convert_tokens_to_ids(PAD)
    found, wanted = _one_an_image(ids, labels, pad), _wanted_labels(template, row, where)
    # Nothing is learned from what follows the last token that either trains on.
    end = max(_trained_length(found), _trained_length(wanted))
    found, wanted = found[:end], wanted[:end]
    for (token, label), (own, expected) in zip(found, wanted, strict=False):
        if token != own or label != expected:
            raise TrainingError(_difference(template, where, (token, label), (own, expected)))
    if len(found) != len(wanted):
        raise TrainingError(
            f"{where}: the batch has {len(found)} tokens, its text {len(wanted)}, an image's "
            "counted once; nothing may be cut off or added"
        )
    return sum(label != _IGNORED for _, label in found)


def _trained_length(labels: Sequence[tuple[int, int]]) -> int:
    """Return how many tokens there are up to the last one that is trained on."""
    return max((i for i, (_, label) in enumerate(labels, 1) if label != _IGNORED), default=0)


def _wanted_labels(template: ChatTemplate, row: Row, where: str) -> list[tuple[int, int]]:
    """Return a row's tokens, one an image, with the labels that its text says."""
    rendered = check_row(template, row, ResponseStyle.GROUNDED, where)
    spans = [s for k, s in enumerate(rendered.trained) if k not in row.get("untrained", ())]
    made = template.processor.tokenizer(
        rendered.text, add_special_tokens=False, return_offsets_mapping=True
    )
    return [
        (token, token if any(a < end and begin < b for a, b in spans) else _IGNORED)
        for token, (begin, end) in zip(made["input_ids"], made["offset_mapping"], strict=True)
    ]


def _one_an_image(ids: Sequence[int], labels: Sequence[int], pad: int) -> list[tuple[int, int]]:
    """Return tokens with their labels; an image's as one, labelled if any of them is."""
    found: list[tuple[int, int]] = []
    for token, label in zip(ids, labels, strict=True):
        if found and token == found[-1][0] == pad:
            found[-1] = (pad, max(label, found[-1][1]))
        else:
            found.append((token, label))
    return found


def _difference(
    template: ChatTemplate, where: str, found: tuple[int, int], wanted: tuple[int, int]
) -> str:
    shown, meant = (template.processor.tokenizer.decode([token]) for token in (found[0], wanted[0]))
    if found[0] != wanted[0]:
        return f"{where}: the batch has {shown!r} where the row's text has {meant!r}"
    if found[1] != _IGNORED:
        return (
            f"{where}: {shown!r} would be trained on, which the student is given; put "
            "{% generation %} and {% endgeneration %} around the assistant's text alone"
        )
    return (
        f"{where}: {shown!r} of the student's own text would not be trained on; put "
        "{% generation %} and {% endgeneration %} around the whole of it"
    )


def _runs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where each run of labelled tokens begins and ends."""
    begin: int | None = None
    for i, label in enumerate([*labels, _IGNORED]):
        if label != _IGNORED and begin is None:
            begin = i
        elif label == _IGNORED and begin is not None:
            yield begin, i
            begin = None


def _varied(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of rows that differ in their turns and images, then of any others."""
    kinds: dict[tuple[int, int, bool], int] = {}
    for i, row in enumerate(rows):
        kind = (len(row["messages"]), len(row["image_ids"]), bool(row.get("untrained")))
        kinds.setdefault(kind, i)
    chosen = dict.fromkeys([*kinds.values(), *range(len(rows))])
    return sorted(list(chosen)[:_CHECKED_ROWS])


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(row.get("name") or f"trace {row['trace_id']}" for row in rows))

"""A process reward model: a student with a scalar head that reads the last token of each step.

Of a step that calls it is the last before the model's next turn, behind what the call showed.

    attach_head(model, bias)                        # before a training
    scorer = load_value_model(warehouse, "my-prm")
    scorer.values([row, …], read_image)             # a number from 0 to 1 a step, the answer's last

One forward pass over a line values all of its steps, since a step's last token sees nothing behind
it (Lightman et al., "Let's verify step by step", 2305.20050; VisualPRM, arXiv 2503.10291). The head
is a layer of its own in the same safetensors files; the language head is kept, and unused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import recorded_process_reward
from training.chat_templates import PAD, ChatTemplate, check_row
from training.errors import TrainingError
from training.examples import decode_image
from training.students import Student, load_model, open_student
from training.trainers import training_template
from training.values.lines import LineWriter
from training.vision_cache import cache_image_features
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

HEAD = "value_head"
"""The name of the head among the model's layers."""
NO_TARGET = -100.0
"""The label of a token that ends no step, or one without a target."""
_AT_ONCE = 16


def attach_head(model: Any, bias: float = 0.0) -> None:
    """Add a head that gives every line the same logit, `bias`."""
    width = int(model.config.get_text_config().hidden_size)
    head = torch.nn.Linear(width, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, bias)
    setattr(model, HEAD, head.to(model.device))


def load_head(folder: Path, model: Any) -> None:
    """Add the head that a process reward model's folder holds.

    Raises:
        TrainingError: it holds none.
    """
    from safetensors import safe_open

    attach_head(model)
    head, names = getattr(model, HEAD), (f"{HEAD}.weight", f"{HEAD}.bias")
    index, files = folder / "model.safetensors.index.json", {}
    if index.is_file():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    state = {}
    try:
        for name in names:
            with safe_open(folder / files.get(name, "model.safetensors"), "pt") as weights:
                state[name.removeprefix(f"{HEAD}.")] = weights.get_tensor(name)
        head.load_state_dict(state)
    except Exception as error:  # safetensors raises a type of its own
        raise TrainingError(f"{folder} holds no value head that fits: {error}") from None


def step_logits(model: Any, batch: Row) -> Tensor:
    """Return the head's logit at every token, (rows, tokens)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "weights")}
    hidden = base.model(**inputs, use_cache=False).last_hidden_state
    logits: Tensor = getattr(base, HEAD)(hidden.to(getattr(base, HEAD).bias.dtype))[..., 0]
    return logits


@dataclass(frozen=True, slots=True)
class EncodedLine:
    """A line as the model takes it."""

    inputs: Row
    """Tensors of one row."""
    ends: tuple[int, ...]
    """The token that ends each step, and the one that ends the answer."""


class LineEncoder:
    """Encodes rows of `LineWriter` with a model's processor and chat template."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.template = ChatTemplate.of(processor, training_template(processor))
        self._pad = processor.tokenizer.convert_tokens_to_ids(PAD)

    def text(self, row: Row) -> tuple[str, list[int]]:
        """Return a row's text, an image as one place, and the character behind each of its ends.

        Raises:
            TrainingError: the chat template renders something else than the row says.
        """
        name = str(row.get("name") or row["question_id"])
        rendered = check_row(self.template, row, ResponseStyle.GROUNDED, name)
        return rendered.text, [rendered.trained[turn][0] + end for turn, end in row["ends"]]

    def encode(self, text: str, ends: Sequence[int], images: Sequence[Any]) -> EncodedLine:
        """Tokenize a text with its images.

        An end is at the token that has its last character: `>` may be one with the line break
        behind it.
        """
        made = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = made["offset_mapping"]
        tokens = [
            next(i for i, (begin, behind) in enumerate(offsets) if begin < end <= behind)
            for end in ends
        ]
        inputs = self.processor(text=[text], images=list(images) or None, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        places = [  # of an image's tokens the last
            i for i, token in enumerate(ids) if not (token == self._pad and ids[i + 1] == token)
        ]
        if len(places) != len(offsets):
            raise TrainingError(
                f"the processor makes {len(places)} tokens of a text that has {len(offsets)}, an "
                "image's counted once: it is not this model's"
            )
        return EncodedLine(dict(inputs), tuple(places[token] for token in tokens))

    def batch(self, lines: Sequence[EncodedLine]) -> Row:
        """Return lines as one batch, padded behind their ends."""
        length = max(line.inputs["input_ids"].shape[1] for line in lines)
        joined: Row = {}
        for name in dict.fromkeys(name for line in lines for name in line.inputs):
            parts = [line.inputs[name] for line in lines if name in line.inputs]
            shapes = [line.inputs["input_ids"].shape for line in lines if name in line.inputs]
            if all(part.shape == shape for part, shape in zip(parts, shapes, strict=True)):
                fill = self.processor.tokenizer.pad_token_id if name == "input_ids" else 0
                parts = [_padded(part, length, fill) for part in parts]
            joined[name] = torch.cat(parts)
        return joined


def _padded(part: Tensor, length: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(part, (0, length - part.shape[1]), value=fill)


class StepScorer:
    """Values the steps of lines with a trained process reward model."""

    def __init__(self, model: Any, processor: Any, student: Student, writer: LineWriter) -> None:
        self.model = model.eval()
        self.encoder, self.student, self.writer = LineEncoder(processor), student, writer

    def values(self, rows: Sequence[Row], read_image: Callable[[str], bytes]) -> list[list[float]]:
        """Return the values of each row's steps, and last of its answer; 0 to 1.

        Rows are read one by one where batches could round otherwise: a value is a function of its
        line alone.
        """
        read = self.writer.reader(read_image)
        found = []
        for row in rows:
            text, ends = self.encoder.text(row)
            images = [decode_image(read(image_id)) for image_id in row["image_ids"]]
            line = self.encoder.encode(text, ends, images)
            found.append(self._valued(line))
        return found

    def _valued(self, line: EncodedLine) -> list[float]:
        device = self.model.device
        batch = {name: value.to(device) for name, value in line.inputs.items()}
        with torch.no_grad():
            logits = step_logits(self.model, batch)[0, list(line.ends)]
        values: list[float] = torch.sigmoid(logits.double()).tolist()
        return values


def load_value_model(warehouse: Warehouse, name: str) -> StepScorer:
    """Load the process reward model called `name`.

    Raises:
        TrainingError: there is none, or it is a model that answers.
        WarehouseError: the name fits several trained models.
    """
    from transformers.utils import logging

    with open_student(warehouse, name) as student:
        recorded = recorded_process_reward(student.folder)
        if recorded is None:
            raise TrainingError(
                f"model {student.model_id} has no value head: `vigorl train prm` makes one that has"
            )
        shown = logging.get_verbosity()
        logging.set_verbosity_error()  # else it warns that the head is none of the model's layers
        try:
            model, processor = load_model(student)
        finally:
            logging.set_verbosity(shown)
        load_head(student.folder, model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.to(device)
        cache_image_features(model)
        writer = LineWriter.of(warehouse, student, recorded.min_thoughts, recorded.reads_crops)
        return StepScorer(model, processor, student, writer)

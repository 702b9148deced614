"""From a request to the model's own input, and from its tokens back to text.

`Checkpoint` holds what a folder holds: a vision-language model of the Qwen-VL family, its
tokenizer with the chat template, and its image processor. It renders requests as `transformers`
would, but looks at each picture only once.

    checkpoint = Checkpoint.load(folder, device="cpu")
    prompt = checkpoint.prompt(request, images)         # TeacherError if it cannot be one
    text, ended = checkpoint.read(tokens, request.stop)
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcts.teachers.base import Request, TeacherError, TeacherUnavailable, Text, picture_bytes
from mcts.teachers.local.decoder import Prompt

IMAGE_PAD = "<|image_pad|>"


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower makes of one picture."""

    image_id: str
    grid: Tensor
    """(3,): frames, rows and columns of patches."""
    embeds: Tensor
    """(tokens, width)."""
    deep: tuple[Tensor, ...]
    """Added in the first layers of the text model, one each: (tokens, width). Qwen3-VL only."""


@dataclass(slots=True)
class Checkpoint:
    """A loaded model and all that turns requests into its input."""

    model: Any
    tokenizer: Any
    image_processor: Any
    ends: frozenset[int]
    """Tokens that end a turn."""
    context: int
    """Most tokens of prompt and completion together."""
    room: int
    """How many pictures' features are kept."""
    _seen: OrderedDict[str, Features] = field(default_factory=OrderedDict)
    _stopping: dict[tuple[str, ...], dict[int, bool]] = field(default_factory=dict)
    """For each set of stop strings: whether a token could complete one."""

    @classmethod
    def load(cls, folder: Path, device: str, image_cache: int) -> Checkpoint:
        """Read a checkpoint from disk; no code from it is run, and no hub is asked.

        Raises:
            TeacherUnavailable: it does not load as a Qwen-VL model.
        """
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # a bar a model, in the middle of our own progress
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, **here
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, **here)
            image_processor = AutoImageProcessor.from_pretrained(folder, **here)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise TeacherUnavailable(f"cannot load the model in {folder}: {error}") from error
        if not hasattr(model.model, "get_rope_index") or tokenizer.chat_template is None:
            raise TeacherUnavailable(
                f"{folder} holds a {model.config.model_type} model; in this process only the "
                "Qwen-VL family with a chat template runs: serve it and give its URL instead"
            )
        named = [tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")]
        configured = model.generation_config.eos_token_id
        named += configured if isinstance(configured, list) else [configured]
        return cls(
            model=model.to(device).eval(),
            tokenizer=tokenizer,
            image_processor=image_processor,
            ends=frozenset(token for token in named if token is not None),
            context=int(model.config.get_text_config().max_position_embeddings),
            room=image_cache,
        )

    def prompt(self, request: Request, images: Mapping[str, bytes]) -> Prompt:
        """Render, tokenize and embed a request.

        Raises:
            TeacherError: a picture is missing or broken, or the prompt fills the whole context.
        """
        features = [self.features(image_id, images) for image_id in request.image_ids]
        ids = self._token_ids(request, features)
        if len(ids) >= self.context:
            raise TeacherError(
                "bad_request", f"the prompt has {len(ids)} tokens, the context {self.context}"
            )
        device = self.model.device
        tokens = torch.tensor(ids, device=device)
        visual = tokens == self.model.config.image_token_id
        embeds = self.model.get_input_embeddings()(tokens)
        grids = torch.stack([f.grid for f in features]) if features else None
        positions, delta = self.model.model.get_rope_index(
            tokens[None], mm_token_type_ids=visual.int()[None], image_grid_thw=grids
        )
        names = ids
        deep: list[Tensor] = []
        if features:
            embeds = embeds.masked_scatter(visual[:, None], torch.cat([f.embeds for f in features]))
            deep = [torch.cat(layer) for layer in zip(*(f.deep for f in features), strict=True)]
            pieces = iter([name for f in features for name in _piece_names(f)])
            names = [
                next(pieces) if shown else i for i, shown in zip(ids, visual.tolist(), strict=True)
            ]
        return Prompt(tuple(names), embeds, positions[:, 0], int(delta), visual, deep)

    def _token_ids(self, request: Request, features: Sequence[Features]) -> list[int]:
        turns = []
        for message in request.messages:
            parts = [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                for part in message.parts
            ]
            plain = all(isinstance(part, Text) for part in message.parts)
            turns.append({"role": message.role, "content": message.text if plain else parts})
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=not request.continues,
                continue_final_message=request.continues,
            )
        except Exception as error:  # a template is a program: whatever it raises is about this text
            raise TeacherError("bad_request", f"the chat template failed: {error}") from error
        before, *rest = text.split(IMAGE_PAD)
        if len(rest) != len(features):
            raise TeacherError(
                "bad_request", f"{len(rest)} places for pictures, but {len(features)} pictures"
            )
        for one, after in zip(features, rest, strict=True):
            before += IMAGE_PAD * len(one.embeds) + after
        ids: list[int] = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        return ids

    def features(self, image_id: str, images: Mapping[str, bytes]) -> Features:
        """What the vision tower makes of a picture; computed once while it is kept."""
        if image_id in self._seen:
            self._seen.move_to_end(image_id)
            return self._seen[image_id]
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(picture_bytes(images, image_id))) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise TeacherError("bad_request", f"image {image_id} is broken: {error}") from error
        data = self.image_processor(images=[picture], return_tensors="pt")
        device, grid = self.model.device, data["image_grid_thw"].to(self.model.device)
        out = self.model.model.get_image_features(
            data["pixel_values"].to(device), grid, return_dict=True
        )
        deep = tuple(layer[0] for layer in getattr(out, "deepstack_features", None) or ())
        found = Features(image_id, grid[0], out.pooler_output[0], deep)
        self._seen[image_id] = found
        while len(self._seen) > self.room:
            self._seen.popitem(last=False)
        return found

    def read(self, tokens: Sequence[int], stop: Sequence[str]) -> tuple[str, bool]:
        """The text of generated tokens, and whether their last one ended the completion.

        Text behind the first stop string is cut off; the stop string stays.
        """
        if tokens[-1] in self.ends:
            return self._decode(tokens[:-1]), True
        if stop and self._may_stop(tokens[-1], tuple(stop)):
            # The last token can only complete a stop string among as many tokens as it has bytes.
            longest = max(len(s.encode()) for s in stop)
            tail = self._decode(tokens[-longest:])
            if any(s in tail for s in stop):
                text = self._decode(tokens)
                ends = [text.find(s) + len(s) for s in stop if s in text]
                if ends:
                    return text[: min(ends)], True
        return "", False

    def _may_stop(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether a token could complete a stop string: most cannot, and need not be read."""
        known = self._stopping.setdefault(stop, {})
        if token not in known:
            text = self._decode([token])
            # A piece of a letter shows as the replacement mark; spaces may be lost at the edges.
            unsure = not text or "\ufffd" in text or any(s[-1:].isspace() for s in stop)
            known[token] = unsure or any(s[-1:] in text for s in stop)
        return known[token]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, special tokens such as `<think>` included."""
        return self._decode(tokens)

    def _decode(self, tokens: Sequence[int]) -> str:
        # The Rust tokenizer itself: the wrapper around it costs more than a step of a small model.
        text: str = self.tokenizer.backend_tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text


def _piece_names(features: Features) -> list[int]:
    """A number for each token of a picture, unlike any token id and any other picture's."""
    first = int.from_bytes(hashlib.blake2b(features.image_id.encode(), digest_size=6).digest())
    return [-(first * 65536 + i) - 1 for i in range(len(features.embeds))]

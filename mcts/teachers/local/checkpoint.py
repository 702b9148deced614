"""A loaded checkpoint: from a request to the model's input, and from its tokens back to text.

`Checkpoint` holds a vision-language model of the Qwen-VL family, its tokenizer with the chat
template, and its image processor. It renders requests as `transformers` would, but encodes each
image only once.

    checkpoint = Checkpoint.load(folder, device="cpu", image_cache_bytes=2**28)
    prompt = checkpoint.prompt(request, images)         # or TeacherError
    text, ended = checkpoint.read(tokens, request.stop)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mcts.image_io import UnreadableImage, decode
from mcts.teachers.base import Request, TeacherError, TextPart, UnusableModel, image_bytes
from mcts.teachers.control_tokens import HiddenMarks, control_tokens
from mcts.teachers.local.decoder import EncodedPrompt

IMAGE_PAD = "<|image_pad|>"
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
"""What `transformers` raises of folders that hold no usable model."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The vision tower's output for one image."""

    image_id: str
    grid: Tensor
    """(3,): frames, rows and columns of patches."""
    embeds: Tensor
    """(tokens, width)."""
    deep: tuple[Tensor, ...]
    """DeepStack: added in the first layers of the text model, (tokens, width). Qwen3-VL only."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.embeds.nbytes + sum(layer.nbytes for layer in self.deep)


@dataclass(slots=True)
class Checkpoint:
    """A loaded model with its tokenizer and image processor."""

    model: Any
    tokenizer: Any
    image_processor: Any
    end_tokens: frozenset[int]
    """Tokens that end a turn."""
    context: int
    """Token limit of prompt and completion together."""
    image_cache_bytes: int
    """Room left for the features of images, which are kept while there is any."""
    control_tokens: tuple[str, ...] = ()
    """What texts of data never are, whatever they spell."""
    images_encoded: int = 0
    """Images that the vision tower has run so far; one that was cached is not run again."""
    _features: OrderedDict[str, ImageFeatures] = field(default_factory=OrderedDict)
    _stop_tokens: dict[tuple[str, ...], dict[int, bool]] = field(default_factory=dict)
    """For each set of stop strings: whether a token could complete one."""

    @classmethod
    def load(cls, folder: Path, device: str, image_cache_bytes: int) -> Checkpoint:
        """Load a checkpoint from disk; neither runs code from it nor accesses a hub.

        Raises:
            UnusableModel: it is not a Qwen-VL model, or cannot be loaded.
        """
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # it would disturb our own progress line
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            image_processor = AutoImageProcessor.from_pretrained(folder, **options)
        except LOADING_ERRORS as error:
            raise UnusableModel(f"cannot load the model in {folder}: {error}") from error
        if not hasattr(model.model, "get_rope_index") or tokenizer.chat_template is None:
            raise UnusableModel(
                f"{folder} holds a {model.config.model_type} model; only the Qwen-VL family with a "
                "chat template runs in this process: serve it and give its URL instead"
            )
        ends = [tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")]
        configured = model.generation_config.eos_token_id
        ends += configured if isinstance(configured, list) else [configured]
        return cls(
            model=model.to(device).eval(),
            tokenizer=tokenizer,
            image_processor=image_processor,
            end_tokens=frozenset(token for token in ends if token is not None),
            context=int(model.config.get_text_config().max_position_embeddings),
            image_cache_bytes=image_cache_bytes,
            control_tokens=control_tokens(tokenizer),
        )

    def prompt(self, request: Request, images: Mapping[str, bytes]) -> EncodedPrompt:
        """Render, tokenize and embed a request.

        Raises:
            TeacherError: an image is missing or broken, or the prompt fills the whole context.
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
            patches = iter([name for f in features for name in _patch_names(f)])
            names = [
                next(patches) if is_image else token
                for token, is_image in zip(ids, visual.tolist(), strict=True)
            ]
        return EncodedPrompt(tuple(names), embeds, positions[:, 0], int(delta), visual, deep)

    def _token_ids(self, request: Request, features: Sequence[ImageFeatures]) -> list[int]:
        texts = [p.text for m in request.messages for p in m.parts if isinstance(p, TextPart)]
        hidden = HiddenMarks.of(texts, self.control_tokens)
        turns = []
        for message in request.messages:
            parts = [
                {"type": "text", "text": hidden.hide(part.text)}
                if isinstance(part, TextPart)
                else {"type": "image"}
                for part in message.parts
            ]
            text_only = all(isinstance(part, TextPart) for part in message.parts)
            content = hidden.hide(message.text) if text_only else parts
            turns.append({"role": message.role, "content": content})
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=not request.continues,
                continue_final_message=request.continues,
            )
        except Exception as error:  # a template is a program and can raise anything
            raise TeacherError("bad_request", f"the chat template failed: {error}") from error
        before, *rest = text.split(IMAGE_PAD)
        if len(rest) != len(features):
            raise TeacherError(
                "bad_request",
                f"the rendered prompt has {len(rest)} image tags for {len(features)} images",
            )
        for one, after in zip(features, rest, strict=True):
            before += IMAGE_PAD * len(one.embeds) + after
        try:
            return hidden.encode(self.tokenizer, before)
        except ValueError as error:
            raise TeacherError("bad_request", f"the prompt can't be tokenized: {error}") from None

    def features(self, image_id: str, images: Mapping[str, bytes]) -> ImageFeatures:
        """Encode an image with the vision tower, or return its cached features."""
        if image_id in self._features:
            self._features.move_to_end(image_id)
            return self._features[image_id]
        try:
            image = decode(image_bytes(images, image_id))
        except UnreadableImage as error:
            raise TeacherError("bad_request", f"image {image_id} {error}") from error
        data = self.image_processor(images=[image], return_tensors="pt")
        device, grid = self.model.device, data["image_grid_thw"].to(self.model.device)
        out = self.model.model.get_image_features(
            data["pixel_values"].to(device), grid, return_dict=True
        )
        deep = tuple(layer[0] for layer in getattr(out, "deepstack_features", None) or ())
        features = ImageFeatures(image_id, grid[0], out.pooler_output[0], deep)
        self.images_encoded += 1
        self._features[image_id] = features
        self.image_cache_bytes -= features.size
        while self.image_cache_bytes < 0 and len(self._features) > 1:
            self.image_cache_bytes += self._features.popitem(last=False)[1].size
        return features

    def read(self, tokens: Sequence[int], stop: Sequence[str]) -> tuple[str, bool]:
        """Return the text if the last token ended the completion, and whether it did.

        Text after the first stop string is cut off; the stop string stays.
        """
        if tokens[-1] in self.end_tokens:
            return self.decode(tokens[:-1]), True
        if stop and self._may_stop(tokens[-1], tuple(stop)):
            # A stop string has at most as many tokens as bytes.
            longest = max(len(s.encode()) for s in stop)
            tail = self.decode(tokens[-longest:])
            if any(s in tail for s in stop):
                text = self.decode(tokens)
                ends = [text.find(s) + len(s) for s in stop if s in text]
                if ends:
                    return text[: min(ends)], True
        return "", False

    def _may_stop(self, token: int, stop: tuple[str, ...]) -> bool:
        """Return whether a token could complete a stop string: most cannot."""
        known = self._stop_tokens.setdefault(stop, {})
        if token not in known:
            text = self.decode([token])
            # A part of a letter decodes to the replacement mark; spaces may be lost at the edges.
            unsure = not text or "\ufffd" in text or any(s[-1:].isspace() for s in stop)
            known[token] = unsure or any(s[-1:] in text for s in stop)
        return known[token]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens, special tokens such as `<think>` included."""
        # The Rust tokenizer itself: its wrapper takes longer than a step of a small model.
        text: str = self.tokenizer.backend_tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text


def _patch_names(features: ImageFeatures) -> list[int]:
    """Name each token of an image by a number distinct from token ids and other images'."""
    first = int.from_bytes(hashlib.blake2b(features.image_id.encode(), digest_size=6).digest())
    return [-(first * 65536 + i) - 1 for i in range(len(features.embeds))]

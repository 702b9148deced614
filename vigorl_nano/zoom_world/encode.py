"""Dialogues as training arrays: token ids, what each token's error counts, where to look.

encoder = DialogueEncoder(tokenizer)
row = encoder(example)              # `vigorl_nano.pretraining.encode.Encoded`, for its `collate`
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from transformers import PreTrainedTokenizerBase

from vigorl_nano.pretraining.config import CELLS, LOOK_HEADS, TOKENS_PER_IMAGE
from vigorl_nano.pretraining.encode import Encoded
from vigorl_nano.zoom_world.demonstrations import CROP_SHARE, WORD, Example, Place


class DialogueEncoder:
    """Turns dialogues into ids, target weights and the places where attention should go."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.image: Any = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def __call__(self, example: Example, whole: bool = True) -> Encoded:
        """Encode a dialogue; `whole` says that it begins with the whole picture."""
        read = self.tokenizer(example.text, return_offsets_mapping=True)
        ids = read["input_ids"]
        starts = [a for a, _ in read["offset_mapping"]]

        def tokens(a: int, b: int) -> range:
            """The tokens that begin in a span, or the one that it begins in."""
            first = bisect_right(starts, a) - 1
            return range(first, max(first + 1, bisect_right(starts, b - 1)))

        weights = [0.0] * len(ids)
        for a, b in example.learned:
            for i in tokens(a, b):
                weights[i] = WORD
        for a, b, weight in example.weights:
            for i in tokens(a, b):
                weights[i] = min(weight, 2 * WORD) if example.blind else weight
        pads = [i for i, token in enumerate(ids) if token == self.image]
        looks, names, evidence = [], [], []
        if not example.blind:
            for a, b, image, place in example.looks:
                target = pads[self.cell(example, image, place, whole)]
                looks += [(i, target) for i in tokens(a, b)]
            for a, b, image, place in example.names:
                names.append((tokens(a, b)[-1], pads[self.cell(example, image, place, whole)]))
            for at, a in example.marks:
                names.append((tokens(at, at + 1)[0], tokens(a, a + 1)[0]))
            for at, a, b in example.evidence:
                span = tokens(a, b)
                evidence += [
                    (h, tokens(at, at + 1)[0], span[0], span[-1]) for h in range(LOOK_HEADS)
                ]
        frames = tuple(range(len(pads) // TOKENS_PER_IMAGE))
        return Encoded(ids, weights, looks, names, evidence, frames, example.blind)

    def cell(self, example: Example, image: int, place: Place, whole: bool) -> int:
        """Return which image token, counted over all images, shows a place."""
        x, y = place
        if image:
            middle = example.crops[image - 1].middle
            x, y = (0.5 + (v - m) / CROP_SHARE for v, m in zip(place, middle, strict=True))
        column, row = (min(max(int(v * CELLS), 0), CELLS - 1) for v in (x, y))
        return (image - (not whole)) * TOKENS_PER_IMAGE + row * CELLS + column

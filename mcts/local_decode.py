"""A batch of sequences that grow together on one vision-language model, joining and leaving freely.

The decoder keeps one row a sequence in key-value tensors it owns. A sequence's tokens lie at slots
0, 1, 2, … of its row, whatever its position ids are, and a mask says how far each row is filled;
so rows of any length stand side by side without padding, a finished row is overwritten by the
last one, and a new one is copied in between two steps. Prompts are run once each and shared by
all samples; what they have in common with an earlier prompt is copied, not run again.

    decoder = Decoder(model, capacity=32, prefix_bytes=2**28)
    (prefix,) = decoder.prefill([prompt])
    decoder.join([(Row(sampling, ...), prefix), ...])
    while decoder.rows:
        for row in decoder.step(): ...            # rows that got a token; `drop` the finished

Each token is drawn with a uniform number that depends only on the sample's own seed and the
token's index, never on the neighbours in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mcts.local_prefixes import Prefix, PrefixCache

PREFILL_TOKENS = 4096
"""At most about this many tokens run at once, so that a crowd of prompts does not eat the memory.
"""


@dataclass(slots=True)
class Prompt:
    """A prompt, ready for the model."""

    names: tuple[int, ...]
    """What stands at each position: a token id, or a number that names a piece of a picture. Equal
    names in front mean equal keys and values."""
    embeds: Tensor
    """(length, width): token embeddings, picture features put in."""
    positions: Tensor
    """(3, length): time, row and column of every token."""
    delta: int
    """The position id after the prompt, minus its length."""
    visual: Tensor
    """(length,) bool: where pictures are."""
    deep: list[Tensor]
    """For each of the first layers, what is added at the pictures' tokens: (visual tokens, width).
    """


@dataclass(slots=True)
class Row:
    """One sample while it grows."""

    owner: Any
    """Whoever wants to know; the decoder does not look at it."""
    index: int
    """Which of its owner's samples this is."""
    seed: int
    temperature: float
    top_p: float
    tokens: list[int] = field(default_factory=list)
    """Generated so far; the last one has not been through the model yet."""
    length: int = 0
    """Slots filled: the prompt and all generated tokens but the last."""
    delta: int = 0


class KeyValues:
    """Keys and values of every layer, (rows, heads, slots, width); looks like a cache to a model.

    `target` says where the next forward pass writes: which slots of the first rows.
    """

    def __init__(self, layers: int, rows: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._n_rows = rows

    def target(self, slots: Tensor, filled: int) -> None:
        """`slots`: (rows, new tokens); attention sees the first `filled` slots."""
        self._at, self._filled = slots, filled
        self._rows = torch.arange(slots.shape[0], device=slots.device)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Store (rows, heads, new tokens, width); return all that may be attended to."""
        self._reserve(layer, self._filled, keys)
        stored = self.layers[layer]
        assert stored is not None
        for tensor, new in zip(stored, (keys, values), strict=True):
            tensor[self._rows, :, self._at] = new.transpose(1, 2)
        k, v = (tensor[: keys.shape[0], :, : self._filled] for tensor in stored)
        return k, v

    def _reserve(self, layer: int, slots: int, like: Tensor) -> None:
        """Make room for `slots`; `like` has heads and width at its ends -3 and -1."""
        old = self.layers[layer]
        if old is not None and old[0].shape[2] >= slots:
            return
        slots = (slots + 127) // 128 * 128  # grows in big steps, or every token would copy it all
        shape = (self._n_rows, like.shape[-3], slots, like.shape[-1])
        grown = (like.new_zeros(shape), like.new_zeros(shape))
        for new, tensor in zip(grown, old or (), strict=False):
            new[:, :, : tensor.shape[2]] = tensor
        self.layers[layer] = grown

    def put(self, row: int, layer: int, both: Tensor) -> None:
        """Copy (2, heads, tokens, width) into the first slots of a row."""
        self._reserve(layer, both.shape[2], both)
        stored = self.layers[layer]
        assert stored is not None
        for tensor, new in zip(stored, both, strict=True):
            tensor[row, :, : both.shape[2]] = new

    def take(self, row: int, length: int) -> Tensor:
        """(layers, 2, heads, length, width): a copy of a row's first slots."""
        full = [pair for pair in self.layers if pair is not None]
        return torch.stack([torch.stack([t[row, :, :length] for t in pair]) for pair in full])

    def move(self, source: int, destination: int, length: int) -> None:
        """Overwrite a row with another's first `length` slots."""
        for pair in self.layers:
            for tensor in pair or ():
                tensor[destination, :, :length] = tensor[source, :, :length]


class Decoder:
    """Runs prompts and grows samples; not thread-safe, and to be used in inference mode."""

    def __init__(self, model: Any, capacity: int, prefix_bytes: int) -> None:
        self._text = model.model.language_model
        self._head = model.get_output_embeddings()
        self._embed = model.get_input_embeddings()
        self._n_layers = len(self._text.layers)
        self.capacity = capacity
        self.rows: list[Row] = []
        self.prefixes = PrefixCache(prefix_bytes)
        self._kv = KeyValues(self._n_layers, capacity)

    def prefill(self, prompts: Sequence[Prompt]) -> list[tuple[Prefix, int]]:
        """Run prompts; each one's keys, values and last logits, and how many tokens were known."""
        done: dict[int, tuple[Prefix, int]] = {}
        todo: list[tuple[int, Prefix | None, int]] = []
        for i, prompt in enumerate(prompts):
            known, shared = self.prefixes.find(prompt.names)
            if known is not None and shared == len(prompt.names) == len(known.names):
                done[i] = (known, shared)
            else:
                todo.append((i, known, min(shared, len(prompt.names) - 1)))
        # Alike beside alike, since a chunk runs as wide as its widest; `pop` takes that one first.
        todo.sort(key=lambda item: len(prompts[item[0]].names) - item[2])
        while todo:
            chunk = [todo.pop()]
            longest = len(prompts[chunk[0][0]].names) - chunk[0][2]
            while todo and longest * (len(chunk) + 1) <= PREFILL_TOKENS:
                chunk.append(todo.pop())
            ran = self._run([(prompts[i], known, shared) for i, known, shared in chunk])
            for (i, _, shared), prefix in zip(chunk, ran, strict=True):
                done[i] = (prefix, shared)
        return [done[i] for i in range(len(prompts))]

    def _run(self, chunk: Sequence[tuple[Prompt, Prefix | None, int]]) -> list[Prefix]:
        device = chunk[0][0].embeds.device
        starts = torch.tensor([shared for _, _, shared in chunk], device=device)
        sizes = [len(prompt.names) - shared for prompt, _, shared in chunk]
        width = max(sizes)
        embeds = chunk[0][0].embeds.new_zeros(len(chunk), width, chunk[0][0].embeds.shape[1])
        positions = starts.new_zeros(3, len(chunk), width)
        visual = torch.zeros(len(chunk), width, dtype=torch.bool, device=device)
        deep: list[list[Tensor]] = [[] for _ in chunk[0][0].deep]
        kv = KeyValues(self._n_layers, len(chunk))
        for row, (prompt, known, shared) in enumerate(chunk):
            size = sizes[row]
            embeds[row, :size] = prompt.embeds[shared:]
            positions[:, row, :size] = prompt.positions[:, shared:]
            visual[row, :size] = prompt.visual[shared:]
            seen = int(prompt.visual[:shared].sum())
            for layer, features in enumerate(prompt.deep):
                deep[layer].append(features[seen:])
            if known is not None:
                for layer in range(self._n_layers):
                    kv.put(row, layer, known.keys_values[layer][:, :, :shared])
        slots = starts[:, None] + torch.arange(width, device=device)
        hidden = self._forward(kv, embeds, positions, slots, visual, [torch.cat(d) for d in deep])
        last = hidden[torch.arange(len(chunk)), torch.tensor(sizes) - 1]
        prefixes = []
        for row, ((prompt, _, _), logits) in enumerate(zip(chunk, self._head(last), strict=True)):
            keys_values = kv.take(row, len(prompt.names))
            prefixes.append(Prefix(prompt.names, keys_values, logits.clone(), prompt.delta))
            self.prefixes.add(prefixes[-1])
        return prefixes

    def _forward(
        self,
        kv: KeyValues,
        embeds: Tensor,
        positions: Tensor,
        slots: Tensor,
        visual: Tensor | None = None,
        deep: Sequence[Tensor] = (),
    ) -> Tensor:
        """Hidden states of new tokens at `slots` (rows, new tokens), which see all slots before."""
        filled = int(slots.max()) + 1
        kv.target(slots, filled)
        seen = torch.arange(filled, device=slots.device) <= slots[:, None, :, None]
        extra: dict[str, Any] = {}
        if deep and visual is not None and bool(visual.any()):
            extra = {"visual_pos_masks": visual, "deepstack_visual_embeds": list(deep)}
        out = self._text(
            input_ids=None, inputs_embeds=embeds, position_ids=positions, attention_mask=seen,
            past_key_values=kv, use_cache=True, **extra,
        )  # fmt: skip
        hidden: Tensor = out.last_hidden_state
        return hidden

    def join(self, newcomers: Sequence[tuple[Row, Prefix]]) -> list[Row]:
        """Add samples and draw the first token of each. Returns their rows."""
        for row, prefix in newcomers:
            row.length, row.delta = len(prefix.names), prefix.delta
            for layer in range(self._n_layers):
                self._kv.put(len(self.rows), layer, prefix.keys_values[layer])
            self.rows.append(row)
        rows = [row for row, _ in newcomers]
        self._draw(rows, torch.stack([prefix.logits for _, prefix in newcomers]))
        return rows

    def step(self) -> list[Row]:
        """Give every row one more token. Returns the rows."""
        device = self._embed.weight.device
        tokens = torch.tensor([[row.tokens[-1]] for row in self.rows], device=device)
        slots = torch.tensor([[row.length] for row in self.rows], device=device)
        deltas = torch.tensor([[row.delta] for row in self.rows], device=device)
        positions = (slots + deltas)[None].expand(3, -1, -1)
        hidden = self._forward(self._kv, self._embed(tokens), positions, slots)
        for row in self.rows:
            row.length += 1
        self._draw(self.rows, self._head(hidden[:, -1]))
        return self.rows

    def _draw(self, rows: Sequence[Row], logits: Tensor) -> None:
        uniforms = [uniform(row.seed, len(row.tokens)) for row in rows]
        temperatures = [row.temperature for row in rows]
        for row, token in zip(
            rows, choose(logits, temperatures, [row.top_p for row in rows], uniforms), strict=True
        ):
            row.tokens.append(token)

    def drop(self, finished: Sequence[Row]) -> None:
        """Take rows out; the last ones move into their places."""
        for row in finished:
            at = next(i for i, other in enumerate(self.rows) if other is row)
            last = self.rows.pop()
            if last is not row:
                self.rows[at] = last
                self._kv.move(len(self.rows), at, last.length)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for the token at `index` of the sample with `seed`."""
    name = seed.to_bytes(8, "little") + index.to_bytes(8, "little")
    return (int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 11) / 2**53


def choose(
    logits: Tensor, temperatures: list[float], top_ps: list[float], uniforms: list[float]
) -> list[int]:
    """A token a row: the likeliest at temperature 0, else the one where the cumulative probability
    passes the row's uniform number. Every row is computed by itself."""
    tokens = logits.argmax(-1)
    drawn = [i for i, temperature in enumerate(temperatures) if temperature > 0]
    plain = [i for i in drawn if top_ps[i] >= 1]
    nucleus = [i for i in drawn if top_ps[i] < 1]
    for some in (plain, nucleus):
        if not some:
            continue
        heat = logits.new_tensor([temperatures[i] for i in some])[:, None]
        at = logits.new_tensor([uniforms[i] for i in some], dtype=torch.float64)[:, None]
        probs = torch.softmax(logits[some].float() / heat, -1).double()
        order = None
        if some is nucleus:
            probs, order = probs.sort(dim=-1, descending=True, stable=True)
            limit = probs.new_tensor([top_ps[i] for i in some])[:, None]
            # A token stays if those before it do not fill the nucleus yet: the first always does.
            probs = probs.masked_fill(probs.cumsum(-1) - probs >= limit, 0.0)
        sums = probs.cumsum(-1)
        picked = torch.searchsorted(sums, at * sums[:, -1:], right=True)
        picked = picked.clamp(max=probs.shape[-1] - 1)
        tokens[some] = (picked if order is None else order.gather(-1, picked))[:, 0]
    return [int(token) for token in tokens]

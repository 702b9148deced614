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

from mcts.teachers.local.kv_cache import KeyValues
from mcts.teachers.local.prefix_cache import Prefix, PrefixCache
from mcts.teachers.local.small_model import SmallText

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


class Decoder:
    """Runs prompts and grows samples; not thread-safe, and to be used in inference mode."""

    def __init__(self, model: Any, capacity: int, prefix_bytes: int, *, small: bool = True) -> None:
        """`small`: run a model that is small enough by `mcts.teachers.local.small_model`."""
        self._text = model.model.language_model
        self._head = model.get_output_embeddings()
        self._embed = model.get_input_embeddings()
        self.capacity = capacity
        self.rows: list[Row] = []
        self.prefixes = PrefixCache(prefix_bytes)
        self._small = SmallText(model) if small and SmallText.fits(model) else None
        self._kv = KeyValues(self._text, capacity)
        self.steps = 0
        """Decoding steps so far."""
        self.grown = 0
        """Tokens that they gave, over all rows."""

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
        # A prompt without pictures has none; it may lead a chunk of others that have.
        deep: list[list[Tensor]] = [[] for _ in range(max(len(p.deep) for p, _, _ in chunk))]
        kv = KeyValues(self._text, len(chunk))
        for row, (prompt, known, shared) in enumerate(chunk):
            size = sizes[row]
            embeds[row, :size] = prompt.embeds[shared:]
            positions[:, row, :size] = prompt.positions[:, shared:]
            visual[row, :size] = prompt.visual[shared:]
            seen = int(prompt.visual[:shared].sum())
            for layer, features in enumerate(prompt.deep):
                deep[layer].append(features[seen:])
            if known is not None:
                kv.put(row, known.keys_values[:, :, :, :shared])
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
        """Hidden states of new tokens at `slots` (rows, new tokens), which see all slots before.

        `positions` is (3, rows, new tokens), or (rows,) for one generated token a row.
        """
        if self._small is not None:
            return self._small(kv, embeds, positions, slots, visual, deep)
        if positions.ndim == 1:
            positions = positions[:, None].expand(3, -1, -1)
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
            self._kv.put(len(self.rows), prefix.keys_values)
            self.rows.append(row)
        rows = [row for row, _ in newcomers]
        self._draw(rows, torch.stack([prefix.logits for _, prefix in newcomers]))
        return rows

    def step(self) -> list[Row]:
        """Give every row one more token. Returns the rows."""
        numbers = [[row.tokens[-1], row.length, row.length + row.delta] for row in self.rows]
        known = torch.tensor(numbers, device=self._embed.weight.device)
        embeds = self._embed(known[:, :1])
        hidden = self._forward(self._kv, embeds, known[:, 2], known[:, 1:2])
        for row in self.rows:
            row.length += 1
        self.steps += 1
        self.grown += len(self.rows)
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
    greedy = [i for i, temperature in enumerate(temperatures) if temperature <= 0]
    plain = [i for i, t in enumerate(temperatures) if t > 0 and top_ps[i] >= 1]
    nucleus = [i for i, t in enumerate(temperatures) if t > 0 and top_ps[i] < 1]
    tokens = logits.argmax(-1) if greedy else torch.empty(len(logits), dtype=torch.long)
    tokens = tokens.to(logits.device)
    for some in (plain, nucleus):
        if not some:
            continue
        heat = logits.new_tensor([temperatures[i] for i in some])[:, None]
        at = logits.new_tensor([uniforms[i] for i in some], dtype=torch.float64)[:, None]
        these = logits if len(some) == len(logits) else logits[some]
        probs = torch.softmax(these.float() / heat, -1).double()
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
    found: list[int] = tokens.tolist()
    return found

"""Continuous batching: sequences of one vision-language model that join and leave between steps.

The decoder has one row per sequence in key-value tensors of its own. A sequence's tokens are at
slots 0, 1, 2, … of its row, whatever its position ids are, and a mask marks how far each row is
filled; so rows of any length run without padding, a finished row is overwritten by the last one,
and a new row is copied in between two steps. Each prompt is run once and shared by its samples; a
prefix in common with an earlier prompt is copied, not run again.

    decoder = Decoder(model, capacity=32, prefix_bytes=2**28)
    (prefix,) = decoder.prefill([prompt])
    decoder.join([(BatchRow(sampling, ...), prefix), ...])
    while decoder.rows:
        for row in decoder.step(): ...            # each row has a new token; `drop` the finished

Each token is drawn with a uniform number that depends only on the sample's seed and the token's
index, never on the other rows of the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mcts.teachers.local.kv_cache import KeyValueCache
from mcts.teachers.local.prefix_cache import Prefix, PrefixCache
from mcts.teachers.local.small_model import SmallText

PREFILL_TOKENS = 4096
"""Upper limit, roughly, of tokens in one prefill, so that many prompts do not exhaust memory."""


@dataclass(slots=True)
class EncodedPrompt:
    """A prompt, ready for the model."""

    names: tuple[int, ...]
    """The content of each position: a token id, or a negative number that names an image patch.
    Equal names in front mean equal keys and values."""
    embeds: Tensor
    """(length, width): token embeddings, with image features inserted."""
    positions: Tensor
    """(3, length): time, row and column of every token."""
    delta: int
    """The position id after the prompt, minus its length."""
    visual: Tensor
    """(length,) bool: positions of images."""
    deep: list[Tensor]
    """DeepStack features of the first layers, added at image positions: (visual tokens, width)."""


@dataclass(slots=True)
class BatchRow:
    """One sample while it grows."""

    owner: Any
    """The caller's object; the decoder does not use it."""
    index: int
    """Number of the sample among its owner's."""
    seed: int
    temperature: float
    top_p: float
    tokens: list[int] = field(default_factory=list)
    """Generated so far; the last one has not been run through the model yet."""
    entropies: list[float] | None = None
    """Of what each token was drawn from, in nats, before `top_p`; None: they are not wanted."""
    logprobs: list[float] | None = None
    """Of each token, in nats, before temperature and `top_p`; None: they are not wanted."""
    length: int = 0
    """Slots filled: the prompt and all generated tokens except the last."""
    delta: int = 0


class Decoder:
    """Runs prompts and decodes samples; not thread-safe, for use in inference mode."""

    def __init__(self, model: Any, capacity: int, prefix_bytes: int, *, small: bool = True) -> None:
        """`small`: run a small enough model by `mcts.teachers.local.small_model`."""
        self._text = model.model.language_model
        self._head = model.get_output_embeddings()
        self._embed = model.get_input_embeddings()
        self.capacity = capacity
        self.rows: list[BatchRow] = []
        self.prefixes = PrefixCache(prefix_bytes)
        self._small = SmallText(model) if small and SmallText.fits(model) else None
        self._kv = KeyValueCache(self._text, capacity)
        self.steps = 0
        """Decoding steps so far."""
        self.row_steps = 0
        """Tokens decoded in them, over all rows."""

    def prefill(self, prompts: Sequence[EncodedPrompt]) -> list[tuple[Prefix, int]]:
        """Run prompts; return each one's `Prefix` and how many of its tokens were cached."""
        done: dict[int, tuple[Prefix, int]] = {}
        todo: list[tuple[int, Prefix | None, int]] = []
        for i, prompt in enumerate(prompts):
            known, shared = self.prefixes.find(prompt.names)
            if known is not None and shared == len(prompt.names) == len(known.names):
                done[i] = (known, shared)
            else:
                todo.append((i, known, min(shared, len(prompt.names) - 1)))
        # Sorted by length, since a chunk runs as wide as its widest prompt; `pop` takes that first.
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

    def _run(self, chunk: Sequence[tuple[EncodedPrompt, Prefix | None, int]]) -> list[Prefix]:
        device = chunk[0][0].embeds.device
        starts = torch.tensor([shared for _, _, shared in chunk], device=device)
        sizes = [len(prompt.names) - shared for prompt, _, shared in chunk]
        width = max(sizes)
        embeds = chunk[0][0].embeds.new_zeros(len(chunk), width, chunk[0][0].embeds.shape[1])
        positions = starts.new_zeros(3, len(chunk), width)
        visual = torch.zeros(len(chunk), width, dtype=torch.bool, device=device)
        # A prompt without images has no features; it may be in one chunk with others that have.
        deep: list[list[Tensor]] = [[] for _ in range(max(len(p.deep) for p, _, _ in chunk))]
        kv = KeyValueCache(self._text, len(chunk))
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
        kv: KeyValueCache,
        embeds: Tensor,
        positions: Tensor,
        slots: Tensor,
        visual: Tensor | None = None,
        deep: Sequence[Tensor] = (),
    ) -> Tensor:
        """Compute the hidden states of new tokens at `slots` (rows, new tokens), causally.

        `positions` is (3, rows, new tokens), or (rows,) for one generated token per row.
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

    def join(self, newcomers: Sequence[tuple[BatchRow, Prefix]]) -> list[BatchRow]:
        """Add samples and draw the first token of each; return their rows."""
        for row, prefix in newcomers:
            row.length, row.delta = len(prefix.names), prefix.delta
            self._kv.put(len(self.rows), prefix.keys_values)
            self.rows.append(row)
        rows = [row for row, _ in newcomers]
        self._draw(rows, torch.stack([prefix.logits for _, prefix in newcomers]))
        return rows

    def step(self) -> list[BatchRow]:
        """Decode one more token of every row; return the rows."""
        numbers = [[row.tokens[-1], row.length, row.length + row.delta] for row in self.rows]
        known = torch.tensor(numbers, device=self._embed.weight.device)
        embeds = self._embed(known[:, :1])
        hidden = self._forward(self._kv, embeds, known[:, 2], known[:, 1:2])
        for row in self.rows:
            row.length += 1
        self.steps += 1
        self.row_steps += len(self.rows)
        self._draw(self.rows, self._head(hidden[:, -1]))
        return self.rows

    def _draw(self, rows: Sequence[BatchRow], logits: Tensor) -> None:
        uniforms = [uniform(row.seed, len(row.tokens)) for row in rows]
        temperatures = [row.temperature for row in rows]
        wanted = [i for i, row in enumerate(rows) if row.entropies is not None]
        for i, nats in zip(wanted, entropies(logits, temperatures, wanted), strict=True):
            known = rows[i].entropies
            assert known is not None
            known.append(nats)
        tokens = choose(logits, temperatures, [row.top_p for row in rows], uniforms)
        for row, token in zip(rows, tokens, strict=True):
            row.tokens.append(token)
        wanted = [i for i, row in enumerate(rows) if row.logprobs is not None]
        found = log_probabilities(logits, tokens, wanted)
        for i, logprob in zip(wanted, found, strict=True):
            known = rows[i].logprobs
            assert known is not None
            known.append(logprob)

    def drop(self, finished: Sequence[BatchRow]) -> None:
        """Remove rows; the last rows move into their places."""
        for row in finished:
            at = next(i for i, other in enumerate(self.rows) if other is row)
            last = self.rows.pop()
            if last is not row:
                self.rows[at] = last
                self._kv.move(len(self.rows), at, last.length)


def uniform(seed: int, index: int) -> float:
    """Return a uniform number in [0, 1) for the token at `index` of the sample with `seed`."""
    name = seed.to_bytes(8, "little") + index.to_bytes(8, "little")
    return (int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 11) / 2**53


def entropies(logits: Tensor, temperatures: Sequence[float], wanted: Sequence[int]) -> list[float]:
    """Return the entropy in nats of what a token is drawn from, of some rows.

    Args:
        logits: (rows, vocabulary).
        temperatures: of every row; at 0 the entropy is that of temperature 1.
        wanted: numbers of the rows.
    """
    if not wanted:
        return []
    heat = logits.new_tensor([temperatures[i] or 1.0 for i in wanted])[:, None]
    log_probs = torch.log_softmax(logits[list(wanted)].float() / heat, -1)
    found: list[float] = torch.special.entr(log_probs.exp()).sum(-1).tolist()
    return found


def log_probabilities(logits: Tensor, tokens: Sequence[int], wanted: Sequence[int]) -> list[float]:
    """Return the log-probability in nats of the chosen tokens of some rows, at temperature 1.

    Args:
        logits: (rows, vocabulary).
        tokens: of every row.
        wanted: numbers of the rows.
    """
    if not wanted:
        return []
    chosen = torch.tensor([tokens[i] for i in wanted], device=logits.device)[:, None]
    log_probs = torch.log_softmax(logits[list(wanted)].float(), -1)
    found: list[float] = log_probs.gather(-1, chosen)[:, 0].tolist()
    return found


def choose(
    logits: Tensor, temperatures: list[float], top_ps: list[float], uniforms: list[float]
) -> list[int]:
    """Choose a token per row, independently of the other rows.

    The likeliest at temperature 0, otherwise the one where the cumulative probability exceeds the
    row's uniform number (inverse transform sampling).
    """
    greedy = [i for i, temperature in enumerate(temperatures) if temperature <= 0]
    plain = [i for i, t in enumerate(temperatures) if t > 0 and top_ps[i] >= 1]
    nucleus = [i for i, t in enumerate(temperatures) if t > 0 and top_ps[i] < 1]
    tokens = logits.argmax(-1) if greedy else torch.empty(len(logits), dtype=torch.long)
    tokens = tokens.to(logits.device)
    for rows in (plain, nucleus):
        if not rows:
            continue
        heat = logits.new_tensor([temperatures[i] for i in rows])[:, None]
        at = logits.new_tensor([uniforms[i] for i in rows], dtype=torch.float64)[:, None]
        these = logits if len(rows) == len(logits) else logits[rows]
        probs = torch.softmax(these.float() / heat, -1).double()
        order = None
        if rows is nucleus:
            probs, order = probs.sort(dim=-1, descending=True, stable=True)
            limit = probs.new_tensor([top_ps[i] for i in rows])[:, None]
            # A token stays if those before it do not fill the nucleus yet; the first always stays.
            probs = probs.masked_fill(probs.cumsum(-1) - probs >= limit, 0.0)
        sums = probs.cumsum(-1)
        picked = torch.searchsorted(sums, at * sums[:, -1:], right=True)
        picked = picked.clamp(max=probs.shape[-1] - 1)
        tokens[rows] = (picked if order is None else order.gather(-1, picked))[:, 0]
    chosen: list[int] = tokens.tolist()
    return chosen

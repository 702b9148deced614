"""A simulated model server on a virtual clock: continuous batching and a prefix cache.

    server = ModelServer()
    result, seconds = virtual_clock.run(main(server))    # a `mcts.teachers.base.Teacher`
    server.fastest()                              # no order of these requests is faster

The server works in steps. In each, every running sequence gets one token, and waiting sequences are
admitted in order of arrival while there is room, with chunked prefill, as in vLLM's scheduler. A
step takes

    STEP_S + SEQUENCE_S x running sequences + PREFILL_S x prefilled tokens

Prompt tokens in the prefix cache need no prefill; an image's tokens are prompt tokens like others.
The n samples of a request share one prefill. The figures are those of a 70B model on H100s:

* STEP_S, SEQUENCE_S: the line through NVIDIA's published inter-token latencies of Llama-3.1-70B
  (docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance, NIM 1.3.0): 12.64 ms at 5 requests, 15.31
  at 25, 17.42 at 50, 23.28 at 100, 27.73 at 150, 31.22 at 200; it is within 1.2 ms of them. Our
  copy of the page does not show the number of GPUs. Assumed: Qwen2.5-VL-72B on eight is as fast,
  and no slower for the longer prompts here.
* PREFILL_S: the same page gives 406.77 ms to the first token after 5,000 prompt tokens on two H100s
  in 8 bits, 81 us per token; assumed: eight in 16 bits, with twice the arithmetic, need half.
* FRONT_S: before a request reaches the model; the page's 25.05 ms to a first token, less one step.
  Preparing images is assumed to take no time, which favours many small requests.
* MAX_SEQUENCES, STEP_TOKENS: vLLM's defaults for a server on H100s (`max_num_seqs` and
  `max_num_batched_tokens`, vllm/engine/arg_utils.py); assumed: the line stays straight beyond 250
  sequences, where the published figures end. BLOCK: its block size.
* CACHE_TOKENS: 8 x 80 GB x 0.9, less 145 GB of weights, at 320 KiB per token (80 layers, 8
  key-value heads of 128, 16 bits) is 1.3 million; less what is running.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.search import scripted_model
from mcts.teachers.base import Completion, Ledger, Reply, Request

STEP_S = 0.0126
SEQUENCE_S = 0.000095
PREFILL_S = 0.00004
FRONT_S = 0.012
MAX_SEQUENCES = 1024
STEP_TOKENS = 8192
BLOCK = 16
CACHE_TOKENS = 1_200_000
IMAGE_TOKENS = 45 * 30  # 1260 x 840 pixels in patches of 28 (Qwen2.5-VL)

Head = tuple[str, tuple[str, ...], str]  # system prompt, images, question


@dataclass(eq=False, slots=True)
class _Job:
    """A request in flight."""

    prompt: list[tuple[int, int]]
    """The prompt's cache entries, in order: (chained hash, tokens)."""
    done: asyncio.Future[None]
    left: int
    """Sequences that still run."""
    cached: int | None = None
    """Prompt tokens found in the cache; None before the lookup."""


@dataclass(eq=False, slots=True)
class _Sequence:
    job: _Job
    tokens: int
    """To be generated."""
    entries: list[tuple[int, int]] = field(default_factory=list)
    """Cache entries of the prompt with its answer."""
    to_prefill: int | None = None
    """Prompt tokens without prefill so far; None before the cache lookup."""


class ModelServer:
    """A `Teacher` with scripted answers, for one event loop with a virtual clock."""

    identity = "scripted 72B"

    def __init__(self, cache_tokens: int = CACHE_TOKENS, front_s: float = FRONT_S) -> None:
        self.ledger = Ledger()
        self.requests: list[Request] = []
        """Every request, in order."""
        self.lengths: list[int] = []
        """Tokens of every generated sequence."""
        self.prefilled_tokens = 0
        """Prompt tokens that were not in the cache."""
        self._cache: OrderedDict[int, int] = OrderedDict()
        self._cache_left, self._front_s = cache_tokens, front_s
        self._heads: set[int] = set()
        self._head_tokens = 0
        self._waiting: deque[_Sequence] = deque()
        self._running: list[tuple[int, int, _Sequence]] = []  # a heap by the step that ends it
        self._steps = self._order = 0
        # The current stretch of equal steps: its start, their number and duration, its timer.
        self._start, self._stretch, self._step_s = 0.0, 0, 0.0
        self._timer: asyncio.Handle | None = None

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request` after the time that the model needs."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        self.requests.append(request)
        self.ledger.requests += 1
        self.ledger.in_flight += 1
        texts = scripted_model.texts(request)
        await asyncio.sleep(self._front_s)
        head, turn = _prompt(request)
        entries = list(_entries(head, turn))
        prompt_tokens = sum(tokens for _, tokens in entries)
        self._count_head(head)
        job = _Job(entries, loop.create_future(), request.n)
        lengths = [min(scripted_model.tokens(text), request.max_tokens) for text in texts]
        for text, length in zip(texts, lengths, strict=True):
            after = list(_entries(head, turn + text))
            self._waiting.append(_Sequence(job, length, after))
        self.lengths += lengths
        self._wake()
        try:
            await job.done
        except asyncio.CancelledError:
            # A cancelled request is charged in full; a real server would stop generating.
            self.ledger.in_flight -= 1
            self.ledger.completion_tokens += sum(lengths)
            raise
        completions = tuple(
            Completion(text, "stop", length) for text, length in zip(texts, lengths, strict=True)
        )
        seconds = loop.time() - sent_at
        reply = Reply(completions, prompt_tokens, job.cached, sum(lengths), seconds)
        self.ledger.in_flight -= 1
        self.ledger.add(reply)
        return reply

    def fastest(self) -> float:
        """Return a lower bound of the seconds of any schedule of these requests, known in advance.

        Each token is one sequence's share of a step, and a step has at most MAX_SEQUENCES; every
        question's own head, with its image, is prefilled once. Nothing else is counted.
        """
        generated = sum(self.lengths)
        steps = max(math.ceil(generated / MAX_SEQUENCES), max(self.lengths, default=0))
        return (
            self._front_s * bool(generated)
            + steps * STEP_S
            + generated * SEQUENCE_S
            + self._head_tokens * PREFILL_S
        )

    def _count_head(self, head: Head) -> None:
        *_, last = entries = list(_entries(head, ""))
        if last[0] not in self._heads:
            # The system prompt is common to all questions and may be prefilled once.
            shared = scripted_model.tokens(head[0])
            self._heads.add(last[0])
            self._head_tokens += max(0, sum(tokens for _, tokens in entries) - shared - BLOCK)

    # ---- the scheduler: a step, or a stretch of equal ones, at a time --------------------------

    def _wake(self) -> None:
        """Start after an arrival, or end the current stretch at its next whole step."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._stretch = 0
            self._timer = loop.call_soon(self._tick)  # arrivals of one instant start together
        elif self._stretch > 1 and len(self._running) < MAX_SEQUENCES:
            done = max(1, math.ceil((loop.time() - self._start) / self._step_s - 1e-9))
            if done < self._stretch:
                self._timer.cancel()
                self._stretch = done
                self._timer = loop.call_at(self._start + done * self._step_s, self._tick)

    def _tick(self) -> None:
        """End a stretch: finish sequences, and begin the next stretch."""
        self._steps += self._stretch
        while self._running and self._running[0][0] <= self._steps:
            _, _, sequence = heapq.heappop(self._running)
            self._cache_entries(sequence.entries)
            sequence.job.left -= 1
            if not sequence.job.left:
                sequence.job.done.set_result(None)
        loop, prefilled = asyncio.get_running_loop(), self._admit()
        if not self._running and not prefilled:
            self._timer = None
            return
        self._start = loop.time()
        self._step_s = STEP_S + SEQUENCE_S * len(self._running) + PREFILL_S * prefilled
        # After a prefill the next step differs; otherwise all are equal until a sequence ends.
        self._stretch = 1 if prefilled else self._running[0][0] - self._steps
        self._timer = loop.call_at(self._start + self._stretch * self._step_s, self._tick)

    def _admit(self) -> int:
        """Admit waiting sequences while there is room; return the prompt tokens prefilled."""
        prefilled, room = 0, STEP_TOKENS - len(self._running)
        while self._waiting and len(self._running) < MAX_SEQUENCES and room > 0:
            sequence = self._waiting[0]
            if sequence.to_prefill is None:
                sequence.to_prefill = self._look_up(sequence.job)
            chunk = min(sequence.to_prefill, room)
            sequence.to_prefill -= chunk
            prefilled, room = prefilled + chunk, room - chunk
            if sequence.to_prefill:
                break
            self._waiting.popleft()
            self._order += 1
            entry = (self._steps + sequence.tokens, self._order, sequence)
            heapq.heappush(self._running, entry)
        return prefilled

    def _look_up(self, job: _Job) -> int:
        """Return the number of a prompt's tokens not in the cache, and add them to it."""
        missing, hit = 0, True
        for name, tokens in job.prompt:
            hit = hit and name in self._cache
            missing += 0 if hit else tokens
        if job.cached is None:
            job.cached = sum(tokens for _, tokens in job.prompt) - missing
        self.prefilled_tokens += missing
        self._cache_entries(job.prompt)
        return missing

    def _cache_entries(self, entries: list[tuple[int, int]]) -> None:
        """Add whole blocks to the cache; evict the least recently used."""
        for name, tokens in entries:
            if tokens < BLOCK:
                continue  # a partial block cannot be shared
            if name in self._cache:
                self._cache.move_to_end(name)
            else:
                self._cache[name] = tokens
                self._cache_left -= tokens
        while self._cache_left < 0:
            self._cache_left += self._cache.popitem(last=False)[1]


def _prompt(request: Request) -> tuple[Head, str]:
    """Split a prompt into text, images and text, and the partial assistant turn."""
    before, after, images = "", "", request.image_ids
    turn = request.messages[-1].text if request.continues else ""
    for message in request.messages[: len(request.messages) - request.continues]:
        if message.role == "system":
            before += message.text
        else:
            after += message.text
    return (before, images, after), turn


def _entries(head: Head, turn: str) -> Iterator[tuple[int, int]]:
    """Yield a prompt's cache entries, (hash of the prefix, tokens): blocks, an image as one."""
    before, images, after = head
    width = round(BLOCK * scripted_model.CHARACTERS_PER_TOKEN)
    # An image is far longer than a block: it is one entry with the block in which it begins.
    name, partial = hash(before), scripted_model.tokens(before)
    for image in images:
        name = hash((name, image))
        yield name, partial + IMAGE_TOKENS
        partial = 0
    text = after + turn
    for start in range(0, len(text), width):
        piece = text[start : start + width]
        name = hash((name, piece))
        yield name, BLOCK if len(piece) == width else min(BLOCK - 1, scripted_model.tokens(piece))

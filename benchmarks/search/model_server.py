"""A model server on a virtual clock: continuous batching, a prefix cache, and what they cost.

    server = ModelServer()
    result, seconds = clock.run(main(server))     # `server` is a `mcts.teachers.base.Teacher`
    server.fastest()                              # no order of these requests takes less

The server works in steps. In each, every running sequence gets one token, and waiting ones, first
come first served, are let in while there is room and have their prompts read in chunks, as vLLM's
scheduler does. A step takes

    STEP_S + SEQUENCE_S x sequences that run + PREFILL_S x prompt tokens read

Prompt tokens that the prefix cache holds are not read again; a picture's tokens are prompt tokens
like others. The n samples of a request share one reading. The figures are a 70B model's, on H100s:

* STEP_S, SEQUENCE_S: the line through NVIDIA's published inter-token latencies of Llama-3.1-70B
  (docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance, NIM 1.3.0): 12.64 ms at 5 requests, 15.31
  at 25, 17.42 at 50, 23.28 at 100, 27.73 at 150, 31.22 at 200; it is within 1.2 ms of them. How
  many GPUs that took, the copy of the page that we read does not show. Assumed: that
  Qwen2.5-VL-72B on eight is as fast, and no slower for the longer prompts here.
* PREFILL_S: the same page gives 406.77 ms until the first of 5,000 prompt tokens' answer on two
  H100s in 8 bits, 81 us a token; assumed: eight in 16 bits, with twice the arithmetic, need half.
* FRONT_S: before a request reaches the model; the page's 25.05 ms until a first token, less one
  step. Pictures are assumed to be prepared in no time, which favours whoever asks more often.
* MOST_SEQUENCES, STEP_TOKENS: vLLM's defaults for a server on H100s (`max_num_seqs` and
  `max_num_batched_tokens`, vllm/engine/arg_utils.py); assumed: that the line goes on straight
  beyond 250 sequences, where the published figures end. BLOCK: its block.
* CACHE_TOKENS: 8 x 80 GB x 0.9, less 145 GB of weights, at 320 KiB a token (80 layers, 8 key-value
  heads of 128, 16 bits) is 1.3 million; less what runs.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.search import script
from mcts.teachers.base import Completion, Ledger, Reply, Request

STEP_S = 0.0126
SEQUENCE_S = 0.000095
PREFILL_S = 0.00004
FRONT_S = 0.012
MOST_SEQUENCES = 1024
STEP_TOKENS = 8192
BLOCK = 16
CACHE_TOKENS = 1_200_000
PICTURE_TOKENS = 45 * 30  # 1260 x 840 pixels in patches of 28 (Qwen2.5-VL)

Head = tuple[str, tuple[str, ...], str]  # the system prompt, pictures, the question


@dataclass(eq=False, slots=True)
class _Job:
    """A request under way."""

    prompt: list[tuple[int, int]]
    """The prompt's cache entries, in order: (chained hash, tokens)."""
    answered: asyncio.Future[None]
    left: int
    """Sequences that still run."""
    cached: int | None = None
    """Prompt tokens found in the cache; None before it was looked into."""


@dataclass(eq=False, slots=True)
class _Sequence:
    job: _Job
    tokens: int
    """To be written."""
    after: list[tuple[int, int]] = field(default_factory=list)
    """Cache entries of the prompt with its answer."""
    unread: int | None = None
    """Prompt tokens still to be read; None before the cache was looked into."""


class ModelServer:
    """A `Teacher` of scripted answers. Must run on one event loop, a virtual one."""

    identity = "scripted 72B"

    def __init__(self, cache_tokens: int = CACHE_TOKENS, front_s: float = FRONT_S) -> None:
        self.ledger = Ledger()
        self.requests: list[Request] = []
        """Everything asked, in order."""
        self.lengths: list[int] = []
        """Tokens of every sequence written."""
        self.read_tokens = 0
        """Prompt tokens that were not in the cache."""
        self._cache: OrderedDict[int, int] = OrderedDict()
        self._room, self._front_s = cache_tokens, front_s
        self._heads: set[int] = set()
        self._head_tokens = 0
        self._waiting: deque[_Sequence] = deque()
        self._running: list[tuple[int, int, _Sequence]] = []  # a heap by the step that ends it
        self._steps = self._order = 0
        # The stretch of equal steps under way: when it began, how many, how long each, its timer.
        self._began, self._stretch, self._each = 0.0, 0, 0.0
        self._timer: asyncio.Handle | None = None

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request` when the model would have."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        self.requests.append(request)
        self.ledger.requests += 1
        self.ledger.in_flight += 1
        texts = script.texts(request)
        await asyncio.sleep(self._front_s)
        head, turn = _prompt(request)
        entries = list(_entries(head, turn))
        prompt_tokens = sum(tokens for _, tokens in entries)
        self._count_head(head)
        job = _Job(entries, loop.create_future(), request.n)
        lengths = [min(script.tokens(text), request.max_tokens) for text in texts]
        for text, length in zip(texts, lengths, strict=True):
            after = list(_entries(head, turn + text))
            self._waiting.append(_Sequence(job, length, after))
        self.lengths += lengths
        self._wake()
        try:
            await job.answered
        except asyncio.CancelledError:
            # Whoever withdraws pays for it in full; a real server would stop writing.
            self.ledger.in_flight -= 1
            self.ledger.completion_tokens += sum(lengths)
            raise
        completions = tuple(
            Completion(text, "stop", length) for text, length in zip(texts, lengths, strict=True)
        )
        seconds = loop.time() - asked
        reply = Reply(completions, prompt_tokens, job.cached, sum(lengths), seconds)
        self.ledger.in_flight -= 1
        self.ledger.add(reply)
        return reply

    def fastest(self) -> float:
        """Seconds that no schedule of what was answered can beat, whoever knows it in advance.

        Each token is one sequence's share of a step, and steps hold MOST_SEQUENCES at most; every
        question's own head, with its picture, is read once. Nothing else is counted.
        """
        written = sum(self.lengths)
        steps = max(math.ceil(written / MOST_SEQUENCES), max(self.lengths, default=0))
        return (
            self._front_s * bool(written)
            + steps * STEP_S
            + written * SEQUENCE_S
            + self._head_tokens * PREFILL_S
        )

    def _count_head(self, head: Head) -> None:
        *_, last = entries = list(_entries(head, ""))
        if last[0] not in self._heads:
            # Its system prompt is every question's and may be read once for all.
            shared = script.tokens(head[0])
            self._heads.add(last[0])
            self._head_tokens += max(0, sum(tokens for _, tokens in entries) - shared - BLOCK)

    # ---- the scheduler: a step, or a stretch of equal ones, at a time --------------------------

    def _wake(self) -> None:
        """Something came in: begin, or end the stretch under way at its next whole step."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._stretch = 0
            self._timer = loop.call_soon(self._tick)  # what comes in at one instant begins together
        elif self._stretch > 1 and len(self._running) < MOST_SEQUENCES:
            done = max(1, math.ceil((loop.time() - self._began) / self._each - 1e-9))
            if done < self._stretch:
                self._timer.cancel()
                self._stretch = done
                self._timer = loop.call_at(self._began + done * self._each, self._tick)

    def _tick(self) -> None:
        """A stretch has ended: hand out what is written, and begin the next."""
        self._steps += self._stretch
        while self._running and self._running[0][0] <= self._steps:
            _, _, sequence = heapq.heappop(self._running)
            self._keep(sequence.after)
            sequence.job.left -= 1
            if not sequence.job.left:
                sequence.job.answered.set_result(None)
        loop, read = asyncio.get_running_loop(), self._admit()
        if not self._running and not read:
            self._timer = None
            return
        self._began = loop.time()
        self._each = STEP_S + SEQUENCE_S * len(self._running) + PREFILL_S * read
        # Where prompts were read the next step differs; otherwise all do until a sequence ends.
        self._stretch = 1 if read else self._running[0][0] - self._steps
        self._timer = loop.call_at(self._began + self._stretch * self._each, self._tick)

    def _admit(self) -> int:
        """Let waiting sequences in while there is room; return how many prompt tokens are read."""
        read, room = 0, STEP_TOKENS - len(self._running)
        while self._waiting and len(self._running) < MOST_SEQUENCES and room > 0:
            sequence = self._waiting[0]
            if sequence.unread is None:
                sequence.unread = self._look_up(sequence.job)
            chunk = min(sequence.unread, room)
            sequence.unread -= chunk
            read, room = read + chunk, room - chunk
            if sequence.unread:
                break
            self._waiting.popleft()
            self._order += 1
            entry = (self._steps + sequence.tokens, self._order, sequence)
            heapq.heappush(self._running, entry)
        return read

    def _look_up(self, job: _Job) -> int:
        """Tokens of a prompt that the cache does not hold; it holds them from now on."""
        missing, hit = 0, True
        for name, tokens in job.prompt:
            hit = hit and name in self._cache
            missing += 0 if hit else tokens
        if job.cached is None:
            job.cached = sum(tokens for _, tokens in job.prompt) - missing
        self.read_tokens += missing
        self._keep(job.prompt)
        return missing

    def _keep(self, entries: list[tuple[int, int]]) -> None:
        """Put whole blocks into the cache, the newest last; the oldest make room."""
        for name, tokens in entries:
            if tokens < BLOCK:
                continue  # a block that is not full cannot be shared
            if name in self._cache:
                self._cache.move_to_end(name)
            else:
                self._cache[name] = tokens
                self._room -= tokens
        while self._room < 0:
            self._room += self._cache.popitem(last=False)[1]


def _prompt(request: Request) -> tuple[Head, str]:
    """A prompt as the server reads it: text, pictures, text; and the assistant's begun turn."""
    before, after, pictures = "", "", request.image_ids
    turn = request.messages[-1].text if request.continues else ""
    for message in request.messages[: len(request.messages) - request.continues]:
        if message.role == "system":
            before += message.text
        else:
            after += message.text
    return (before, pictures, after), turn


def _entries(head: Head, turn: str) -> Iterator[tuple[int, int]]:
    """Cache entries of a prompt, (hash of all up to there, tokens): blocks, a picture as one."""
    before, pictures, after = head
    width = round(BLOCK * script.CHARACTERS_A_TOKEN)
    # A picture is far longer than a block: it goes with the block that it begins in.
    name, begun = hash(before), script.tokens(before)
    for picture in pictures:
        name = hash((name, picture))
        yield name, begun + PICTURE_TOKENS
        begun = 0
    text = after + turn
    for start in range(0, len(text), width):
        piece = text[start : start + width]
        name = hash((name, piece))
        yield name, BLOCK if len(piece) == width else min(BLOCK - 1, script.tokens(piece))

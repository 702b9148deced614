"""Speed of the in-process engine, beside transformers' own `generate` on the same prompts.

    python -m benchmarks.engine                       # about two minutes
    python -m benchmarks.engine --folder runs/nano/weights --repeats 9

Both sides sample at temperature 1 without a nucleus, stop at the end token, use one thread and are
timed from encoded images to texts. They take turns; each repetition has questions that neither has
seen, so no cache helps. The figure is tokens per second over the generated tokens, end token
included, padding after it excluded. The last figure is the occupancy of the engine's batch during a
real tree search with the default settings.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from curation.grading.grade import grade
from mcts.concurrency import gather
from mcts.config import SearchConfig, search_id
from mcts.coordinates import CoordinateSpace
from mcts.data import Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.prompts import build_messages, load_prompt
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Message, Request
from mcts.teachers.local.teacher import LocalTeacher
from training.evaluation.controls import with_images
from vigorl_nano import TEACHER
from vigorl_nano.pretraining.export import load_checkpoint
from warehouse.sources import task_of
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions

SPACE = CoordinateSpace.qwen3_vl()  # thousandths: independent of the resize limits
STEPS = 3  # the prompt demands at least so many
MAX_TOKENS = 160
BATCHES = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its encoded images, by image id in its order."""

    question: Question
    images: Mapping[str, bytes]


def load_items(parquet: Path | None = None, task: str = "sat2") -> list[Item]:
    """Read questions in a task's schema; by default its embedded sample's."""
    sample = task_of(task).sample
    if parquet is None:
        assert sample is not None
        parquet = sample.files["test"]
    with tempfile.TemporaryDirectory() as home:
        warehouse = Warehouse.at(home)
        import_questions(warehouse, task, parquet, split="test")
        return [
            Item(question, {i.image_id: read_image(warehouse, i.image_id) for i in question.images})
            for question in read_questions(warehouse, task)
        ]


def messages(item: Item) -> tuple[Message, ...]:
    """Build the prompt: the question with its choices and the least number of steps."""
    return build_messages(load_prompt("nano"), item.question, SPACE, STEPS)


class BatchedGenerate:
    """Batched `generate`, as any program that uses transformers would call it."""

    def __init__(self, folder: Path) -> None:
        checkpoint = load_checkpoint(folder)
        self._model, self._processor = checkpoint.model, checkpoint.processor
        self._processor.tokenizer.padding_side = "left"
        ends = self._model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])

    @torch.inference_mode()
    def run(self, items: Sequence[Item], seed: int) -> tuple[int, float]:
        """Answer `items` in one batch; return generated tokens and seconds."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        start = time.perf_counter()
        texts, images = [], []
        for item in items:
            image_parts = [{"type": "image"} for _ in item.question.images]
            text = messages(item)[0].text
            turn = {"role": "user", "content": [*image_parts, {"type": "text", "text": text}]}
            texts.append(
                self._processor.apply_chat_template(
                    [turn], add_generation_prompt=True, tokenize=False
                )
            )
            images.append(
                [Image.open(io.BytesIO(data)).convert("RGB") for data in item.images.values()]
            )
        batch = self._processor(text=texts, images=images, padding=True, return_tensors="pt")
        out = self._model.generate(
            **batch, max_new_tokens=MAX_TOKENS, do_sample=True, temperature=1.0, top_k=0, top_p=1.0
        )
        new = out[:, batch["input_ids"].shape[1] :].tolist()
        self._processor.tokenizer.batch_decode(new)
        return sum(self._length(row) for row in new), time.perf_counter() - start

    def _length(self, row: list[int]) -> int:
        ends = (i + 1 for i, token in enumerate(row) if token in self._ends)
        return next(ends, len(row))


async def engine_run(teacher: LocalTeacher, items: Sequence[Item], seed: int) -> tuple[int, float]:
    """Answer `items` in one batch; return generated tokens and seconds."""
    start = time.perf_counter()
    replies = await asyncio.gather(
        *(
            teacher.complete(
                Request(messages(item), 1, 1.0, 1.0, MAX_TOKENS, (), seed * 1000 + i), item.images
            )
            for i, item in enumerate(items)
        )
    )
    return sum(reply.completion_tokens for reply in replies), time.perf_counter() - start


def varied(item: Item, number: int) -> Item:
    """Return the question about images with other bytes: `number` is a pixel in their corners."""
    encoded = []
    for place, data in enumerate(item.images.values()):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.putpixel((0, 0), (number % 256, number // 256, place))
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=1)
        encoded.append(out.getvalue())
    return Item(*with_images(item.question, encoded))


async def compare(folder: Path, items: Sequence[Item], batch: int, repeats: int) -> dict[str, Any]:
    """Measure the median tokens per second of both sides at one batch size.

    Raises:
        ValueError: there are not enough questions for `repeats` fresh batches.
    """
    if len(items) < batch * (repeats + 1):
        raise ValueError(f"{repeats} batches of {batch} need {batch * (repeats + 1)} questions")
    plain, teacher = BatchedGenerate(folder), LocalTeacher(folder, batch=batch, threads=1)
    await teacher.open()
    speeds: dict[str, list[float]] = {"engine": [], "generate": []}
    for repeat in range(repeats + 1):
        some = items[repeat * batch : (repeat + 1) * batch]
        sides = ["engine", "generate"]
        for side in sides if repeat % 2 else reversed(sides):
            if side == "engine":
                tokens, seconds = await engine_run(teacher, some, repeat)
            else:
                tokens, seconds = await asyncio.to_thread(plain.run, some, repeat)
            if repeat:  # the first repetition warms up both
                speeds[side].append(tokens / seconds)
    await teacher.close()
    engine, other = (statistics.median(speeds[side]) for side in ("engine", "generate"))
    return {"batch": batch, "engine": engine, "generate": other, "ratio": engine / other}


async def occupancy(folder: Path, items: Sequence[Item], batch: int = 32) -> dict[str, float]:
    """Search `items` concurrently with the default settings; return the batch occupancy."""
    prompt = load_prompt("nano")
    config = SearchConfig(SPACE, prompt.name, prompt.digest, step_tokens=48)
    teacher = LocalTeacher(folder, batch=batch, threads=1)
    await teacher.open()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as kept, Journal(kept) as journal:
        journaled = JournaledTeacher(teacher, journal)

        async def one(item: Item) -> Any:
            name = search_id(item.question, config, 0, teacher.identity)
            policy = TeacherPolicy(item.question, config, name, journaled, item.images)
            return await search(item.question, config, policy, grade, name)

        await gather(one(item) for item in items)
    seconds = time.perf_counter() - start
    result = {
        "share": teacher.occupancy,
        "tokens_per_second": teacher.ledger.completion_tokens / seconds,
    }
    await teacher.close()
    return result


async def run(options: argparse.Namespace) -> None:
    """Print the table."""
    items = load_items(options.parquet)
    # No image twice: each request pays for its own image.
    fresh = [varied(item, number) for number, item in enumerate(items)]
    print(f"{options.folder}: tokens per second on one thread, median of {options.repeats}")
    for batch in BATCHES:
        repeats = max(1, min(options.repeats, len(fresh) // batch - 1))
        row = await compare(options.folder, fresh, batch, repeats)
        print(
            f"  batch {batch:>2}: engine {row['engine']:7.0f}   generate {row['generate']:7.0f}"
            f"   ratio {row['ratio']:.2f}",
            flush=True,
        )
    for trees in dict.fromkeys((options.trees, 4 * options.trees)):
        found = await occupancy(options.folder, fresh[:trees])
        print(
            f"  {trees} concurrent searches: {found['share']:.0%} of a batch of 32 occupied, "
            f"{found['tokens_per_second']:.0f} tokens per second"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the in-process engine's speed.")
    parser.add_argument("--folder", type=Path, default=TEACHER, help="the checkpoint")
    parser.add_argument("--parquet", type=Path, help="questions, in SAT-v2's schema")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions at each batch size")
    parser.add_argument("--trees", type=int, default=6, help="questions searched for occupancy")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

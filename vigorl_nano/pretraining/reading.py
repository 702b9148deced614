"""How often an embedded model reads the right answer off exact steps that it is given.

    python -m vigorl_nano.pretraining.reading nano-reader nano-teacher

Measures one part of answering alone: the given steps name what the question is about and point at
it, from the scene's truth. Each question is shown with its image and with a grey one, about takes
that no model was trained on, in the nine families of `make claim-points`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from mcts.teachers.checkpoints import registered_checkpoints
from vigorl_nano.evaluate import table
from vigorl_nano.pretraining.batches import GREY
from vigorl_nano.pretraining.data import EVIDENCE, IMAGE, make_example
from vigorl_nano.pretraining.export import Checkpoint, load_checkpoint
from vigorl_nano.pretraining.pool import load_shard, make_shard

FAMILIES = tuple(sorted(EVIDENCE.keys() - {"object_moved", "perspective"}))  # these are guesses
HELD_OUT = 900  # a shard of its own; the recipes' are counted from 0
ONE_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
MOST_TOKENS = 8

Read = dict[tuple[str, bool], list[bool]]
"""(family, image hidden) -> whether each answer was right."""


def read_off(folder: Path, pool: Path, takes: int) -> Read:
    """Answer the questions of the first `takes` takes greedily with the checkpoint in `folder`."""
    checkpoint = load_checkpoint(folder)
    frames, shard = load_shard(pool, HELD_OUT)
    rng = np.random.default_rng(0)
    found: Read = defaultdict(list)
    for take in shard[:takes]:
        for question in take["questions"]:
            if question["family"] not in FAMILIES:
                continue
            example = make_example(rng, take, question, "reading")
            text = (example.prompt + "<answer>").replace(IMAGE, ONE_IMAGE)
            shown = [np.asarray(frames[take["frames"][i]["at"]]) for i in example.frames]
            grey = [np.full_like(pixels, GREY) for pixels in shown]
            for hidden, answer in enumerate(_complete(checkpoint, text, [shown, grey])):
                found[question["family"], bool(hidden)].append(answer == question["answer"])
    return found


def _complete(checkpoint: Checkpoint, text: str, shown: list[list[np.ndarray]]) -> list[str]:
    """Continue the same text with each of the lists of images."""
    images = [Image.fromarray(pixels) for frames in shown for pixels in frames]
    batch = checkpoint.processor(text=[text] * len(shown), images=images, return_tensors="pt")
    with torch.inference_mode():
        tokens = checkpoint.model.generate(**batch, max_new_tokens=MOST_TOKENS, do_sample=False)
    new = tokens[:, batch["input_ids"].shape[1] :]
    texts = checkpoint.processor.tokenizer.batch_decode(new)
    return [str(words).partition("<")[0].strip() for words in texts]


def render_table(found: dict[str, Read]) -> list[str]:
    """Render a row a family, for each model with the image and with a grey one; in per cent."""
    heads = [f"{name}{', grey' * hidden}" for name in found for hidden in (False, True)]
    rows = []
    for family in (*FAMILIES, "all"):
        cells, n = [], 0
        for read in found.values():
            for hidden in (False, True):
                names = FAMILIES if family == "all" else (family,)
                right = [r for name in names for r in read.get((name, hidden), ())]
                n = len(right)
                cells.append(f"{100 * fmean(right):.1f}" if right else "-")
        rows.append([family, str(n), *cells])
    return table(["family", "questions", *heads], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read answers off given steps.")
    parser.add_argument(
        "models", nargs="*", help=f"of {', '.join(registered_checkpoints())}; else nano-reader"
    )
    parser.add_argument("--pool", type=Path, default=Path("runs/nano/pool"))
    parser.add_argument("--takes", type=int, default=30, help="of which questions are asked")
    options = parser.parse_args()
    names = options.models or ["nano-reader"]
    if unknown := [name for name in names if name not in registered_checkpoints()]:
        parser.error(f"{unknown[0]} is none of {', '.join(registered_checkpoints())}")
    options.pool.mkdir(parents=True, exist_ok=True)
    make_shard(options.pool, HELD_OUT)
    found = {
        name: read_off(registered_checkpoints()[name], options.pool, options.takes)
        for name in names
    }
    print("\n".join(render_table(found)))


if __name__ == "__main__":
    main()

"""Pretrains vigorl-nano on two CPU cores: first its vision, then its language.

    python -m vigorl_nano.pretraining.pretrain base  # from nothing
    python -m vigorl_nano.pretraining.pretrain teacher  # from the base's trunk
    python -m vigorl_nano.pretraining.pretrain reader  # from the committed base

The same command continues an interrupted run. Stage "vision" trains the vision tower with an
auxiliary head (`auxiliary_heads`). Stage "language" trains the language model on that tower; the
auxiliary loss stays on, and an attention loss draws a few heads to the cell of the object that is
being named and pointed at, for the teacher also the answer's attention to what decides it. Both
losses end with pretraining. The learning rate stays level through these two, and the result, the
trunk, is kept: stage "anneal" lets the rate fall to nothing, and another recipe can start from the
trunk. A short stage "finetune" at a low rate mends the response format. Each worker process has one
thread and its share of every batch; gradients are averaged. At the end the model is evaluated on
the committed test sample.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from torch import nn

from vigorl_nano import WEIGHTS
from vigorl_nano.evaluate import TASK, markdown, measure_checkpoint
from vigorl_nano.pretraining.auxiliary_heads import AuxiliaryHead, word_ids
from vigorl_nano.pretraining.batches import GREY, Batch, FramePool, make_replies
from vigorl_nano.pretraining.config import (
    LOOK_HEADS,
    blocks_output,
    build_model,
    half_precision,
    language,
    merge,
    text_layer,
    vision_block,
)
from vigorl_nano.pretraining.encode import Encoder, collate
from vigorl_nano.pretraining.export import export
from vigorl_nano.pretraining.optimizers import make_optimizers, save_checkpoint, take_step
from vigorl_nano.pretraining.pool import make_pool
from vigorl_nano.pretraining.tokenizer import build_tokenizer
from warehouse.sources import task_of

RECIPES = Path(__file__).with_name("recipes")
STAGES = ("vision", "language", "anneal", "finetune")
LOG_EVERY, SAVE_EVERY = 50, 250


class Run:
    """One pretraining run: model, auxiliary head, optimizers and how far it is."""

    def __init__(self, recipe: dict[str, Any], out: Path, rank: int, workers: int) -> None:
        torch.manual_seed(recipe["seed"])
        self.recipe, self.out, self.rank, self.workers = recipe, out, rank, workers
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer)
        self.auxiliary = AuxiliaryHead(word_ids(self.tokenizer))
        self.modules = nn.ModuleDict({"model": self.model, "auxiliary": self.auxiliary})
        self.encoder = Encoder(self.tokenizer)
        self.stage, self.step = 0, 0
        self.optimizers = make_optimizers(self.modules)
        # One layer is compiled, not a whole model: the others run the same code.
        compiled: Any = partial(torch.compile, dynamic=True) if recipe["compile"] else lambda f: f
        self.block, self.layer = compiled(vision_block), compiled(text_layer)
        self.totals: dict[str, float] = {}
        self.began, self.first = time.time(), 0

    def save(self, name: str = "checkpoint") -> None:
        if self.rank:
            return
        progress = {"stage": self.stage, "step": self.step}
        save_checkpoint(self.out / name, self.modules, self.optimizers, progress)

    def load(self, folder: Path) -> None:
        weights = load_file(folder / "weights.safetensors")
        # Runs begun before 0.1.0 call the auxiliary head by its former name.
        weights = {re.sub(r"^helper\.", "auxiliary.", name): w for name, w in weights.items()}
        self.modules.load_state_dict(weights, strict=False)
        state = torch.load(folder / "state.pt", weights_only=True)
        self.stage, self.step = state["stage"], state["step"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)

    def start(self) -> None:
        """Load this run's checkpoint, else what the recipe starts from, else nothing."""
        if (self.out / "checkpoint").exists():
            self.load(self.out / "checkpoint")
            self.report(f"resumed: {STAGES[self.stage]} {self.step}")
        elif "weights" in self.recipe:
            weights = load_file(WEIGHTS / self.recipe["weights"] / "model.safetensors")
            self.model.load_state_dict(weights, strict=False)  # its head is its embeddings
            self.stage = STAGES.index("finetune")
            self.optimizers = make_optimizers(self.modules, self.recipe["finetune"]["vision_rate"])
            self.report(f"starting from the committed weights of {self.recipe['weights']}")
        elif self.recipe.get("from"):
            self.load(self.out.parent / self.recipe["from"] / "trunk")
            self.stage, self.step = STAGES.index("language"), 0
            self.report(f"starting from the trunk of {self.recipe['from']}")

    def report(self, text: str) -> None:
        if not self.rank:
            print(text, flush=True)

    def rng(self) -> np.random.Generator:
        key = [self.recipe["seed"], self.stage, self.step, self.rank]
        return np.random.default_rng(key)

    def update(self, loss: torch.Tensor, rate: float) -> None:
        take_step(self.modules, self.optimizers, loss, rate, self.workers)
        self.step += 1

    def log(self, figures: dict[str, float], steps: int) -> None:
        """Add up figures, and print their means every `LOG_EVERY` steps."""
        for name, value in {**figures, "n": 1}.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        if self.step % LOG_EVERY == 0:
            n = self.totals.pop("n")
            spent = (time.time() - self.began) / max(1, self.step - self.first)
            means = " ".join(f"{name} {value / n:.3f}" for name, value in self.totals.items())
            left = (steps - self.step) * spent / 60
            where = f"{STAGES[self.stage]} {self.step}/{steps}"
            self.report(f"{where} {means} | {spent:.2f} s/step, {left:.0f} min left")
            self.totals = {}
        if self.step % SAVE_EVERY == 0:
            self.save()
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit("the run was killed")  # else its workers would train on

    def encode_images(self, batch: Batch, train_blocks: bool) -> tuple[torch.Tensor, Any]:
        """Vision tokens of the batch's images and of a grey one, and the auxiliary loss."""
        grey = torch.full_like(batch.frames[:1], GREY)
        with half_precision():
            with torch.set_grad_enabled(train_blocks):
                patches = blocks_output(self.model, torch.cat([batch.frames, grey]), self.block)
            tokens = merge(self.model, patches)
            words = self.model.get_input_embeddings().weight
            auxiliary = self.auxiliary(patches[:-1], tokens[:-1], words, batch.objects)
        return tokens.float(), auxiliary

    def train_vision(self, pool: FramePool, plan: dict[str, Any]) -> None:
        while self.step < plan["steps"]:
            batch = pool.pick(self.rng(), plan["takes"] // self.workers, 0.0)
            _, (loss, figures) = self.encode_images(batch, train_blocks=True)
            # The rate of this stage falls: its end is a tower to build on, not a trunk.
            share = self.step / plan["steps"]
            warm = min(1.0, (self.step + 1) / 50)
            self.update(loss, plan["rate"] * warm * (1 - 0.9 * share))
            self.log({"loss": float(loss.detach()), **figures}, plan["steps"])

    def train_language(self, pool: FramePool, plan: dict[str, Any], falling: bool) -> None:
        pad, image = self.tokenizer.pad_token_id, self.model.config.image_token_id
        while self.step < plan["steps"]:
            rng, share = self.rng(), self.step / plan["steps"]
            easy = plan["easy"] * max(0.0, 1 - self.step / plan["easy_until"])
            batch = pool.pick(rng, plan["takes"] // self.workers, easy)
            trains = self.step >= plan["frozen_until"]
            vision, (auxiliary, figures) = self.encode_images(batch, trains)
            groups = make_replies(rng, batch, self.encoder, plan)
            weight = sum(sum(e.weights) for group in groups for e, _ in group)
            spots = max(1, sum(len(e.names) for group in groups for e, _ in group))
            digits = max(1, sum(len(e.looks) for group in groups for e, _ in group))
            sequences = sum(len(group) for group in groups)
            words_loss, look, evidence = torch.zeros(3)
            for group in groups:
                data = collate([e for e, _ in group], pad, image)
                words = self.model.get_input_embeddings()(data["ids"])
                tokens = torch.cat(
                    [
                        vision[[-1] * len(shown) if row.blind else shown].flatten(0, 1)
                        for row, shown in group
                    ]
                )
                words = words.masked_scatter((data["ids"] == image)[..., None], tokens)
                learned = data["weights"][:, 1:] > 0
                with half_precision():
                    hidden, names, looks = language(
                        self.model, words, data["positions"], self.layer
                    )
                    logits = self.model.lm_head(hidden[:, :-1][learned]).float()
                losses = F.cross_entropy(logits, data["ids"][:, 1:][learned], reduction="none")
                words_loss = words_loss + (losses * data["weights"][:, 1:][learned]).sum() / weight
                for sight, kind, count in ((names, "names", spots), (looks, "looks", digits)):
                    which, at, to = data[kind].unbind(1)
                    look = look - sight[which, :, at, to].sum() / (LOOK_HEADS * count)
                for row, head, at, first, last in data["evidence"].tolist():
                    mass = looks[row, head, at, first : last + 1].logsumexp(-1)
                    evidence = evidence - mass / (LOOK_HEADS * sequences)
            loss = words_loss + plan["auxiliary"] * auxiliary + plan["attention"] * look
            loss = loss + plan["evidence"] * evidence
            warm = 1.0 if self.stage == 2 else (self.step + 1) / 100  # annealing starts from it
            self.update(loss, plan["rate"] * min(warm, 1.02 - share if falling else 1.0))
            figures |= {"text": float(words_loss.detach()), "attention": float(look.detach())}
            if plan["evidence"]:
                figures["evidence"] = float(evidence.detach())
            self.log(figures, plan["steps"])

    def next_stage(self) -> None:
        self.stage, self.step = self.stage + 1, 0
        self.began, self.first, self.totals = time.time(), 0, {}

    def train(self, pool: FramePool) -> None:
        self.began, self.first = time.time(), self.step
        if self.stage == 0:
            self.train_vision(pool, self.recipe["vision"])
            self.next_stage()
            self.optimizers = make_optimizers(self.modules, self.recipe["language"]["vision_rate"])
            self.save()
        if self.stage == 1:
            self.train_language(pool, self.recipe["language"], falling=False)
            self.next_stage()
            self.save("trunk")
            self.save()
        if self.stage == 2:
            self.train_language(
                pool, {**self.recipe["language"], **self.recipe["anneal"]}, falling=True
            )
            self.next_stage()
            self.optimizers = make_optimizers(self.modules, self.recipe["language"]["vision_rate"])
            self.save()
        if "finetune" in self.recipe:
            plan = {**self.recipe.get("language", {}), **self.recipe["finetune"]}
            self.train_language(pool, plan, falling=True)
        if not self.rank:
            export(self.model, self.tokenizer, self.out / "weights")


def work(rank: int, workers: int, recipe: dict[str, Any], out: Path) -> None:
    """Run one worker process, which has its own share of every batch."""
    torch.set_num_threads(1)
    if workers > 1:
        store = f"file://{out.resolve() / 'rendezvous'}"
        dist.init_process_group("gloo", store, timedelta(minutes=20), workers, rank)  # compiling
    run = Run(recipe, out, rank, workers)
    run.start()
    run.train(FramePool(out.parent / "pool", recipe["shards"]))
    if workers > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain vigorl-nano.")
    parser.add_argument("recipe", help="base, teacher or a recipe file")
    parser.add_argument("--out", type=Path, help="default: runs/nano/<name of the recipe>")
    options = parser.parse_args()
    named = RECIPES / f"{options.recipe}.yaml"
    path = named if named.is_file() else Path(options.recipe)
    recipe, out = yaml.safe_load(path.read_text()), options.out or Path("runs/nano") / path.stem
    if former := {"see", "speak", "settle", "polish"} & set(recipe):
        parser.error(f"{path}: stages are called {', '.join(STAGES)}, not {', '.join(former)}")
    out.mkdir(parents=True, exist_ok=True)
    make_pool(out.parent / "pool", recipe["shards"], os.cpu_count() or 1)
    (out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (recipe["workers"], recipe, out), recipe["workers"])
    sample = task_of(TASK).sample
    assert sample is not None
    home = out / "evaluations"
    print(markdown(measure_checkpoint(out / "weights", sample.files["test"], home, samples=2)))


if __name__ == "__main__":
    main()

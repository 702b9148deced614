"""Trains nano-zoom, on from nano-teacher's weights: first its sight, then its dialogues.

    python -m vigorl_nano.zoom_world.train     # settings in zoom.yaml; continues an interrupted run

Pictures are drawn as they are needed. Stage `vision` ties what the vision tower sees to the words
for it, with a head that is thrown away. Stage `parts` practises pointing and reading a crop, each
apart; `dialogues` puts them together, and its rate falls to nothing. Each worker process has one
thread and its share of every batch; gradients are averaged.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
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

from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import PromptStyle
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from vigorl_nano import WEIGHTS
from vigorl_nano.pretraining.config import (
    LOOK_HEADS,
    SIDE,
    blocks_output,
    build_model,
    half_precision,
    merge,
    vision_block,
)
from vigorl_nano.pretraining.encode import collate
from vigorl_nano.pretraining.export import export
from vigorl_nano.pretraining.optimizers import make_optimizers, save_checkpoint, take_step
from vigorl_nano.pretraining.tokenizer import build_tokenizer
from vigorl_nano.zoom_world.batches import make_batch, make_pictures
from vigorl_nano.zoom_world.demonstrations import (
    ANSWER,
    CROP_SHARE,
    DIGITS,
    MOST_LOOKS,
    NAME,
    READ,
)
from vigorl_nano.zoom_world.encode import DialogueEncoder
from vigorl_nano.zoom_world.language import language, text_layer
from vigorl_nano.zoom_world.neighbours import MOVED
from vigorl_nano.zoom_world.sight import SightHead

SETTINGS = Path(__file__).with_name("zoom.yaml")
STAGES = ("vision", "parts", "dialogues", "finish", "policy", "clicks", "words", "sides")
STYLE = PromptStyle(
    response_style=ResponseStyle.ZOOM,
    prompts={
        ResponseStyle.ZOOM: "nano-zoom",
        ResponseStyle.GROUNDED: "nano",
        ResponseStyle.ANSWER_ONLY: "nano-answer",
    },
    step_tokens=112,
)
"""How the model is prompted."""
ZOOM = ZoomConfig(Lens(CROP_SHARE / 2, SIDE, share=True), max_calls=MOST_LOOKS, role="tool")
"""What it is shown."""
LOG_EVERY, SAVE_EVERY = 10, 50
FIGURES = {
    "name": NAME,
    "first digit": DIGITS[0],
    "moved digit": MOVED,
    "read": READ,
    "answer": ANSWER,
}


class Training:
    """One run: model, head, optimizers and how far it is."""

    def __init__(self, recipe: dict[str, Any], out: Path, rank: int = 0) -> None:
        torch.manual_seed(recipe["seed"])
        self.recipe, self.out, self.rank, self.workers = recipe, out, rank, recipe["workers"]
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer)
        self.head = SightHead(self.tokenizer)
        self.modules = nn.ModuleDict({"model": self.model, "auxiliary": self.head})
        self.encoder = DialogueEncoder(self.tokenizer)
        self.stage, self.step = 0, 0
        weights = load_file(WEIGHTS / recipe["weights"] / "model.safetensors")
        self.model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
        compiled: Any = partial(torch.compile, dynamic=True) if recipe["compile"] else lambda f: f
        self.block, self.layer = compiled(vision_block), compiled(text_layer)
        self.totals: dict[str, list[float]] = defaultdict(list)
        self.set_optimizers()
        if (out / "checkpoint").exists():
            self.load()

    def set_optimizers(self) -> None:
        plan = self.recipe[STAGES[self.stage]]
        self.optimizers = make_optimizers(self.modules, plan.get("vision_rate", 1.0))

    def save(self) -> None:
        if self.rank:
            return
        progress = {"stage": self.stage, "step": self.step}
        save_checkpoint(self.out / "checkpoint", self.modules, self.optimizers, progress)

    def load(self) -> None:
        folder = self.out / "checkpoint"
        self.modules.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
        state = torch.load(folder / "state.pt", weights_only=True)
        self.stage, self.step = state["stage"], state["step"]
        self.set_optimizers()
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        if not self.rank:
            print(f"resumed: {STAGES[self.stage]} {self.step}", flush=True)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.recipe["seed"], self.stage, self.step, self.rank])

    def update(self, loss: torch.Tensor, rate: float) -> None:
        take_step(self.modules, self.optimizers, loss, rate, self.workers)
        self.step += 1

    def log(self, figures: dict[str, float], steps: int, began: float, first: int) -> None:
        for name, value in figures.items():
            self.totals[name].append(value)
        if self.step % LOG_EVERY == 0 and not self.rank:
            means = " ".join(f"{name} {np.mean(v):.3f}" for name, v in self.totals.items())
            spent = (time.time() - began) / (self.step - first)
            left = (steps - self.step) * spent / 60
            where = f"{STAGES[self.stage]} {self.step}/{steps}"
            print(f"{where} {means} | {spent:.2f} s/step, {left:.0f} min left", flush=True)
            self.totals.clear()
        if self.step % SAVE_EVERY == 0:
            self.save()

    def see(self, frames: torch.Tensor, train_blocks: bool) -> torch.Tensor:
        with half_precision():
            with torch.set_grad_enabled(train_blocks):
                patches = blocks_output(self.model, frames, self.block)
            return merge(self.model, patches).float()

    def train_vision(self, plan: dict[str, Any]) -> None:
        began, first = time.time(), self.step
        while self.step < plan["steps"]:
            frames, spots = make_pictures(self.rng(), plan["scenes"] // self.workers, plan["crops"])
            tokens = self.see(frames, train_blocks=True)
            loss, figures = self.head(tokens, self.model.get_input_embeddings().weight, spots)
            warm = min(1.0, (self.step + 1) / 30)
            self.update(loss, plan["rate"] * warm * (1 - 0.8 * self.step / plan["steps"]))
            self.log({"loss": float(loss.detach()), **figures}, plan["steps"], began, first)

    def train_language(self, plan: dict[str, Any]) -> None:
        began, first = time.time(), self.step
        while self.step < plan["steps"]:
            rng, share = self.rng(), self.step / plan["steps"]
            frames, spots, groups = make_batch(
                rng, self.encoder, plan, plan["scenes"] // self.workers
            )
            tokens = self.see(frames, train_blocks=False)
            sight, figures = self.head(tokens, self.model.get_input_embeddings().weight, spots)
            loss, more = self.language_loss(tokens, groups, plan)
            warm = min(1.0, (self.step + 1) / 30)
            falling = min(1.0, 1.02 - share) if plan["falling"] else 1.0
            self.update(loss + plan["auxiliary"] * sight, plan["rate"] * warm * falling)
            self.log({**figures, **more}, plan["steps"], began, first)

    def language_loss(
        self, tokens: torch.Tensor, groups: list[Any], plan: dict[str, Any]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the loss of words, and of where heads look, over groups of alike length."""
        pad, image = self.tokenizer.pad_token_id, self.model.config.image_token_id
        rows = [row for group in groups for row, _ in group]
        weight = sum(sum(row.weights) for row in rows)
        spots = max(1, sum(len(row.names) for row in rows))
        digits = max(1, sum(len(row.looks) for row in rows))
        answers = max(1, sum(len(row.evidence) for row in rows))
        words_loss, look, evidence = torch.zeros(3)
        right: dict[str, list[torch.Tensor]] = defaultdict(list)
        for group in groups:
            data = collate([row for row, _ in group], pad, image)
            words = self.model.get_input_embeddings()(data["ids"])
            seen = torch.cat([tokens[shown].flatten(0, 1) for _, shown in group])
            words = words.masked_scatter((data["ids"] == image)[..., None], seen)
            learned = data["weights"][:, 1:] > 0
            with half_precision():
                hidden, sights = language(self.model, words, data["positions"], self.layer)
                logits = self.model.lm_head(hidden[:, :-1][learned]).float()
            targets, weights = data["ids"][:, 1:][learned], data["weights"][:, 1:][learned]
            losses = F.cross_entropy(logits, targets, reduction="none")
            words_loss = words_loss + (losses * weights).sum() / weight
            hits = (logits.detach().argmax(-1) == targets).float()
            for name, value in FIGURES.items():
                right[name].append(hits[weights == value])
            for kind, count in (("names", spots), ("looks", digits)):
                which, at, to = data[kind].unbind(1)
                log = sights[kind].log_attention(which, at)
                look = look - log[torch.arange(len(which)), :, to].sum() / (LOOK_HEADS * count)
            which, head, at, start, end = data["evidence"].unbind(1)
            log = sights["looks"].log_attention(which, at)[torch.arange(len(which)), head]
            for mass, first, last in zip(log, start.tolist(), end.tolist(), strict=True):
                evidence = evidence - mass[first : last + 1].logsumexp(-1) / answers
        loss = words_loss + plan["attention"] * look + plan["evidence"] * evidence
        figures = {"text": float(words_loss.detach()), "attention": float(look.detach())}
        figures["evidence"] = float(evidence.detach()) if answers > 1 else np.nan
        joined = {name: torch.cat(parts) for name, parts in right.items()}
        figures |= {name: float(hits.mean()) for name, hits in joined.items() if len(hits)}
        return loss, figures

    def train(self) -> None:
        while self.stage < len(STAGES):
            plan = self.recipe[STAGES[self.stage]]
            (self.train_vision if self.stage == 0 else self.train_language)(plan)
            self.save()
            if not self.rank:
                export(self.model, self.tokenizer, self.out / "weights", STYLE, ZOOM)
            self.stage, self.step = self.stage + 1, 0
            self.totals.clear()
            if self.stage < len(STAGES):
                self.set_optimizers()


def work(rank: int, recipe: dict[str, Any], out: Path) -> None:
    """Run one worker process, which has its own share of every batch."""
    torch.set_num_threads(1)
    if recipe["workers"] > 1:
        store = f"file://{out.resolve() / 'rendezvous'}"
        dist.init_process_group("gloo", store, timedelta(minutes=20), recipe["workers"], rank)
    Training(recipe, out, rank).train()
    if recipe["workers"] > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train nano-zoom.")
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--out", type=Path, default=Path("runs/nano/zoom"))
    options = parser.parse_args()
    recipe = yaml.safe_load(options.settings.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work, (recipe, options.out), recipe["workers"])


if __name__ == "__main__":
    main()

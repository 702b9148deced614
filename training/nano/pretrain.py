"""Pretrains vigorl-nano from nothing: first its eyes, then its language, on two CPU cores.

    python -m training.nano.pretrain                     # the committed recipe, recipe.yaml
    python -m training.nano.pretrain --out runs/nano     # resumes where an interrupted run stopped

Stage 1 trains the vision tower with a helper head that must read, from each merged vision token,
the object whose centre lies in its cell (colour, kind, the leading digits of its position). Stage
2 trains the language model on that tower; the helper loss stays on at half weight, and a second
helper draws the attention of a few heads to the cell of the object that is being named and
pointed at. Both helpers are thrown away at the end. The run draws its own pictures, saves
checkpoints, and ends with the evaluation.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from training.nano.config import CELLS, HIDDEN, LOOK_HEADS, build_model, features, language
from training.nano.data import Encoder, collate, make_example
from training.nano.evaluate import evaluate, table
from training.nano.export import export
from training.nano.pool import load_shard, make_pool
from training.nano.tokenizer import build_tokenizer
from warehouse.sources.rooms_scene import COLOURS, KINDS

RECIPE = Path(__file__).with_name("recipe.yaml")
PARTS = {"there": 1, "colour": 6, "kind": 6, "x1": 10, "x2": 10, "y1": 10, "y2": 10, "centre": 2}
HALF = partial(torch.autocast, "cpu", torch.bfloat16)  # matrix products only; weights stay float32


class Helper(nn.Module):
    """Linear read-out of what a merged vision token should know."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(HIDDEN, sum(PARTS.values()))

    def forward(self, tokens: torch.Tensor, rows: list[list]) -> tuple[torch.Tensor, float]:
        """Loss, and the mean error of the centre as a share of the side."""
        read = self.read(tokens).float().split(list(PARTS.values()), -1)
        out = dict(zip(PARTS, read, strict=True))
        there = torch.zeros(tokens.shape[:2])
        cells: dict[tuple[int, int], tuple] = {}
        for i, objects in enumerate(rows):
            for name, x, y, clear in objects:
                cell = min(int(y * CELLS), CELLS - 1) * CELLS + min(int(x * CELLS), CELLS - 1)
                there[i, cell] = 1
                if clear or (i, cell) not in cells:
                    cells[i, cell] = (name, x, y)
        loss = F.binary_cross_entropy_with_logits(out["there"].squeeze(-1), there)
        keys = torch.tensor(list(cells))
        names, xs, ys = zip(*cells.values(), strict=True)
        at = (keys[:, 0], keys[:, 1])
        colour = torch.tensor([list(COLOURS).index(n.split()[0]) for n in names])
        kind = torch.tensor([KINDS.index(n.split()[1]) for n in names])
        loss = loss + F.cross_entropy(out["colour"][at], colour)
        loss = loss + F.cross_entropy(out["kind"][at], kind)
        for axis, values in (("x", xs), ("y", ys)):
            whole = torch.tensor([min(round(v * 1000), 999) for v in values])
            loss = loss + 0.5 * F.cross_entropy(out[axis + "1"][at], whole // 100)
            loss = loss + 0.25 * F.cross_entropy(out[axis + "2"][at], whole // 10 % 10)
        target = torch.tensor([xs, ys]).T.float()
        error = out["centre"][at] - target
        loss = loss + 4 * error.abs().mean()
        return loss, float(error.detach().norm(dim=-1).mean())


class Pictures:
    """Random access to the pool: every shard's frames stay on disk, its takes in memory."""

    def __init__(self, folder: Path, shards: int) -> None:
        loaded = [load_shard(folder, i) for i in range(shards)]
        self.frames = [frames for frames, _ in loaded]
        self.takes = [(s, take) for s, (_, takes) in enumerate(loaded) for take in takes]
        self.easy = [row for row in self.takes if row[1]["easy"]]

    def pick(self, rng: np.random.Generator, n: int, easy: float) -> list[tuple[int, dict]]:
        """n takes, each from the easy ones with the given probability."""
        pools = [self.easy if rng.random() < easy else self.takes for _ in range(n)]
        return [pool[rng.integers(len(pool))] for pool in pools]

    def load(self, rows: list[tuple[int, dict]]) -> tuple[torch.Tensor, list[list], list[int]]:
        """Frames of the takes one after the other, their objects, and where each take starts."""
        frames: list[np.ndarray] = []
        objects: list[list] = []
        starts: list[int] = []
        for shard, take in rows:
            starts.append(len(frames))
            for frame in take["frames"]:
                frames.append(self.frames[shard][frame["at"]])
                objects.append(frame["objects"])
        return torch.from_numpy(np.stack(frames)), objects, starts


def rate(step: int, steps: int, peak: float, warm: int = 150) -> float:
    if step < warm:
        return peak * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return float(peak * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(1.0, share)))))


class Run:
    """One pretraining run: model, helper, optimizer and where it stands."""

    def __init__(self, recipe: dict, out: Path) -> None:
        torch.manual_seed(recipe["seed"])
        self.recipe, self.out = recipe, out
        self.tokenizer = build_tokenizer()
        self.model, self.helper = build_model(self.tokenizer), Helper()
        self.both = nn.ModuleDict({"model": self.model, "helper": self.helper})
        self.stage, self.step = 1, 0
        self.optimizer = self.fresh_optimizer()

    def fresh_optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for p in self.both.parameters() if p.ndim >= 2]
        others = [p for p in self.both.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}]
        return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.97))

    def save(self) -> None:
        part = self.out / "checkpoint.part"
        part.mkdir(parents=True, exist_ok=True)
        state = {k: v for k, v in self.both.state_dict().items() if "lm_head" not in k}
        save_file(state, part / "weights.safetensors")
        progress = {"stage": self.stage, "step": self.step}
        torch.save({"optimizer": self.optimizer.state_dict(), **progress}, part / "optimizer.pt")
        for old in (self.out / "checkpoint").glob("*"):
            old.unlink()
        part.replace(self.out / "checkpoint")

    def resume(self) -> None:
        if not (self.out / "checkpoint").exists():
            return
        folder = self.out / "checkpoint"
        self.both.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
        state = torch.load(folder / "optimizer.pt", weights_only=True)
        self.stage, self.step = state["stage"], state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        print(f"resumed at stage {self.stage}, step {self.step}", flush=True)

    def update(self, loss: torch.Tensor, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1

    def see(self, pictures: Pictures) -> None:
        plan, began, first = self.recipe["vision"], time.time(), self.step
        while self.step < plan["steps"]:
            rng = np.random.default_rng([self.recipe["seed"], 1, self.step])
            frames, objects, _ = pictures.load(pictures.pick(rng, plan["takes"], 0.0))
            with HALF():
                tokens = features(self.model, frames)
                loss, error = self.helper(tokens, objects)
            self.update(loss, rate(self.step, plan["steps"], plan["rate"]))
            if self.step % 50 == 0:
                speed = (time.time() - began) / (self.step - first)
                print(
                    f"vision {self.step} loss {loss.item():.3f} centre {error:.4f} "
                    f"{speed:.2f} s/step ({len(frames)} pictures)",
                    flush=True,
                )
            if self.step % 250 == 0:
                self.save()
        self.stage, self.step, self.optimizer = 2, 0, self.fresh_optimizer()
        self.save()

    def speak(self, pictures: Pictures) -> None:
        plan, encoder = self.recipe["language"], Encoder(self.tokenizer)
        pad, image = self.tokenizer.pad_token_id, self.model.config.image_token_id
        run = torch.compile(language, dynamic=True) if plan["compile"] else language
        began, first, seen, totals = time.time(), self.step, 0, np.zeros(4)
        while self.step < plan["steps"]:
            share = self.step / plan["steps"]
            rng = np.random.default_rng([self.recipe["seed"], 2, self.step])
            easy = max(0.0, 1 - share / plan["easy_until"])
            rows = pictures.pick(rng, plan["takes"], easy)
            frames, objects, starts = pictures.load(rows)
            with HALF():
                vision = features(self.model, frames, train_blocks=share >= plan["frozen_until"])
                helper, _ = self.helper(vision, objects)
            vision = vision.float()
            examples = []
            for (_, take), start in zip(rows, starts, strict=True):
                asked = take["questions"]
                if not asked:
                    continue
                odds = np.array([plan["families"][q["family"]] for q in asked], dtype=float)
                few = rng.choice(
                    len(asked), min(len(asked), plan["questions"]), False, odds / odds.sum()
                )
                shift = start - take["frames"][0]["at"]
                for i in few:
                    row = encoder(make_example(rng, take, asked[i]))
                    examples.append((row, [f + shift for f in row.frames]))
            examples.sort(key=lambda e: len(e[0].ids))
            middle, words_loss, look = len(examples) // 2, torch.zeros(()), torch.zeros(())
            weight = sum(sum(e[0].weights) for e in examples)
            spots = {
                "names": max(1, sum(len(e[0].names) for e in examples)),
                "looks": max(1, sum(len(e[0].looks) for e in examples)),
            }
            for half in (examples[:middle], examples[middle:]):
                batch = collate([e[0] for e in half], pad, image)
                words = self.model.get_input_embeddings()(batch["ids"])
                tokens = torch.cat([vision[which].flatten(0, 1) for _, which in half])
                words = words.masked_scatter((batch["ids"] == image)[..., None], tokens)
                learnt = batch["weights"][:, 1:] > 0
                with HALF():
                    hidden, *sights = run(self.model, words, batch["positions"])
                    logits = self.model.lm_head(hidden[:, :-1][learnt]).float()
                losses = F.cross_entropy(logits, batch["ids"][:, 1:][learnt], reduction="none")
                words_loss = words_loss + (losses * batch["weights"][:, 1:][learnt]).sum() / weight
                for sight, kind in zip(sights, ("names", "looks"), strict=True):
                    which, at, to = batch[kind].unbind(1)
                    look = look - sight[which, :, at, to].sum() / (LOOK_HEADS * spots[kind])
            loss = words_loss + plan["helper"] * helper + plan["look"] * look
            self.update(loss, rate(self.step, plan["steps"], plan["rate"]))
            seen += len(examples)
            totals += [float(t.detach()) for t in (words_loss, helper, look)] + [1]
            if self.step % 50 == 0:
                spent = time.time() - began
                means = totals[:3] / totals[3]
                print(
                    f"language {self.step}/{plan['steps']} loss {means[0]:.3f} "
                    f"helper {means[1]:.3f} look {means[2]:.3f} {seen / spent:.0f} sequences/s "
                    f"{(self.step - first) / spent:.2f} steps/s {spent / 60:.1f} min",
                    flush=True,
                )
                totals[:] = 0
            if self.step % plan["evaluate_every"] == 0 or self.step == plan["steps"]:
                self.save()
                export(self.model, self.tokenizer, self.out / "weights")
                if self.step < plan["steps"]:
                    few = plan["evaluate_questions"]
                    print(table(evaluate(self.out / "weights", few, self.step)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain vigorl-nano from nothing.")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    options = parser.parse_args()
    recipe = yaml.safe_load(options.recipe.read_text())
    torch.set_num_threads(recipe["threads"])
    make_pool(options.out / "pool", recipe["shards"], recipe["threads"])
    run = Run(recipe, options.out)
    run.resume()
    pictures = Pictures(options.out / "pool", recipe["shards"])
    if run.stage == 1:
        run.see(pictures)
    run.speak(pictures)
    print(table(evaluate(options.out / "weights")))
    print(table(evaluate(options.out / "weights", blank=True), "with a blank picture"))


if __name__ == "__main__":
    main()

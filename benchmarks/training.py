"""The overhead of our wrapping of TRL: processor time of the same steps with and without it.

    make bench-training                # or: python -m benchmarks.training --steps 6 --rounds 3

Both sides train the embedded student on the same rows with the same settings, in turns. One is
TRL's own trainer on an exported dataset, as in its documentation; the other is what `vigorl train`
runs, checkpoints and metrics included. A side's figure is the median of its rounds, in processor
time, since wall time depends on other programs on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.support.trained import grpo, sft, warehouse_with_traces
from training.examples import sft_examples, task_prompts
from training.grpo import reward_of
from training.recipes import GrpoRecipe, SftRecipe
from training.rewards.rewards import make_rewards
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.students import load_model, open_student
from training.trainers import TrainingReporter, grpo_trainer, sft_trainer, train
from vigorl_nano import BASE
from warehouse.exports.export import export
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve

SFT_STEPS, SFT_ROUNDS = 2, 2
"""Multiples of --steps and --rounds for SFT, whose steps are a sixth as long as those of GRPO."""
ALL = "bands=[unsolved, hard, medium, easy, solved]"
SFT = ("batch=8", "micro_batch=8", "save_every=1000")
GRPO = (ALL, "questions=2", "group=8", "micro_batch=16", "max_completion=128", "save_every=1000")


def ours_sft(warehouse: Warehouse, recipe: SftRecipe, number: int) -> float:
    version = resolve(warehouse, "kept")
    with open_student(warehouse, "nano-base") as found, open_version(warehouse, version) as folder:
        student = prepare_student(found, recipe)
        examples = sft_examples(warehouse, folder, version.ref, student, recipe.min_thoughts)
        plan = Plan("sft", recipe.settings(), version.ref, f"bench-{number}", found.model_id)
        with open_run(warehouse, plan) as run:
            trainer = sft_trainer(run, recipe, *load_model(student), examples, TrainingReporter())
            return processor_seconds(lambda: train(run, trainer, TrainingReporter()))


def plain_sft(warehouse: Warehouse, recipe: SftRecipe, number: int, cached: Any) -> float:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    with open_student(warehouse, "nano-base") as found:
        student, out = prepare_student(found, recipe), Path(warehouse.root) / "bench-export"
        if not out.exists():
            version = resolve(warehouse, "kept")
            export(warehouse, version, "trl", out, space=student.space, prompt="nano")
        rows = load_dataset(str(out), split="train", cache_dir=str(out.parent / "bench-cache"))
        model, processor = load_model(student)
    if cached is not None:
        cached(model)
    model.model.visual.requires_grad_(False)
    args = SFTConfig(
        output_dir=str(Path(warehouse.root) / f"bench-plain-{number}"), max_steps=recipe.steps or 1,
        per_device_train_batch_size=recipe.micro_batch, learning_rate=recipe.learning_rate,
        assistant_only_loss=True, max_length=None, gradient_checkpointing=False, use_cpu=True,
        bf16=False, report_to="none", logging_steps=1, disable_tqdm=True,
        save_strategy="steps", save_steps=1000, seed=recipe.seed, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=processor)
    return processor_seconds(quiet(trainer).train)


def ours_grpo(warehouse: Warehouse, recipe: GrpoRecipe, number: int) -> float:
    with open_student(warehouse, "nano-base") as found:
        student = prepare_student(found, recipe)
        prompts = task_prompts(warehouse, "sat2", "train", student, recipe)
        rewards = make_rewards(reward_of(recipe), student.space)
        plan = Plan("grpo", recipe.settings(), None, f"bench-{number}", found.model_id)
        with open_run(warehouse, plan) as run:
            trainer = grpo_trainer(
                run, recipe, *load_model(student), prompts, rewards, TrainingReporter()
            )
            return processor_seconds(lambda: train(run, trainer, TrainingReporter()))


def plain_grpo(warehouse: Warehouse, recipe: GrpoRecipe, number: int, cached: Any) -> float:
    from trl import GRPOConfig, GRPOTrainer

    with open_student(warehouse, "nano-base") as found:
        student = prepare_student(found, recipe)
        prompts = task_prompts(warehouse, "sat2", "train", student, recipe)
        rewards = make_rewards(reward_of(recipe), student.space)
        model, processor = load_model(student)
    if cached is not None:
        cached(model)
    model.model.visual.requires_grad_(False)
    args = GRPOConfig(
        output_dir=str(Path(warehouse.root) / f"bench-plain-{number}"), max_steps=recipe.steps,
        per_device_train_batch_size=recipe.micro_batch, num_generations=recipe.group,
        max_completion_length=recipe.max_completion, learning_rate=recipe.learning_rate,
        beta=recipe.beta, top_k=0, epsilon_high=recipe.epsilon_high, use_cpu=True, bf16=False,
        reward_weights=rewards.weights, gradient_checkpointing=False, report_to="none",
        logging_steps=1, disable_tqdm=True, save_strategy="steps", save_steps=1000,
        seed=recipe.seed, dataloader_pin_memory=False, mask_truncated_completions=True,
        remove_unused_columns=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=args, reward_funcs=rewards.functions, train_dataset=prompts.dataset(),
        processing_class=processor,
    )  # fmt: skip
    return processor_seconds(quiet(trainer).train)


def quiet(trainer: Any) -> Any:
    """Remove TRL's printing of metrics, which our trainer does not do."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def processor_seconds(work: Callable[[], Any]) -> float:
    """Run `work`; return its processor seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(name: str, rounds: int, steps: int, *sides: Callable[[int], float]) -> list[float]:
    """Return the medians of the sides' seconds per step, their rounds taken in turns."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        for i, side in enumerate(sides):
            times[i].append(side(number * len(sides) + i) / steps)
        print(name, *(f"{seconds[-1]:.2f}" for seconds in times), file=sys.stderr, flush=True)
    return [median(seconds) for seconds in times]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    from training.vision_cache import cache_image_features

    folder = Path(tempfile.mkdtemp())
    try:
        warehouse = warehouse_with_traces(folder)
        steps = f"steps={given.steps}"
        sft_recipe = sft(*SFT, f"steps={SFT_STEPS * given.steps}")
        plain_recipe, own_recipe = grpo(*GRPO, steps, "engine=transformers"), grpo(*GRPO, steps)
        s = compare(
            "sft", SFT_ROUNDS * given.rounds, SFT_STEPS * given.steps,
            lambda n: plain_sft(warehouse, sft_recipe, n, None),
            lambda n: plain_sft(warehouse, sft_recipe, n, cache_image_features),
            lambda n: ours_sft(warehouse, sft_recipe, n),
        )  # fmt: skip
        g = compare(
            "grpo", given.rounds, given.steps,
            lambda n: plain_grpo(warehouse, plain_recipe, n, None),
            lambda n: plain_grpo(warehouse, plain_recipe, n, cache_image_features),
            lambda n: ours_grpo(warehouse, plain_recipe, n),
            lambda n: ours_grpo(warehouse, own_recipe, n),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    rounds = f"{given.rounds} rounds, {SFT_ROUNDS * given.rounds} of SFT"
    print(f"processor seconds per step, {BASE.name}, medians of {rounds}")
    print("|  | SFT | GRPO |\n|---|---:|---:|")
    print(f"| TRL's own trainer | {s[0]:.2f} | {g[0]:.2f} |")
    print(f"| the same, caching image features | {s[1]:.2f} | {g[1]:.2f} |")
    print(f"| `vigorl train`, TRL's sampler | {s[2]:.2f} | {g[2]:.2f} |")
    print(f"| `vigorl train`, our sampler | | {g[3]:.2f} |")
    print(f"| wrapping alone | {s[2] / s[1] - 1:+.1%} | {g[2] / g[1] - 1:+.1%} |")
    print(f"| all of it, against TRL | {s[2] / s[0] - 1:+.1%} | {g[3] / g[0] - 1:+.1%} |")


if __name__ == "__main__":
    main()

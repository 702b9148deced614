"""What looking costs: a GRPO step of a student that zooms against a single turn of as many tokens.

    python -m benchmarks.zoom_training --steps 3 --rounds 3

Both sides train the embedded student on the same prompts about pictures of 1024x768 pixels, and
write the same tokens, which are set in advance; the model runs all the same. One side writes them
in one turn, the other in three, of which two call and are shown a crop. So what differs is the cost
of crops: cut, encoded, read in and trained through. A side's figure is the median of its rounds, in
processor time.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.training import ALL, compare, processor_seconds
from mcts.data import ResponseStyle
from mcts.teachers.local.decoder import Decoder
from tests.flows.test_cli import run
from tests.support.fixtures import picture, sat_rows, write_sat
from tests.support.scripted_student import look, say
from tests.support.trained import grpo
from training.examples import task_prompts
from training.grpo import reward_of, zooming
from training.recipes import GrpoRecipe
from training.rewards.rewards import make_rewards
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.students import load_model, open_student
from training.trainers import TrainingReporter, grpo_trainer, train
from vigorl_nano import BASE
from warehouse.storage.home import Warehouse

GRPO = (
    ALL, "questions=2", "group=8", "micro_batch=16", "max_completion=400", "min_thoughts=1",
    "save_every=1000", "trackers=[]",
)  # fmt: skip
ZOOM = (*GRPO, "response_style=zoom", "reward=zoom", "zoom.max_calls=3", "alarm.controls=0")
PROMPT = "nano-zoom"
_LOOKS = "The sign next to the door is too small to be read from here, so I look closer at it."


def turns_of(place: int) -> tuple[str, str, str]:
    """Return what an episode writes: two looks and an answer, of which every other one is right."""
    return (
        look(150 + 40 * place, 300, _LOOKS),
        look(250, 900 - 40 * place, _LOOKS),
        say(("left", "right")[place % 2], "Both show what was asked, so I can tell it now."),
    )


def script(tokenizer: Any, zooms: bool) -> Callable[..., None]:
    """Return a decoder's `_draw` that writes the turns, or all of them as one."""
    end = tokenizer.eos_token_id
    told = [
        [tokenizer(turn, add_special_tokens=False)["input_ids"] for turn in turns_of(place)]
        for place in range(16)
    ]
    whole = [[token for turn in turns for token in turn] for turns in told]

    def draw(self: Decoder, rows: Any, logits: Any) -> None:
        logits.float().softmax(-1)  # as much as drawing takes
        for row in rows:
            tokens = told[row.owner[0]][len(row.owner[1].texts)] if zooms else whole[row.owner]
            at = len(row.tokens)
            row.tokens.append(tokens[at] if at < len(tokens) else end)

    return draw


def step(warehouse: Warehouse, recipe: GrpoRecipe, number: int) -> float:
    """Train with one side's recipe; return its processor seconds."""
    zooms = recipe.zoom is not None
    with open_student(warehouse, "nano-base") as found:
        prompted = replace(found.prompt_style, prompts=dict.fromkeys(ResponseStyle, PROMPT))
        found = replace(found, prompt_style=prompted)
        student = zooming(prepare_student(found, recipe), recipe, "sat2")
        prompts = task_prompts(warehouse, "sat2", "train", student, recipe)
        rewards = make_rewards(reward_of(recipe), student.space)
        model, processor = load_model(student)
        draw, Decoder._draw = Decoder._draw, script(processor.tokenizer, zooms)  # type: ignore[method-assign]
        try:
            plan = Plan("grpo", recipe.settings(), None, f"bench-{zooms}-{number}", found.model_id)
            with open_run(warehouse, plan) as opened:
                trainer = grpo_trainer(
                    opened, recipe, model, processor, prompts, rewards, TrainingReporter()
                )
                return processor_seconds(lambda: train(opened, trainer, TrainingReporter()))
        finally:
            Decoder._draw = draw  # type: ignore[method-assign]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        rows = sat_rows(8)
        for number, row in enumerate(rows):
            row["images"] = [{"bytes": picture(number, (1024, 768)), "path": f"{number}.png"}]
        home = folder / "home"
        run("import", "sat2", write_sat(folder / "SAT_train.parquet", rows), home=home)
        warehouse, steps = Warehouse(str(home)), f"steps={given.steps}"
        single, zoom = compare(
            "grpo", given.rounds, given.steps,
            partial(step, warehouse, grpo(*GRPO, steps)),
            partial(step, warehouse, grpo(*ZOOM, steps)),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    written = sum(len(tokenizer("".join(turns_of(i)))["input_ids"]) for i in range(16))
    print(f"processor seconds per step of {written} sampled tokens, {BASE.name}, medians")
    print("|  | seconds | ratio |\n|---|---:|---:|")
    print(f"| one turn | {single:.2f} | 1 |")
    print(f"| three turns, two crops | {zoom:.2f} | {zoom / single:.2f} |")


if __name__ == "__main__":
    main()

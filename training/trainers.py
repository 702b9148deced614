"""The one door to TRL: from a recipe to its trainers, and what they tell while they run.

    trainer = sft_trainer(run, recipe, model, processor, examples, told)
    trainer = grpo_trainer(run, recipe, model, processor, questions, rewards, told)
    train(run, trainer, told)          # from the newest whole checkpoint, if there is one

Everything that TRL would decide by itself and that matters is decided here: loss on the assistant's
tokens only, nothing truncated, nothing packed, nothing uploaded, safetensors only.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from typing import Any

from training.errors import TrainingError
from training.examples import Examples
from training.recipes import GrpoRecipe, SftRecipe
from training.runs import Clock, Run, mark_whole
from training.vision_cache import Seen, remember_pictures

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What whoever waits is told."""

    progress: Callable[[int, int, Row], None] = lambda step, of, figures: None
    """Called after a step with its number, how many there are, and the newest figures."""
    say: Callable[[str], None] = lambda sentence: None


def offline() -> None:
    """Nothing is asked of, or told to, a hub; set before TRL is imported."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def sft_trainer(
    run: Run, recipe: SftRecipe, model: Any, processor: Any, examples: Examples, told: Told
) -> Any:
    """TRL's SFTTrainer for a recipe."""
    offline()
    from trl import SFTConfig, SFTTrainer

    length: Row = {"max_steps": recipe.steps} if recipe.steps else {}
    args = SFTConfig(
        **_common(run, recipe, recipe.batch),
        **length,
        num_train_epochs=recipe.epochs,
        assistant_only_loss=True,
        max_length=None,  # cutting would drop image tokens; too long a row is refused beforehand
        packing=False,
    )
    freeze(model, recipe)
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=examples.dataset(),
        processing_class=processor,
        callbacks=_callbacks(run, told),
        peft_config=_peft(recipe),
    )
    return _quiet(trainer)


def grpo_trainer(
    run: Run, recipe: GrpoRecipe, model: Any, processor: Any, asked: Examples, rewards: Any,
    told: Told,
) -> Any:  # fmt: skip
    """TRL's GRPOTrainer for a recipe; `rewards` as `make_rewards` gives them."""
    offline()
    from trl import GRPOConfig

    from training.rollouts import RolloutTrainer

    answers = recipe.questions * recipe.group
    vllm: Row = {}
    if recipe.engine == "vllm":
        vllm = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": recipe.vllm_memory,
            "vllm_importance_sampling_correction": True,
        }
    args = GRPOConfig(
        **_common(run, recipe, answers),
        **vllm,
        max_steps=recipe.steps,
        num_generations=recipe.group,
        generation_batch_size=answers * recipe.updates,
        max_completion_length=recipe.max_completion,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        top_k=0,
        beta=recipe.beta,
        epsilon=recipe.epsilon,
        epsilon_high=recipe.epsilon_high,
        loss_type=recipe.loss_type,
        scale_rewards=recipe.scale_rewards,
        reward_weights=rewards.weights,
        shuffle_dataset=recipe.curriculum == "none",
        mask_truncated_completions=True,
    )
    seen = freeze(model, recipe)
    trainer = RolloutTrainer(
        model=model,
        args=args,
        reward_funcs=rewards.functions,
        train_dataset=asked.dataset(),
        processing_class=processor,
        callbacks=_callbacks(run, told),
        peft_config=_peft(recipe),
    )
    trainer.local = recipe.engine == "local"
    trainer.ratio_limits = (recipe.ratio_low, recipe.ratio_high)
    if seen is not None and trainer.ref_model is not None:
        remember_pictures(trainer.ref_model, seen)
    return _quiet(trainer)


def train(run: Run, trainer: Any, told: Told) -> Any:
    """Train to the end, on from the newest whole checkpoint; the model, adapters merged."""
    checkpoint = run.checkpoint()
    if checkpoint is not None:
        step = int(checkpoint.name.rpartition("-")[2])
        told.say(f"going on after step {step}")
        run.rewind(step)
    else:
        run.rewind(0)
    from transformers import set_seed

    set_seed(trainer.args.seed)  # whatever was checked before
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.accelerator.num_processes > 1:
        trainer.save_model(str(run.gathered))  # every process takes part
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return model


def freeze(model: Any, recipe: SftRecipe | GrpoRecipe) -> Seen | None:
    """Leave out of the training what the recipe says; a frozen tower here remembers pictures.

    Raises:
        TrainingError: the vision tower to be frozen is not found.
    """
    if not recipe.freeze_vision:
        return None
    base = getattr(model, "model", model)
    tower = getattr(base, "visual", None) or getattr(base, "vision_tower", None)
    if tower is None:
        raise TrainingError("freeze_vision: this model's vision tower is not known; set it false")
    tower.requires_grad_(False)
    # On a GPU the tower is quick, and memory is what is short.
    small = model.device.type == "cpu" and hasattr(base, "get_image_features")
    return remember_pictures(model) if small else None


def _common(run: Run, recipe: SftRecipe | GrpoRecipe, batch: int) -> Row:
    """What both trainers take, `batch` sequences an optimizer step over all devices."""
    import torch

    devices = int(os.environ.get("WORLD_SIZE", "1"))
    micro = min(recipe.micro_batch, max(1, batch // devices))
    while batch % (micro * devices):
        micro -= 1
        if micro == 0:
            raise TrainingError(f"a batch of {batch} can't be shared among {devices} devices")
    gpu = torch.cuda.is_available()
    half = recipe.precision == "bfloat16" and gpu
    trackers = ["trackio"] if recipe.trackers is None else list(recipe.trackers)
    for missing in (name for name in trackers if not importlib.util.find_spec(name)):
        raise TrainingError(
            f"trackers: {missing} is not installed; `pip install {missing}`, or name others in the "
            "recipe (`trackers: []` for none)"
        )
    return {
        "output_dir": str(run.checkpoints),
        "run_name": run.plan.model_name,
        "project": "vigorl",
        "report_to": trackers or "none",
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // (micro * devices),
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "warmup_steps": recipe.warmup,  # below 1 it is a share
        "lr_scheduler_type": recipe.schedule,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": half,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "trust_remote_code": False,
    }


def _peft(recipe: SftRecipe | GrpoRecipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.lora
    # Only the language model: `visual` has layers of other names, and stays as it is.
    targets = rf".*language_model.*\.({'|'.join(lora.targets)})"
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )


def _quiet(trainer: Any) -> Any:
    """Without the library's own printing of figures, which `Told` gets; trackers greet on stderr,
    since stdout is the caller's."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trackers: Any = tuple(INTEGRATION_TO_CALLBACK[name] for name in trainer.args.report_to)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, trackers):
            callback.on_train_begin = _on_stderr(callback.on_train_begin)
            callback.on_train_end = _on_stderr(callback.on_train_end)
    return trainer


def _on_stderr(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same, printing to stderr."""

    @wraps(method)
    def quiet(*args: Any, **options: Any) -> Any:
        with redirect_stdout(sys.stderr):
            return method(*args, **options)

    return quiet


def _callbacks(run: Run, told: Told) -> list[Any]:
    from transformers import TrainerCallback

    clock = Clock(run)

    class Telling(TrainerCallback):
        """Writes figures down as they come, and marks checkpoints that are whole."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not state.is_world_process_zero or not logs:
                return
            figures = {k: v for k, v in logs.items() if isinstance(v, int | float)}
            run.log({"step": state.global_step, "seconds": clock(), **figures})
            told.progress(state.global_step, state.max_steps, figures)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                mark_whole(run.checkpoints / f"checkpoint-{state.global_step}")

    return [Telling()]

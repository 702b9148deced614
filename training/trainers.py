"""The one door to TRL: builds its trainers from recipes, runs them, and holds its private names.

    trainer = sft_trainer(run, recipe, model, processor, examples, reporter)
    trainer = dpo_trainer(run, recipe, model, processor, pairs, reporter)
    trainer = grpo_trainer(run, recipe, model, processor, prompts, rewards, reporter)
    train(run, trainer, reporter)      # from the newest complete checkpoint, if there is one

Every choice of TRL's that matters is made here: loss on the assistant's tokens only, nothing
truncated, nothing packed, nothing uploaded, safetensors only. `PRIVATE_NAMES` lists what is used of
TRL beyond its documented interface: by `training.rollouts`, `training.zoom.rollouts` and
`training.batches.log_probs`, which override its sampler and its forward pass, by
`training.batches.evidence`, and by the functions at the end, through which `training.preflight`
works.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any

from mcts.data import ResponseStyle
from mcts.zoom.turns import STOPS
from training.batches.sft_batches import PairBatches, SftBatches
from training.errors import TrainingError
from training.examples import Examples
from training.recipe_sections import TreeSettings
from training.recipes import DpoRecipe, GrpoRecipe, Recipe, SftRecipe
from training.rewards.rewards import Rewards
from training.run_callbacks import AlreadyTrained, run_callbacks
from training.runs import Run, process_count, read_metrics
from training.vision_cache import FeatureCache, cache_image_features
from warehouse.tables.schema import Row

PRIVATE_NAMES = {
    "SFTTrainer": ("_prepare_inputs", "_metrics", "_total_train_tokens"),
    "DPOTrainer": ("_prepare_inputs", "_metrics", "_total_train_tokens"),
    "GRPOTrainer": (
        "_generate_single_turn", "_tokenize_prompts", "_calculate_rewards", "_metrics",
        "_total_train_tokens", "_image_pad_token_id", "_video_pad_token_id", "_generate",
        "_generate_and_score_completions", "_get_per_token_logps_and_entropies",
    ),
}  # fmt: skip
"""Private methods and attributes of TRL's trainers that are used; a test finds those that went."""
_FSDP: Row = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "FULL_STATE_DICT",
}
_ZERO3: Row = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    **dict.fromkeys(
        ("gradient_clipping", "gradient_accumulation_steps", "train_batch_size",
         "train_micro_batch_size_per_gpu"), "auto",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingReporter:
    """Receives the progress and the messages of a training."""

    progress: Callable[[int, int, Row], None] = lambda step, steps, metrics: None
    """Called after a step with its number, how many there are, and the newest metrics."""
    message: Callable[[str], None] = lambda sentence: None


def offline() -> None:
    """Keep TRL and its libraries off the network; call it before TRL is imported."""
    from huggingface_hub import constants

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1") == "1":
        # The library reads the variable when it is imported, which whoever loads a model does.
        constants.HF_HUB_DISABLE_TELEMETRY = True
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def sft_trainer(
    run: Run, recipe: SftRecipe, model: Any, processor: Any, examples: Examples,
    reporter: TrainingReporter,
) -> Any:  # fmt: skip
    """Build TRL's SFTTrainer for a recipe."""
    offline()
    from trl import SFTConfig, SFTTrainer

    length: Row = {"max_steps": recipe.steps} if recipe.steps else {}
    args = SFTConfig(
        **common_arguments(run, recipe, recipe.batch),
        **length,
        num_train_epochs=recipe.epochs,
        assistant_only_loss=True,
        max_length=None,  # truncation would drop image tokens; `check_rows` refuses such a row
        packing=False,
    )
    freeze_vision(model, recipe)
    trainer = SFTTrainer(
        model=model,
        args=one_device(args),
        train_dataset=examples.dataset(),
        processing_class=processor,
        callbacks=run_callbacks(run, reporter.progress),
        peft_config=lora_config(recipe),
    )
    trainer.data_collator = SftBatches(trainer.data_collator, processor)
    return quieted(trainer)


def dpo_trainer(
    run: Run, recipe: DpoRecipe, model: Any, processor: Any, pairs: Any, reporter: TrainingReporter
) -> Any:
    """Build TRL's DPOTrainer for a recipe.

    The reference is the student as it was: its weights are read once more, or, where adapters are
    trained, the model without them.

    Args:
        pairs: the dataset, with `prompt`, `chosen` and `rejected` as texts and `images`.
    """
    offline()
    from trl import DPOConfig, DPOTrainer

    length: Row = {"max_steps": recipe.steps} if recipe.steps else {}
    losses = {recipe.loss: 1.0} | ({"sft": recipe.sft_weight} if recipe.sft_weight else {})
    args = DPOConfig(
        **common_arguments(run, recipe, recipe.batch, sequences=2),
        **length,
        num_train_epochs=recipe.epochs,
        beta=recipe.beta,
        loss_type=list(losses),
        loss_weights=list(losses.values()),
        max_length=None,  # truncation would drop image tokens; `check_rows` refuses such a row
    )
    cache = freeze_vision(model, recipe)
    trainer = DPOTrainer(
        model=model,
        args=one_device(args),
        train_dataset=pairs,
        processing_class=processor,
        callbacks=run_callbacks(run, reporter.progress),
        peft_config=lora_config(recipe),
    )
    if cache is not None and trainer.ref_model is not None:
        cache_image_features(trainer.ref_model, cache)
    trainer.data_collator = PairBatches(trainer.data_collator, processor)
    return quieted(trainer)


def training_template(processor: Any) -> str | None:
    """Return the chat template that TRL trains with in place of the model's own; None for that.

    Raises:
        TrainingError: the model's own marks no assistant tokens, and TRL knows no other for it.
    """
    offline()
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    own = processor.chat_template or processor.tokenizer.chat_template
    if not own or has_generation_markers(own):
        return None
    try:
        found: str | None = get_training_chat_template(processor)
    except Exception:  # it renders the template, which can raise anything
        raise TrainingError(
            "the model's chat template does not mark what the assistant writes, and none that does "
            "is known for it: put {% generation %} and {% endgeneration %} around the assistant's "
            "text and its end in chat_template.jinja"
        ) from None
    return found


def grpo_trainer(
    run: Run, recipe: GrpoRecipe, model: Any, processor: Any, prompts: Examples, rewards: Rewards,
    reporter: TrainingReporter,
) -> Any:  # fmt: skip
    """Build TRL's GRPOTrainer for a recipe."""
    offline()
    from training.rollouts import RolloutTrainer
    from training.trees.tree_rollouts import TreeTrainer
    from training.trees.zoom_trees import ZoomTreeTrainer
    from training.zoom.ledger import ZoomAlarm
    from training.zoom.rollouts import ZoomTrainer

    zooms = recipe.response_style is ResponseStyle.ZOOM
    cache = freeze_vision(model, recipe)
    chains, trees = (ZoomTrainer, ZoomTreeTrainer) if zooms else (RolloutTrainer, TreeTrainer)
    trainer = (trees if recipe.sampling == "tree" else chains)(
        model=model,
        args=one_device(_grpo_config(run, recipe, rewards.weights)),
        reward_funcs=list(rewards.functions),
        train_dataset=prompts.dataset(),
        processing_class=processor,
        callbacks=run_callbacks(run, reporter.progress),
        peft_config=lora_config(recipe),
    )
    trainer.local = trainer.chunked = recipe.engine == "local"
    trainer.ratio_limits = (recipe.ratio_low, recipe.ratio_high)
    trainer.space, trainer.style = rewards.space, recipe.response_style
    trainer.dead_group_tokens = recipe.dead_group_tokens
    trainer.measures_evidence = "evidence" in rewards.names
    if trainer.accelerator.num_processes > 1:  # each of which would take steps of its own
        if recipe.dead_group_tokens:
            raise TrainingError("dead_group_tokens: groups are replaced where one process trains")
        if trainer.measures_evidence:
            raise TrainingError("reward: evidence is measured where one process trains")
        if recipe.sampling == "tree":
            raise TrainingError("sampling: trees grow where one process trains")
    if isinstance(trainer, ZoomTrainer):
        alarm = ZoomAlarm(recipe.alarm, lambda: read_metrics(run.metrics_file))
        trainer.begin_zooming(recipe, prompts.read_image, alarm)
    if isinstance(trainer, TreeTrainer):
        trainer.begin_trees(recipe.tree or TreeSettings.model_validate({}), reporter.message)
    if cache is not None and trainer.ref_model is not None:
        cache_image_features(trainer.ref_model, cache)
    return quieted(trainer)


def _grpo_config(run: Run, recipe: GrpoRecipe, weights: list[float]) -> Any:
    from trl import GRPOConfig

    zooms = recipe.response_style is ResponseStyle.ZOOM
    answers = recipe.questions * recipe.group
    vllm: Row = {}
    if recipe.engine == "vllm":
        vllm = {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": recipe.vllm_memory,
            "vllm_importance_sampling_correction": True,
        }
    arguments = common_arguments(run, recipe, answers)
    # A checkpoint within a batch would be gone on from with answers that were trained on before.
    arguments["save_steps"] = -(-recipe.save_every // recipe.updates) * recipe.updates
    return GRPOConfig(
        **arguments,
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
        reward_weights=weights,
        shuffle_dataset=recipe.curriculum == "none",
        mask_truncated_completions=not zooms,  # whose trainer masks more than those
        generation_kwargs=_turn_limits(recipe) if zooms else None,
    )


def _turn_limits(recipe: GrpoRecipe) -> Row | None:
    """Return what ends a turn where TRL's samplers sample it."""
    most = recipe.turn_tokens or recipe.max_completion
    if recipe.engine == "vllm":
        return {"max_tokens": most, "stop": list(STOPS), "include_stop_str_in_output": True}
    return {"max_new_tokens": most} if recipe.engine == "transformers" else None


def train(run: Run, trainer: Any, reporter: TrainingReporter) -> Any:
    """Train to the end, from the newest complete checkpoint on; return the merged model."""
    checkpoint = run.agreed_checkpoint(trainer.accelerator)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0
    if checkpoint is not None:
        reporter.message(f"going on after step {step}")
    run.rewind(step)
    from accelerate.utils import set_seed

    # The checks before may have used random numbers. Processes that sample share groups.
    set_seed(trainer.args.seed, device_specific=run.plan.kind == "grpo")
    with _lost_peers_named(trainer), suppress(AlreadyTrained):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(run.gathered))  # every process takes part
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return model


@contextmanager
def _lost_peers_named(trainer: Any) -> Iterator[None]:
    """Name the cause where the block fails since another process is gone.

    Raises:
        OSError: one is; those that are left are to be ended and all started again.
    """
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, DistError) or "/gloo/" in str(error)  # gloo's are of no type
        if trainer.accelerator.num_processes == 1 or not lost:
            raise
        raise OSError(
            "another process of this training is gone: the same command on each node goes on "
            "from the last checkpoint"
        ) from error


def freeze_vision(model: Any, recipe: Recipe) -> FeatureCache | None:
    """Freeze the vision tower where the recipe says so; on a CPU its outputs are cached.

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
    # On a GPU the tower is fast and memory is short.
    cached = model.device.type == "cpu" and hasattr(base, "get_image_features")
    return cache_image_features(model) if cached else None


def one_device(config: Any) -> Any:
    """Have a process train on one device: Hugging Face's trainer would spread the batch, times the
    number of GPUs, over all that it sees, and images are no rows that it could share out."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def common_arguments(run: Run, recipe: Recipe, batch: int, sequences: int = 1) -> Row:
    """Return what all trainers take, `batch` rows an optimizer step over all devices.

    Args:
        sequences: of a row.
    """
    import torch

    devices = process_count()
    micro = min(max(1, recipe.micro_batch // sequences), max(1, batch // devices))
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
        **_sharding(recipe, gpu),
    }


def _sharding(recipe: Recipe, gpu: bool) -> Row:
    """Return how several processes share a model, as the recipe says.

    Raises:
        TrainingError: it can't be had here.
    """
    if recipe.sharding == "none" or process_count() == 1:
        return {}
    if not gpu:
        raise TrainingError(f"sharding: {recipe.sharding} needs GPUs; none does without")
    if recipe.sharding == "fsdp":
        return {"fsdp": True, "fsdp_config": dict(_FSDP)}
    if importlib.util.find_spec("deepspeed") is None:
        raise TrainingError("sharding: zero3 is DeepSpeed's: pip install deepspeed, or take fsdp")
    return {"deepspeed": dict(_ZERO3)}


def lora_config(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.lora
    # Only the language model: `visual` has layers of other names, and stays as it is.
    targets = rf".*language_model.*\.({'|'.join(lora.targets)})"
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )


def quieted(trainer: Any) -> Any:
    """Remove the library's printing of metrics, which the reporter gets, and have trackers print on
    stderr: stdout is the caller's."""
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
    """Return the method, printing to stderr, without colours."""

    @wraps(method)
    def quiet(*args: Any, **options: Any) -> Any:
        with redirect_stdout(io.StringIO()) as said:
            returned = method(*args, **options)
        print(re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()), end="", file=sys.stderr)
        return returned

    return quiet


def prepare_batch(trainer: Any, rows: list[Row]) -> Row:
    """Return rows as a batch of tensors on the trainer's device."""
    batch: Row = trainer._prepare_inputs(trainer.data_collator(rows))
    return batch


def tokenize_prompts(trainer: Any, prompts: list[Any]) -> tuple[list[Any], Any, Row]:
    """Return token ids, images, and the processor's fields for the images, as GRPO makes them."""
    ids, images, fields = trainer._tokenize_prompts(prompts)
    return ids, images, fields


def generate(trainer: Any, ids: list[Any], images: Any, fields: Row, group: int = 1) -> Any:
    """Sample as GRPO does; return token ids, and their log-probabilities where vLLM samples."""
    return trainer._generate_single_turn(ids, images, fields, group)


def image_pad_token(trainer: Any) -> int:
    """Return the token that stands for a part of an image in GRPO's prompts."""
    return int(trainer._image_pad_token_id)


def newest_metric(trainer: Any, name: str) -> float:
    """Return what the trainer has measured last, before it is logged."""
    return float(trainer._metrics["train"][name][-1])


def reset_metrics(trainer: Any) -> None:
    """Forget what checks before the first step left in the trainer's counters."""
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0

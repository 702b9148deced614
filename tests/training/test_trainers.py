"""The door to TRL: what it is told; its private names are listed, there, used nowhere else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import training
from mcts.teachers.base import seed_of
from training.errors import TrainingError
from training.recipes import DpoRecipe, GrpoRecipe, SftRecipe, load_recipe
from training.trainers import (
    PRIVATE_NAMES,
    TrainingReporter,
    _grpo_config,
    _sharding,
    _turn_limits,
    common_arguments,
    dpo_trainer,
    lora_config,
    offline,
    one_device,
)


@pytest.mark.parametrize("trainer", PRIVATE_NAMES)
def test_the_installed_trl_has_every_private_name_that_is_used(trainer: str) -> None:
    offline()
    import trl

    found = getattr(trl, trainer)
    own = [c for c in found.__mro__ if c.__module__.startswith(("trl.", "transformers."))]
    assigned = set(
        re.findall(r"self\.(_\w+)(?:\s*:[^=\n]+)?\s*=", "\n".join(map(inspect.getsource, own)))
    )
    missing = [n for n in PRIVATE_NAMES[trainer] if not hasattr(found, n) and n not in assigned]
    assert not missing, f"trl {trl.__version__}'s {trainer} has no {', '.join(missing)} any more"


def test_private_names_are_listed_and_used_behind_the_door_only() -> None:
    from training.batches.log_probs import ChunkedTrainer
    from training.rollouts import PromptEncoder, RolloutTrainer
    from training.zoom.rollouts import ZoomTrainer

    listed = {name for names in PRIVATE_NAMES.values() for name in names}
    root = Path(str(training.__file__)).parent
    texts = {str(f.relative_to(root)): f.read_text("utf-8") for f in root.rglob("*.py")}
    of_a_trainer = {name: set(re.findall(r"trainer\.(_\w+)", text)) for name, text in texts.items()}
    both = texts["rollouts.py"] + texts["zoom/rollouts.py"] + texts["batches/log_probs.py"]
    overridden = set(re.findall(r"(?:self|super\(\))\.(_\w+)", both))
    trainers = {*vars(ChunkedTrainer), *vars(RolloutTrainer), *vars(ZoomTrainer)}
    overridden |= listed & trainers
    own = {*trainers, *ZoomTrainer.__annotations__}
    own |= {*vars(PromptEncoder), *PromptEncoder.__annotations__}
    overridden -= own - listed
    users = {name: used for name, used in of_a_trainer.items() if used}
    assert sorted(users) == ["batches/evidence.py", "trainers.py"]
    assert users["trainers.py"] | users["batches/evidence.py"] | overridden == listed


# ---- what TRL is told ---------------------------------------------------------------------------


def recipe(kind: str, **changed: object) -> Any:
    """A recipe in which no value is a default or like another's."""
    common = {
        "name": "r", "about": "One.", "kind": kind, "learning_rate": 3e-5, "weight_decay": 0.02,
        "warmup": 0.07, "schedule": "linear", "max_grad_norm": 0.9, "seed": 11, "save_every": 13,
        "gradient_checkpointing": True, "trackers": [],
    }  # fmt: skip
    grpo = {
        "steps": 17, "questions": 3, "group": 4, "updates": 2, "max_completion": 250,
        "temperature": 0.8, "top_p": 0.7, "beta": 0.03, "epsilon": 0.25, "epsilon_high": 0.31,
        "loss_type": "dr_grpo", "scale_rewards": "none", "micro_batch": 6,
    }  # fmt: skip
    models = {"sft": SftRecipe, "grpo": GrpoRecipe}
    return models[kind].model_validate(common | (grpo if kind == "grpo" else {}) | changed)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return SimpleNamespace(checkpoints=tmp_path, plan=SimpleNamespace(model_name="mine"))


def test_every_trainer_is_told_what_the_recipe_says(run: Any) -> None:
    told = common_arguments(run, recipe("sft"), 32)
    gpu = torch.cuda.is_available()
    assert told == {
        "output_dir": str(run.checkpoints), "run_name": "mine", "project": "vigorl",
        "report_to": "none", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4,
        "learning_rate": 3e-5, "weight_decay": 0.02, "warmup_steps": 0.07,
        "lr_scheduler_type": "linear", "max_grad_norm": 0.9, "seed": 11, "data_seed": 11,
        "bf16": False, "use_cpu": not gpu, "dataloader_pin_memory": gpu,
        "gradient_checkpointing": True, "save_strategy": "steps", "save_steps": 13,
        "save_total_limit": 2, "logging_steps": 1, "disable_tqdm": True,
        "remove_unused_columns": False, "trust_remote_code": False,
    }  # fmt: skip
    assert common_arguments(run, recipe("sft", trackers=None), 32)["report_to"] == ["trackio"]
    assert common_arguments(run, recipe("sft", precision="bfloat16"), 32)["bf16"] is gpu


def test_dpo_is_told_what_the_recipe_says(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**given: Any) -> Any:
        return SimpleNamespace(**given, data_collator=None, ref_model=None)

    monkeypatch.setattr("trl.DPOTrainer", made)
    monkeypatch.setattr("training.trainers.freeze_vision", lambda *given: None)
    monkeypatch.setattr("training.trainers.run_callbacks", lambda *given: [])
    monkeypatch.setattr("training.trainers.quieted", lambda trainer: trainer)
    monkeypatch.setattr("training.trainers.PairBatches", lambda *given: None)
    changed = ["model=m", "trackers=[]", "beta=0.3", "loss=hinge", "sft_weight=0.25"]
    told = load_recipe("nano-dpo", changed)
    assert isinstance(told, DpoRecipe)
    args = dpo_trainer(run, told, None, None, None, TrainingReporter()).args
    assert (args.beta, args.loss_type, args.loss_weights) == (0.3, ["hinge", "sft"], [1.0, 0.25])


def test_grpo_saves_no_checkpoint_within_a_batch(run: Any) -> None:
    for every, updates, steps in ((13, 2, 14), (50, 4, 52), (50, 1, 50), (1, 4, 4)):
        changed = recipe("grpo", save_every=every, updates=updates)
        assert _grpo_config(run, changed, [1.0]).save_steps == steps


@pytest.mark.parametrize(
    ("micro", "batch", "sequences", "devices", "told"),
    [
        (8, 32, 1, 1, (8, 4)),
        (8, 32, 2, 1, (4, 8)),
        (5, 6, 1, 1, (3, 2)),  # the largest that shares it evenly
        (8, 4, 1, 2, (2, 1)),  # no more than there is
        (1, 4, 2, 1, (1, 4)),
        (2, 12, 1, 3, (2, 2)),
        (4, 3, 1, 2, None),
        (4, 1, 1, 2, None),
    ],
)
def test_a_batch_is_shared_among_devices_and_steps(
    run: Any, monkeypatch: pytest.MonkeyPatch,
    micro: int, batch: int, sequences: int, devices: int, told: tuple[int, int] | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", str(devices))
    given = recipe("sft", micro_batch=micro)
    if told is None:
        sentence = f"a batch of {batch} can't be shared among {devices} devices"
        with pytest.raises(TrainingError, match=sentence):
            common_arguments(run, given, batch, sequences)
        return
    found = common_arguments(run, given, batch, sequences)
    assert (
        found["per_device_train_batch_size"], found["gradient_accumulation_steps"]
    ) == told  # fmt: skip


def test_fsdp_is_told_in_words_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline()
    from accelerate.utils import FullyShardedDataParallelPlugin
    from trl import SFTConfig

    with monkeypatch.context() as several:
        several.setenv("WORLD_SIZE", "16")
        told = _sharding(load_recipe("qwen2.5-vl-7b-sft"), gpu=True)
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **told)
    assert config.fsdp_config["version"] == 2
    known = set(inspect.signature(FullyShardedDataParallelPlugin).parameters)
    assert {"fsdp_version", "auto_wrap_policy"} <= set(config.fsdp_plugin_args) <= known


def test_a_tracker_that_is_not_installed_is_named(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="trackers: mlflow is not installed; `pip install mlfl"):
        common_arguments(run, recipe("sft", trackers=["mlflow"]), 32)


def test_grpo_samples_as_the_recipe_says_and_from_the_whole_distribution(run: Any) -> None:
    offline()
    args = _grpo_config(run, recipe("grpo"), [0.5, 0.25])
    told = {
        "max_steps": 17, "num_generations": 4, "generation_batch_size": 24,
        "max_completion_length": 250, "temperature": 0.8, "top_p": 0.7, "top_k": 0, "beta": 0.03,
        "epsilon": 0.25, "epsilon_high": 0.31, "loss_type": "dr_grpo", "scale_rewards": "none",
        "reward_weights": [0.5, 0.25], "shuffle_dataset": True, "use_vllm": False,
        "mask_truncated_completions": True, "generation_kwargs": None,
        "per_device_train_batch_size": 6, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in told} == told
    easy = _grpo_config(run, recipe("grpo", curriculum="easy_first"), [1.0])
    assert easy.shuffle_dataset is False, "the order is the curriculum"
    zooms = _grpo_config(run, recipe("grpo", response_style="zoom", reward="zoom"), [1.0])
    assert zooms.mask_truncated_completions is False
    assert zooms.generation_kwargs == {"max_new_tokens": 250}
    beside = _grpo_config(run, recipe("grpo", engine="vllm", vllm_memory=0.4), [1.0])
    assert beside.use_vllm and beside.vllm_mode == "colocate"
    assert beside.vllm_gpu_memory_utilization == 0.4
    assert beside.vllm_importance_sampling_correction


def test_a_turn_ends_at_a_call_or_an_answer_whatever_samples_it() -> None:
    turn = {"response_style": "zoom", "reward": "zoom", "turn_tokens": 60}
    assert _turn_limits(recipe("grpo", **turn)) == {"max_new_tokens": 60}
    assert _turn_limits(recipe("grpo", engine="local", **turn)) is None
    assert _turn_limits(recipe("grpo", engine="vllm", **turn)) == {
        "max_tokens": 60, "stop": ["</tool_call>", "</answer>"], "include_stop_str_in_output": True,
    }  # fmt: skip


def test_small_matrices_are_beside_the_language_models_layers_only() -> None:
    offline()
    lora = {"rank": 4, "alpha": 12, "dropout": 0.1, "targets": ["q_proj", "up_proj"]}
    told = lora_config(recipe("sft", lora=lora))
    assert (told.r, told.lora_alpha, told.lora_dropout) == (4, 12, 0.1)
    for layer, taken in (
        ("model.language_model.layers.3.self_attn.q_proj", True),
        ("model.language_model.layers.3.mlp.up_proj", True),
        ("model.language_model.layers.3.self_attn.k_proj", False),
        ("model.visual.blocks.1.attn.q_proj", False),
    ):
        assert bool(re.fullmatch(told.target_modules, layer)) is taken
    assert lora_config(recipe("sft")) is None


def test_processes_that_share_a_group_sample_it_with_seeds_of_their_own():
    from training.rollouts import RolloutTrainer

    def seeds(process):
        trainer = SimpleNamespace(
            args=SimpleNamespace(seed=0), state=SimpleNamespace(global_step=3),
            temperature=1.0, top_p=1.0, accelerator=SimpleNamespace(process_index=process),
        )  # fmt: skip
        trainer._process = RolloutTrainer._process.fget(trainer)
        group = SimpleNamespace(ids=[1, 2, 3])
        return [RolloutTrainer._row(trainer, group, place, place).seed for place in range(4)]

    first, second = seeds(0), seeds(1)
    assert first == [seed_of(0, 3, [1, 2, 3], place, place) for place in range(4)]
    assert len({*first, *second}) == 8


def test_an_answer_ends_before_an_image_that_it_made_up_and_not_with_an_end_of_turn():
    from training.rollouts import RolloutTrainer

    trainer = SimpleNamespace(_image_pad_token_id=8, _video_pad_token_id=9, eos_token_ids=[2])
    assert RolloutTrainer._cut(trainer, [5, 6, 8, 7, 2]) == [5, 6]
    assert RolloutTrainer._cut(trainer, [5, 9, 2]) == [5]
    assert RolloutTrainer._cut(trainer, [5, 6, 2]) == [5, 6, 2]
    assert RolloutTrainer._cut(trainer, [8, 5]) == [2], "nothing was written"


def test_one_process_trains_on_one_device_however_many_there_are(tmp_path: Path) -> None:
    """Its batch would be multiplied by their number."""
    from transformers import TrainingArguments

    made = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4, use_cpu=True)
    made._n_gpu = 8
    assert made.train_batch_size == 32
    assert one_device(made).train_batch_size == 4
    made._n_gpu = 0
    assert one_device(made).n_gpu == 0

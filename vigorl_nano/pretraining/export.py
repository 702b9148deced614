"""Writes a model folder that plain transformers classes load offline, swapping it in at once.

    export(model, tokenizer, Path("runs/nano/base/weights"))
    checkpoint = load_checkpoint(folder)         # its model and processor, by transformers alone

Qwen3-VL's own processor class insists on a video processor, which needs torchvision. The folder
therefore names the library's plain processor for the same image and text handling, PaddleOCR-VL's
(images by Qwen2-VL's image processor, each `<|image_pad|>` repeated by its grid): it loads with
nothing but Pillow. Servers that ask for Qwen3-VL's processor by class find the files they
expect, the video settings among them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import PromptStyle, write_prompt_style
from mcts.zoom.config import ZoomConfig
from mcts.zoom.recorded import record_zoom
from vigorl_nano.pretraining.config import MERGE, PATCH, SIDE

LEAST_PIXELS, MOST_PIXELS = SIDE * (SIDE - 1), SIDE * (SIDE + 1)
"""Either side of SIDE * SIDE, where rounding makes 168 x 168 of an image of 1024 x 1024."""
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
IMAGE_SETTINGS = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "patch_size": PATCH,
    "temporal_patch_size": 2,
    "merge_size": MERGE,
    "min_pixels": LEAST_PIXELS,
    "max_pixels": MOST_PIXELS,
    "size": {"shortest_edge": LEAST_PIXELS, "longest_edge": MOST_PIXELS},
}
VIDEO_SETTINGS = {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "patch_size": PATCH,
    "temporal_patch_size": 2,
    "merge_size": MERGE,
    "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
}


STYLE = PromptStyle(
    prompts={
        ResponseStyle.GROUNDED: "nano",
        ResponseStyle.UNGROUNDED: "nano-ungrounded",
        ResponseStyle.ANSWER_ONLY: "nano-answer",
    },
    step_tokens=48,
)
"""How these models are prompted."""


class Checkpoint(NamedTuple):
    """A model folder, loaded as any transformers program would."""

    model: Any
    processor: Any


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a model folder from disk."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    return Checkpoint(model.eval(), processor)


def export(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    style: PromptStyle = STYLE,
    zoom: ZoomConfig | None = None,
) -> Path:
    """Write weights as float16 and everything needed to load and prompt them.

    The folder that was there before is removed last.

    Args:
        zoom: what the model was shown when it learned to zoom.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # lm_head is the embedding matrix: storing it twice would only make the file larger.
    state = {
        k: v.detach().to(torch.float16).contiguous()
        for k, v in model.state_dict().items()
        if k != "lm_head.weight"
    }
    save_file(state, part / "model.safetensors", metadata={"format": "pt"})
    # Without a stated type the library would compute in half precision, slow and coarse on a CPU.
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(part)
    tokenizer.save_pretrained(part)
    shutil.copy(TEMPLATE, part / "chat_template.jinja")
    settings = {
        "processor_config.json": {"processor_class": "PaddleOCRVLProcessor"},
        "preprocessor_config.json": IMAGE_SETTINGS,
        "video_preprocessor_config.json": VIDEO_SETTINGS,
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "max_new_tokens": 256,
        },
    }
    for name, content in settings.items():
        (part / name).write_text(json.dumps(content, indent=2) + "\n")
    write_prompt_style(part, style)
    if zoom is not None:
        record_zoom(part, zoom)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder

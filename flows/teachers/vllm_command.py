"""What is run to serve a model: which vLLM, with which flags, in which environment.

    vllm = program()
    line = [str(vllm), *flags(settings, "qwen@1f3a", 8000)]
    subprocess.Popen(line, env=environment(settings, vllm))

The flags are read from the sources of vLLM 0.32. Three of them are easily forgotten:

    --enable-prompt-tokens-details    without it no reply says what the prefix cache saved
    --generation-config vllm          else a checkpoint's own repetition penalty and top-k apply to
                                      every request that does not mention them
    --max-model-len auto              the longest context that the memory left has room for

`--data-parallel-size` spreads requests over its copies by the length of their queues, whatever
their prefix caches hold; a server a GPU, given to a build as `--teacher URL,URL`, keeps a tree in
one place.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

from flows.settings import ServeSettings
from flows.settings_base import Problem
from mcts.teachers.checkpoints import find_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
_DEVICES = ("nvidia[0-9]*", "kfd", "dxg", "accel*")  # NVIDIA, AMD, WSL, TPU and Gaudi
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def program() -> Path:
    """The `vllm` program: of `$VIGORL_VLLM`, of `.venv-vllm`, or on the path.

    Raises:
        Problem: there is none.
    """
    if given := os.environ.get("VIGORL_VLLM"):
        found = Path(given).expanduser()
        if found.name != "vllm":  # a Python; its programs are beside it
            found = found.with_name("vllm")
        if not os.access(found, os.X_OK):
            raise Problem(f"VIGORL_VLLM={given}: there is no vLLM, since {found} is not a program")
        return found.absolute()
    ours = PROJECT / ".venv-vllm" / "bin" / "vllm"
    on_path = shutil.which("vllm")
    if not os.access(ours, os.X_OK) and not on_path:
        raise Problem(
            "vLLM is not installed: `make vllm` puts it into .venv-vllm, or let VIGORL_VLLM name a "
            "Python that has it"
        )
    return ours if os.access(ours, os.X_OK) else Path(str(on_path))


def has_gpu() -> bool:
    """Whether this machine shows an accelerator to this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(any(Path("/dev").glob(pattern)) for pattern in _DEVICES)


def checkpoint_folder(model: str) -> Path | None:
    """The folder that `model` means; None if it is the name of a model on a hub.

    Raises:
        Problem: it is neither.
    """
    folder = find_checkpoint(model) or Path(model).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    if folder.exists() or not _HUB_NAME.fullmatch(model) or model.startswith("."):
        raise Problem(
            f"model {model!r} is neither a folder with a config.json, nor a name on a hub such as "
            "Qwen/Qwen2.5-VL-7B-Instruct"
        )
    return None


def flags(settings: ServeSettings, name: str, port: int) -> list[str]:
    """vLLM's arguments for serving a model under `name`; the user's own come last and win."""
    given = [
        ("--host", settings.host),
        ("--port", port),
        ("--served-model-name", name),
        ("--seed", settings.seed),
        ("--max-model-len", settings.context or "auto"),
        ("--tensor-parallel-size", settings.tensor_parallel),
        ("--data-parallel-size", settings.data_parallel),
        ("--limit-mm-per-prompt", json.dumps({"image": settings.images, "video": 0})),
        ("--generation-config", "vllm"),
    ]
    line = ["serve", str(checkpoint_folder(settings.model) or settings.model)]
    line += [str(part) for pair in given for part in pair]
    limits = {"min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels}
    if limits := {key: value for key, value in limits.items() if value}:
        line += ["--mm-processor-kwargs", json.dumps(limits)]
    line += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    line += ["--disable-uvicorn-access-log"]  # a line a request would be most of the log
    if settings.cpu:
        # Its usual block of 128 tokens is longer than what short prompts share.
        line += ["--enforce-eager", "--block-size", "32"]
    return [*line, *shlex.split(os.environ.get("VIGORL_VLLM_ARGS", "")), *settings.extra]


def environment(settings: ServeSettings, program: Path) -> dict[str, str]:
    """The environment of the server: ours, and what vLLM needs or should not do."""
    env = dict(os.environ)
    # Kernels compiled on the spot need the tools that were installed beside vLLM.
    env["PATH"] = os.pathsep.join([str(program.parent), env.get("PATH", os.defpath)])
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    if settings.cpu:
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB
    if checkpoint_folder(settings.model) is None:
        env.pop("HF_HUB_OFFLINE", None)  # our commands set it; a name on a hub must be fetched
    return env

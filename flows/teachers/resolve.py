"""From the name a user gives a teacher to a teacher, and to what must be known about it.

    chosen = choose_teacher("nano")                              # the embedded teacher
    chosen = choose_teacher("./checkpoints/qwen3-vl-4b")         # a checkpoint, in this process
    chosen = choose_teacher("http://gpu:8000", space="qwen2.5-vl")   # a server such as vLLM
    chosen = choose_teacher("http://a:8000,http://b:8000", space="qwen2.5-vl")   # several of one
    chosen = choose_teacher("vllm:./checkpoints/qwen3-vl-4b")    # a server of its own meanwhile
    await chosen.teacher.open()

A teacher's coordinate space decides where its points lie, so it is never guessed: a checkpoint's is
read from its configuration, a server's is given, or follows from a model name that says it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.settings import Problem, ServeSettings
from mcts.coordinates import CoordinateSpace
from mcts.teachers import checkpoints
from mcts.teachers.base import Teacher
from mcts.teachers.checkpoints import MODEL_TYPES, SPACES, read_json
from warehouse.sources import task_of

if TYPE_CHECKING:
    from mcts.teachers.server import OpenAITeacher

_NAMED = re.compile(r"qwen[-_ ]?(2\.5|2|3)[-_ ]?vl", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChosenTeacher:
    """A teacher with what a search must know about it."""

    teacher: Teacher
    space: CoordinateSpace
    prompt: str
    """The prompt it was trained with; empty where it takes whatever its task asks with."""
    step_tokens: int
    bounded: bool = False
    """Whether it may be asked to count its steps: servers are, in this process nobody does."""

    def prompt_for(self, task: str) -> str:
        """The prompt it is asked with where nobody chose one."""
        return self.prompt or task_of(task).prompt


def choose_teacher(
    name: str,
    *,
    model: str | None = None,
    space: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    revision: str | None = None,
    timeout_s: float = 600.0,
    concurrency: int = 32,
    home: str | None = None,
) -> ChosenTeacher:
    """The teacher that `name` means; it is not opened yet.

    `home` is the warehouse beside which a server of our own (`vllm:`) writes its log.

    Raises:
        Problem: there is no such folder, its coordinate space is not known, or vLLM is missing.
    """

    def client(url: str, served: str | None = model, of: int = 1) -> OpenAITeacher:
        from mcts.teachers.server import OpenAITeacher

        return OpenAITeacher(
            url,
            served,
            # Every tree asks for several things at once; the server queues what it cannot batch.
            concurrency=4 * concurrency,
            timeout_s=timeout_s,
            connect_retries=1 if of > 1 else None,  # another one can be asked instead
            revision=revision or "",
            image_cache_bytes=2**28 // of,
        )

    def limited(found: CoordinateSpace) -> CoordinateSpace:
        least, most = min_pixels or found.min_pixels, max_pixels or found.max_pixels
        return replace(found, min_pixels=least, max_pixels=most)

    if re.match(r"https?://", name):
        urls = [url.strip().rstrip("/").removesuffix("/v1") for url in name.split(",")]
        found = limited(_server_space(space, model))
        if len(urls) == 1:
            return ChosenTeacher(client(urls[0]), found, "", 512, bounded=True)
        return ChosenTeacher(_replicas(urls, client), found, "", 512, bounded=True)
    if own := re.match(r"vllm(-cpu)?:", name):
        from flows.teachers.vllm import ServedTeacher
        from flows.teachers.vllm_command import checkpoint_folder

        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        served = ServeSettings.checked(
            model=name[own.end() :], name=model, cpu=bool(own[1]), home=home, **limits
        )
        folder = checkpoint_folder(served.model)
        known = checkpoint_space(folder) if folder and not space else None
        found = limited(known or _server_space(space, served.model))
        style = checkpoints.prompt_style(folder) if folder else checkpoints.GENERAL
        return ChosenTeacher(
            ServedTeacher(served, client),
            found,
            style.prompt or "",
            style.step_tokens,
            bounded=True,
        )
    folder = checkpoints.find_checkpoint(name) or Path(name)
    if not (folder / "config.json").is_file():
        raise Problem(
            f"teacher {name!r} is no registered model, nor a URL, nor a folder with a "
            "config.json, nor vllm: and a model"
        )
    from mcts.teachers.local.teacher import LocalTeacher

    found = space_by_name(space) if space else checkpoint_space(folder)
    style = checkpoints.prompt_style(folder)
    return ChosenTeacher(LocalTeacher(folder), found, style.prompt or "", style.step_tokens)


def patient(chosen: ChosenTeacher, name: str) -> ChosenTeacher:
    """The teacher that `name` means, made to wait for a server that goes away meanwhile."""
    if not re.match(r"https?://", name):
        return chosen
    from mcts.teachers.reconnect import PatientTeacher

    # Somebody else runs this server, and may start it again. Our own would not come back.
    waiting = PatientTeacher(
        chosen.teacher, say=lambda sentence: print(sentence, file=sys.stderr, flush=True)
    )
    return replace(chosen, teacher=waiting)


def _replicas(urls: list[str], client: Callable[..., OpenAITeacher]) -> Teacher:
    from mcts.teachers.replicas import Replicas

    if wrong := [url for url in urls if not re.match(r"https?://", url)]:
        raise Problem(f"teacher: {wrong[0]!r} among the servers is no URL")
    if len(set(urls)) < len(urls):
        raise Problem("teacher: each server is named once")
    return Replicas(
        [client(url, of=len(urls)) for url in urls],
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )


def space_by_name(name: str) -> CoordinateSpace:
    """The coordinate space of a model family."""
    try:
        return SPACES[name.lower()]()
    except KeyError:
        raise Problem(
            f"space: there is no coordinate space {name!r}; there are {', '.join(SPACES)}"
        ) from None


def space_options(
    model: str, folder: Path | None, min_pixels: int | None, max_pixels: int | None
) -> str:
    """The options with which a build is told the coordinates of a served model."""
    limits = {"min-pixels": min_pixels, "max-pixels": max_pixels}
    named = _NAMED.search(model)
    told = f"--model {model}" if named else f"--space {'|'.join(SPACES)}"
    config = read_json(folder / "config.json") if folder else {}
    kind = MODEL_TYPES.get(str(config.get("model_type")))
    if folder and kind:
        found = checkpoint_space(folder)
        told = f"--space {kind}"
        limits = {
            "min-pixels": min_pixels or found.min_pixels,
            "max-pixels": max_pixels or found.max_pixels,
        }
    return " ".join([told, *(f"--{key} {value}" for key, value in limits.items() if value)])


def checkpoint_space(folder: Path) -> CoordinateSpace:
    """The coordinate space of a checkpoint, from its configuration and its image processor's."""
    try:
        return checkpoints.checkpoint_space(folder)
    except ValueError as error:
        hint = "; give --space" if "not known" in str(error) else ""
        raise Problem(f"{error}{hint}") from None


def _server_space(space: str | None, model: str | None) -> CoordinateSpace:
    if space:
        return space_by_name(space)
    if match := _NAMED.search(model or ""):
        return space_by_name(f"qwen{match[1]}-vl")
    raise Problem(
        "space: a server does not say which coordinates its model speaks; give --space "
        f"({', '.join(SPACES)}) or --model with a name that says it"
    )

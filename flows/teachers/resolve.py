"""From the name a user gives a teacher to a teacher, and to what a search must know about it.

resolved = resolve(settings)                 # any TeacherSettings: a build's, a judge's, ...
await resolved.teacher.open()

TeacherSettings(teacher="my-model")                               # a registered checkpoint
TeacherSettings(teacher="champion:sat2")                          # or a model trained here
TeacherSettings(teacher="./checkpoints/qwen3-vl-4b")              # a folder, in this process
TeacherSettings(teacher="http://gpu:8000", space="qwen2.5-vl")    # a server such as vLLM
TeacherSettings(teacher="http://a:8000,http://b:8000", ...)       # several of one model
TeacherSettings(teacher="served:qwen3-vl-4b", ...)                # those of `vigorl serve --ray`
TeacherSettings(teacher="vllm:./checkpoints/qwen3-vl-4b")         # a server of its own
TeacherSettings(teacher="./checkpoints/qwen3-vl-4b + my-model")   # several models, in turns
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.progress import report_to_stderr
from flows.search_settings import ZoomSettings
from flows.server_options import parsed_body, parsed_headers
from flows.settings import ServeSettings, TeacherSettings
from flows.settings_base import FieldProblem, Problem
from flows.teachers.served import served_urls
from flows.teachers.spaces import checkpoint_space, limited_space, server_space, space_by_name
from flows.teachers.trained import (
    OWN_SERVER,
    SERVED,
    URL,
    served_model,
    trained_model,
)
from mcts.coordinates import CoordinateSpace
from mcts.teachers.base import Ledger, Reply, Request, Teacher, TeacherUnavailable
from mcts.teachers.capabilities import parse_capabilities
from mcts.teachers.checkpoints import (
    GENERAL,
    PromptStyle,
    find_checkpoint,
    observation_role,
    prompt_style,
    recorded_process_reward,
    registered_checkpoints,
)
from mcts.teachers.credentials import Access, CredentialProblem, mask_url, read_key, split_url
from mcts.teachers.ensemble import Ensemble
from mcts.teachers.identities import members
from mcts.teachers.local.teacher import LocalTeacher
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from mcts.zoom.recorded import recorded_zoom
from warehouse.models import open_model
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse


@dataclass(frozen=True, slots=True)
class ResolvedTeacher:
    """A teacher, not opened yet, with what a search must know about it."""

    teacher: Teacher
    space: CoordinateSpace
    style: PromptStyle = GENERAL
    """What its `vigorl.json` says of prompts; GENERAL where it has none."""
    bounded: bool = False
    """Whether it may be asked to count its steps: servers are, a model in this process isn't."""
    observation_role: str = "user"
    """The turn in which its chat template shows what a zoom call returns."""
    zoom: ZoomConfig | None = None
    """What it was shown when it learned to zoom; None where nothing is recorded."""

    @property
    def step_tokens(self) -> int:
        """Most tokens of one of its steps, where no other limit is given."""
        return self.style.step_tokens

    def prompt_for(self, task: str) -> str:
        """Return the prompt it is asked with where none is given."""
        return self.style.prompt or task_of(task).prompt


class _TrainedTeacher(LocalTeacher):
    """A model of the warehouse in this process; on S3, its files are here until it is closed."""

    def __init__(self, files: AbstractContextManager[Path]) -> None:
        self._files = ExitStack()
        super().__init__(self._files.enter_context(files))

    async def close(self) -> None:
        await super().close()
        self._files.close()


class _Recorded:
    """A server in a replay: it has answered, and is neither reached nor started."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    @property
    def identity(self) -> str:
        raise RuntimeError("a replay finds the teacher's identity in what is recorded")

    async def open(self) -> None:
        raise TeacherUnavailable("A replay asks no teacher.", permanent=True)

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        raise TeacherUnavailable("A replay asks no teacher.", permanent=True)

    async def close(self) -> None:
        pass


def resolve(
    settings: TeacherSettings,
    *,
    reconnect: bool = False,
    recorded: bool = False,
    crops: int | None = None,
) -> ResolvedTeacher:
    """Make the teacher that the settings name.

    Args:
        reconnect: wait for a server that goes away, instead of failing.
        recorded: a server will not be asked: neither it nor vLLM nor a key need be there.
        crops: shown in a line of reasoning, at most; the settings', or the model's, if left out.

    Raises:
        Problem: there is no such model, its coordinate space is not known, or vLLM is missing.
        WarehouseError: a model trained here is not unique, or its files are lost.
    """
    names = members(settings.teacher)
    if len(names) > 1 and not Path(settings.teacher, "config.json").is_file():
        _check_members(names)
        parts = [settings.model_copy(update={"teacher": name}) for name in names]
        how: Any = {"reconnect": reconnect, "recorded": recorded, "crops": crops}
        return _ensemble(names, [resolve(part, **how) for part in parts])
    if URL.match(settings.teacher) or SERVED.match(settings.teacher):
        return _recorded(settings) if recorded else _server(settings, reconnect)
    if OWN_SERVER.match(settings.teacher):
        return _own_server(settings, recorded, crops)
    return _checkpoint(settings)


def _check_members(names: Sequence[str]) -> None:
    """Raise FieldProblem unless several models can be asked together by these names."""
    if not all(names) or len(set(names)) < len(names):
        raise FieldProblem("teacher", "several models together are named once each: A + B")
    if sum(OWN_SERVER.match(name) is not None for name in names) > 1:
        raise FieldProblem("teacher", "a run starts one vLLM server: start others beforehand")


def _ensemble(names: Sequence[str], resolved: Sequence[ResolvedTeacher]) -> ResolvedTeacher:
    """Make one teacher of several models, which are asked alike and point in the same space."""
    first = resolved[0]
    for name, member in zip(names[1:], resolved[1:], strict=True):
        differ = f"{mask_url(names[0])} and {mask_url(name)} can't search together: they"
        if member.space != first.space:
            raise FieldProblem("teacher", f"{differ} point in different spaces")
        if member.style.prompts != first.style.prompts or member.style.prompt != first.style.prompt:
            raise FieldProblem("teacher", f"{differ} are asked with different prompts")
        if (member.zoom, member.observation_role) != (first.zoom, first.observation_role):
            raise FieldProblem("teacher", f"{differ} are shown crops in different ways")
    longest = max(member.step_tokens for member in resolved)
    return replace(
        first,
        teacher=Ensemble([member.teacher for member in resolved]),
        style=first.style if longest == first.step_tokens
        else replace(first.style, step_tokens=longest),
        bounded=all(member.bounded for member in resolved),
    )  # fmt: skip


def _checkpoint(settings: TeacherSettings) -> ResolvedTeacher:
    name = settings.teacher
    if not name:
        raise FieldProblem("teacher", "no model is registered as the default; name one")
    if row := trained_model(settings.home, name):
        teacher: LocalTeacher = _TrainedTeacher(open_model(Warehouse.at(settings.home), row))
    else:
        teacher = LocalTeacher(find_checkpoint(name) or Path(name))
    folder = teacher.folder
    if not (folder / "config.json").is_file():
        raise Problem(
            f"teacher {mask_url(name)!r} is no registered model "
            f"({', '.join(registered_checkpoints()) or 'there is none'}), nor one trained here "
            "(`vigorl models list`), nor a URL, nor a folder with a config.json, nor vllm: and a "
            "model"
        )
    space = space_by_name(settings.space) if settings.space else checkpoint_space(folder)
    return _as_it_says(folder, ResolvedTeacher(teacher, space))


def _as_it_says(folder: Path, resolved: ResolvedTeacher) -> ResolvedTeacher:
    """Add what a checkpoint's folder says of how its model is asked."""
    try:
        if recorded_process_reward(folder) is not None:
            raise ValueError(
                f"{folder.name} is a process reward model: it values steps, and answers nothing"
            )
        style, zoom = prompt_style(folder), recorded_zoom(folder)
        role = observation_role(folder)
    except ValueError as error:
        raise Problem(str(error)) from None
    return replace(resolved, style=style, observation_role=role, zoom=zoom)


def _recorded(settings: TeacherSettings) -> ResolvedTeacher:
    space = server_space(settings.space, settings.model)
    space = limited_space(space, settings.min_pixels, settings.max_pixels)
    return ResolvedTeacher(_Recorded(), space, bounded=True)


def _server(settings: TeacherSettings, reconnect: bool) -> ResolvedTeacher:
    noted = SERVED.match(settings.teacher)
    urls = _noted(settings) if noted else [
        url.strip().rstrip("/").removesuffix("/v1") for url in settings.teacher.split(",")
    ]  # fmt: skip
    space = server_space(settings.space, settings.model)
    space = limited_space(space, settings.min_pixels, settings.max_pixels)
    if wrong := [url for url in urls if not URL.match(url)]:
        raise FieldProblem("teacher", f"{mask_url(wrong[0])!r} among the servers is no URL")

    def client(url: str) -> Any:
        return _client(settings, url, settings.model, space, of=max(len(urls), 2 if noted else 1))

    clients = [client(url) for url in urls]
    if len({client.url for client in clients}) < len(clients):
        raise FieldProblem("teacher", "each server is named once")
    teacher: Teacher = clients[0]
    if len(urls) > 1 or noted:
        from mcts.teachers.replicas import Replicas

        def find() -> list[Any]:
            return [client(url) for url in _noted(settings, lacking=True)]

        teacher = Replicas(clients, report=report_to_stderr, find=find if noted else None)
    if reconnect:
        from mcts.teachers.reconnect import ReconnectingTeacher

        # Such a server is run by others, who may start it again. Our own would not come back.
        teacher = ReconnectingTeacher(teacher, report=report_to_stderr)
    return ResolvedTeacher(teacher, space, bounded=True)


def _noted(settings: TeacherSettings, *, lacking: bool = False) -> list[str]:
    """Return the addresses that `vigorl serve --ray` has noted in the warehouse.

    Args:
        lacking: whether there may be none.

    Raises:
        Problem: there are none.
    """
    name = settings.teacher.partition(":")[2]
    urls = served_urls(Warehouse.at(settings.home), name)
    if not urls and not lacking:
        raise FieldProblem(
            "teacher", f"no servers of {name!r} are noted in the warehouse: start them with "
            f"`vigorl serve MODEL --name {name} --ray`",
        )  # fmt: skip
    return urls


def _own_server(settings: TeacherSettings, recorded: bool, crops: int | None) -> ResolvedTeacher:
    from flows.teachers.vllm import ServedTeacher
    from flows.teachers.vllm_command import checkpoint_folder

    scheme, _, model = settings.teacher.partition(":")
    served = ServeSettings.checked(
        model=served_model(settings.home, model), name=settings.model,
        cpu=scheme == "vllm-cpu", port=None, home=settings.home,
        min_pixels=settings.min_pixels, max_pixels=settings.max_pixels,
    )  # fmt: skip
    folder = checkpoint_folder(served.model)
    known = checkpoint_space(folder) if folder and not settings.space else None
    space = known or server_space(settings.space, served.model)
    space = limited_space(space, settings.min_pixels, settings.max_pixels)
    resolved = ResolvedTeacher(_Recorded(), space, bounded=True)
    resolved = _as_it_says(folder, resolved) if folder else resolved
    if recorded:
        return resolved
    if crops is None and isinstance(settings, ZoomSettings):
        crops = settings.max_crops
    # A question's own images, and every crop of a line of reasoning, are in one prompt.
    shown = crops or (resolved.zoom or ZoomConfig(VISUAL_SEARCH_LENS)).max_calls
    served = served.model_copy(update={"images": served.images + shown})
    if not settings.api_key_env and os.environ.get("VLLM_API_KEY"):  # vLLM itself reads it
        settings = settings.model_copy(update={"api_key_env": "VLLM_API_KEY"})
    teacher = ServedTeacher(served, lambda url, name: _client(settings, url, name, space))
    return replace(resolved, teacher=teacher)


def _client(
    settings: TeacherSettings, url: str, model: str | None, space: CoordinateSpace, of: int = 1
) -> Any:
    from mcts.teachers.openai_client import OpenAITeacher

    shown, access = server_address(settings, url)
    return OpenAITeacher(
        shown,
        model,
        access=access,
        # Every tree asks for several things at once; the server queues what it cannot batch.
        concurrency=4 * settings.concurrency,
        timeout_s=settings.timeout,
        connect_retries=1 if of > 1 else None,  # another one can be asked instead
        revision=settings.revision or "",
        fields=parsed_body(settings.body),
        can=parse_capabilities(settings.server_can) if settings.server_can else None,
        space=space,
        image_cache_bytes=2**28 // of,
        report=report_to_stderr,
    )


def server_address(settings: TeacherSettings, url: str) -> tuple[str, Access]:
    """Return a server's URL without its password, and what opens it.

    Raises:
        Problem: a variable is missing, or there are two passwords.
    """
    field = "api_key_env"
    try:
        key = read_key(settings.api_key_env)
        field = "teacher"
        shown, user_info = split_url(url)
        if user_info and settings.api_key_env:
            raise FieldProblem(field, "give a password in the URL or --api-key-env, not both")
        field = "headers"
        return shown, Access(key, parsed_headers(settings.headers), user_info=user_info)
    except CredentialProblem as problem:
        raise FieldProblem(field, str(problem)) from None

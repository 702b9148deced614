"""The teacher: whether it answers, is the model that is meant, and takes our API key.

for diagnosis in check_teacher(TeacherSettings(teacher="http://gpu:8000", model="qwen")): ...

A server is only asked which models it has: nothing that costs tokens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from flows.settings import TeacherSettings
from flows.settings_base import Problem
from flows.stages.doctor.checkup import Diagnosis
from flows.teachers.resolve import server_address
from flows.teachers.served import served_urls
from flows.teachers.spaces import checkpoint_space
from flows.teachers.trained import OWN_SERVER, SERVED, URL
from flows.teachers.vllm_command import program
from mcts.teachers.base import TeacherUnavailable
from mcts.teachers.checkpoints import find_checkpoint, registered_checkpoints
from mcts.teachers.credentials import DEFAULT_KEYS, mask_url
from mcts.teachers.identities import members
from mcts.teachers.openai_client import OpenAITeacher
from warehouse.storage.home import Warehouse

_ANSWER_S = 8.0
"""Seconds a server has to list its models."""


def check_teacher(settings: TeacherSettings) -> Iterator[Diagnosis]:
    """Find out whether a build with this teacher could begin."""
    for name in members(settings.teacher):
        yield from _check(settings, name)


def _check(settings: TeacherSettings, name: str) -> Iterator[Diagnosis]:
    if URL.match(name) or SERVED.match(name):
        urls = name.split(",")
        if SERVED.match(name):
            noted = name.partition(":")[2]
            urls = served_urls(Warehouse.at(settings.home), noted)
            if not urls:
                yield Diagnosis(
                    "teacher", "problem", f"no servers of {noted!r} are noted in the warehouse",
                    f"vigorl serve MODEL --name {noted} --ray",
                )  # fmt: skip
        for url in urls:
            yield asyncio.run(_server(settings, url.strip().rstrip("/")))
    elif OWN_SERVER.match(name):
        yield Diagnosis("teacher", "ok", f"{name}: started by the build, with {program()}")
    else:
        yield _checkpoint(name)


def _checkpoint(name: str) -> Diagnosis:
    folder = find_checkpoint(name) or Path(name)
    if not (folder / "config.json").is_file():
        known = ", ".join(registered_checkpoints()) or "none"
        return Diagnosis(
            "teacher", "problem", f"{mask_url(name)!r} is no model; registered are {known}",
            "vigorl build TASK --teacher URL, or one of them",
        )  # fmt: skip
    space = checkpoint_space(folder)
    return Diagnosis(
        "teacher", "ok", f"{name}: a checkpoint in {folder}, which points in {space.kind.value}"
    )


async def _server(settings: TeacherSettings, url: str) -> Diagnosis:
    try:
        shown, access = server_address(settings, url)
    except Problem as problem:
        return Diagnosis("API key", "problem", str(problem), f"export {settings.api_key_env}=...")
    server = OpenAITeacher(
        shown, settings.model, access=access, timeout_s=_ANSWER_S, retries=0, connect_retries=0
    )
    try:
        await server.open()
    except TeacherUnavailable as unavailable:
        return Diagnosis(
            "teacher", "problem", str(unavailable), _remedy(settings, str(unavailable))
        )
    finally:
        await server.close()
    return Diagnosis("teacher", "ok", f"{shown} serves {server.identity}")


def _remedy(settings: TeacherSettings, sentence: str) -> str:
    """Return what to type, by what the server said."""
    if "HTTP 401" in sentence or "HTTP 403" in sentence:
        key = settings.api_key_env or DEFAULT_KEYS[0]
        return f"export {key}=..." + (
            "  # the one that is set is refused" if os.environ.get(key) else ""
        )
    if " serves " in sentence:
        return "vigorl doctor --teacher URL --model NAME, with one of these names"
    return "vigorl serve MODEL, on the machine that is to serve it"

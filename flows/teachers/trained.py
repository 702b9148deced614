"""Models trained here as teachers: by name, by id, or by what they are for a task.

settings = name_once(settings)          # teacher="champion:sat2" -> "sat2-cycle-3-sft@1a2b"
trained_model(home, "champion:sat2")    # its row of `models`; None for other teachers
served_model(home, "champion:sat2")     # the folder that vLLM is to serve
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from flows.settings import TeacherSettings
from flows.settings_base import Problem
from mcts.teachers.checkpoints import find_checkpoint
from mcts.teachers.identities import TOGETHER, members
from warehouse.models import find_model, open_model
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

URL = re.compile(r"https?://", re.IGNORECASE)
OWN_SERVER = re.compile(r"vllm(-cpu)?:")
SERVED = re.compile(r"served:")
_Settings = TypeVar("_Settings", bound=TeacherSettings)


def is_served(teacher: str) -> bool:
    """Return whether a server runs a teacher, or one of its models."""
    forms = (URL, SERVED, OWN_SERVER)
    return any(form.match(name) for name in members(teacher) for form in forms)


def needs_gpu(teacher: str) -> bool:
    """Return whether a run starts a server on a GPU for a teacher, or for one of its models."""
    return any(name.startswith("vllm:") for name in members(teacher))


def name_once(settings: _Settings) -> _Settings:
    """Return the settings with the id of the trained model that the teacher's name means.

    An alias such as `champion:sat2` may mean another model soon, so who records what was asked
    looks it up once. Names of other teachers stay as they are.

    Raises:
        WarehouseError: the task has no such model, or several have such a name.
    """
    name = teacher_id(settings.home, settings.teacher)
    return settings if name == settings.teacher else settings.model_copy(update={"teacher": name})


def teacher_id(home: str | None, teacher: str) -> str:
    """Return a teacher's name with the id of the model trained here that it means; others as is.

    Raises:
        WarehouseError: the task has no such model, or several have such a name.
    """
    if len(names := members(teacher)) > 1:
        return TOGETHER.join(teacher_id(home, name) for name in names)
    own, row = OWN_SERVER.match(teacher), trained_teacher(home, teacher)
    return f"{own[0] if own else ''}{row['model_id']}" if row else teacher


def trained_teacher(home: str | None, teacher: str) -> Row | None:
    """Return the row of the model trained here that a teacher is, whether a server of our own runs
    it or not; None for other teachers.

    Raises:
        WarehouseError: the task has no such model, or several have such a name.
    """
    own = OWN_SERVER.match(teacher)
    return trained_model(home, teacher[own.end() :] if own else teacher)


def trained_model(home: str | None, name: str) -> Row | None:
    """Return the row of the model trained here that `name` means; None if it means another.

    Raises:
        WarehouseError: the task has no such model, or several have such a name.
    """
    elsewhere = not name or TOGETHER in name or URL.match(name) or OWN_SERVER.match(name)
    if elsewhere or find_checkpoint(name) or Path(name, "config.json").is_file():
        return None
    return find_model(Warehouse.at(home), name)


def served_model(home: str | None, name: str) -> str:
    """Return what vLLM is told to serve: the folder of a model trained here, else the name itself.

    Raises:
        Problem: its files are not on this machine.
        WarehouseError: the task has no such model, or several have such a name.
    """
    row, warehouse = trained_model(home, name), Warehouse.at(home)
    if row is None:
        return name
    if warehouse.is_s3:
        raise Problem(
            f"vLLM reads a model from a folder, and {row['model_id']} is in {warehouse.root}: copy "
            f"{row['path']} to this machine, and name the folder"
        )
    with open_model(warehouse, row) as folder:
        return str(folder)

"""Whether a cycle can use its settings; asked before it begins, as it keeps them to its end.

settings = await usable(settings)      # aliases of models looked up; Problem names what is wrong
"""

from __future__ import annotations

import asyncio

from flows.retrain_settings import RetrainSettings
from flows.settings import BuildSettings
from flows.settings_base import FieldProblem
from flows.stages.curate import read_filters
from flows.stages.train import other_kind
from flows.teachers.resolve import resolve
from flows.teachers.spaces import server_space, space_by_name
from flows.teachers.trained import SERVED, is_served, teacher_id, trained_model
from mcts.teachers.identities import members
from training.recipes import load_recipe
from warehouse.storage.home import Warehouse


async def usable(settings: RetrainSettings) -> RetrainSettings:
    """Return the settings with the ids of the models that their names mean.

    An alias may mean another model before the cycle ends.

    Raises:
        Problem: a recipe is for another training, or the filters, a teacher or the space is wrong.
        TrainingError: there is no such recipe, or a field of it is wrong.
        WarehouseError: the task has no such model, or several have such a name.
    """
    _require_recipes(settings)
    read_filters(settings.filters)
    if settings.space:
        space_by_name(settings.space)
    named = {"teacher": settings.teacher, "beside": settings.beside}
    ids = {role: teacher_id(settings.home, name) for role, name in named.items() if name}
    for name in ids.values():
        space = settings.space if is_served(name) or not settings.beside else None
        await require_teacher(settings, name, space)
    return settings.model_copy(update=ids)


async def require_teacher(settings: RetrainSettings, name: str | None, space: str | None) -> None:
    """Make a teacher as a search would, without opening it.

    Args:
        name: of the teacher; None for the one that is registered for the task.

    Raises:
        Problem: there is no such model, or its coordinate space is not known.
    """
    names = members(name) if name else []
    later = [one for one in names if SERVED.match(one)]  # its servers may be started later
    if later:
        server_space(space, None)
    on_s3 = Warehouse.at(settings.home).is_s3
    later += [one for one in names if on_s3 and trained_model(settings.home, one)]
    if later:  # the others alone; what is in the warehouse is copied here when it is asked
        for one in (name for name in names if name not in later):
            await require_teacher(settings, one, space)
        return
    given = {key: value for key, value in (("teacher", name), ("space", space)) if value}
    chosen = BuildSettings.checked(task=settings.task, home=settings.home, **given)
    resolved = await asyncio.to_thread(resolve, chosen)
    await resolved.teacher.close()


def _require_recipes(settings: RetrainSettings) -> None:
    for kind, name, overrides in (
        ("sft", settings.sft_recipe, settings.sft_override),
        ("grpo", settings.grpo_recipe, settings.grpo_override),
    ):
        if name and (said := other_kind(load_recipe(name, overrides), kind)):
            raise FieldProblem(f"{kind}_recipe", said)

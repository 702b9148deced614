"""In which response style a model is asked: the prompt, and what its zoom calls show.

    style = search_style(resolved, task_of("vstar"))      # a search's, where none is asked for
    way = way_of_asking(settings, resolved, task_of("vstar"), style)
    way.prompt, way.zoom                                  # zoom: None where it doesn't look closer

A model can zoom when its `vigorl.json` names a prompt for it, or when it is asked to: any model may
be, with the prompt `zoom`, and calls the tool as well as it can.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.search_settings import ZoomSettings
from flows.settings_base import FieldProblem
from flows.teachers.resolve import ResolvedTeacher
from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import GENERAL
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS, Lens
from warehouse.sources.tasks import Task
from warehouse.versions.response_styles import PROMPTS

ANY_TASK_LENS = Lens(HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS.shown_side, share=True)
"""For a task without a lens: a share of the image, since its images may have any size."""


@dataclass(frozen=True, slots=True)
class WayOfAsking:
    """How a model is asked."""

    prompt: str
    """The prompt's name (`mcts.prompts`)."""
    zoom: ZoomConfig | None = None


def search_style(resolved: ResolvedTeacher, task: Task) -> ResponseStyle:
    """Return the style of a search where none is asked for.

    It zooms where the task has a lens and the model a prompt for zooming, or was taught to zoom
    whatever it is asked.
    """
    style = resolved.style
    if task.lens is not None and style is not GENERAL and ResponseStyle.ZOOM in style.prompts:
        return ResponseStyle.ZOOM
    return style.response_style


def way_of_asking(
    settings: ZoomSettings,
    resolved: ResolvedTeacher,
    task: Task,
    style: ResponseStyle,
    prompt: str | None = None,
) -> WayOfAsking:
    """Return how a model is asked in that style.

    Args:
        prompt: the prompt file to use, in place of the style's own.

    Raises:
        FieldProblem: the model has no prompt for the style, or zooms don't go with it.
    """
    zooms = style is ResponseStyle.ZOOM
    if not zooms and (given := settings.given_about_zoom()):
        raise FieldProblem(
            given, f"the model answers {style} here and doesn't zoom; give --response-style zoom"
        )
    if prompt is None:
        prompt = _prompt_of(resolved, style) or task.prompt
    if not zooms:
        return WayOfAsking(prompt)
    lens = task.lens or ANY_TASK_LENS
    taught = resolved.zoom or ZoomConfig(lens, role=resolved.observation_role)
    return WayOfAsking(prompt, settings.zoom_config(taught))


def without_zoom(resolved: ResolvedTeacher, task: Task) -> WayOfAsking:
    """Return how a model that zooms is asked for an answer from what it sees at first.

    In the first of these styles that it has a prompt for: grounded, ungrounded, the answer alone.
    """
    prompts = resolved.style.prompts
    styles = (ResponseStyle.GROUNDED, ResponseStyle.UNGROUNDED, ResponseStyle.ANSWER_ONLY)
    known = next((style for style in styles if style in prompts), ResponseStyle.GROUNDED)
    return WayOfAsking(prompts.get(known) or task.prompt)


def _prompt_of(resolved: ResolvedTeacher, style: ResponseStyle) -> str | None:
    if style is ResponseStyle.ZOOM and style not in resolved.style.prompts:
        return PROMPTS[style]
    try:
        return resolved.style.with_response_style(style).prompt
    except ValueError as error:
        raise FieldProblem("response_style", str(error)) from None

"""Who zooms and how: the settings, the task's lens, the model's own style and template."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flows.settings import BuildSettings, EvaluateSettings, TeacherSettings
from flows.settings_base import Problem
from flows.stages.search import search_config
from flows.teachers.resolve import resolve
from flows.teachers.response_styles import without_zoom
from mcts.config import SearchConfig, search_id
from mcts.teachers.checkpoints import find_checkpoint
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS, WEB_LENS, Lens
from tests.support.scripted import QUESTION
from warehouse.sources import task_of

ZOOMS = {
    "response_style": "zoom",
    "prompts": {"grounded": "nano", "zoom": "zoom"},
    "step_tokens": 48,
}


@pytest.fixture
def zooming(tmp_path: Path) -> Path:
    """A checkpoint whose vigorl.json names a prompt for zooming."""
    folder = tmp_path / "zooming"
    found = find_checkpoint("nano-base")
    assert found is not None
    shutil.copytree(found, folder)
    (folder / "vigorl.json").write_text(json.dumps(ZOOMS))
    return folder


def config_of(**values: object) -> SearchConfig:
    settings = BuildSettings.checked(**{"task": "vstar", **values})
    return search_config(settings, resolve(settings))


def test_a_search_zooms_where_the_task_has_a_lens_and_the_teacher_a_prompt_for_it(
    zooming: Path,
) -> None:
    config = config_of(teacher=str(zooming))
    assert config.zoom is not None and config.prompt == "zoom"
    assert config.zoom.lens == VISUAL_SEARCH_LENS
    assert (config.zoom.max_calls, config.zoom.max_turns, config.zoom.crop_tokens) == (4, 8, 0)
    assert (config.zoom.tool, config.zoom.role) == (POINT_TOOL, "tool"), "as its template has it"
    web = config_of(teacher=str(zooming), task="web-grounding")
    assert web.zoom is not None and web.zoom.lens == WEB_LENS
    assert config_of(teacher="nano-base").zoom is None, "its vigorl.json names no such prompt"
    forced = config_of(teacher=str(zooming), response_style="grounded")
    assert forced.zoom is None and forced.prompt == "nano"


def test_a_model_that_was_taught_to_zoom_does_so_in_a_task_without_a_lens(zooming: Path) -> None:
    config = config_of(teacher=str(zooming), task="sat2")
    assert config.zoom is not None and config.zoom.lens.share
    (zooming / "vigorl.json").write_text(json.dumps({**ZOOMS, "response_style": "grounded"}))
    assert config_of(teacher=str(zooming), task="sat2").zoom is None
    assert config_of(teacher=str(zooming)).zoom is not None, "the task has a lens"


def test_a_server_zooms_when_it_is_asked_to_and_is_shown_crops_as_the_user() -> None:
    server = {"teacher": "http://127.0.0.1:9", "space": "qwen3-vl"}
    assert config_of(**server).zoom is None
    config = config_of(**server, response_style="zoom")
    assert config.zoom is not None
    assert (config.prompt, config.zoom.role) == ("zoom", "user")


def test_every_setting_is_part_of_a_searchs_name(zooming: Path) -> None:
    given: list[dict[str, object]] = [
        {},
        {"response_style": "grounded"},
        {"lens": "100:512"},
        {"lens": "100:512+dot"},
        {"lens": "0.1:512"},
        {"max_crops": 2},
        {"max_turns": 9},
        {"crop_tokens": 500},
        {"zoom_tool": BOX_TOOL},
        {"observation_role": "user"},
    ]
    configs = [config_of(teacher=str(zooming), **values) for values in given]
    assert len({search_id(QUESTION, config, 0, "m") for config in configs}) == len(given)
    lenses = [config.zoom.lens for config in configs[2:5] if config.zoom]
    dotted = Lens(100, 512, marked=True)
    assert lenses == [Lens(100, 512), dotted, Lens(0.1, 512, share=True)]
    named = config_of(teacher=str(zooming), lens="182:672")
    assert named == configs[0], "the task's own lens, typed"


def test_a_search_has_steps_for_as_many_crops_as_it_may_show(zooming: Path) -> None:
    def limits(**values: object) -> tuple[int, int]:
        config = config_of(teacher=str(zooming), **values)
        return config.rollout_steps, config.max_depth

    assert limits() == limits(max_crops=4) == limits(max_crops=2) == (5, 10)
    assert limits(max_crops=6) == (7, 10)
    assert limits(max_crops=16) == (17, 17)
    assert limits(max_crops=16, max_depth=8) == (17, 8), "a depth of one's own is kept"
    assert limits(response_style="grounded") == (5, 10)
    most = config_of(teacher=str(zooming), max_crops=62).zoom
    assert most is not None and (most.max_calls, most.max_turns) == (62, 62)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lens": "182"}, "lens: '182' is not HALF_WIDTH:SHOWN_SIDE"),
        ({"lens": "0:672"}, "lens: '0:672' is not"),
        ({"lens": "182:0"}, "lens: '182:0' is not"),
        ({"lens": "182:672+mark"}, "lens: "),
        ({"lens": "nan:672"}, "lens: "),
        ({"max_crops": 0}, "max_crops: Input should be greater than or equal to 1"),
        ({"max_turns": 3}, "max_turns: 3 calls can't show 4 crops"),
        ({"max_turns": 4, "max_crops": 5}, "max_turns: 4 calls can't show 5 crops"),
        ({"max_crops": 63}, "max_crops: a line of reasoning has at most 62 calls"),
        ({"max_turns": 63}, "max_turns: a line of reasoning has at most 62 calls"),
        ({"crop_tokens": -1}, "crop_tokens: "),
        ({"zoom_tool": "crop"}, "zoom_tool: Input should be 'search_coordinate' or 'image_zoom_in"),
        ({"observation_role": "system"}, "observation_role: Input should be 'user' or 'tool'"),
        ({"response_style": "answer_only"}, "response_style: Input should be 'grounded' or 'zoom'"),
        ({"lens": "182:672", "teacher": "nano-base"}, "lens: the model answers grounded here"),
        ({"max_crops": 2, "response_style": "grounded"}, "max_crops: the model answers grounded"),
    ],
)
def test_what_is_wrong_about_zooming_is_a_sentence(
    values: dict[str, object], sentence: str, zooming: Path
) -> None:
    with pytest.raises(Problem) as raised:
        config_of(**{"teacher": str(zooming), **values})
    assert str(raised.value).startswith(sentence) and "\n" not in str(raised.value)


def test_a_prompt_goes_with_zoom_and_with_no_other_response_style() -> None:
    about = {"model": "m", "benchmark": "vstar-bench", "prompt": "zoom"}
    assert EvaluateSettings.checked(**about, response_style="zoom").prompt == "zoom"
    with pytest.raises(Problem, match="response_style and prompt: give one of them"):
        EvaluateSettings.checked(**about, response_style="grounded")


def test_a_model_is_shown_what_it_was_taught_with_unless_other_is_given(zooming: Path) -> None:
    taught = ZoomConfig(Lens(90, 196), max_calls=2, max_turns=4, role="tool", crop_tokens=98)
    (zooming / "vigorl.json").write_text(json.dumps({**ZOOMS, "zoom": asdict(taught)}))
    assert config_of(teacher=str(zooming)).zoom == taught
    given = config_of(teacher=str(zooming), max_crops=3, lens="182:672").zoom
    assert given == replace(taught, lens=VISUAL_SEARCH_LENS, max_calls=3, max_turns=6)
    with pytest.raises(Problem, match="max_turns: 1 calls can't show 2 crops"):
        config_of(teacher=str(zooming), max_turns=1)


def test_without_zoom_a_model_is_asked_with_the_best_prompt_that_it_has(zooming: Path) -> None:
    def prompt(*styles: str) -> str:
        prompts = {"zoom": "zoom", **{style: f"{style}-prompt" for style in styles}}
        (zooming / "vigorl.json").write_text(json.dumps({**ZOOMS, "prompts": prompts}))
        resolved = resolve(TeacherSettings(teacher=str(zooming)))
        return without_zoom(resolved, task_of("vstar")).prompt

    assert prompt("answer_only", "grounded") == "grounded-prompt"
    assert prompt("answer_only") == "answer_only-prompt"
    assert prompt() == "visual-search", "the task's"


def test_a_task_may_have_a_registered_model_of_its_own():
    assert BuildSettings.checked(task="vstar").teacher == "nano-zoom"
    assert BuildSettings.checked(task="sat2").teacher == BuildSettings.checked(task="any").teacher
    assert BuildSettings.checked(task="vstar", teacher="nano").teacher == "nano"

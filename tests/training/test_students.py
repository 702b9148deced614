"""Which model a name means, and what it is prompted with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mcts.coordinates import CoordinateSpace
from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import GENERAL
from training.errors import TrainingError
from training.students import Student, open_student, with_pixel_limit
from warehouse.storage.home import Warehouse
from warehouse.versions.response_styles import PROMPTS


@pytest.mark.parametrize("name", ["nobody", "not/a/hub", "{folder}"])
def test_a_name_that_means_no_model_is_told_before_a_hub_is_asked(
    tmp_path: Path, name: str
) -> None:
    name = name.format(folder=tmp_path)
    with (
        pytest.raises(TrainingError, match=f"'{name}' is neither .*nano-base.*, nor a model of"),
        open_student(Warehouse(str(tmp_path / "home")), name),
    ):
        pytest.fail("there is none")


def test_a_model_that_is_not_fetched_yet_is_told_with_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with (
        pytest.raises(TrainingError, match="'nobody/nothing' is not here: fetch it once"),
        open_student(Warehouse(str(tmp_path / "home")), "nobody/nothing"),
    ):
        pytest.fail("it is not here")


def test_any_student_can_be_taught_to_zoom_and_no_other_style_that_it_has_no_prompt_for(
    tmp_path: Path,
) -> None:
    with open_student(Warehouse(str(tmp_path / "home")), "nano-base") as found:
        own = found.prompt_style.prompts
        zooming = found.with_response_style(ResponseStyle.ZOOM).prompt_style
        grounded = found.with_response_style(ResponseStyle.GROUNDED).prompt_style
    assert ResponseStyle.ZOOM not in own
    assert zooming.prompts == {**own, ResponseStyle.ZOOM: PROMPTS[ResponseStyle.ZOOM]}
    assert grounded.prompts == own


def test_a_samplers_own_processor_has_the_recipes_limit_of_pixels(tmp_path: Path) -> None:
    """vLLM reads the folder, and would see larger images than the trainer."""
    from transformers import AutoProcessor

    plain = {"max_pixels": 9_000_000, "size": {"shortest_edge": 3136, "longest_edge": 9_000_000}}
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": plain}))
    space = replace(CoordinateSpace.qwen25_vl(), max_pixels=100_352)
    student = Student(tmp_path, "m@1", space, GENERAL)
    with with_pixel_limit(student) as limited:
        for name in ("preprocessor_config.json", "processor_config.json"):
            config = json.loads((limited.folder / name).read_text())
            images = config.get("image_processor", config)
            assert images["max_pixels"] == images["size"]["longest_edge"] == 100_352
            assert images["size"]["shortest_edge"] == 3136
        assert (limited.folder / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == plain
    with open_student(Warehouse(str(tmp_path / "home")), "nano-zoom") as found:
        smaller = replace(found, space=replace(found.space, max_pixels=50_176))
        with with_pixel_limit(smaller) as limited:
            processor = AutoProcessor.from_pretrained(limited.folder, local_files_only=True)
            assert processor.image_processor.size["longest_edge"] == 50_176

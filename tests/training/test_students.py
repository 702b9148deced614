"""Which model a name means, and what it is prompted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts.data import ResponseStyle
from training.errors import TrainingError
from training.students import open_student
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

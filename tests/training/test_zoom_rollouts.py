"""Where a sampled turn ends, where an episode does, and pictures that got lost on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.errors import TrainingError
from training.zoom.episodes import EpisodeEnd
from training.zoom.rollouts import ZoomTrainer, check_images

EOS, IMAGE, VIDEO, STOP = 1, 2, 3, 4
TRAINER: Any = SimpleNamespace(
    _image_pad_token_id=IMAGE, _video_pad_token_id=VIDEO, eos_token_ids=[EOS], _turn_tokens=5,
    _most=12,
)  # fmt: skip
READER: Any = SimpleNamespace(
    context=100,
    decode=lambda tokens: " ".join(map(str, tokens)),
    read=lambda tokens, stops: (" ".join(map(str, tokens)), tokens[-1] == STOP),
)


def episode(context: int = 0, written: int = 0) -> Any:
    return SimpleNamespace(context=[9] * context, written=written, ended=None)


def ending(tokens: list[int], at: Any) -> Any:
    return ZoomTrainer._ending(TRAINER, tokens, at, READER)


def test_a_turn_ends_by_itself_or_at_the_first_limit() -> None:
    assert ending([7, 7, 7, 7], episode()) is None
    assert ending([7, STOP], episode()) == ([7, STOP], "7 4", True)
    assert ending([7] * 5, episode()) == ([7] * 5, "7 7 7 7 7", False), "the turn's own limit"
    assert ending([7] * 2, episode(written=9)) is None
    assert ending([7] * 3, episode(written=9)) == ([7] * 3, "7 7 7", False), "the episode's"
    assert ending([7] * 2, episode(97)) is None
    assert ending([7] * 3, episode(97)) == ([7] * 3, "7 7 7", False), "the model's context"


@pytest.mark.parametrize("pad", [IMAGE, VIDEO])
def test_a_mark_of_an_image_that_is_not_there_ends_the_turn_and_is_not_kept(pad: int) -> None:
    assert ending([7, 8, pad], episode()) == ([7, 8, EOS], "7 8", False)


def test_an_episode_without_room_for_another_turn_is_cut_off() -> None:
    for context, written, fits in ((99, 11, True), (100, 11, False), (99, 12, False)):
        one = episode(context, written)
        assert ZoomTrainer._fits(TRAINER, one, READER) is fits
        assert one.ended is (None if fits else EpisodeEnd.CUT_OFF)


def test_an_episode_whose_pictures_are_not_all_there_is_named() -> None:
    ids = torch.tensor([[IMAGE, IMAGE, 7], [IMAGE, 7, 7]])
    output = {
        "prompt_ids": ids, "completion_ids": torch.full((2, 1), 7),
        "image_grid_thw": torch.tensor([[1, 2, 4], [1, 2, 2]]), "num_images": [1, 1],
        "pixel_values": torch.zeros(12, 3),
    }  # fmt: skip
    check_images(output, IMAGE, 4)
    ids[1, 2] = IMAGE
    with pytest.raises(TrainingError, match="episode 2 of the batch has 2 image"):
        check_images(output, IMAGE, 4)

"""The zoom tools in TRL's own loop over environments."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, Image, Question
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from tests.support.scripted_student import look, say
from training.rewards.question_column import question_column, zoom_column
from training.rewards.rewards import PRESETS, make_rewards
from training.trainers import offline
from training.zoom.environment import ZoomEnvironment
from vigorl_nano import BASE

SPACE = CoordinateSpace.qwen3_vl()
QUESTION = Question(
    "t", "What colour is the sign?", (Image("a", 400, 400),), AnswerKind.TEXT, answers=("red",)
)
ROW = {
    "question": question_column(QUESTION),
    "zoom": zoom_column(ZoomConfig(Lens(50, 196), max_calls=2)),
    "prompt": [{"role": "user", "content": QUESTION.text}],
    "image_ids": ["a"],
}


def read_image(image_id: str) -> bytes:
    data = io.BytesIO()
    PILImage.linear_gradient("L").resize((400, 400)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def environment() -> ZoomEnvironment:
    made = ZoomEnvironment(SPACE, read_image)
    made.reset(**ROW)
    return made


def test_calls_are_answered_as_everywhere(environment: ZoomEnvironment) -> None:
    image, text = environment.search_coordinate([500, 500])
    assert image["image"].size == (196, 196) and "Image 2" in text["text"]
    (refused,) = environment.search_coordinate([503, 500])
    assert "shown already" in refused["text"]
    inner, text = environment.search_coordinate([100, 100], image=2)
    assert inner["image"].size == (196, 196) and "Now give your answer" in text["text"]
    crop = environment.steps[-1].observation
    assert crop is not None and crop.crop is not None and crop.crop.x1 < 170, "a crop of a crop"
    (refused,) = environment.image_zoom_in_tool([0, 0, 500, 500], "sign")
    assert "No further call" in refused["text"] and environment.over_limit
    environment.reset(**ROW)
    assert not environment.steps and not environment.over_limit


@pytest.mark.parametrize("wrong", ["here", [1], [5000, 5000], [None, 2], {"x": 1}])
def test_a_call_of_nothing_is_told_so(environment: ZoomEnvironment, wrong: Any) -> None:
    (text,) = environment.search_coordinate(wrong)
    assert text["type"] == "text" and "nothing is shown" in text["text"]


def test_trl_alone_trains_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline()
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_vl_chat_template

    from training.examples import AddImages

    model = AutoModelForImageTextToText.from_pretrained(BASE)
    processor = AutoProcessor.from_pretrained(BASE)
    processor.chat_template = processor.tokenizer.chat_template = qwen3_vl_chat_template
    rewards = make_rewards(PRESETS["zoom"], SPACE)
    args = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, num_generations=2, max_steps=1,
        max_completion_length=600, use_cpu=True, bf16=False, report_to="none",
        reward_weights=rewards.weights, gradient_checkpointing=False, remove_unused_columns=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, rewards.functions, args,
        train_dataset=Dataset.from_list([ROW]).with_transform(AddImages(read_image)),
        processing_class=processor,
        environment_factory=partial(ZoomEnvironment, SPACE, read_image),
    )  # fmt: skip
    told = iter([[look(500, 500), say("blue")], [say("red")]])
    monkeypatch.setattr(
        trainer,
        "_generate_single_turn",
        lambda *_, **__: (
            [processor.tokenizer(turn + "<|im_end|>")["input_ids"] for turn in next(told)],
            None,
        ),
    )
    trainer.model.train()
    row = trainer.train_dataset[0]
    made = trainer._generate_and_score_completions([dict(row), dict(row)])
    assert made["num_images"] == [2, 1] and len(made["image_grid_thw"]) == 3
    earned = trainer._logs["rewards"]
    assert list(earned["correctness"]) == [1, 0] and list(earned["format"]) == [1, 1]

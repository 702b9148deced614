"""What the cited places are worth to an answer: what is covered, what is asked, what is paid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from trl.data_utils import prepare_multimodal_messages

from mcts.data import Point, Step
from tests.support.trained import built_trainer
from training.batches.evidence import (
    GREY,
    answer_at,
    answer_log_probs,
    cited_masks,
    covered,
    evidence,
    masks_elsewhere,
)
from training.rewards.rewards import worth_covering

RED = (255, 0, 0)


def test_a_square_around_each_point_is_covered_in_its_image_alone() -> None:
    images = [Image.new("RGB", (100, 50), RED), Image.new("RGB", (40, 40), RED)]
    first, second = covered(images, cited_masks(images, [Point(20, 25), Point(95, 5)]))
    grey = [(x, y) for x in range(100) for y in range(50) if first.getpixel((x, y)) == GREY]
    assert {(20, 25), (11, 16), (29, 34), (99, 0)} <= set(grey)
    assert not {(9, 25), (31, 25), (20, 14), (84, 5)} & set(grey)
    assert second.getcolors() == [(1600, RED)] and images[0].getcolors() == [(5000, RED)]


def area(mask: Image.Image) -> int:
    return mask.width * mask.height - mask.histogram()[0]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_as_much_is_covered_elsewhere_and_always_the_same(count: int) -> None:
    draw = Random(count)
    images = [Image.new("RGB", (100, 80)), Image.new("RGB", (50, 50))]
    for _ in range(20):
        cited = [Point(draw.uniform(0, 100), draw.uniform(0, 80)) for _ in range(count)]
        masks = cited_masks(images, [*cited, Point(5, 5, 1)])
        if 2 * area(masks[0]) > 100 * 80:
            continue
        others = masks_elsewhere(masks)
        assert others is not None
        assert [area(other) for other in others] == [area(mask) for mask in masks]
        again = masks_elsewhere(masks)
        assert again is not None
        assert [a.tobytes() for a in again] == [other.tobytes() for other in others]
        shared = [area(ImageChops.logical_and(*pair)) for pair in zip(masks, others, strict=True)]
        assert shared[1] == 0 and shared[0] <= (0 if count < 3 else area(masks[0]) / 2)


def test_where_over_half_is_cited_there_is_no_such_elsewhere() -> None:
    images = [Image.new("RGB", (100, 100)), Image.new("RGB", (50, 50))]
    grid = [Point(10 + 20 * x, 10 + 20 * y) for x in range(5) for y in range(5)]
    assert masks_elsewhere(cited_masks(images, grid)) is None
    assert masks_elsewhere(cited_masks(images, grid[:15])) is None
    assert masks_elsewhere(cited_masks(images, grid[:10])) is not None


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with built_trainer(tmp_path_factory.mktemp("evidence"), "reward=evidence") as made:
        made.model.eval()
        yield made


def answers(rows: list[Any], *said: tuple[str, str]) -> list[str]:
    """Answers of one step to the rows; `gold` and `wrong` stand for the row's own."""
    import json

    texts = []
    for row, (thought, answer) in zip(rows, said, strict=True):
        question = json.loads(row["question"])
        gold = question["answers"][0]
        wrong = next(choice for choice in question["choices"] if choice != gold)
        answer = {"gold": gold, "wrong": wrong}[answer]
        texts.append(f"<think>{thought}</think>\n<answer>{answer}</answer>")
    return texts


def test_the_gain_is_of_the_answer_alone_and_paid_where_it_is_right(trainer: Any) -> None:
    tokenizer, dataset = trainer.processing_class.tokenizer, trainer.train_dataset
    rows = [dataset[i] for i in (0, 1, 0, 1)]
    look, points_nowhere = "I look at the lamp at ({}, 30).", "I look at the lamp."
    texts = answers(
        rows, (look.format(20), "gold"), (look.format(40), "gold"), (look.format(20), "wrong"),
        (points_nowhere, "gold"),
    )  # fmt: skip
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for text, own in zip(texts, ids, strict=True):
        at = answer_at(tokenizer, own)
        assert tokenizer.decode(own[:at]) + tokenizer.decode(own[at:]) == text
        assert tokenizer.decode(own[:at]).endswith("<answer>")
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    for row in rows:
        row["min_thoughts"] = 1
    read = [trainer._read(chat, row) for chat, row in zip(chats, rows, strict=True)]
    gains = evidence(trainer, rows, ids, read)
    assert [gain is None for gain in gains] == [False, False, True, True]
    points = [point for step in read[1].steps for point in step.points]
    chances = []
    masks = cited_masks(rows[1]["images"], points)
    for hidden in (masks, masks_elsewhere(masks)):
        assert hidden is not None
        shown = covered(rows[1]["images"], hidden)
        chat = prepare_multimodal_messages(rows[1]["prompt"], images=shown)
        chances.append(float(answer_log_probs(trainer, [chat], [ids[1]]).exp()))
    cited, other = chances
    assert cited != other, "the answer depends on what is covered"
    assert gains[1] == pytest.approx(other - cited, abs=1e-5), "alone as in a batch"
    ended = [[*own, trainer.eos_token_ids[0]] for own in ids]  # as what is not cut off
    gains = evidence(trainer, rows, ended, read)
    parts = trainer._parts(rows, [row["prompt"] for row in rows], chats, ended)
    paid = [max(0.0, gain or 0.0) for gain in gains]
    assert parts[:, -1].tolist() == pytest.approx(paid, abs=1e-5)
    assert trainer._metrics["train"]["evidence/asked"][-1:] in ([2], [])

    width, height = rows[0]["images"][0].size
    grid = [
        ((2 * x + 1) * width / 10, (2 * y + 1) * height / 10) for x in range(5) for y in range(5)
    ]
    everywhere = [Step("I look.", (Point(*at),)) for at in grid]
    cites_all = replace(read[0], steps=everywhere, cited=read[0].cited * len(grid))
    assert worth_covering(cites_all)
    assert evidence(trainer, rows[:1], ids[:1], [cites_all]) == [None]


def test_probabilities_of_answers_are_the_models_own(trainer: Any) -> None:
    tokenizer, row = trainer.processing_class.tokenizer, trainer.train_dataset[0]
    (text,) = answers([row], ("I look at the lamp at (20, 30).", "gold"))
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    chat = prepare_multimodal_messages(row["prompt"], images=row["images"])
    found = float(answer_log_probs(trainer, [chat], [own]))
    processor = trainer.processing_class
    prompt = processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    more = torch.tensor([own])
    prompt["input_ids"] = torch.cat([prompt["input_ids"], more], 1)
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    prompt["mm_token_type_ids"] = (
        prompt["input_ids"] == trainer._image_pad_token_id
    ).int()  # fmt: skip
    with torch.no_grad():
        logits = trainer.model(**prompt).logits[0, -len(own) - 1 : -1] / trainer.temperature
    at = answer_at(tokenizer, own)
    expected = logits.log_softmax(-1).gather(1, more[0][:, None])[at:].sum()
    assert found == pytest.approx(float(expected), abs=1e-3)

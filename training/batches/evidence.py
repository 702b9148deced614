"""Measures what the places that an answer's steps cite are worth to it: the column `evidence`.

    gains = evidence(trainer, rows, completion_ids, answers)       # -1 to 1 an answer, or None

The policy in training is asked how probable its own answer is behind its own thoughts, once with
the cited regions of the images covered in grey, and once with regions elsewhere covered, of just
as many pixels. The difference is the gain: of the probability of the answer, what hangs on just
those places. So a point that nothing hangs on earns nothing, and neither does citing more than half
of an image, for which there is no such elsewhere.

Masking what is cited and paying for the difference is CGPO's and DeFacto's idea; covering
elsewhere in place of nothing is ours, since a grey square in an image has an effect of its own.

It costs two passes without gradient for each answer that is right and grounded, and each has images
of its own, which the vision tower must see. Thoughts that say in words what is to be seen leave
little for the answer to depend on, whatever they point at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from PIL import Image, ImageChops, ImageDraw
from torch import Tensor
from trl.data_utils import prepare_multimodal_messages

from mcts.data import Point
from mcts.teachers.base import seed_of
from training.batches.log_probs import A_TOKEN_EACH, CHUNK
from training.rewards.completions import ParsedCompletion
from training.rewards.rewards import worth_covering
from warehouse.tables.schema import Row

HALF_WIDTH = 0.1
"""Of a covered square, as a share of the image's longer side."""
GREY = (128, 128, 128)
_MOVES_TRIED = 64


def evidence(
    trainer: Any, rows: Sequence[Row], completions: Sequence[list[int]],
    answers: Sequence[ParsedCompletion],
) -> list[float | None]:  # fmt: skip
    """Return each answer's gain; None where it is wrong, not grounded, or cites too much.

    Args:
        rows: with the columns `prompt` and `images`.
        completions: token ids of the answers.
    """
    found: list[float | None] = [None] * len(answers)
    asked, hidden = [], []
    for i, answer in enumerate(answers):
        if not worth_covering(answer):
            continue
        cited = cited_masks(rows[i]["images"], [p for step in answer.steps for p in step.points])
        other = masks_elsewhere(cited)
        if other is not None:
            asked.append(i)
            hidden.append((cited, other))
    if not asked:
        return found
    chats, written = [], []
    for masks_of_answers in zip(*hidden, strict=True):
        for i, masks in zip(asked, masks_of_answers, strict=True):
            images = covered(rows[i]["images"], masks)
            chats.append(prepare_multimodal_messages(rows[i]["prompt"], images=images))
            written.append(completions[i])
    chances = answer_log_probs(trainer, chats, written).exp().tolist()
    for i, cited, other in zip(asked, chances, chances[len(asked) :], strict=False):
        found[i] = other - cited
    return found


def cited_masks(images: Sequence[Any], points: Sequence[Point]) -> list[Image.Image]:
    """Return a mask of each image, with a square around each of its points."""
    masks = [Image.new("1", image.size) for image in images]
    for point in points:
        half = HALF_WIDTH * max(images[point.image].size)
        corners = (point.x - half, point.y - half, point.x + half, point.y + half)
        ImageDraw.Draw(masks[point.image]).rectangle(corners, fill=1)
    return masks


def covered(images: Sequence[Any], masks: Sequence[Image.Image]) -> list[Any]:
    """Return the images with what the masks cover in grey."""
    shown = [image.copy() for image in images]
    for image, mask in zip(shown, masks, strict=True):
        image.paste(GREY, mask=mask)
    return shown


def masks_elsewhere(masks: Sequence[Image.Image]) -> list[Image.Image] | None:
    """Return masks that cover as many pixels elsewhere; None where one covers over half.

    Each is moved as a whole, and goes on at the other side where it leaves its image. Of some
    drawn moves it is the one that keeps the least of its place; the same masks have the same ones.
    """
    if any(2 * _area(mask) > mask.width * mask.height for mask in masks):
        return None
    draw = Random(seed_of("elsewhere", [mask.tobytes().hex() for mask in masks]))
    return [_moved(mask, draw) for mask in masks]


def _moved(mask: Image.Image, draw: Random) -> Image.Image:
    least, best = _area(mask), mask
    for _ in range(_MOVES_TRIED):
        if not least:
            break
        moved = ImageChops.offset(mask, draw.randrange(mask.width), draw.randrange(mask.height))
        if (shared := _area(ImageChops.logical_and(mask, moved))) < least:
            least, best = shared, moved
    return best


def _area(mask: Image.Image) -> int:
    return mask.width * mask.height - mask.histogram()[0]


def answer_log_probs(
    trainer: Any, chats: Sequence[Any], completions: Sequence[list[int]]
) -> Tensor:
    """Return the log-probability of the answer in each completion, behind its thoughts: (rows,).

    Args:
        chats: the prompts with their images.
        completions: token ids; each has an answer.
    """
    tokenizer = trainer.processing_class.tokenizer
    device = trainer.accelerator.device
    prompts, _, fields = trainer._tokenize_prompts(list(chats))
    wide, long = max(map(len, prompts)), max(map(len, completions))
    ids = torch.full((len(chats), wide + long), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    kinds = {name: torch.zeros_like(ids) for name in A_TOKEN_EACH if name in fields}
    of_answer = torch.zeros(len(chats), long, dtype=torch.bool)
    for row, (prompt, own) in enumerate(zip(prompts, completions, strict=True)):
        begin, end = wide - len(prompt), wide + len(own)
        ids[row, begin:end] = torch.tensor([*prompt, *own])
        mask[row, begin:end] = 1
        for name, of_tokens in kinds.items():
            of_tokens[row, begin:wide] = torch.as_tensor(fields[name][row])
        of_answer[row, answer_at(tokenizer, own) : len(own)] = True
    given = {name: torch.as_tensor(of).to(device) for name, of in {**fields, **kinds}.items()}
    counts = [_images_in(chat) for chat in chats]
    with torch.no_grad():
        found = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids.to(device), mask.to(device), long, CHUNK, num_images=counts, **given
        )[0]
    return (found.float().cpu() * of_answer).sum(1)


def _images_in(chat: Any) -> int:
    return sum(part["type"] == "image" for message in chat for part in message["content"])


def answer_at(tokenizer: Any, ids: Sequence[int]) -> int:
    """Return the place of the first token that has to do with the answer, behind the tag in front
    of it: whether to answer yet is another choice."""

    def text(at: int) -> str:
        return str(tokenizer.decode(ids[: at + 1], skip_special_tokens=False))

    last = bisect_left(range(len(ids)), True, key=lambda at: "<answer>" in text(at))
    return last + text(last).endswith("<answer>")

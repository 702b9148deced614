"""Log-probabilities in chunks are those of the whole batch, and so are their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.trained import built_trainer
from training.batches import log_probs
from training.batches.log_probs import ChunkedTrainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChunkedTrainer]:
    with built_trainer(tmp_path_factory.mktemp("log-probs")) as made:
        yield made


def ragged(trainer: Any, images: list[int], lengths: list[tuple[int, int]]) -> dict[str, Any]:
    """A batch as TRL pads it: rows of (prompt, answer) lengths, with that many images each."""
    pad = trainer._image_pad_token_id
    longest = [max(of) for of in zip(*lengths, strict=True)]
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(300, 1000, (len(lengths), sum(longest)), generator=draw)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(lengths):
        begin = longest[0] - prompt
        mask[row, begin : longest[0] + answer] = 1
        for first in range(begin + 1, begin + 1 + 5 * images[row], 5):
            ids[row, first : first + 4] = pad
    count = sum(images)
    return {
        "input_ids": ids, "attention_mask": mask, "logits_to_keep": longest[1],
        "pixel_values": torch.randn(count * 16, 1176, generator=draw) if count else None,
        "image_grid_thw": torch.tensor([[1, 4, 4]] * count) if count else None,
        "num_images": images if count else None,
        "mm_token_type_ids": (ids == pad).int(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "images", [[1, 2, 0, 1, 3], [0, 0, 0, 0, 1], [0] * 5], ids=["many", "one", "none"]
)
def test_rows_and_gradients_are_those_of_the_whole_batch(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, images: list[int]
) -> None:
    lengths = [(20, 3), (16, 30), (14, 1), (22, 9), (18, 30)]
    batch = ragged(trainer, images, lengths)
    model = trainer.model.eval()
    answers = batch["attention_mask"][:, -batch["logits_to_keep"] :].bool()
    found = {}
    monkeypatch.setattr(log_probs, "CHUNK", 2)
    for chunked in (False, True):
        trainer.chunked = chunked
        model.zero_grad()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            model, compute_entropy=True, **batch
        )
        logps[answers].sum().backward()
        gradient = model.get_input_embeddings().weight.grad.clone()
        found[chunked] = logps.detach()[answers], entropies.detach()[answers], gradient
        assert logps.shape == entropies.shape == answers.shape
    for whole, parts in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(parts, whole, atol=2e-4, rtol=1e-3)


def test_a_chunk_is_as_wide_as_its_own_rows(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ragged(trainer, [0] * 4, [(10, 40), (30, 2), (12, 40), (30, 3)])
    widths = []
    forward = trainer.model.forward
    monkeypatch.setattr(log_probs, "CHUNK", 2)
    monkeypatch.setattr(
        trainer.model, "forward",
        lambda **given: widths.append(given["input_ids"].shape) or forward(**given),
    )  # fmt: skip
    trainer.chunked = True
    with torch.no_grad():
        trainer._get_per_token_logps_and_entropies(trainer.model, **batch)
    assert widths == [(2, 33), (2, 52)]

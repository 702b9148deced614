"""The small model's own forward pass against transformers', on the tiny random checkpoint."""

from pathlib import Path

import pytest
import torch

from mcts.teachers.local.checkpoint import Checkpoint
from mcts.teachers.local.decoder import BatchRow, Decoder
from mcts.teachers.local.small_model import SmallText
from mcts.teachers.local.teacher import LocalTeacher
from tests.mcts.test_local import IMAGES, PROMPTS, ask, make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder)
    return Checkpoint.load(folder, "cpu", 8)


@torch.inference_mode()
def logits_of_steps(checkpoint: Checkpoint, small: bool) -> list[torch.Tensor]:
    """Logits after prompts of several lengths (with images, without, and with a cached prefix)
    and of every row in ten decoding steps, in which two rows leave and one joins."""
    decoder = Decoder(checkpoint.model, 8, 2**24, small=small)
    assert (decoder._small is not None) == small
    found = []
    draw = decoder._draw

    def keep(rows, logits):
        found.append(logits.clone())
        draw(rows, logits)

    decoder._draw = keep
    prompts = [checkpoint.prompt(request, IMAGES) for request in PROMPTS]
    ready = decoder.prefill([prompts[0]])  # the fourth prompt goes on from it
    ready += decoder.prefill(prompts[1:])
    assert ready[3][1] > 0
    # Greedy, so that both sides go through the same tokens.
    rows = [BatchRow(None, i, i, 0.0, 1.0) for i in range(6)]
    decoder.join(list(zip(rows[:5], [prefix for prefix, _ in ready], strict=True)))
    for step in range(10):
        if step == 3:
            decoder.drop([rows[0], rows[3]])
        if step == 5:
            decoder.join([(rows[5], ready[0][0])])
        decoder.step()
    return found


def test_the_small_forward_pass_has_the_librarys_logits(checkpoint):
    own, library = (logits_of_steps(checkpoint, small) for small in (True, False))
    assert len(own) == len(library) == 12
    for ours, theirs in zip(own, library, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert max(logits.abs().max() for logits in library) > 0.1


def test_deepstack_features_of_images_reach_the_logits(checkpoint):
    """The tiny model has a deepstack layer; only this test fails if it is left out."""
    with torch.inference_mode():
        prompt = checkpoint.prompt(PROMPTS[0], IMAGES)
        assert prompt.deep
        whole = Decoder(checkpoint.model, 1, 0).prefill([prompt])[0][0].logits
        prompt.deep = []
        without = Decoder(checkpoint.model, 1, 0).prefill([prompt])[0][0].logits
    assert not torch.allclose(whole, without, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen2_5_vl_text"},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn"}},
    ],
)
def test_other_architectures_keep_the_librarys_forward_pass(checkpoint, monkeypatch, change):
    assert SmallText.fits(checkpoint.model)
    for name, value in change.items():
        monkeypatch.setattr(checkpoint.model.model.language_model.config, name, value)
    assert not SmallText.fits(checkpoint.model)


async def test_occupancy_is_the_mean_share_of_the_batch(tmp_path):
    make_checkpoint(tmp_path)
    teacher = LocalTeacher(tmp_path, batch=8, threads=1)
    assert teacher.occupancy == 0.0
    await teacher.complete(ask("Name a thing", n=2, temperature=1.0, max_tokens=3), IMAGES)
    assert 0 < teacher.occupancy <= 2 / 8
    await teacher.close()


def test_a_token_without_a_stop_strings_last_letter_is_not_read_again(checkpoint, monkeypatch):
    tokens = checkpoint.tokenizer("a long thought that has no mark", add_special_tokens=False)
    tokens = tokens["input_ids"]
    checkpoint.read(tokens, ("</answer>",))
    calls = []
    decode = checkpoint.decode
    monkeypatch.setattr(Checkpoint, "decode", lambda self, some: calls.append(1) or decode(some))
    for end in range(1, len(tokens)):
        assert checkpoint.read(tokens[:end], ("</answer>",)) == ("", False)
    assert len(calls) <= len(set(tokens))


def test_a_stop_string_that_ends_inside_a_token_is_found(checkpoint):
    tag = checkpoint.tokenizer("</think> go", add_special_tokens=False)["input_ids"]
    assert checkpoint.read(tag[:1], ("think>",)) == ("</think>", True)
    assert checkpoint.read(tag, ("é", "o")) == ("</think> go", True)
    cut = checkpoint.tokenizer("aéb", add_special_tokens=False)["input_ids"]
    assert checkpoint.read(cut[:2], ("é",)) == ("", False)
    assert checkpoint.read(cut[:3], ("é",)) == ("aé", True)

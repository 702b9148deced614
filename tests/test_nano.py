"""The embedded model: it loads offline with plain transformers, and really reads the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.nano.config import SIDE, features, language, to_patches
from training.nano.data import Encoder, make_example, positions
from training.nano.evaluate import WEIGHTS, Checkpoint, evaluate, interval, table
from training.nano.tokenizer import SPECIAL, TAGS, build_tokenizer
from warehouse.sources.rooms_questions import FAMILIES

TAKE = {
    "frames": [
        {"at": 0, "objects": [["red box", 0.412, 0.63, True], ["blue ball", 0.7, 0.21, True]]},
        {"at": 1, "objects": [["red box", 0.1, 0.6, True], ["blue ball", 0.7, 0.21, True]]},
    ],
}
ONE = {
    "family": "left_right",
    "text": "Is the red box left of the blue ball?",
    "answer": "left",
    "options": ["left", "right"],
    "frames": [0],
    "about": [["red box", 0], ["blue ball", 0]],
}
TWO = {
    "family": "object_moved",
    "text": "Which object has moved?",
    "answer": "red box",
    "options": ["red box", "blue ball"],
    "frames": [0, 1],
    "about": [["red box", 0], ["red box", 1], ["blue ball", 0], ["blue ball", 1]],
}


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return Checkpoint(WEIGHTS)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((320, 320), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "text",
    [
        "<think>The red box is at (412, 630).</think>\n<answer>left</answer>",
        '<tool_call>\n{"name": "zoom", "arguments": {"coordinate": [1, 2]}}\n</tool_call>',
        "naïve 日本語 🙂 \t\r\n  two  spaces \x00",
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_and_tags_are_single_tokens(tokenizer):
    for text in (*"0123456789", *SPECIAL, *TAGS):
        assert len(tokenizer.encode(text)) == 1, text
    assert len(tokenizer.encode(" (412, 630).")) == 9


def test_the_stored_tokenizer_is_the_one_the_code_builds(nano, tokenizer):
    assert nano.processor.tokenizer.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("question", [ONE, TWO])
def test_training_text_is_what_the_template_renders(nano, question):
    example = make_example(np.random.default_rng(0), TAKE, question, direct=False)
    images = len(question["frames"])
    asked = example.prompt.split("<|vision_end|>")[-1].split("<|im_end|>")[0]
    messages = [
        {
            "role": "user",
            "content": [
                *({"type": "image"} for _ in range(images)),
                {"type": "text", "text": asked},
            ],
        }
    ]
    text = nano.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = nano.processor(text=[text], images=[[picture()] * images], return_tensors="pt")
    assert batch["input_ids"][0].tolist() == nano.processor.tokenizer.encode(example.prompt)
    reply = example.reply.removesuffix("<|im_end|>")
    messages.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
    whole = nano.processor.apply_chat_template(messages, tokenize=False)
    assert whole == text + example.reply + "\n"
    begun = nano.processor.apply_chat_template(
        messages, continue_final_message=True, tokenize=False
    )
    assert begun == text + reply


def test_the_template_marks_exactly_what_the_assistant_wrote(nano):
    tokenizer = nano.processor.tokenizer
    out = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}],
        chat_template=nano.processor.chat_template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = [t for t, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "There.<|im_end|>"


def test_the_template_renders_tools_and_their_pictures(nano):
    call = {"type": "function", "function": {"name": "zoom", "arguments": {"x": 1}}}
    shown = [{"type": "image"}, {"type": "text", "text": "a crop"}]
    text = nano.processor.apply_chat_template(
        [
            {"role": "system", "content": "Look."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": shown},
        ],
        tools=[{"type": "function", "function": {"name": "zoom", "parameters": {}}}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert text.startswith("<|im_start|>system\nLook.\n\n# Tools")
    assert '<tool_call>\n{"name": "zoom", "arguments": {"x": 1}}\n</tool_call><|im_end|>' in text
    assert "<tool_response>\n<|vision_start|><|image_pad|><|vision_end|>a crop\n" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_every_point_of_a_training_text_looks_at_its_cell(tokenizer):
    encoder = Encoder(tokenizer)
    row = encoder(make_example(np.random.default_rng(0), TAKE, TWO, direct=False))
    first = row.ids.index(encoder.image)
    cells = {to - first for _, to in row.looks}
    # 2 pictures of 25 tokens with two marks between: box and ball before, box and ball after.
    assert cells == {17, 8, 15 + 27, 8 + 27}
    assert row.weights[0] == 0 and row.weights[-1] > 0


def test_fast_training_paths_compute_what_the_library_computes(nano):
    model, image = nano.model, picture()
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    frames = torch.from_numpy(small.copy())[None]
    batch = nano.processor(
        text=[nano.processor.image_token + " Where is it?"], images=[[image]], return_tensors="pt"
    )
    patches = batch["pixel_values"].view(100, 3, 2, 256)[:, :, 0].reshape(100, 768)
    assert torch.allclose(patches, to_patches(frames)[0], atol=1e-6)
    with torch.no_grad():
        seen = features(model, frames)
        slow = model.model.visual(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
        assert torch.allclose(seen[0], slow, atol=1e-4)
        ids = batch["input_ids"]
        where = positions(ids[0].numpy(), model.config.image_token_id)
        words = model.get_input_embeddings()(ids)
        words[0, ids[0] == model.config.image_token_id] = seen[0]
        hidden, looks, _ = language(model, words, torch.from_numpy(where)[:, None])
        assert torch.allclose(model.lm_head(hidden), model(**batch).logits, atol=1e-3)
    assert torch.allclose(looks.exp().sum(-1), torch.ones(1, 3, ids.shape[1]), atol=1e-4)


def test_a_broken_off_turn_is_continued(nano):
    prompt = (
        f"<|im_start|>user\n<|vision_start|>{nano.processor.image_token}<|vision_end|>Which object "
        "is closer to the camera, the red box or the blue ball? Choices: red box or blue ball.\n"
        "Think in at least 3 steps.<|im_end|>\n<|im_start|>assistant\n"
        "<think>The red box is at (412, 630).</think>\n"
    )
    batch = nano.processor(text=[prompt], images=[[picture()]], return_tensors="pt")
    out = nano.model.generate(**batch, max_new_tokens=120, do_sample=False)
    text = nano.processor.tokenizer.decode(out[0, batch["input_ids"].shape[1] :])
    assert text.startswith("<think>") and text.endswith("</answer><|im_end|>")


def test_it_reads_the_picture_and_without_one_it_only_guesses():
    """Two options, so 50% is chance: far above with the picture, chance with a blank one."""
    limit = 180
    seeing, blind = (evaluate(limit=limit, seed=3, blank=blank) for blank in (False, True))
    print(table(seeing), table(blind, "with a blank picture"), sep="\n")
    share, low, _ = interval(seeing)
    assert low > 0.5, f"with the picture {share:.1%}"
    # Without a picture some texts never reach an option: chance is among those that do.
    share, low, high = interval([r for r in blind if r.option])
    assert low <= 0.5 <= high, f"blank {share:.1%} [{low:.1%}, {high:.1%}]"
    assert {r.family for r in seeing} == set(FAMILIES)
    assert np.mean([r.formed for r in seeing]) > 0.9


def test_the_weights_are_one_small_safetensors_file():
    files = {p.name for p in Path(WEIGHTS).iterdir()}
    assert "model.safetensors" in files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert sum(p.stat().st_size for p in Path(WEIGHTS).iterdir()) < 10_000_000

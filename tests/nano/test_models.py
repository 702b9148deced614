"""The embedded models: their texts, their training arrays, and plain transformers loading them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vigorl_nano import BASE, READER, TEACHER
from vigorl_nano.pretraining.auxiliary_heads import cover_maps
from vigorl_nano.pretraining.config import (
    GRID,
    PATCH,
    SIDE,
    TOKENS_PER_IMAGE,
    features,
    language,
    to_patches,
)
from vigorl_nano.pretraining.data import (
    LINES,
    RESPONSE_MODES,
    VisibleObject,
    imagine,
    make_example,
    mirror_take,
)
from vigorl_nano.pretraining.encode import Encoder, positions
from vigorl_nano.pretraining.export import Checkpoint, load_checkpoint
from vigorl_nano.pretraining.pretrain import RECIPES
from vigorl_nano.pretraining.tokenizer import SPECIAL, TAGS, build_tokenizer
from vigorl_nano.rooms.objects import COLOURS, KINDS
from vigorl_nano.rooms.wording import FAMILIES


def visible(name: str, x: float, y: float, depth: float = 3.0) -> VisibleObject:
    return VisibleObject(name, x - 0.08, y - 0.08, x + 0.08, y + 0.08, True, depth)


TAKE = {
    "frames": [
        {"at": 0, "objects": [visible("red box", 0.412, 0.63), visible("blue ball", 0.7, 0.21)]},
        {"at": 1, "objects": [visible("red box", 0.1, 0.6), visible("blue ball", 0.7, 0.21)]},
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
TAKE["questions"] = [ONE, TWO]


def example(question, mode="grounded", seed=0, **options):
    return make_example(np.random.default_rng(seed), TAKE, question, mode, **options)


@pytest.fixture(scope="module", params=[BASE, TEACHER, READER], ids=["base", "teacher", "reader"])
def nano(request) -> Checkpoint:
    return load_checkpoint(request.param)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def make_image(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((392, 392), Image.Resampling.BICUBIC)


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
    row = example(question)
    images = len(question["frames"])
    question = row.prompt.split("<|vision_end|>")[-1].split("<|im_end|>")[0]
    messages = [
        {
            "role": "user",
            "content": [
                *({"type": "image"} for _ in range(images)),
                {"type": "text", "text": question},
            ],
        }
    ]
    text = nano.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = nano.processor(text=[text], images=[[make_image()] * images], return_tensors="pt")
    assert batch["input_ids"][0].tolist() == nano.processor.tokenizer.encode(row.prompt)
    reply = row.reply.removesuffix("<|im_end|>")
    messages.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
    whole = nano.processor.apply_chat_template(messages, tokenize=False)
    assert whole == text + row.reply + "\n"
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


def test_the_template_renders_tools_and_their_images(nano):
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
    row = encoder(example(TWO))
    first = row.ids.index(encoder.image)
    cells = {to - first for _, to in row.looks}
    # 2 images of 7 x 7 tokens with two marks between: box and ball before, box and ball after.
    after = TOKENS_PER_IMAGE + 2
    assert cells == {4 * 7 + 2, 1 * 7 + 4, 4 * 7 + after, 1 * 7 + 4 + after}
    assert row.weights[0] == 0 and row.weights[-1] > 0


def test_the_steps_follow_the_order_in_which_a_question_names_things():
    """An order chosen by the truth would let the first step give the answer away."""
    turned = {**ONE, "about": ONE["about"][::-1]}
    assert [s.image for s in example(ONE).spots] == [s.image for s in example(turned).spots]
    for question in (ONE, turned):
        assert example(question).reply.index("red box") < example(question).reply.index("blue ball")


def test_the_ungrounded_twin_is_the_same_reasoning_without_its_points():
    for seed in range(20):
        grounded, bare = (example(ONE, mode, seed) for mode in RESPONSE_MODES[:2])
        stripped = re.sub(r" at \(\d+, \d+\)( in image \d)?", "", grounded.reply)
        assert stripped == bare.reply and "(" not in bare.reply and not bare.spots


def test_a_mirrored_take_mirrors_its_answers_and_its_points():
    flipped = mirror_take(TAKE)
    question = flipped["questions"][0]
    assert question["answer"] == "right" and question["options"] == ["right", "left"]
    assert flipped["questions"][1]["answer"] == "red box"
    x, y = flipped["frames"][0]["objects"][0].centre
    assert (x, y) == pytest.approx((1 - 0.412, 0.63))


def test_without_an_image_names_and_digits_count_little_and_no_attention_is_drawn(tokenizer):
    encoder = Encoder(tokenizer)
    row = encoder(example(ONE, blind=True))
    start = max(i for i, t in enumerate(row.ids) if t == encoder.image)
    arbitrary = encoder.digits | encoder.words
    weights = [w for t, w in zip(row.ids[start:], row.weights[start:], strict=True) if w]
    loud = [t for t, w in zip(row.ids, row.weights, strict=True) if w > 1]
    assert not row.looks and not row.names and not row.evidence
    assert not arbitrary & set(loud) and min(weights) > 0
    assert tokenizer.convert_tokens_to_ids("left") in loud


@pytest.mark.parametrize("family", ["count", "colour", "left_right"])
def test_without_an_image_steps_are_made_up_and_agree_with_the_answer(family):
    about = [("red box", 0), ("blue box", 0)]
    question = {
        "count": {"text": "How many boxes are there?", "options": ["2", "3"], "about": about},
        "colour": {"text": "What colour is the box?", "options": ["red", "green"],
                   "about": about[:1]},
        "left_right": {"text": "Is the red box left or right of the blue box?",
                       "options": ["left", "right"], "about": about},
    }[family] | {"family": family, "answer": "2", "frames": [0]}  # fmt: skip
    question["answer"] = question["options"][0]
    answers = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        take, blind = imagine(rng, TAKE, question)
        names = list(dict.fromkeys(name for name, _ in blind["about"]))
        answers.add(blind["answer"])
        assert {o.name for o in take["frames"][0]["objects"]} >= set(names)
        if family == "count":
            assert len(names) == int(blind["answer"]) and all("box" in name for name in names)
        elif family == "colour":
            assert names == [f"{blind['answer']} box"]
        else:
            assert names == ["red box", "blue box"] and blind["answer"] == "left"
    assert answers == ({"left"} if family == "left_right" else set(question["options"]))


def test_the_auxiliary_maps_paint_the_nearer_object_over_the_farther():
    near, far = visible("red box", 0.5, 0.5, 2.0), visible("blue ball", 0.5, 0.5, 4.0)
    for objects in ([near, far], [far, near]):
        colours, kinds = cover_maps([objects])
        assert set(colours.unique().tolist()) == {0, 1 + list(COLOURS).index("red")}
        assert set(kinds.unique().tolist()) == {0, 1 + KINDS.index("box")}


def test_fast_training_paths_compute_what_the_library_computes(nano):
    model, image = nano.model, make_image()
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    frames = torch.from_numpy(small.copy())[None]
    batch = nano.processor(
        text=[nano.processor.image_token + " Where is it?"], images=[[image]], return_tensors="pt"
    )
    patches = batch["pixel_values"].view(GRID**2, 3, 2, PATCH**2)[:, :, 0].reshape(GRID**2, -1)
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
    batch = nano.processor(text=[prompt], images=[[make_image()]], return_tensors="pt")
    out = nano.model.generate(**batch, max_new_tokens=120, do_sample=False)
    text = nano.processor.tokenizer.decode(out[0, batch["input_ids"].shape[1] :])
    assert text.startswith("<think>") and text.endswith("</answer><|im_end|>")


def test_each_checkpoint_is_one_small_safetensors_file():
    for folder in (BASE, TEACHER, READER):
        files = {p.name for p in Path(folder).iterdir()}
        assert [name for name in files if "safetensors" in name] == ["model.safetensors"]
        assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
        assert sum(p.stat().st_size for p in Path(folder).iterdir()) < 10_000_000


def test_every_recipe_names_known_families_and_response_modes():
    for path in RECIPES.glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        for stage in {"language", "anneal", "finetune"} & set(recipe):
            plan = {**recipe.get("language", {}), **recipe[stage]}
            modes = set(LINES) if "language" in recipe else set(RESPONSE_MODES) - {"grounded"}
            assert set(plan["response_modes"]) == modes
            assert sum(plan["response_modes"].values()) == pytest.approx(1)
            assert set(plan["families"]) | set(plan.get("reading_only", ())) <= set(FAMILIES)
    base = yaml.safe_load((RECIPES / "base.yaml").read_text())["language"]["response_modes"]
    assert base["grounded"] == base["ungrounded"]

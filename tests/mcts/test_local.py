"""The in-process teacher against plain `generate`, on a tiny random checkpoint made here."""

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from mcts.teachers.base import (
    ImagePart,
    Message,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
    mean_logprob,
)
from mcts.teachers.local.checkpoint import Checkpoint
from mcts.teachers.local.decoder import BatchRow, Decoder, choose, uniform
from mcts.teachers.local.teacher import LocalTeacher, checkpoint_identity

TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}
{%- endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>"]  # fmt: skip


def make_checkpoint(folder: Path) -> None:
    """A random Qwen3-VL of 60,000 weights with a byte-level tokenizer, as transformers saves it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    raw.add_tokens(["<think>", "</think>", "<answer>", "</answer>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "head_dim": 16,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 400, "tie_word_embeddings": False, "initializer_range": 0.3,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2],
        },
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
        "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        "initializer_range": 0.3,
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessor(patch_size=16, merge_size=2).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    make_checkpoint(made)
    return made


@pytest.fixture
async def teacher(folder):
    made = LocalTeacher(folder, batch=8, threads=1)
    yield made
    await made.close()


def image_bytes(colour: str, size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((8, 8, 40, 30), fill=colour)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


IMAGES = {
    "red": image_bytes("red"),
    "blue": image_bytes("blue"),
    "wide": image_bytes("green", (128, 64)),
}


def ask(
    text: str = "What is it?",
    *image_ids: str,
    partial: str = "",
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 24,
    stop: tuple[str, ...] = (),
    seed: int = 0,
) -> Request:
    messages = (Message("user", (*map(ImagePart, image_ids), TextPart(text))),)
    if partial:
        messages += (Message("assistant", (TextPart(partial),)),)
    return Request(messages, n, temperature, top_p, max_tokens, stop, seed)


PROMPTS = [
    ask("What is it?", "red"),
    ask("A much longer question about two pictures, first and second", "wide", "blue"),
    ask("No picture at all"),
    ask("What is it?", "red", partial="<think>It is red.</think>\n"),
    ask("", "blue", max_tokens=11),
]


async def texts(teacher: LocalTeacher, *requests: Request) -> list[list[str]]:
    replies = await asyncio.gather(*(teacher.complete(r, IMAGES) for r in requests))
    return [[completion.text for completion in reply.completions] for reply in replies]


def generate(folder: Path, request: Request) -> str:
    """What transformers itself makes of a request, by its own template, processor and loop."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {
            "role": m.role,
            "content": [
                {"type": "text", "text": p.text} if isinstance(p, TextPart) else {"type": "image"}
                for p in m.parts
            ],
        }
        for m in request.messages
    ]
    prompt = tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=not request.continues,
        continue_final_message=request.continues,
    )
    extra = {}
    if request.image_ids:
        opened = [Image.open(io.BytesIO(IMAGES[i])) for i in request.image_ids]
        extra = dict(AutoImageProcessor.from_pretrained(folder)(opened, return_tensors="pt"))
        for grid in extra["image_grid_thw"]:
            prompt = prompt.replace("<|image_pad|>", "<pad>" * int(grid.prod() // 4), 1)
        prompt = prompt.replace("<pad>", "<|image_pad|>")
    batch = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    extra["mm_token_type_ids"] = (batch["input_ids"] == model.config.image_token_id).int()
    out = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **extra,
        do_sample=False, max_new_tokens=request.max_tokens,
    )  # fmt: skip
    new = out[0, batch["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=False).removesuffix("<|im_end|>")


async def test_greedy_text_equals_plain_generate_alone_and_in_a_batch(folder, teacher):
    expected = [[generate(folder, request)] for request in PROMPTS]
    assert [(await texts(teacher, request))[0] for request in PROMPTS] == expected
    fresh = LocalTeacher(folder, batch=8, threads=1)
    assert await texts(fresh, *PROMPTS) == expected  # no prefix known, all at once
    assert await texts(fresh, *PROMPTS) == expected  # every prefix known
    await fresh.close()
    assert len({text for (text,) in expected}) == len(PROMPTS)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
async def test_a_completions_log_probability_is_the_models_own(folder, teacher, temperature):
    request = replace(ask(temperature=temperature, max_tokens=9, seed=5), logprobs=True)
    (told,) = (await teacher.complete(request, IMAGES)).completions
    (untold,) = (await teacher.complete(replace(request, logprobs=False), IMAGES)).completions
    assert (told.text, untold.mean_logprob) == (untold.text, None)
    checkpoint = Checkpoint.load(folder, "cpu", 2**20)
    with torch.inference_mode():
        decoder = Decoder(checkpoint.model, 1, 2**20)
        prompt = checkpoint.prompt(request, IMAGES)
        row = BatchRow(None, 0, request.sample_seed(0), temperature, 1.0, logprobs=[])
        decoder.join([(row, *decoder.prefill([prompt])[0][:1])])
        while len(row.tokens) < told.tokens:
            decoder.step()
        known = torch.tensor([[*prompt.names, *row.tokens]])
        logits = checkpoint.model(input_ids=known).logits[0, len(prompt.names) - 1 : -1]
    expected = torch.log_softmax(logits, -1)[range(told.tokens), row.tokens]
    assert row.logprobs == pytest.approx(expected.tolist(), abs=1e-3)
    assert told.mean_logprob == mean_logprob(row.logprobs)


async def test_requests_with_and_without_an_image_run_in_one_batch(folder):
    words, image = ask("Think of a word, and of many more, " * 6), ask("Name it", "red")
    expected = [[generate(folder, request)] for request in (words, image)]
    teacher = LocalTeacher(folder, batch=8, threads=1)
    assert await texts(teacher, words, image) == expected
    await teacher.close()


async def test_a_sample_depends_on_its_seed_and_not_on_its_neighbours(folder, teacher):
    three = ask("Name a thing", "red", n=3, temperature=1.0, seed=7)
    alone = (await texts(teacher, three))[0]
    crowd = [ask(f"Question {i}", "blue", n=2, temperature=1.5, seed=i) for i in range(9)]
    small = LocalTeacher(folder, batch=3, threads=1)
    mixed = await texts(small, *crowd[:5], three, *crowd[5:])
    await small.close()
    assert mixed[5] == alone
    assert len(set(alone)) == 3
    singles = [ask("Name a thing", "red", temperature=1.0, seed=7 + i) for i in range(3)]
    assert [one for (one,) in await texts(teacher, *singles)] == alone


async def test_more_samples_than_the_batch_holds_all_arrive_in_order(folder):
    small = LocalTeacher(folder, batch=2, threads=1)
    many = ask("Name a thing", n=7, temperature=1.0, seed=3)
    (got,) = await texts(small, many)
    wide = LocalTeacher(folder, batch=16, threads=1)
    assert got == (await texts(wide, many))[0]
    await small.close()
    await wide.close()


async def test_a_completion_ends_with_the_first_stop_string_and_keeps_it(teacher):
    free = ask("Name a thing", "red", max_tokens=60)
    text = (await texts(teacher, free))[0][0]
    stop = text[20:23]
    cut = Request(free.messages, 1, 0.0, 1.0, 60, ("never", stop), 0)
    (completion,) = (await teacher.complete(cut, IMAGES)).completions
    assert completion.text == text[: text.index(stop) + 3]
    assert completion.finish_reason == "stop"


async def test_the_token_limit_and_the_context_end_a_completion_as_length(teacher):
    (short,) = (await teacher.complete(ask(max_tokens=5), IMAGES)).completions
    assert (short.finish_reason, short.tokens) == ("length", 5)
    reply = await teacher.complete(ask("x" * 300, max_tokens=9999), IMAGES)
    (completion,) = reply.completions
    assert completion.finish_reason == "length"
    assert reply.prompt_tokens + completion.tokens == 400


async def test_an_overlong_prompt_is_that_requests_error_only(teacher):
    good, bad = await asyncio.gather(
        teacher.complete(ask(), IMAGES), teacher.complete(ask("x" * 500), IMAGES),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(bad, TeacherError) and bad.kind == "bad_request" and "400" in bad.message
    assert good.completions[0].text


async def test_an_image_that_the_processor_refuses_is_that_requests_error_only(teacher):
    data = io.BytesIO()
    Image.new("RGB", (672, 3)).save(data, "PNG")
    good, bad = await asyncio.gather(
        teacher.complete(ask(), IMAGES),
        teacher.complete(ask("?", "red"), {"red": data.getvalue()}),
        return_exceptions=True,
    )
    assert isinstance(bad, TeacherError) and bad.kind == "bad_request" and "ratio" in bad.message
    assert good.completions[0].text


@pytest.mark.parametrize("images", [{}, {"red": b"not an image"}, {"red": IMAGES["red"][:60]}])
async def test_a_missing_or_broken_image_is_that_requests_error_only(teacher, images):
    with pytest.raises(TeacherError) as caught:
        await teacher.complete(ask("?", "red"), images)
    assert caught.value.kind == "bad_request"
    assert (await texts(teacher, ask()))[0]


async def test_a_common_prefix_of_prompts_is_run_once(teacher):
    first = await teacher.complete(ask("What is it, then?", "red"), IMAGES)
    assert first.cached_tokens == 0
    again = await teacher.complete(ask("What is it, then?", "red"), IMAGES)
    assert again.cached_tokens == again.prompt_tokens
    grown = ask("What is it, then?", "red", partial="<think>It is red.</think>\n")
    reply = await teacher.complete(grown, IMAGES)
    assert first.prompt_tokens <= reply.cached_tokens < reply.prompt_tokens
    # The same words about another image share nothing after the image.
    other = await teacher.complete(ask("What is it, then?", "blue"), IMAGES)
    assert other.cached_tokens < first.prompt_tokens / 2


async def test_the_image_changes_the_answer(teacher):
    red, blue = await texts(teacher, ask("?", "red"), ask("?", "blue"))
    assert red != blue


async def test_a_cancelled_request_leaves_the_batch(teacher):
    await teacher.open()
    task = asyncio.create_task(teacher.complete(ask(n=8, max_tokens=380), IMAGES))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await teacher.complete(ask(max_tokens=2), IMAGES)
    assert teacher._worker._decoder.rows == []
    assert teacher.ledger.in_flight == 0


async def test_the_event_loop_goes_on_while_the_model_runs(teacher):
    await teacher.open()
    task = asyncio.create_task(teacher.complete(ask(n=8, max_tokens=200), IMAGES))
    longest, before = 0.0, time.monotonic()
    while not task.done():
        await asyncio.sleep(0.005)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    assert longest < 0.5


async def test_closing_fails_what_is_waiting(folder):
    teacher = LocalTeacher(folder, batch=2, threads=1)
    await teacher.open()
    task = asyncio.create_task(teacher.complete(ask(n=4, max_tokens=380), IMAGES))
    await asyncio.sleep(0.05)
    await teacher.close()
    with pytest.raises(TeacherUnavailable, match="closed"):
        await task


async def test_a_missing_or_weightless_folder_is_one_clear_sentence(tmp_path):
    with pytest.raises(TeacherUnavailable, match="no model folder"):
        await LocalTeacher(tmp_path / "nowhere").open()
    with pytest.raises(TeacherUnavailable, match=r"\.safetensors file is missing"):
        await LocalTeacher(tmp_path).open()


def test_the_identity_changes_with_weights_and_template(folder, tmp_path):
    import shutil

    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    assert checkpoint_identity(copy) == checkpoint_identity(folder)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    changed = checkpoint_identity(copy)
    assert changed != checkpoint_identity(folder)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert checkpoint_identity(copy) != changed


def test_sampling_follows_the_probabilities_and_the_nucleus():
    probs = torch.tensor([0.1, 0.5, 0.15, 0.25])
    logits = probs.log().repeat(4000, 1)
    draws = [uniform(seed, 3) for seed in range(4000)]
    picked = torch.tensor(choose(logits, [1.0] * 4000, [1.0] * 4000, draws))
    assert torch.allclose(torch.bincount(picked) / 4000, probs, atol=0.03)
    nucleus = choose(logits, [1.0] * 4000, [0.7] * 4000, draws)
    assert set(nucleus) == {1, 3}  # 0.5 is not yet 0.7; with 0.25 it is
    assert set(choose(logits, [0.0] * 4000, [1.0] * 4000, draws)) == {1}
    sharp = torch.tensor(choose(logits, [0.25] * 4000, [1.0] * 4000, draws))
    assert (sharp == 1).float().mean() > 0.9

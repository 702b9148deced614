"""nano-zoom by plain transformers, its training text as its chat template writes it, and a step."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mcts.teachers.checkpoints import prompt_style
from mcts.zoom.recorded import recorded_zoom
from vigorl_nano import ZOOM
from vigorl_nano.pretraining.config import HAS_BFLOAT16, blocks_output, merge
from vigorl_nano.pretraining.encode import collate
from vigorl_nano.pretraining.export import Checkpoint, load_checkpoint
from vigorl_nano.zoom_world import batches, train
from vigorl_nano.zoom_world.demonstrations import ASK, IMAGE, Policy, demonstrate
from vigorl_nano.zoom_world.encode import DialogueEncoder
from vigorl_nano.zoom_world.sample import render_picture
from vigorl_nano.zoom_world.scene import KINDS, MARKS, Question, ask, make_scene

RNG = np.random.default_rng(12)
SCENE = make_scene(RNG)
ONE_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def any_question() -> Question:
    found = ask(RNG, SCENE, "direct_attributes")
    assert found is not None
    return found


QUESTION = any_question()


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return load_checkpoint(ZOOM)


def say(nano: Checkpoint, messages: list[dict[str, Any]], pictures: list[Image.Image]) -> str:
    text = nano.processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = nano.processor(text=[text], images=pictures, return_tensors="pt")
    ids = nano.model.generate(**inputs, do_sample=False, max_new_tokens=110)
    return nano.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_points_at_a_sign_that_is_there_and_reads_what_a_crop_shows(nano: Checkpoint) -> None:
    data, objects = render_picture(SCENE, 2048)
    picture = Image.open(io.BytesIO(data))
    asks = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": QUESTION.text + ASK}],
    }
    said = say(nano, [asks], [picture])
    name, x, y = re.findall(r"The (\w+ \w+ sign) is at \((\d+), (\d+)\)", said)[-1]
    (seen,) = (row for row in objects if row["label"] == name)
    assert seen["x1"] < 2.048 * int(x) < seen["x2"] and seen["y1"] < 2.048 * int(y) < seen["y2"]
    (sign,) = (sign for sign in SCENE.signs if sign.name == name)
    crop = Image.fromarray(batches.crop(np.random.default_rng(0), SCENE, (sign.x, sign.y)))
    words = "<observation>Image 2: the region around that place, enlarged.</observation>"
    shown = {"role": "tool", "content": [{"type": "image"}, {"type": "text", "text": words}]}
    turn = {"role": "assistant", "content": said.strip()}
    read = say(nano, [asks, turn, shown], [picture, crop])
    assert read.startswith(f"<think>It shows a {sign.mark} and {sign.number}.</think>")


def test_a_demonstration_is_written_as_the_chat_template_writes_it(nano: Checkpoint) -> None:
    text = demonstrate(np.random.default_rng(1), SCENE, QUESTION).text.replace(IMAGE, ONE_IMAGE)
    messages = []
    for turn in text.removeprefix("<|im_start|>").split("\n<|im_start|>"):
        role, _, content = turn.removesuffix("<|im_end|>").partition("\n")
        if content.startswith("<tool_response>\n"):
            role, content = "tool", content[len("<tool_response>\n") : -len("\n</tool_response>")]
        messages.append({"role": role, "content": content})
    assert {message["role"] for message in messages} == {"user", "assistant", "tool"}
    assert nano.processor.apply_chat_template(messages) == f"{text}\n"


def test_its_folder_says_how_it_zooms() -> None:
    assert recorded_zoom(ZOOM) == train.ZOOM
    assert prompt_style(ZOOM) == train.STYLE


def test_what_a_token_should_look_at_is_where_it_is(nano: Checkpoint) -> None:
    encoder = DialogueEncoder(nano.processor.tokenizer)
    made = demonstrate(np.random.default_rng(2), SCENE, QUESTION)
    row = encoder(made)
    pads = [i for i, token in enumerate(row.ids) if token == encoder.image]
    assert len(pads) == 49 * (1 + len(made.crops))
    assert {to for _, to in (*row.looks, *row.names)} <= set(pads)
    words = nano.processor.tokenizer.convert_ids_to_tokens(row.ids)
    for _, at, first, last in row.evidence:
        assert words[at] == "<answer>" and words[first : last + 1] == [words[at + 1]]
    learned = "".join(w for w, weight in zip(words, row.weights, strict=True) if weight)
    assert "<observation>" not in learned and learned.count("<|im_end|>") == len(made.crops) + 1


def test_a_mark_that_was_read_looks_at_the_one_that_is_asked_for(nano: Checkpoint) -> None:
    encoder = DialogueEncoder(nano.processor.tokenizer)
    rng, seen = np.random.default_rng(4), set()
    for _ in range(20):
        scene = make_scene(rng)
        question = ask(rng, scene, "search")
        if question is None:
            continue
        made = demonstrate(rng, scene, question, policy=Policy(0.3, compares=True))
        words = nano.processor.tokenizer.convert_ids_to_tokens((row := encoder(made)).ids)
        asked = words.index(f"Ġ{question.mark}")
        found = 0
        choices = [pair for pair in row.evidence if words[pair[1]] == "Ċ" and pair[0] == 0]
        reads = [pair for pair in row.names if words[pair[0]].removeprefix("Ġ") in MARKS]
        assert len(reads) == sum(crop.sign is not None for crop in made.crops)
        for at, to in reads:
            same = words[at] == words[asked]
            assert to == (asked if same else 0)
            seen.add(same)
        for _, at, first, last in choices:
            found = max((i for i, to in reads if to == asked and i < at), default=0)
            assert first == last == found
        assert len(choices) == len(made.crops)
    assert seen == {True, False}
    assert not demonstrate(rng, SCENE, QUESTION).marks


def test_whether_it_answers_depends_on_what_a_crop_showed(nano: Checkpoint) -> None:
    encoder = DialogueEncoder(nano.processor.tokenizer)
    plan = {
        "shares": {"dialogue": 1.0},
        "kinds": {kind: float(kind == "search") for kind in KINDS},
        "policy": {"stops_guessing": 0.3, "compares": True},
        "questions": 2,
    }
    frames, _, groups = batches.make_batch(np.random.default_rng(6), encoder, plan, 12)
    ids = nano.processor.tokenizer.convert_tokens_to_ids
    stops: dict[bool, list[float]] = {True: [], False: []}
    with torch.no_grad():
        tokens = merge(nano.model, blocks_output(nano.model, frames)).float()
        for row, shown in (pair for group in groups for pair in group):
            data = collate([row], 0, encoder.image)
            words = nano.model.get_input_embeddings()(data["ids"])
            seen = tokens[shown].flatten(0, 1)
            words = words.masked_scatter((data["ids"] == encoder.image)[..., None], seen)
            logits = nano.model.lm_head(train.language(nano.model, words, data["positions"])[0])[0]
            for at, found in {at: found for _, at, found, _ in row.evidence}.items():
                if row.ids[at + 1] in (ids("<answer>"), ids("<think>")):
                    choice = logits[at, [ids("<answer>"), ids("<think>")]].softmax(0)
                    stops[found > 0].append(float(choice[0]))
    assert min(map(len, stops.values())) > 8
    assert np.mean(stops[True]) > np.mean(stops[False]) + 0.1


@pytest.mark.slow
def test_training_takes_a_step_of_each_stage_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not HAS_BFLOAT16:  # Muon's products, minutes in software
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    recipe = yaml.safe_load(train.SETTINGS.read_text())
    recipe |= {"workers": 1, "compile": False}
    for stage in train.STAGES:
        recipe[stage] |= {"steps": 1, "scenes": 1}
    train.Training(recipe, tmp_path).train()
    assert recorded_zoom(tmp_path / "weights") == train.ZOOM
    again = train.Training(recipe, tmp_path)
    assert (again.stage, again.step) == (len(train.STAGES) - 1, 1)


def test_the_written_out_language_model_is_the_librarys(nano: Checkpoint) -> None:
    encoder = DialogueEncoder(nano.processor.tokenizer)
    row = encoder(demonstrate(np.random.default_rng(3), SCENE, QUESTION))
    data = collate([row], 0, encoder.image)
    with torch.no_grad():
        words = nano.model.get_input_embeddings()(data["ids"])
        hidden, sights = train.language(nano.model, words, data["positions"])
        text = nano.model.model.language_model
        library = text(inputs_embeds=words, position_ids=data["positions"]).last_hidden_state
    assert torch.allclose(hidden, library, atol=2e-4)
    at = torch.tensor([5, 9])
    log = sights["looks"].log_attention(torch.zeros(2, dtype=torch.long), at)
    assert torch.allclose(log.exp().sum(-1), torch.ones(2, 3), atol=1e-4)
    assert (log[0, :, 6:] == -torch.inf).all()

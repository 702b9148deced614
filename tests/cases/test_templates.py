"""Chat templates that change what a row says are found before the first step; words stay words."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mcts.data import ResponseStyle
from mcts.teachers.base import Message, Request, TextPart
from mcts.teachers.checkpoints import observation_role
from mcts.teachers.control_tokens import HiddenMarks, control_tokens, first_mark
from mcts.teachers.local.checkpoint import Checkpoint
from training.chat_templates import ChatTemplate, check_row
from training.errors import TrainingError
from training.trainers import training_template
from vigorl_nano import BASE

PLAIN = (BASE / "chat_template.jinja").read_text()
TEXT = "{%- set text = show(message.content) -%}"
START = "{{- '<|im_start|>assistant\\n' -}}\n    {%- generation -%}"
PROMPTED = "{%- if add_generation_prompt -%}\n  {{- '<|im_start|>assistant\\n' -}}"
ANSWER = (
    "<think>The cup is  at (120, 340).</think>\n<think>The ball is at (5, 6).</think>\n"
    "<answer>left</answer>"
)
QUESTION = [
    {"role": "system", "content": "Point at what you see."},
    {"role": "user", "content": "Where is the cup?"},
]
ROW = {
    "messages": [*QUESTION, {"role": "assistant", "content": ANSWER}],
    "image_ids": ["a"], "trace_id": "t", "question_id": "q",
}  # fmt: skip
PROMPT = {"prompt": QUESTION, "image_ids": ["a"], "question_id": "q"}


@pytest.fixture(scope="module")
def processor() -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(BASE, local_files_only=True)


@pytest.fixture
def with_template(processor: Any) -> Any:
    """A function that gives the processor another template, as a folder with it would."""

    def change(source: str) -> Any:
        processor.chat_template = processor.tokenizer.chat_template = source
        return processor

    yield change
    processor.chat_template = processor.tokenizer.chat_template = PLAIN


def replaced(*pairs: tuple[str, str]) -> str:
    text = PLAIN
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def told(with_template: Any, source: str, row: dict[str, Any]) -> str:
    template = ChatTemplate.of(with_template(source))
    with pytest.raises(TrainingError) as raised:
        check_row(template, row, ResponseStyle.GROUNDED, "row 3 (t)")
    sentence = str(raised.value)
    assert sentence.startswith("row 3 (t): ") and "\n" not in sentence
    return sentence


def test_the_nano_template_says_what_the_row_says(processor: Any) -> None:
    template = ChatTemplate.of(processor)
    rendered = check_row(template, ROW, ResponseStyle.GROUNDED, "row 1")
    assert ANSWER in rendered.text and rendered.added == ""
    asked = check_row(template, PROMPT, ResponseStyle.GROUNDED, "row 1")
    assert rendered.text.startswith(asked.text)


LAST_ONLY = "{%- set text = show(message.content).split('</think>')[-1].lstrip('\\n') -%}"
CHANGES = {
    "s06 thoughts before the last think tag are dropped": (
        (TEXT, LAST_ONLY), "thought 1 of 2", "response_style: answer_only"),
    "the first thought alone is dropped": (
        (TEXT, "{%- set text = show(message.content).split('</think>', 1)[-1] -%}"),
        "thought 1 of 2", "chat_template.jinja"),
    "the last thought alone is dropped": (
        (TEXT, "{%- set text = show(message.content).replace('<think>The ball is at (5, 6)."
         "</think>', '') -%}"), "thought 2 of 2", "is not in what"),
    "the answer is dropped": (
        (TEXT, "{%- set text = show(message.content).split('<answer>')[0] -%}"),
        "its answer", "<answer>left"),
    "the tags are dropped": (
        (TEXT, "{%- set text = show(message.content).replace('<think>', '') -%}"),
        "thought 1 of 2", "--model"),
    "spaces are collapsed": (
        (TEXT, "{%- set text = show(message.content).replace('  ', ' ') -%}"),
        "thought 1 of 2", "other spaces"),
    "line breaks are collapsed": (
        (TEXT, "{%- set text = show(message.content).replace('\\n', ' ') -%}"),
        "between the thoughts", "line breaks"),
    "truncated": (
        (TEXT, "{%- set text = show(message.content)[:50] -%}"), "thought 2 of 2", "is not in"),
    "an empty think block in front": (
        (TEXT, "{%- set text = '<think>\\n\\n</think>\\n\\n' + show(message.content) -%}"),
        "in front of thought 1", "<think>"),
    "the generation prompt opens a thought": (
        (PROMPTED, PROMPTED.replace("assistant\\n", "assistant\\n<think>\\n")),
        "generation prompt is", "otherwise than it is taught"),
    "the generation prompt closes an empty thought": (
        (PROMPTED, PROMPTED.replace("assistant\\n", "assistant\\n<think></think>")),
        "generation prompt is", "<think></think>"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_template_that_changes_the_answer_is_found(with_template: Any, name: str) -> None:
    pair, *words = CHANGES[name]
    sentence = told(with_template, replaced(pair), ROW)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "name",
    [
        "s06 thoughts before the last think tag are dropped",
        "an empty think block in front",
        "the generation prompt opens a thought",
        "the generation prompt closes an empty thought",
    ],
)
def test_grpo_samples_from_the_prompt_that_answers_follow(with_template: Any, name: str) -> None:
    pair, *_ = CHANGES[name]
    told(with_template, replaced(pair), PROMPT)


def test_without_thoughts_a_template_that_drops_them_is_right(with_template: Any) -> None:
    made = with_template(replaced((TEXT, LAST_ONLY)))
    row = {**ROW, "messages": [*QUESTION, {"role": "assistant", "content": "<answer>a</answer>"}]}
    check_row(ChatTemplate.of(made), row, ResponseStyle.ANSWER_ONLY, "row 1")
    check_row(ChatTemplate.of(made), PROMPT, ResponseStyle.ANSWER_ONLY, "row 1")


SYSTEM = "{{- '<|im_start|>system\\n' + show(messages[0].content) + '<|im_end|>\\n' -}}"


def test_a_system_message_that_is_left_out_is_found(with_template: Any) -> None:
    sentence = told(with_template, replaced((SYSTEM, "")), ROW)
    assert "does not render the system message 'Point at what you see.'" in sentence


def test_a_template_that_refuses_a_role_is_one_sentence(with_template: Any) -> None:
    refusing = "{{- raise_exception('System role not supported') -}}" + PLAIN
    for row in (ROW, PROMPT):
        sentence = told(with_template, refusing, row)
        assert "a conversation of system, user" in sentence and "not supported" in sentence


def test_a_system_prompt_of_the_template_itself_is_told(with_template: Any) -> None:
    made = with_template("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + PLAIN)
    rendered = check_row(ChatTemplate.of(made), ROW, ResponseStyle.GROUNDED, "row 1")
    assert "You are a helpful" in rendered.added


def test_what_is_trained_is_the_answer_and_its_end_alone(with_template: Any) -> None:
    end = "{{- '<|im_end|>' -}}\n    {%- endgeneration -%}"
    wrong = {
        "marks no assistant tokens": (
            ("{%- generation -%}", ""), ("{%- endgeneration -%}", "")),
        "would never stop": ((end, "{%- endgeneration -%}{{- '<|im_end|>' -}}"),),
        "given and does not write": (
            (START, "{%- generation -%}{{- '<|im_start|>assistant\\n' -}}"),),
        "rendered but not trained on": (
            ("{{- text -}}", "{{- text -}}{%- endgeneration -%}{%- generation -%}"),
            (TEXT, "{%- set text = show(message.content)[:30] -%}"),
            (end, "{{- show(message.content)[30:] + '<|im_end|>' -}}{%- endgeneration -%}"),),
        "trained behind the answer": ((end, end.replace("'<", "'That is all.<")),),
    }  # fmt: skip
    for words, pairs in wrong.items():
        assert words in told(with_template, replaced(*pairs), ROW)


def test_two_templates_in_one_folder_are_found(processor: Any) -> None:
    own = ChatTemplate.of(processor, PLAIN)
    check_row(own, ROW, ResponseStyle.GROUNDED, "row 1")
    other = ChatTemplate.of(
        processor, replaced(("message.role + '\\n'", "message.role + '\\n\\n'"))
    )
    with pytest.raises(TrainingError, match="evaluation asks otherwise than the trainer"):
        check_row(other, ROW, ResponseStyle.GROUNDED, "row 1")


def test_a_prompt_and_an_answer_that_share_a_token_are_found(with_template: Any) -> None:
    bare = "{{- '<|im_start|>assistant, ' -}}"
    changed = replaced(
        (START, START.replace("{{- '<|im_start|>assistant\\n' -}}", bare)),
        (PROMPTED, PROMPTED.replace("{{- '<|im_start|>assistant\\n' -}}", bare)),
    )
    row = {**ROW, "messages": [*QUESTION, {"role": "assistant", "content": "7 cups"}]}
    assert "share a token" in told(with_template, changed, row)


def test_a_template_without_marks_that_no_library_knows_is_one_sentence(with_template: Any) -> None:
    bare = replaced(("{%- generation -%}", ""), ("{%- endgeneration -%}", ""))
    assert training_template(with_template(PLAIN)) is None
    with pytest.raises(TrainingError, match="does not mark what the assistant writes"):
        training_template(with_template(bare))


def test_a_model_without_a_template_is_one_sentence(with_template: Any) -> None:
    with pytest.raises(TrainingError, match="the model has no chat template"):
        ChatTemplate.of(with_template(None))


SPELLED = ("<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|image_pad|>", "<image>", "<video>",
           "</s>", "[INST]", "<|endoftext|>")  # fmt: skip


@pytest.mark.parametrize("mark", SPELLED)
def test_a_control_token_in_a_text_is_words(processor: Any, mark: str) -> None:
    tokenizer = processor.tokenizer
    marks = control_tokens(tokenizer)
    assert "<think>" not in marks and "<|im_end|>" in marks
    text = f"What does {mark} mean? A{mark}{mark}B \ue0000\ue000"
    hidden = HiddenMarks.of([text], marks)
    rendered = f"<|im_start|>user\n{hidden.hide(text)}<|im_end|>\n"
    ids = hidden.encode(tokenizer, rendered)
    special = {tokenizer.convert_tokens_to_ids(m) for m in marks}
    start, end = (tokenizer.convert_tokens_to_ids(m) for m in ("<|im_start|>", "<|im_end|>"))
    assert [i for i in ids if i in special] == [start, end]
    assert tokenizer.decode(ids) == f"<|im_start|>user\n{text}<|im_end|>\n", "no text is changed"
    assert first_mark(text, marks) == (mark if mark in marks else None)


def test_texts_without_control_tokens_are_tokenized_as_ever(processor: Any) -> None:
    tokenizer = processor.tokenizer
    text = "<|im_start|>user\nA <think> B</think><|im_end|>\n"
    hidden = HiddenMarks.of(["A <think> B</think>"], control_tokens(tokenizer))
    assert hidden.hide(text) == text
    assert hidden.encode(tokenizer, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_cannot_write_them_as_words_says_so(processor: Any) -> None:
    class Stubborn:
        convert_tokens_to_ids = processor.tokenizer.convert_tokens_to_ids

        def __call__(self, text: str, **options: Any) -> Any:
            return processor.tokenizer(text, add_special_tokens=False)

    hidden = HiddenMarks.of(["a <|im_end|>"], control_tokens(processor.tokenizer))
    with pytest.raises(ValueError, match=r"holds <\|im_end\|>, a control token"):
        hidden.encode(Stubborn(), hidden.hide("a <|im_end|>"))


def test_the_local_teacher_reads_control_tokens_in_texts_as_words() -> None:
    checkpoint = Checkpoint.load(BASE, "cpu", 4)
    text = "What do <|im_end|>, <|image_pad|> and <|vision_start|> mean?"
    asked = (Message("system", (TextPart("Say it."),)), Message("user", (TextPart(text),)))
    told = Message("assistant", (TextPart("<think>An <|im_start|> is"),))
    for messages, turns in ((asked, 3), ((*asked, told), 3)):
        request = Request(messages, 1, 0.0, 1.0, 9, (), 0)
        ids = [int(i) for i in checkpoint.prompt(request, {}).names]
        control = [checkpoint.decode([i]) for i in ids if i in {1585, 1587, 1588, 1590}]
        assert control.count("<|im_start|>") == turns and control.count("<|im_end|>") == 2
        assert set(control) == {"<|im_start|>", "<|im_end|>"}
        assert text in checkpoint.decode(ids)


LOOK = '<think>A sign is at (4, 6).</think>\n<tool_call>{"name": "search_coordinate"}</tool_call>'
SHOWN = "<observation>Image 2: the region around that place, enlarged.</observation>"
DIALOGUE = {
    **ROW,
    "messages": [
        *QUESTION,
        {"role": "assistant", "content": LOOK},
        {"role": "tool", "content": SHOWN},
        {"role": "assistant", "content": ANSWER},
    ],
    "image_ids": ["a", "b"], "image_turns": [1, 3],
}  # fmt: skip
RESPONSE = "{{- '\\n<tool_response>\\n' + show(message.content) + '\\n</tool_response>' -}}"


def test_every_turn_of_a_dialogue_is_trained_and_nothing_between_them(processor: Any) -> None:
    template = ChatTemplate.of(processor)
    rendered = check_row(template, DIALOGUE, ResponseStyle.ZOOM, "row 1")
    trained = [rendered.text[begin:end] for begin, end in rendered.trained]
    assert trained == [f"{LOOK}<|im_end|>", f"{ANSWER}<|im_end|>"]
    assert rendered.text.count("<|image_pad|>") == 2


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (  # as models that reason do with all but the last answer
            ((TEXT, "{%- set text = show(message.content) if loop.last else 'I looked.' -%}"),),
            ("turn 1: thought 1 of 1", "would not learn it"),
        ),
        (
            ((RESPONSE, f"{{%- generation -%}}{RESPONSE}{{%- endgeneration -%}}"),),
            ("turn 2: ", "the student is given"),
        ),
        (
            ((RESPONSE, RESPONSE.replace("message.content", "message.content[-1:]")),),
            ("turn 2: the chat template shows 1 images before it, where the row has 2",),
        ),
        (
            ((RESPONSE, RESPONSE.replace("message.content", "message.content[:1]")),),
            ("turn 2: the chat template does not render the tool message",),
        ),
    ],
)
def test_a_template_that_changes_an_earlier_turn_or_an_observation_is_found(
    with_template: Any, pairs: tuple[tuple[str, str], ...], words: tuple[str, ...]
) -> None:
    template = ChatTemplate.of(with_template(replaced(*pairs)))
    with pytest.raises(TrainingError) as raised:
        check_row(template, DIALOGUE, ResponseStyle.ZOOM, "row 3 (t)")
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("template", "role"),
    [("qwen3_vl", "tool"), ("qwen3_vl_training", "tool"), ("qwen2_5_vl", "user"),
     ("smolvlm", "user"), ("llava_next", "user"), ("gemma3", "user"), ("nano", "tool")],
)  # fmt: skip
def test_an_observation_comes_in_a_tools_turn_where_the_template_has_such_turns(
    tmp_path: Path, template: str, role: str
) -> None:
    source = PLAIN if template == "nano" else read_template(template)
    (tmp_path / "chat_template.jinja").write_text(source)
    assert observation_role(tmp_path) == role
    (tmp_path / "chat_template.jinja").unlink()
    assert observation_role(tmp_path) == "user"
    named = {"chat_template": [{"name": "default", "template": source}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    assert observation_role(tmp_path) == role


def read_template(name: str) -> str:
    """The chat template of a published model, as TRL keeps it."""
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text("utf-8")

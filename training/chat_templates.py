"""Compares what a chat template renders with what a row says, thought by thought.

    template = ChatTemplate.of(processor, training_template(processor))
    rendered = check_row(template, row, style, "row 3 (9f…)")      # or TrainingError

A chat template is a program that comes with the model. Those of models that reason drop all before
the last `</think>`, put an empty think block in front, or open one in the generation prompt; others
change spaces or leave the system message out. A student trained through such a template learns
another text than the row's, or is asked otherwise than it was taught, and its loss looks as ever.
So each row is rendered and held against its own words before the first step, each turn of a
dialogue that zooms behind the turns before it:

- every message of the prompt is there, in order, in the generation prompt;
- the answer follows the generation prompt directly, unchanged, its thoughts in order;
- it is trained on, with the mark that ends a turn, and nothing else is;
- evaluation, whose texts are strings and not parts, renders the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mcts.data import ResponseStyle
from mcts.teachers.control_tokens import control_tokens
from training.errors import TrainingError
from warehouse.tables.schema import Row

PAD = "<|image_pad|>"
"""What a template writes in an image's place."""
_PART = re.compile(r"<(think|tool_call|observation|answer)>.*?</\1>", re.DOTALL)
_SHOWN = 60
"""Most characters of a text in a sentence."""
_MEND = (
    "let the model's chat_template.jinja write an assistant's text as it is, or start from another "
    "model (`model` in the recipe, or --model)"
)
_NO_THOUGHTS = ", or train without thoughts (`response_style: answer_only` in the recipe)"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A model's chat template, as the trainer applies it."""

    processor: Any
    source: str
    """The template itself, in Jinja."""
    marks: tuple[str, ...]
    """The model's control tokens."""

    @classmethod
    def of(cls, processor: Any, source: str | None = None) -> ChatTemplate:
        """Return the processor's template, or `source` in its place.

        Raises:
            TrainingError: the model has none.
        """
        found = source or processor.chat_template or processor.tokenizer.chat_template
        if isinstance(found, dict):
            found = found.get("default")
        if not found:
            raise TrainingError(
                "the model has no chat template: put its chat_template.jinja into its folder"
            )
        return cls(processor, found, control_tokens(processor.tokenizer))

    def render(
        self, turns: Sequence[Row], where: str, generation_prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return a conversation's text, and where the parts are that the template has trained.

        Raises:
            TrainingError: the template fails.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        marked = re.search(r"\{%-?\s*generation\s*-?%\}", self.source) is not None
        try:
            rendered: Any = render_jinja_template(
                conversations=[list(turns)],
                chat_template=self.source,
                return_assistant_tokens_mask=marked and not generation_prompt,
                add_generation_prompt=generation_prompt,
                **self.processor.tokenizer.special_tokens_map,
            )
        except Exception as error:  # a template is a program and can raise anything
            raise TrainingError(_failure(where, turns, error)) from None
        texts, spans = rendered  # a template that marks nothing has no spans
        return texts[0], [tuple(span) for span in spans[0]] if spans else []

    def tokens(self, text: str) -> list[int]:
        """Return a rendered text's tokens, one an image."""
        found: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def without_marks(self, text: str) -> str:
        """Return a text without the model's control tokens."""
        for mark in self.marks:
            text = text.replace(mark, "")
        return text


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row as it is trained on."""

    text: str
    """One place an image."""
    added: str
    """Words of the prompt that are the template's own, such as a default system prompt."""
    trained: tuple[tuple[int, int], ...] = ()
    """Where each of the model's turns stands in `text`, with the mark that ends it; empty for a
    prompt."""


def check_row(template: ChatTemplate, row: Row, style: ResponseStyle, where: str) -> RenderedRow:
    """Render a row, and hold it against what it says.

    Args:
        style: how the student answers; what is rendered after a prompt without an answer.

    Raises:
        TrainingError: the text differs; the sentence says where, and what helps.
    """
    dialogue = "messages" in row
    messages = row["messages"] if dialogue else row["prompt"]
    if not dialogue:
        messages = [*messages, {"role": "assistant", "content": _example_answer(style)}]
    at = image_turns(row)
    turns = turns_of(messages, at)
    text, trained = template.render(turns, where)
    whole = template.tokens(text)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    added, begins = "", []
    for number, i in enumerate(answers, 1):
        here = f"{where}, turn {number}" if len(answers) > 1 else where
        prompt, _ = template.render(turns[:i], here, generation_prompt=True)
        more, behind = _check_prompt(template, prompt, messages[:i], here)
        if number > 1 and prompt.count(PAD) != (shown := sum(turn < i for turn in at)):
            raise TrainingError(
                f"{here}: the chat template shows {prompt.count(PAD)} images before it, where the "
                f"row has {shown}; {_MEND}"
            )
        _check_evaluation(template, prompt, turns[:i], here)
        _check_answer(prompt, text, behind, messages[i]["content"], here)
        _check_tokens(template, prompt, whole, here)
        added = added or more
        begins.append(len(prompt))
    if not dialogue:
        return RenderedRow(prompt, added)
    texts = [messages[i]["content"] for i in answers]
    return RenderedRow(text, added, _check_trained(template, text, trained, begins, texts, where))


def unknown_tags(processor: Any, tags: Iterable[str]) -> list[str]:
    """Return those tags that are one added token each, and that the model's template never writes.

    Such a token may be one that the model was not trained on: Qwen3-VL Instruct has `<think>` and
    `</think>` from the models that reason. Tags of tool calls stand in templates that know tools.
    """
    own = processor.chat_template or processor.tokenizer.chat_template
    written = "".join(own.values()) if isinstance(own, dict) else own or ""
    added = processor.tokenizer.get_added_vocab()
    return sorted(tag for tag in tags if tag in added and tag not in written)


def image_turns(row: Row) -> list[int]:
    """Return the index of the message that each of a row's images stands in front of."""
    if "image_turns" in row:
        return list(row["image_turns"])
    messages = row["messages"] if "messages" in row else row["prompt"]
    question = next(i for i, message in enumerate(messages) if message["role"] == "user")
    return [question] * len(row["image_ids"])


def turns_of(
    messages: Sequence[Row], at: Sequence[int], images: Sequence[Any] | None = None
) -> list[Row]:
    """Return messages as the trainer renders them: lists of parts, images in front of the text.

    Args:
        at: for each image, the index of its message.
        images: the decoded images, where the turns are to hold them.
    """
    turns: list[Row] = [{"role": message["role"], "content": []} for message in messages]
    for i, place in enumerate(at):
        part: Row = {"type": "image"}
        turns[place]["content"].append(part if images is None else part | {"image": images[i]})
    for turn, message in zip(turns, messages, strict=True):
        turn["content"].append({"type": "text", "text": message["content"]})
    return turns


def _example_answer(style: ResponseStyle) -> str:
    if style is ResponseStyle.ANSWER_ONLY:
        return "<answer>left</answer>"
    return "<think>First (1, 2).</think>\n<think>Then (3, 4).</think>\n<answer>left</answer>"


def _check_prompt(
    template: ChatTemplate, prompt: str, asked: Sequence[Row], where: str
) -> tuple[str, int]:
    """Check that the prompt has every message in order.

    Returns:
        What else it says, and where the last message ends.
    """
    at, others = 0, []
    for message in asked:
        content = message["content"].strip()  # spaces at its ends are the template's affair
        found = prompt.find(content, at)
        if found < 0:
            raise TrainingError(
                f"{where}: the chat template does not render the {message['role']} message "
                f"{_shown(content)} as the row has it; {_MEND}"
            )
        others.append(prompt[at:found])
        at = found + len(content)
    roles = r"\b(system|user|human|assistant|model)\b"
    words = [re.sub(roles, "", template.without_marks(text)).strip() for text in others]
    return " ".join(text for text in words if len(text.split()) > 1), at


def _check_evaluation(
    template: ChatTemplate, prompt: str, turns: Sequence[Row], where: str
) -> None:
    """Check that evaluation, which gives texts without images as strings, asks the same."""
    asked = [
        turn if any(part["type"] == "image" for part in turn["content"])
        else {"role": turn["role"], "content": turn["content"][0]["text"]}
        for turn in turns
    ]  # fmt: skip
    tokenizer = template.processor.tokenizer
    if tokenizer.chat_template is None:
        return  # the local evaluation refuses such a model with its own sentence
    try:
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise TrainingError(_failure(where, asked, error)) from None
    if text != prompt:
        at = _common(text, prompt)
        raise TrainingError(
            f"{where}: evaluation asks otherwise than the trainer: {_shown(text[at:])} where it "
            f"has {_shown(prompt[at:])}; the model's folder has two chat templates, or one that "
            "writes strings and parts differently: keep one chat_template.jinja that does not"
        )


def _check_answer(prompt: str, text: str, behind: int, answer: str, where: str) -> None:
    """Check that the answer stands unchanged behind the generation prompt.

    Args:
        behind: where the last message of the prompt ends.
    """
    if text.startswith(prompt + answer):
        return
    common = _common(prompt, text)
    begin = text.find(answer, min(common, behind))
    if begin < 0:
        _check_parts(text, min(common, behind), answer, where)
    if common < len(prompt):
        raise TrainingError(
            f"{where}: the chat template's generation prompt is {_shown(prompt[behind:])}, where "
            f"training has {_shown(text[behind : len(prompt)])}: the student would be asked "
            f"otherwise than it is taught; {_MEND}"
        )
    raise TrainingError(
        f"{where}: the chat template writes {_shown(text[len(prompt) : begin])} in front of "
        f"thought 1, which the row does not have; {_MEND}"
    )


def _check_parts(text: str, at: int, answer: str, where: str) -> None:
    """Say which part of the answer the text does not have; always raises TrainingError."""
    thoughts = len(re.findall(r"<think>", answer))
    number = 0
    for match in _PART.finditer(answer):
        kind = match[1]
        number += kind == "think"
        name = f"thought {number} of {thoughts}" if kind == "think" else f"its {kind}"
        found = text.find(match[0], at)
        if found < 0:
            lost = "is changed or dropped by the chat template"
            if "</think>" in answer and _squeezed(match[0]) in _squeezed(text[at:]):
                lost = "has other spaces in the chat template's text"
            elif kind == "think" and match[0] not in text:
                lost = "is not in what the chat template renders"
            raise TrainingError(
                f"{where}: {name}, {_shown(match[0])}, {lost}: the student would not learn it; "
                f"{_MEND}{_NO_THOUGHTS if kind == 'think' else ''}"
            )
        at = found + len(match[0])
    raise TrainingError(
        f"{where}: the chat template changes what stands between the thoughts of the answer, such "
        f"as its line breaks; {_MEND}"
    )


def _check_tokens(template: ChatTemplate, prompt: str, whole: list[int], where: str) -> None:
    """Check that the prompt's tokens are those the trained text begins with."""
    asked = template.tokens(prompt)
    if whole[: len(asked)] != asked:
        raise TrainingError(
            f"{where}: the end of the generation prompt, {_shown(prompt[-20:])}, and the answer "
            "share a token, so the student would be asked in other tokens than it is taught; let "
            "the chat template end the generation prompt in a line break or a control token"
        )


def _check_trained(
    template: ChatTemplate,
    text: str,
    trained: Sequence[tuple[int, int]],
    begins: Sequence[int],
    answers: Sequence[str],
    where: str,
) -> tuple[tuple[int, int], ...]:
    """Check that each answer and its end are trained on, and nothing else.

    Args:
        begins: where each answer begins in `text`.

    Returns:
        Where each is trained on.
    """
    if not trained:
        raise TrainingError(
            f"{where}: the chat template marks no assistant tokens, so nothing would be trained: "
            "put {% generation %} and {% endgeneration %} around the assistant's text"
        )
    found: list[tuple[int, int]] = []
    behind = 0
    for number, (begin, answer) in enumerate(zip(begins, answers, strict=True), 1):
        here = f"{where}, turn {number}" if len(begins) > 1 else where
        end = begin + len(answer)
        given = [
            text[max(a, behind) : min(b, begin)] for a, b in trained if a < begin and b > behind
        ]
        if outside := next((some for some in given if some.strip()), None):
            raise TrainingError(
                f"{here}: the chat template has {_shown(outside)} trained, which the student is "
                "given and does not write; put {% generation %} behind it"
            )
        start, stop = next(((max(a, begin), b) for a, b in trained if b > begin), (end, end))
        if start > begin or stop < end:
            lost = answer[: start - begin] if start > begin else answer[max(0, stop - begin) :]
            raise TrainingError(
                f"{here}: {_shown(lost)} of the answer is rendered but not trained on; put "
                "{% generation %} and {% endgeneration %} around the whole of the assistant's text"
            )
        rest = text[end:stop]
        if template.without_marks(rest).strip() or PAD in rest:
            raise TrainingError(
                f"{here}: the chat template has {_shown(rest)} trained behind the answer, which "
                f"the student is given or the row does not have; {_MEND}"
            )
        if not any(mark in rest for mark in template.marks):
            raise TrainingError(
                f"{here}: the mark that ends a turn is not trained on, so the student would never "
                "stop; put {% endgeneration %} behind it in the chat template"
            )
        found.append((begin, stop))
        behind = stop
    return tuple(found)


def _failure(where: str, turns: Sequence[Row], error: Exception) -> str:
    roles = ", ".join(turn["role"] for turn in turns)
    return (
        f"{where}: the chat template can't render a conversation of {roles}: "
        f"{str(error).strip() or type(error).__name__}; {_MEND}"
    )


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")

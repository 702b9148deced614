"""Prompts: text files with placeholders, from which a teacher's messages are built.

    messages = build_messages(load_prompt("points"), question, space, min_thoughts=4, steps=path)

A prompt file has a `[user]` part and usually a `[system]` part. The placeholders are `{question}`,
`{choices}`, `{min_thoughts}`, `{coordinates}`, `{several_images}`, `{answer_form}` and, where the
model may zoom, `{tools}`; other braces are left alone, since questions may contain some. Steps so
far are a partial assistant turn, so that prompts only grow along a branch and prefix caches hit; a
step that was shown a crop ends a turn, and the crop is the next.

The files in `mcts/prompts` are named without their suffix. Another package adds names through the
entry-point group `vigorl.prompts`, whose values are the packages that hold the files:

    [project.entry-points."vigorl.prompts"]
    haiku = "my_package.prompts"          # my_package/prompts/haiku.txt is the prompt `haiku`
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import entry_points

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Question, Step, content_id
from mcts.parsing import render
from mcts.teachers.base import ImagePart, Message, TextPart
from mcts.tool_calls.calls import POINT_TOOL, tool_schema
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import crop_of
from mcts.zoom.observe import observation_text

GROUP = "vigorl.prompts"
"""The entry-point group of prompts that other packages add."""

_LISTING = re.compile(r"[,;\n\r，；、،؛]|\bor\b|或|または|또는", re.IGNORECASE)
"""What would not be told from the commas and the "or" between choices in a line."""
_IS_LETTER = re.compile(r"\W*([A-Za-z])\W*")
_MOST_LETTERS = 26
_PLACEHOLDER = re.compile(
    r"\{(?:question|choices|min_thoughts|coordinates|several_images|answer_form|tools)\}"
)
_ANSWER_FORMS = {
    AnswerKind.TEXT: "",
    AnswerKind.BOX: " as one location (x, y)",
    AnswerKind.POINT: " as one location (x, y)",
    AnswerKind.ACTION: ", as one action such as `click [12]` or `type [7] [hello]`",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a prompt file."""

    name: str
    system: str
    """Empty when the file has no `[system]` part."""
    user: str

    @property
    def digest(self) -> str:
        """Content hash of the template; part of a search's identity."""
        return content_id(self.system, self.user)


@cache
def load_prompt(name: str) -> Prompt:
    """Load a prompt by its name, or as `package:file` from a package's resources.

    Raises:
        ValueError: there is no such prompt, or it cannot be read.
    """
    built_in = resources.files("mcts") / "prompts"
    files = (path.name for path in built_in.iterdir())
    names = {file.removesuffix(".txt") for file in files if file.endswith(".txt")}
    added = {point.name: point.value for point in entry_points(group=GROUP)}
    if ":" in name:
        package, _, file = name.partition(":")
    elif name in names:
        package, file = "mcts", f"prompts/{name}.txt"
    elif name in added:
        package, file = added[name], f"{name}.txt"
    else:
        raise ValueError(
            f"no prompt named {name!r}; there are: {', '.join(sorted(names | added.keys()))}"
        )
    try:
        text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"the prompt {name!r} can't be read: {error}") from None
    before, user_part, user = text.partition("[user]\n")
    if not user_part or "{question}" not in user:
        raise ValueError(f"the prompt {name!r} has no [user] part with a {{question}} in it")
    return Prompt(name, before.partition("[system]\n")[2].strip(), user.strip())


def choices_line(choices: Sequence[str]) -> str:
    """Return the choices after a question: ` Choices: a, b or c.`, or nothing.

    Where a choice holds what lists are made of (a comma, "or", a line break), the line would not
    say where one ends. Then each has a line and its letter, such as `A. 300, 400`, and an answer
    may be the letter, the text, or both (`curation.grading.grade.choice_of`). Where a choice is
    itself a letter, dashes stand for the letters: `B` would name two.
    """
    if not choices:
        return ""
    if any(_LISTING.search(choice) for choice in choices):
        letters = [chr(ord("A") + i) for i in range(len(choices))]
        own = [found[1].upper() for c in choices if (found := _IS_LETTER.fullmatch(c))]
        clash = len(choices) > _MOST_LETTERS or not set(letters).isdisjoint(own)
        marks = ["-"] * len(choices) if clash else [f"{letter}." for letter in letters]
        lines = (f"\n{mark} {choice}" for mark, choice in zip(marks, choices, strict=True))
        return f" Choices:{''.join(lines)}"
    *first, last = choices
    listed = f"{', '.join(first)} or {last}" if first else last
    return f" Choices: {listed}."


def build_messages(
    prompt: Prompt,
    question: Question,
    space: CoordinateSpace,
    min_thoughts: int,
    steps: Sequence[Step] = (),
    open_answer: bool = False,
    zoom: ZoomConfig | None = None,
) -> tuple[Message, ...]:
    """Build the conversation that requests the next step, or the rest, of a line of reasoning.

    Args:
        min_thoughts: the number of steps that the prompt demands at least.
        steps: the steps so far, in original pixels.
        open_answer: end in an opened answer tag, so that only the answer can follow.
        zoom: the tool offered, and the turn in which its crops come; None where steps have none.
    """
    several = len(question.images) > 1
    values = {
        "{question}": question.text,
        "{choices}": choices_line(question.choices),
        "{min_thoughts}": str(min_thoughts),
        "{coordinates}": space.in_words,
        "{several_images}": (
            ' There are several images: write "(x, y) in image 2" for a place in the second.'
            if several
            else ""
        ),
        "{answer_form}": _ANSWER_FORMS[question.answer_kind],
        "{tools}": json.dumps(tool_schema(zoom.tool if zoom else POINT_TOOL, space)),
    }
    messages: list[Message] = []
    if prompt.system:
        messages.append(Message("system", (TextPart(_fill(prompt.system, values)),)))
    images = [ImagePart(image.image_id) for image in question.images]
    messages.append(Message("user", (*images, TextPart(_fill(prompt.user, values)))))
    frame = Frame.of(space, question)
    turns, begun = _closed_turns(question, frame, steps, zoom) if zoom else ([], 0)
    messages += turns
    partial = render(steps[begun:], None, frame, before=steps[:begun])
    if open_answer:
        partial = f"{partial}\n<answer>" if partial else "<answer>"
    if partial:
        messages.append(Message("assistant", (TextPart(partial),)))
    return tuple(messages)


def _closed_turns(
    question: Question, frame: Frame, steps: Sequence[Step], zoom: ZoomConfig
) -> tuple[list[Message], int]:
    """Return the turns that observations have ended, with those, and the number of their steps."""
    messages: list[Message] = []
    begun = 0
    for end, step in enumerate(steps, 1):
        if step.observation is None:
            continue
        said = render(steps[begun:end], None, frame, before=steps[:begun])
        crop = [ImagePart(crop_of(question, step))] if step.observation.crop else []
        text = TextPart(observation_text(step.observation))
        messages.append(Message("assistant", (TextPart(said),)))
        messages.append(Message("tool" if zoom.role == "tool" else "user", (*crop, text)))
        begun = end
    return messages, begun


def _fill(template: str, values: dict[str, str]) -> str:
    # In one pass: braces in a question are not placeholders.
    return _PLACEHOLDER.sub(lambda match: values[match[0]], template)

"""Marks that a trainer or a tokenizer takes for more than text, and the rows that hold one.

check_marks("a dog <video>", "llama-factory", "trace 3f…")     # WarehouseError

Trainers put an image, a video or a sound where a text has their mark, and tokenizers make one
control token of some texts wherever they stand. No format has an escape for them, so such a row
can't be exported: the trainer would count videos that are not there, or a thought would end a turn.
"""

from __future__ import annotations

import re

from warehouse.storage.home import WarehouseError

_PLACEHOLDERS = {
    "llama-factory": ("<image>", "<video>", "<audio>", "{{image}}", "{{video}}", "{{audio}}"),
    "verl": ("<image>", "<video>", "<audio>"),
    "easyr1": ("<image>", "<video>", "<audio>"),
}
"""What each trainer replaces by what a row's columns hold, or splits texts at."""
_CONTROL = re.compile(
    # Qwen, Llama 3, Phi, GLM: <|im_end|>, <|image_pad|>, <|eot_id|>
    r"<\|[^<>|\s]{1,40}\|>"
    # DeepSeek
    r"|<｜[^<>｜\s]{1,40}｜>"
    # Gemma
    r"|<(?:image_soft_token|start_of_image|end_of_image|start_of_turn|end_of_turn|bos|eos)>"
    # InternVL, Idefics
    r"|<(?:IMG_CONTEXT|image_start|image_end|fake_token_around_image|global-img)>"
    # Mistral, Pixtral
    r"|\[/?INST\]|\[IMG(?:_BREAK|_END)?\]"
)


def mark_in(text: str, to: str) -> str | None:
    """Return the first mark of the format `to` or of a tokenizer that a text holds, if any."""
    found = [mark for mark in _PLACEHOLDERS.get(to, ()) if mark in text]
    if control := _CONTROL.search(text):
        found.append(control[0])
    return min(found, key=text.index, default=None)


def check_marks(text: str, to: str, name: str) -> None:
    """WarehouseError if the text of the row `name` holds a mark."""
    mark = mark_in(text, to)
    if mark is None:
        return
    if mark in _PLACEHOLDERS.get(to, ()):
        kind = mark.strip("<>{}")
        reason = f"stands for {'an' if kind[0] in 'ai' else 'a'} {kind} in this format"
    else:
        reason = "is a control token of a model's chat template"
    where = (  # of the statement that publishes, which chooses from a view of traces
        f"NOT contains(text, '{mark}') AND question_id NOT IN "
        f"(SELECT question_id FROM questions WHERE contains(text || choices::VARCHAR, '{mark}'))"
    )
    if name.startswith("tree "):
        where += (
            f" AND tree_id NOT IN (SELECT tree_id FROM nodes WHERE contains(thought, '{mark}'))"
        )
    raise WarehouseError(
        f"the text of {name} holds {mark}, which {reason} and can't be written as text: publish "
        f"a version without such rows, with the condition {where}"
    )

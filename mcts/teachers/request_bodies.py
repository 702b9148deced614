"""The bodies of chat requests: JSON pieces, with the bytes of images between them.

    images = EncodedImages(256 * 2**20)
    shown = await images.of(request, data)
    body = chat_body(request, form, "my-model", {})
    pieces = encode_body(body, shown)             # b"".join(pieces) is the JSON that is sent

An image is turned into the text of its data URL once, and that text is never copied into a body: it
is most of what a request weighs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts.image_io import UnreadableImage, canonical, media_type, upright_size
from mcts.teachers.base import Message, Request, TeacherError, TextPart, image_bytes
from mcts.teachers.image_tokens import ImageSize
from mcts.teachers.responses import fold_partial_turn, thought_limit_pattern

WIRE_SEED = 2**31 - 1
"""Seeds are sent modulo 2**31: several servers refuse larger ones."""

_MARK = f"image-{secrets.token_hex(8)}-"
"""Stands in a body for an image's bytes until it is sent; no text can contain it."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as it is sent."""

    url: bytes
    """A data URL; base64 needs no escapes in JSON."""
    size: ImageSize
    """Width and height as the model sees it."""

    @property
    def weight(self) -> int:
        """Bytes that it takes."""
        return len(self.url)


class EncodedImages:
    """Images as they are sent, kept while they fit into `room` bytes."""

    def __init__(self, room: int) -> None:
        self._images: OrderedDict[str, EncodedImage] = OrderedDict()
        self._room = room
        self._lock, self._making = threading.Lock(), threading.Lock()

    async def of(self, request: Request, images: Mapping[str, bytes]) -> dict[str, EncodedImage]:
        """Return a request's images by id; those that are not kept are made in a thread.

        A photograph that is turned by its tag, or a crop, takes so long that others would wait.
        """
        kept = {image_id: self._kept(image_id) for image_id in request.image_ids}
        found = {image_id: image for image_id, image in kept.items() if image is not None}
        if len(found) == len(kept):
            return found
        return await asyncio.to_thread(lambda: {i: self.encode(i, images) for i in kept})

    def encode(self, image_id: str, images: Mapping[str, bytes]) -> EncodedImage:
        """Return an image as it is sent, encoded once while there is room to keep it."""
        with self._making:
            return self._kept(image_id) or self._make(image_id, images)

    def _kept(self, image_id: str) -> EncodedImage | None:
        with self._lock:
            if image_id in self._images:
                self._images.move_to_end(image_id)
            return self._images.get(image_id)

    def _make(self, image_id: str, images: Mapping[str, bytes]) -> EncodedImage:
        try:
            data = canonical(image_bytes(images, image_id))
            size = ImageSize(*upright_size(data))
        except UnreadableImage as error:
            raise TeacherError("bad_request", f"image {image_id} {error}") from None
        url = f"data:{media_type(data)};base64,".encode() + base64.b64encode(data)
        encoded = EncodedImage(url, size)
        with self._lock:
            self._images[image_id] = encoded
            self._room -= encoded.weight
            while self._room < 0 and len(self._images) > 1:
                self._room += self._images.popitem(last=False)[1].weight
        return encoded


def chat_body(
    request: Request, form: frozenset[str], model: str | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON of a chat request in the `form` that the server takes, images left out.

    Args:
        form: features to use (`mcts.teachers.capabilities.FEATURES`).
        fields: added as they are.
    """
    continuing = request.continues and "continue" in form
    messages = list(request.messages)
    if request.continues and not continuing:
        messages = fold_partial_turn(messages)
    limit = "max_tokens" if "max_tokens" in form else "max_completion_tokens"
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(messages, "tool_turns" in form),
        "n": request.n if "n" in form else 1,
        limit: request.max_tokens,
    }
    sampling = {"temperature": request.temperature, "top_p": request.top_p,
                "seed": request.seed & WIRE_SEED}  # fmt: skip
    body |= {name: value for name, value in sampling.items() if name in form}
    if "stop_strings" in form:
        body["stop"] = list(request.stop)
    if "stop" in form:
        body["include_stop_str_in_output"] = True
    if "logprobs" in form:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if "count" in form:
        body["structured_outputs"] = {"regex": thought_limit_pattern(request.max_thoughts)}
    if continuing:
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return {**body, **fields}


def _messages(messages: Sequence[Message], tool_turns: bool) -> list[dict[str, Any]]:
    """Return the JSON of a conversation; a tool's turns become the user's without `tool_turns`."""
    found: list[dict[str, Any]] = []
    calls = 0
    for message in messages:
        found.append({"role": message.role, "content": _content(message)})
        if message.role == "tool" and tool_turns:
            calls += 1
            found[-1]["tool_call_id"] = f"call_{calls}"  # most servers want one
        elif message.role == "tool":
            found[-1]["role"] = "user"
    return found


def _content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in message.parts):
        return message.text
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            content.append({"type": "text", "text": part.text})
        else:
            url = f"{_MARK}{part.image_id}"
            content.append({"type": "image_url", "image_url": {"url": url}})
    return content


def encode_body(body: Mapping[str, Any], shown: Mapping[str, EncodedImage]) -> list[bytes]:
    """Encode a body as JSON, with the bytes of its images between the pieces of text."""
    first, *rest = json.dumps(body).split(_MARK)
    pieces = [first.encode()]
    for part in rest:
        image_id, quote, after = part.partition('"')
        pieces += [shown[image_id].url, (quote + after).encode()]
    return pieces

"""How OpenAI-compatible servers differ, as data; and a server composed of some of the differences.

    server = DifferentServer([BY_NAME["refuses seed"], BY_NAME["usage null"]], seed=7)
    with server.connected():                          # every client in this process talks to it
        await OpenAITeacher("http://different").complete(request, images)
    server.usable, server.answered_twice()

The table is what docs/servers.md tells of real servers. A composed server is imitated without a
network: it takes the place of the client's connections, so two thousand of them take a minute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from mcts.teachers import openai_client
from mcts.teachers.connections import ConnectionLost, HttpResponse
from tests.support.stub_server import conversation

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a server is not like vLLM."""

    name: str
    group: str
    """Of one group a server has at most one, except of `refused` and `ignored`."""
    parameter: str = ""
    """For `refused` and `ignored`, the field of the request."""
    exact: bool = True
    """Whether every answer of such a server can be used."""


REFUSED = ("n", "continue_final_message", "include_stop_str_in_output", "stop", "seed",
           "structured_outputs", "max_tokens", "top_p")  # fmt: skip
IGNORED = ("n", "stop", "seed", "structured_outputs", "include_stop_str_in_output")

DIFFERENCES = (
    *(Difference(f"refuses {name}", "refused", name) for name in REFUSED),
    *(Difference(f"ignores {name}", "ignored", name) for name in IGNORED),
    # How it words a refusal.
    Difference("refusal as OpenAI's, with param", "wording"),
    Difference("refusal with the name in the sentence", "wording"),
    Difference("refusal that names nothing", "wording"),
    Difference("refusal as FastAPI's 422, a list", "wording"),
    Difference("refusal as plain text", "wording"),
    # What becomes of a partial assistant turn.
    Difference("turn begun anew", "turn"),
    Difference("partial turn repeated", "turn"),
    Difference("prefill refused in words", "turn"),
    # What the chat template adds.
    Difference("template opens think", "template"),
    Difference("empty think block first", "template"),
    # Where the text is.
    Difference("content as parts", "content"),
    Difference("content as parts with a null", "content"),
    Difference("refusal field null, tool_calls empty", "content"),
    Difference("thoughts in reasoning_content", "content", exact=False),
    Difference("text in tool_calls", "content", exact=False),
    # What ended the text.
    Difference("stop dropped, told in stop_reason", "stop"),
    Difference("stop dropped, told in matched_stop", "stop"),
    Difference("stop dropped, not told", "stop"),
    # What it counts.
    Difference("usage absent", "usage"),
    Difference("usage null", "usage"),
    Difference("usage of nulls", "usage"),
    Difference("usage of zeros", "usage"),
    Difference("usage as strings", "usage"),
    Difference("usage with total alone", "usage"),
    Difference("usage without numbers", "usage"),
    # How it says that it has finished.
    Difference("finish_reason null", "finish"),
    Difference("finish_reason eos", "finish"),
    Difference("finish_reason STOP", "finish"),
    Difference("finish_reason tool_calls", "finish"),
    Difference("index missing", "index"),
    Difference("index null", "index"),
    # What passes.
    Difference("429 now and then", "fault"),
    Difference("500 now and then", "fault"),
    Difference("503 now and then", "fault"),
    Difference("connection lost now and then", "fault"),
    Difference("broken JSON now and then", "fault"),
    Difference("empty text now and then", "fault"),
)
BY_NAME = {difference.name: difference for difference in DIFFERENCES}


def composed(rng: random.Random) -> list[Difference]:
    """Draw a server: each group is as vLLM has it, or one of its differences."""
    chosen: list[Difference] = []
    for group in dict.fromkeys(difference.group for difference in DIFFERENCES):
        of_group = [difference for difference in DIFFERENCES if difference.group == group]
        if group in ("refused", "ignored"):
            chosen += [difference for difference in of_group if rng.random() < 0.25]
        elif group == "content":
            exact = [difference for difference in of_group if difference.exact]
            chosen += [rng.choice(exact if rng.random() < 0.9 else of_group)]
        elif group == "wording" or rng.random() < 0.5:
            chosen.append(rng.choice(of_group))
    refused = {d.parameter for d in chosen if d.group == "refused"}
    return [d for d in chosen if d.group != "ignored" or d.parameter not in refused]


class DifferentServer:
    """A server with some of the differences; see `mcts.teachers.connections.Connections`.

    Its answers depend on the request and `seed` alone, faults aside.
    """

    def __init__(self, differences: Sequence[Difference], seed: int = 0) -> None:
        self.names = {difference.name for difference in differences}
        self.refused = {d.parameter for d in differences if d.group == "refused"}
        self.ignored = {d.parameter for d in differences if d.group == "ignored"}
        self.models: Any = {"data": [{"id": "different"}]}
        self.declared: dict[str, bool] = {}
        """What the user says about it."""
        self.exact = all(difference.exact for difference in differences)
        self._seed, self._rng = seed, random.Random(seed)
        self._faulty = False
        self.requests: list[Body] = []
        self.refusals = 0
        self.usable = 0
        """Choices it gave that can be used, each of which was paid for."""
        self._answered: Counter[str] = Counter()

    @contextlib.contextmanager
    def connected(self) -> Iterator[DifferentServer]:
        """Let every client talk to this server."""
        with mock.patch.object(openai_client, "Connections", return_value=self):
            yield self

    def answered_twice(self) -> int:
        """Return how many requests with a seed, which tells them apart, were answered again."""
        return sum(count - 1 for count in self._answered.values())

    async def close(self) -> None:
        """Do nothing."""

    async def request(
        self, method: str, path: str, pieces: Sequence[bytes] | None = None
    ) -> HttpResponse:
        """Answer; see `Connections.request`."""
        if path.endswith("/models"):
            return _json(200, self.models)
        body: Body = json.loads(b"".join(pieces or ()))
        self.requests.append(body)
        for refusal in self._refusals(body):
            self.refusals += 1
            return refusal
        self._faulty = not self._faulty and self._rng.random() < 0.15  # it passes at once
        if self._faulty and (faulty := self._fault()):
            return faulty
        return _json(200, self._answer(body))

    def _has(self, name: str) -> bool:
        return name in self.names

    def _refusals(self, body: Body) -> Iterator[HttpResponse]:
        for name in sorted(self.refused & body.keys()):
            if name != "n" or body["n"] > 1:
                yield self._refusal(name)
        if self._has("prefill refused in words") and body["messages"][-1]["role"] == "assistant":
            said = "This model does not support assistant message prefill. The conversation must "
            yield _json(400, {"error": {"message": f"{said}end with a user message."}})

    def _refusal(self, name: str) -> HttpResponse:
        if self._has("refusal as OpenAI's, with param"):
            error = {"message": "Unsupported parameter.", "param": name, "code": "unsupported"}
            return _json(400, {"error": error})
        if self._has("refusal as FastAPI's 422, a list"):
            detail = [{"loc": ["body", name], "msg": "Extra inputs are not permitted"}]
            return _json(422, {"detail": detail})
        if self._has("refusal as plain text"):
            return HttpResponse(400, {"content-type": "text/plain"}, f"unknown: {name}".encode())
        if self._has("refusal that names nothing"):
            return _json(400, {"error": {"message": "bad request"}})
        return _json(400, {"error": {"message": f"'{name}' is not supported here"}})

    def _fault(self) -> HttpResponse | None:
        for status in (429, 500, 503):
            if self._has(f"{status} now and then"):
                return _json(status, {"error": {"message": f"try later ({status})"}})
        if self._has("connection lost now and then"):
            raise ConnectionLost("the server hung up")
        if self._has("broken JSON now and then"):
            return HttpResponse(200, {"content-type": "application/json"}, b'{"choices": [{"me')
        if self._has("empty text now and then"):
            choice = {"index": 0, "message": {"content": ""}, "finish_reason": "stop"}
            return _json(200, {"choices": [choice]})
        return None

    def _answer(self, body: Body) -> Body:
        prompt, partial = conversation(body)
        in_turn = body["messages"][-1]["role"] == "assistant"
        anew = in_turn and self._has("turn begun anew")
        n = 1 if "n" in self.ignored else body.get("n", 1)
        choices = []
        for i in range(n):
            seed = None if "seed" in self.ignored else body.get("seed")
            drawn = self._rng.random() if seed is None else seed + i
            rng = random.Random(_digest([self._seed, body["messages"], drawn]))
            text = _turn(prompt, "" if anew else partial, rng)
            text = self._as_templated(text, partial, in_turn)
            choices.append(self._choice(body, text, i))
        asked_to_count = "Count from one" in prompt
        if not anew and not asked_to_count:
            self.usable += n
        if "seed" in body and "seed" not in self.ignored and not anew:
            self._answered[_digest(body)] += 1
        return {"choices": choices, "model": "different", **self._usage(choices)}

    def _as_templated(self, text: str, partial: str, in_turn: bool) -> str:
        if in_turn and self._has("partial turn repeated"):
            return partial + text
        if not in_turn and not partial:
            if self._has("template opens think") and text.startswith("<think>"):
                return text.removeprefix("<think>")
            if self._has("empty think block first"):
                return f"<think>\n\n</think>\n\n{text}"
        return text

    def _choice(self, body: Body, text: str, i: int) -> Body:
        stops = [] if "stop" in self.ignored else body.get("stop", [])
        ends = [(text.find(stop), stop) for stop in stops if stop in text]
        # An empty block's end is no end, nor is one in a turn said again: nothing would follow.
        hidden = "<think>\n\n</think>"
        if self._has("partial turn repeated"):
            hidden = conversation(body)[1] or hidden
        if text.startswith(hidden):
            ends = [(text.find(s, len(hidden)), s) for s in stops if s in text[len(hidden) :]]
        at, stop = min(ends, default=(len(text), ""))
        keeps = body.get("include_stop_str_in_output", False)
        keeps = keeps and "include_stop_str_in_output" not in self.ignored
        dropped = not keeps or any(name.startswith("stop dropped") for name in self.names)
        choice: Body = {"index": i, "finish_reason": "stop"}
        if stop and self._has("stop dropped, told in matched_stop"):
            choice["matched_stop"] = stop
        elif not self._has("stop dropped, not told"):
            choice["stop_reason"] = stop or None
        choice["message"] = self._message(text[:at] + ("" if dropped else stop))
        for name in ("null", "eos", "STOP", "tool_calls"):
            if self._has(f"finish_reason {name}"):
                choice["finish_reason"] = None if name == "null" else name
        if self._has("index missing"):
            del choice["index"]
        if self._has("index null"):
            choice["index"] = None
        return choice

    def _message(self, text: str) -> Body:
        message: Body = {"role": "assistant", "content": text}
        if self._has("content as parts"):
            half = len(text) // 2
            parts = [{"type": "text", "text": part} for part in (text[:half], text[half:])]
            message["content"] = parts
        if self._has("content as parts with a null"):
            message["content"] = [{"type": "text", "text": text}, {"type": "text", "text": None}]
        if self._has("refusal field null, tool_calls empty"):
            message |= {"refusal": None, "tool_calls": [], "reasoning_content": None}
        if self._has("thoughts in reasoning_content"):
            thoughts, _, rest = text.rpartition("</think>")
            message = {"reasoning_content": re.sub("</?think>", "", thoughts), "content": rest}
        if self._has("text in tool_calls"):
            call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
            message = {"content": None, "tool_calls": [call]}
        return message

    def _usage(self, choices: Sequence[Body]) -> Body:
        usage = {"prompt_tokens": 300, "completion_tokens": 20 * len(choices)}
        usage["total_tokens"] = sum(usage.values())
        changed: Mapping[str, Any] = {
            "usage absent": {},
            "usage null": {"usage": None},
            "usage of nulls": {"usage": dict.fromkeys(usage)},
            "usage of zeros": {"usage": dict.fromkeys(usage, 0)},
            "usage as strings": {"usage": {name: str(count) for name, count in usage.items()}},
            "usage with total alone": {"usage": {"total_tokens": usage["total_tokens"]}},
            "usage without numbers": {"usage": {"prompt_tokens": "many", "completion_tokens": []}},
        }
        for name, form in changed.items():
            if self._has(name):
                return dict(form)
        return {"usage": usage}


def _turn(prompt: str, partial: str, rng: random.Random) -> str:
    """Return the rest of an assistant turn: its first thought is always in the same words."""
    if partial.rstrip().endswith("<answer>"):
        return f"{rng.choice(['yes', 'no'])}</answer>"
    done = partial.count("</think>")
    opened = partial.count("<think>") > done
    text = ""
    while done < 2 or (done < 4 and rng.random() < 0.4):
        point = f"({rng.randint(0, 1000)}, {rng.randint(0, 1000)})"
        words = "First I look at the room" if not done else f"Then comes part {done} of it"
        text += f"{'' if opened else '<think>'}{words} at {point}.</think>\n"
        opened, done = False, done + 1
    return f"{text}<answer>{rng.choice(['yes', 'no'])}</answer>"


def _json(status: int, value: Any) -> HttpResponse:
    return HttpResponse(status, {"content-type": "application/json"}, json.dumps(value).encode())


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()

"""A model server for tests: real HTTP, vLLM's fields, and answers that depend only on the request.

It plays a teacher that looks at pictures: it thinks in steps that cite points (0-1000), and after
some of them answers with one of the choices it was shown. It cannot know which is right. The same
request always gets the same answer, whichever process asks, in whatever order; sample i of a
request equals the single request with seed + i.

    with StubServer() as server:
        teacher = OpenAITeacher(server.url)
        ...
        assert server.request_count() == 12
    with StubServer(faults=["429", "500", "reset"]) as server: ...    # then it behaves

As a program it outlives the process under test, and its log counts what a killed one had requested:

    python -m tests.support.stub_server --port 0 --log requests.jsonl         # prints its URL
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "stub-teacher"
THINGS = ["red box", "blue ball", "lamp", "chair", "green cup", "table", "left wall", "door"]
VERBS = ["is at", "stands at", "can be seen at", "begins near"]
CHARS_A_TOKEN = 4


def digest(value: Any) -> str:
    """A hex hash of anything JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def conversation(body: dict[str, Any]) -> tuple[str, str]:
    """The text of the prompt, and the partial assistant turn it ends with (empty if none)."""
    turns = []
    for message in body["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text", "") for part in content)
        turns.append((message["role"], content))
    if turns[-1][0] == "assistant":
        return "\n".join(text for _, text in turns[:-1]), turns[-1][1]
    prompt = "\n".join(text for _, text in turns)
    continued = re.search(r"Previous thoughts:\n(.*)\nContinue", prompt, re.DOTALL)
    return (prompt[: continued.start()], continued.group(1)) if continued else (prompt, "")


def turn_after(prompt: str, partial: str, rng: random.Random) -> str:
    """The rest of an assistant turn: thoughts until there are enough, then the answer."""
    found = re.search(r"Choices: (.*?)\.\s*(?:\n|$)", prompt)
    choices = re.split(r", | or ", found.group(1)) if found else []
    point = f"({rng.randint(0, 1000)}, {rng.randint(0, 1000)})"
    answer = rng.choice(choices) if choices else point
    if partial.rstrip().endswith("<answer>"):
        return f"{answer}</answer>"
    if "search_coordinate" in prompt:
        return zoom_turn(prompt, answer, rng)
    least = re.search(r"at least (\d+) steps", prompt)
    wanted = int(least.group(1)) if least else 3
    done = partial.count("</think>")
    opened = partial.count("<think>") > done
    text = "\n" if partial and not opened and not partial.endswith("\n") else ""
    while done < wanted or (done < wanted + 4 and rng.random() < 0.4):
        point = f"({rng.randint(0, 1000)}, {rng.randint(0, 1000)})"
        thought = f"The {rng.choice(THINGS)} {rng.choice(VERBS)} {point}."
        text += f"{'' if opened else '<think>'}{thought}</think>\n"
        opened, done = False, done + 1
    return f"{text}{'</think>' if opened else ''}<answer>{answer}</answer>"


def zoom_turn(prompt: str, answer: str, rng: random.Random) -> str:
    """One turn of a teacher that may look closer: a thought, then a call or the answer."""
    x, y = rng.randint(0, 1000), rng.randint(0, 1000)
    thought = f"<think>The {rng.choice(THINGS)} {rng.choice(VERBS)} ({x}, {y}).</think>\n"
    looks = prompt.count("<observation>")
    if looks and rng.random() < 0.2 + 0.2 * looks:
        return f"<think>That is the {rng.choice(THINGS)}.</think>\n<answer>{answer}</answer>"
    call = {"name": "search_coordinate", "arguments": {"coordinate": [x, y]}}
    if looks and rng.random() < 0.2:
        call["arguments"] = {"coordinate": [500, 500], "image": looks + 1}
    if rng.random() < 0.1:
        call["arguments"] = {"coordinate": "somewhere"}
    return f"{thought}<tool_call>{json.dumps(call)}</tool_call>"


def cut(text: str, stop: Iterable[str], keep_stop: bool, max_tokens: int) -> dict[str, Any]:
    """The choice's fields after the stop strings and the token limit have had their say."""
    room = max_tokens * CHARS_A_TOKEN
    ends = [(text.find(s), s) for s in stop if s in text]
    if ends:
        at, found = min(ends)
        if at + len(found) <= room:
            kept = text[: at + len(found)] if keep_stop else text[:at]
            return {"text": kept, "finish_reason": "stop", "stop_reason": found}
    reason = "length" if len(text) > room else "stop"
    return {"text": text[:room], "finish_reason": reason, "stop_reason": None}


class StubServer:
    """The server, in threads of this process, between `start` and `stop` (or as a context).

    `faults` are used up one a chat request, in order of arrival: "429", "500", "503", "reset",
    "hang", "empty", "malformed", "cut" (the connection ends in the middle of the answer), "short"
    (too few choices), "die" (the server's process ends), "ok". `fault_of` computes them instead,
    from a request's body and how often it came before. The other knobs hold throughout.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        log: Path | str | None = None,
        faults: Iterable[str] = (),
        fault_of: Callable[[dict[str, Any], int], str] | None = None,
        latency_s: float = 0.0,
        retry_after_s: float | None = None,
        refuse_many: bool = False,
        ignore_many: bool = False,
        refuse_continue: bool = False,
        refuse_grammar: bool = False,
        refuse_tool_turns: bool = False,
        drop_stop: bool = False,
        tell_stop_reason: bool = True,
        poison: str | None = None,
        model: str = MODEL,
    ) -> None:
        self.faults, self.fault_of = list(faults), fault_of
        self._came: Counter[str] = Counter()
        self.latency_s, self.retry_after_s = latency_s, retry_after_s
        self.refuse_many, self.ignore_many = refuse_many, ignore_many
        self.refuse_continue, self.refuse_grammar = refuse_continue, refuse_grammar
        self.refuse_tool_turns = refuse_tool_turns
        self.drop_stop, self.tell_stop_reason = drop_stop, tell_stop_reason
        self.poison = poison
        """A prompt that contains this always gets a 500."""
        self.model = model
        self.requests: list[dict[str, Any]] = []
        """Every chat request that arrived: its fingerprint, body and fault."""
        self.in_flight = self.most_in_flight = self.hung_up = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._log = Path(log) if log else None
        handler = type("Handler", (_Handler,), {"stub": self})
        self._http = _Server((host, port), handler)
        self.url = f"http://{host}:{self._http.server_address[1]}"

    def start(self) -> StubServer:
        """Serve in the background."""
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Stop serving and hang up on everybody, as a server that dies does."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._http.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> StubServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def request_count(self) -> int:
        """How many chat requests arrived, retries and faults included."""
        return len(self.requests)

    def repeated(self) -> list[str]:
        """Fingerprints of the requests that were answered well more than once."""
        counts = Counter(r["fingerprint"] for r in self.requests if r["fault"] == "ok")
        return [fingerprint for fingerprint, count in counts.items() if count > 1]

    def arrive(self, body: dict[str, Any]) -> str:
        """Note a request; the fault it is to meet."""
        with self.lock:
            fault, name = self.faults.pop(0) if self.faults else "ok", digest(body)
            if self.fault_of is not None:
                fault = self.fault_of(body, self._came[name])
                self._came[name] += 1
            entry = {"fingerprint": name, "fault": fault, "seed": body.get("seed")}
            self.requests.append(entry | {"body": body})
            if self._log:
                with self._log.open("a") as file:  # one write a line, closed: it survives us
                    file.write(json.dumps(entry | {"n": body.get("n", 1)}) + "\n")
        return fault

    def refusal(self, body: dict[str, Any]) -> str | None:
        """Why this server cannot take the request, in the words of its error; None if it can."""
        if self.refuse_many and body.get("n", 1) > 1:
            return "n > 1 is not supported"
        if self.refuse_continue and body.get("continue_final_message"):
            return "continue_final_message is not supported"
        if self.refuse_grammar and "structured_outputs" in body:
            return "structured_outputs is not supported"
        if self.refuse_tool_turns and any(m["role"] == "tool" for m in body["messages"]):
            return "a message with role 'tool' must follow one with 'tool_calls'"
        if body.get("continue_final_message") and body.get("add_generation_prompt", True):
            return "continue_final_message and add_generation_prompt exclude each other"
        return None

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The completion object; a function of the body and the knobs, of nothing else."""
        prompt, partial = conversation(body)
        keep_stop = bool(body.get("include_stop_str_in_output")) and not self.drop_stop
        stop = body.get("stop") or []
        stop = [stop] if isinstance(stop, str) else stop
        choices: list[dict[str, Any]] = []
        for i in range(1 if self.ignore_many else body.get("n", 1)):
            seed = digest([self.model, body["messages"], body.get("seed", 0) + i])
            text = turn_after(prompt, partial, random.Random(seed))
            fields = cut(text, stop, keep_stop, body.get("max_tokens", 512))
            message = {"role": "assistant", "content": fields.pop("text")}
            if not self.tell_stop_reason:
                del fields["stop_reason"]
            said = {"token": "x", "logprob": -int(seed[:3], 16) / 1024}
            logprobs = {"content": [said]} if body.get("logprobs") else None
            choices.append({"index": i, "message": message, "logprobs": logprobs} | fields)
        prompt_tokens = (len(prompt) + len(partial)) // CHARS_A_TOKEN + 1
        lengths = [len(choice["message"]["content"]) for choice in choices]
        completion_tokens = sum(length // CHARS_A_TOKEN + 1 for length in lengths)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            # What a warm prefix cache would hold: all but the newest part. Never the history's.
            "prompt_tokens_details": {"cached_tokens": prompt_tokens // 16 * 12},
        }
        return {"id": "chatcmpl-" + digest(body), "object": "chat.completion", "created": 0,
                "model": self.model, "choices": choices, "usage": usage}  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are part of the tests


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.reply(404, {"error": {"message": f"no such page: {self.path}"}})
        card = {"id": self.stub.model, "object": "model", "created": int(time.time()),
                "owned_by": "vllm", "root": self.stub.model, "max_model_len": 4096}  # fmt: skip
        self.reply(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        stub = self.stub
        if self.path != "/v1/chat/completions":
            return self.reply(404, {"error": {"message": f"no such page: {self.path}"}})
        fault = stub.arrive(body)
        with stub.lock:
            stub.in_flight += 1
            stub.most_in_flight = max(stub.most_in_flight, stub.in_flight)
        try:
            self.chat(body, fault)
        finally:
            with stub.lock:
                stub.in_flight -= 1

    def chat(self, body: dict[str, Any], fault: str) -> None:
        stub = self.stub
        if fault == "die":
            os._exit(1)
        if fault == "hang":
            self.connection.settimeout(0.02)
            while not stub.closing.is_set():
                try:
                    if not self.connection.recv(1):  # the client hung up: the timeout was real
                        stub.hung_up += 1
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            self.close_connection = True
            return
        if stub.latency_s:
            time.sleep(stub.latency_s)
        if fault == "reset":
            # SO_LINGER 0 makes close() send RST instead of a polite FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        if fault.isdigit() or (stub.poison and stub.poison in json.dumps(body["messages"])):
            status = int(fault) if fault.isdigit() else 500
            return self.reply(status, {"error": {"message": f"scripted {status}"}})
        if fault == "malformed":
            return self.send(200, b'{"choices": [{"mess')
        if refusal := stub.refusal(body):
            return self.reply(400, {"error": {"message": refusal, "code": 400}})
        answer = stub.answer(body)
        if fault == "empty":
            for choice in answer["choices"]:
                choice["message"]["content"] = ""
                choice["stop_reason"] = None
        if fault == "short":
            answer["choices"].pop()
        if fault == "cut":
            self.close_connection = True
            return self.send(200, json.dumps(answer).encode(), share=0.5)
        self.reply(200, answer)

    def reply(self, status: int, value: dict[str, Any]) -> None:
        self.send(status, json.dumps(value).encode())

    def send(self, status: int, data: bytes, share: float = 1.0) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if status == 429 and self.stub.retry_after_s is not None:
            self.send_header("retry-after", str(self.stub.retry_after_s))
        self.end_headers()
        self.wfile.write(data[: int(share * len(data))])


def main() -> None:
    parser = argparse.ArgumentParser(description="A model server for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--log", help="append one JSON line a request to this file")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--faults", default="", help="comma-separated, one a request")
    options = parser.parse_args()
    faults = [fault for fault in options.faults.split(",") if fault]
    server = StubServer(
        port=options.port, log=options.log, latency_s=options.latency, faults=faults
    ).start()
    print(server.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()

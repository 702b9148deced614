"""A whole project in a temporary folder: data files, a server of any behaviour, and the commands.

    project = Project(tmp_path)
    ran, requests = project.ask([{}], thinking("<think>The cup is at {p}.</think>"))
    assert project.sql("SELECT thought FROM steps") == [...]

`ask` writes questions as JSON lines, imports them and builds their traces with a server whose
answers are a function of the request. Commands run in this process, by their command line alone;
`Project.run` returns their status and all that they printed.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

Body = dict[str, Any]
Answer = Callable[[Body, int], Any]
"""(request body, how many came before it and it) -> JSON, or (status, JSON or bytes[, headers])."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not this server's business."""


class AnswerServer:
    """An OpenAI-compatible server that answers chat requests with `answer(body, nth)`."""

    def __init__(self, answer: Answer, *, host: str = "127.0.0.1", model: str = "m") -> None:
        self.requests: list[Body] = []
        """The bodies of all chat requests, in order of arrival."""
        self.headers: list[dict[str, str]] = []
        """The headers of all requests, in order of arrival; names in lower case."""
        self.models: Callable[[], Any] = lambda: None
        """What it answers to who asks for its models, where that is no list of its one."""
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Print nothing."""

            def reply(self, answered: Any) -> None:
                status, data, *more = answered if isinstance(answered, tuple) else (200, answered)
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                headers = {"content-type": "application/json", **(more[0] if more else {})}
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def note(self, body: Body | None) -> int:
                with lock:
                    server.headers.append({k.lower(): v for k, v in self.headers.items()})
                    if body is not None:
                        server.requests.append(body)
                    return len(server.requests)

            def do_GET(self) -> None:
                self.note(None)
                self.reply(server.models() or {"data": [{"id": model}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.reply(answer(body, self.note(body)))

        self._http = _Server((host, 0), Handler)
        self.url = f"http://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> AnswerServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def partial_turn(body: Body) -> str:
    """Return the assistant turn that the request asks to continue; empty if none."""
    last = body["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def reply(body: Body, *texts: str) -> Body:
    """Return a response with these completions, each cut behind its first stop string."""
    choices = []
    for i, text in enumerate(texts):
        ends = [(text.find(stop), stop) for stop in body.get("stop", []) if stop in text]
        at, stop = min(ends, default=(len(text), ""))
        message = {"role": "assistant", "content": text[:at] + stop}
        choice = {"index": i, "message": message, "finish_reason": "stop"}
        choices.append({**choice, "stop_reason": stop or None})
    usage = {"prompt_tokens": 9, "completion_tokens": 9 * len(choices)}
    return {"choices": choices, "usage": usage}


def thinking(
    first: str,
    then: str = "<think>The door is at {p}.</think>",
    end: str = "yes",
    change: Callable[[Body], Any] = lambda data: data,
) -> Answer:
    """Return an answer with a first thought, later thoughts and a final answer.

    Args:
        first: the start of every turn; `{p}` becomes a new point, in thousandths.
        then: what continues a turn.
        end: the answer.
        change: applied to the response.
    """
    rng = random.Random(1)

    def fill(text: str) -> str:
        return re.sub("{p}", lambda _: f"({rng.randint(100, 900)}, {rng.randint(100, 900)})", text)

    def complete(done: str) -> str:
        if done.rstrip().endswith("<answer>"):
            return f"{end}</answer>"
        return ("" if done else fill(first)) + f"\n{fill(then)}\n<answer>{end}</answer>"

    def answer(body: Body, nth: int) -> Any:
        return change(reply(body, *(complete(partial_turn(body)) for _ in range(body.get("n", 1)))))

    return answer


@dataclass(frozen=True)
class Ran:
    """A command's result."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.out + self.err


class Project:
    """A warehouse and data files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: object, **environment: str) -> Ran:
        """Run `vigorl` with these arguments in this process."""
        from flows.cli import app

        out, err, status = StringIO(), StringIO(), 0
        variables = {"VIGORL_HOME": str(self.home), **environment}
        with (
            mock.patch.dict(os.environ, variables),
            mock.patch.object(sys, "argv", ["vigorl", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                app.main()
            except SystemExit as left:
                status = left.code if isinstance(left.code, int) else int(left.code is not None)
        return Ran(status, out.getvalue(), err.getvalue())

    def image(self, name: str, image: Image.Image | None = None, **options: Any) -> Path:
        """Save an image (640x480, red) among the data."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image or Image.new("RGB", (640, 480), "red")).save(path, **options)
        return path

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file among the data."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        task: str = "mine",
        columns: str = "question=q,image=img,answer=a",
        split: str = "train",
    ) -> Ran:
        """Import rows as JSON lines; `q`, `img` and `a` have defaults."""
        if not (self.data / "a.png").exists():
            self.image("a.png")
        lines = [json.dumps({"q": "Is it?", "img": "a.png", "a": "yes", **row}) for row in rows]
        path = self.write("q.jsonl", "\n".join(lines))
        return self.run("import", task, path, "--split", split, "--columns", columns)

    def build(
        self,
        answer: Answer,
        *options: object,
        task: str = "mine",
        space: str = "qwen3-vl",
        **env: str,
    ) -> tuple[Ran, list[Body]]:
        """Build traces with a server that answers so; the command's result and the requests."""
        with AnswerServer(answer) as server:
            given = ("--teacher", server.url, "--space", space, "--simulations", 1)
            ran = self.run("build", task, *given, *options, **env)
        return ran, server.requests

    def ask(
        self, rows: Sequence[Mapping[str, Any]], answer: Answer, *options: object, **how: Any
    ) -> tuple[Ran, list[Body]]:
        """Import rows and build their traces."""
        columns = {name: how.pop(name) for name in ("columns", "split") if name in how}
        added = self.add(rows, **columns)
        assert added.status == 0, added.text
        return self.build(answer, *options, **how)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        ran = self.run("sql", query, "--format", "json")
        assert ran.status == 0, ran.text
        return [json.loads(line) for line in ran.out.splitlines()]

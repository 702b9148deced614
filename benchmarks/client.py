"""What a request costs the client: processor time beside the openai client, httpx and aiohttp.

    python -m benchmarks.client                    # all that are installed, 64 in flight
    pip install openai                             # its row is left out where it is missing

Every contender sends the same chat request, text and an image of 281 KB, to a server in another
process that answers at once. Counted is the processor time of this process, median of the rounds;
the contenders take turns, since timings of a shared machine drift.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

IMAGE_BYTES = 281_000
ANSWER = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [
            {
                "index": 0, "finish_reason": "stop", "stop_reason": "</think>",
                "message": {"role": "assistant", "content": "<think>At (4, 5).</think>"},
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
    }
).encode()  # fmt: skip

Send = Callable[[int], Awaitable[None]]
"""Send request number i and wait for its answer."""


class _Answers(asyncio.Protocol):
    """One connection of the server: counts a body's bytes, then answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.head, self.left = transport, b"", 0

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.left -= len(data)
            if self.left <= 0:
                self.answer(ANSWER)
            return
        self.head += data
        head, end, body = self.head.partition(b"\r\n\r\n")
        if not end:
            return
        self.head = b""
        lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        self.left = int(lines.get(b"content-length", 0)) - len(body)
        if head.startswith(b"GET"):
            self.answer(b'{"data": [{"id": "m", "owned_by": "vllm"}]}')
        elif self.left <= 0:
            self.answer(ANSWER)

    def answer(self, body: bytes) -> None:
        self.left = 0
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(head.encode() + b"\r\n\r\n" + body)


def _serve(port: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def image() -> bytes:
    """Return a grey PNG of IMAGE_BYTES bytes, most of them in a chunk that no one reads."""
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    info.add(b"raNd", os.urandom(IMAGE_BYTES - 400))
    Image.new("RGB", (640, 480), "grey").save(data, "PNG", pnginfo=info)
    return data.getvalue()


def contenders(url: str, at_once: int) -> dict[str, Callable[[], Awaitable[tuple[Send, Any]]]]:
    """Return a name and a maker of each: its sender, and what closes it."""
    data = image()
    data_url = "data:image/png;base64," + base64.b64encode(data).decode()
    shown = {"type": "image_url", "image_url": {"url": data_url}}
    content = [shown, {"type": "text", "text": "Where is the red box? " * 40}]
    body: dict[str, Any] = {
        "model": "m", "messages": [{"role": "user", "content": content}], "n": 1,
        "temperature": 1.0, "top_p": 1.0, "max_tokens": 256, "stop": ["</think>", "</answer>"],
    }  # fmt: skip
    path = f"{url}/v1/chat/completions"

    async def ours() -> tuple[Send, Any]:
        from mcts.teachers.base import ImagePart, Message, Request, TextPart
        from mcts.teachers.openai_client import OpenAITeacher

        teacher = OpenAITeacher(url, concurrency=at_once)
        parts = (ImagePart("i"), TextPart("Where is the red box? " * 40))

        async def send(i: int) -> None:
            stop = ("</think>", "</answer>")
            request = Request((Message("user", parts),), 1, 1.0, 1.0, 256, stop, seed=i)
            await teacher.complete(request, {"i": data})

        return send, teacher.close

    async def plain_aiohttp() -> tuple[Send, Any]:
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def send(i: int) -> None:
            async with session.post(path, json=body | {"seed": i}) as response:
                await response.json()

        return send, session.close

    async def prebuilt() -> tuple[Send, Any]:
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        whole, headers = json.dumps(body).encode(), {"content-type": "application/json"}

        async def send(i: int) -> None:
            async with session.post(path, data=whole, headers=headers) as response:
                json.loads(await response.read())

        return send, session.close

    async def httpx_client() -> tuple[Send, Any]:
        import httpx

        client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)

        async def send(i: int) -> None:
            (await client.post(path, json=body | {"seed": i})).json()

        return send, client.aclose

    async def openai_client() -> tuple[Send, Any]:
        import openai

        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

        async def send(i: int) -> None:
            await client.chat.completions.create(**(body | {"seed": i}))

        return send, client.close

    found = {
        "vigorl": ours,
        "aiohttp, a request built beforehand": prebuilt,
        "aiohttp": plain_aiohttp,
        "httpx": httpx_client,
    }
    if importlib.util.find_spec("openai"):
        found["openai"] = openai_client
    return found


async def measure(url: str, at_once: int, requests: int, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of processor time a request, per contender and round."""
    senders = {name: await make() for name, make in contenders(url, at_once).items()}
    spent: dict[str, list[float]] = {name: [] for name in senders}

    async def worker(send: Send, first: int) -> None:
        for i in range(first, requests, at_once):
            await send(i)

    for _ in range(rounds + 1):
        for name, (send, _) in senders.items():
            start = time.process_time()
            await asyncio.gather(*(worker(send, k) for k in range(at_once)))
            spent[name].append(1000 * (time.process_time() - start) / requests)
    for _, close in senders.values():
        await close()
    return {name: times[1:] for name, times in spent.items()}  # the first opens the connections


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--at-once", type=int, default=64, help="requests in flight")
    parser.add_argument("--requests", type=int, default=640, help="requests a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        spent = asyncio.run(measure(url, given.at_once, given.requests, given.rounds))
    finally:
        server.terminate()
        server.join()
    base = statistics.median(spent["vigorl"])
    print(f"{IMAGE_BYTES // 1000} KB image, {given.at_once} in flight, {given.requests} requests a "
          f"round, {given.rounds} rounds: processor milliseconds a request\n")  # fmt: skip
    print(f"{'client':38}{'median':>8}{'least':>8}{'most':>8}{'times ours':>12}")
    for name, times in spent.items():
        middle = statistics.median(times)
        print(f"{name:38}{middle:8.2f}{min(times):8.2f}{max(times):8.2f}{middle / base:12.1f}")
    if "openai" not in spent:
        print("openai is not installed: pip install openai")


if __name__ == "__main__":
    main()

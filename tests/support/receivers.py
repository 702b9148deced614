"""Who receives webhooks and mail, on this machine: what came is kept.

with Receiver() as receiver:
    receiver.webhook, receiver.smtp         # http://127.0.0.1:40123/hook and 127.0.0.1:40124
    receiver.called, receiver.mail          # JSON bodies; texts
"""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """A server for webhooks and one for mail, in threads of this process."""

    def __init__(self) -> None:
        self.called: list[dict[str, Any]] = []
        self.mail: list[str] = []
        hook = type("Hook", (_Hook,), {"receiver": self})
        mail = type("Mail", (_Mail,), {"receiver": self})
        self._servers = (
            ThreadingHTTPServer(("127.0.0.1", 0), hook),
            socketserver.ThreadingTCPServer(("127.0.0.1", 0), mail),
        )
        self.webhook = f"http://127.0.0.1:{self._servers[0].server_address[1]}/hook"
        self.smtp = f"127.0.0.1:{self._servers[1].server_address[1]}"

    def __enter__(self) -> Receiver:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Hook(BaseHTTPRequestHandler):
    receiver: Receiver

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.receiver.called.append(json.loads(body))
        self.send_response(200)
        self.end_headers()


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that sends one message without a password."""

    receiver: Receiver

    def handle(self) -> None:
        self._say("220 here")
        for line in self.rfile:
            word = line[:4].upper().strip()
            if word == b"DATA":
                self._say("354 go on")
                text = iter(self.rfile.readline, b".\r\n")
                self.receiver.mail.append(b"".join(text).decode())
            self._say("221 bye" if word == b"QUIT" else "250 well")
            if word == b"QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

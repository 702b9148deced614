"""An S3 stand-in of its own process: moto's S3 alone, on connections that are kept open.

    python -m tests.support.s3_server 5000
    with running_s3() as url: …

`moto.server` looks through all of AWS for each request, which takes most of its time.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_s3() -> Iterator[str]:
    """Start it on a free port; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tests.support.s3_server", str(port)])
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def main() -> None:
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    app = create_backend_app("s3")
    make_server(
        "127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler
    ).serve_forever()


if __name__ == "__main__":
    main()

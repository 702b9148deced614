"""A PostgreSQL server of a test's own, from the system's package (Debian's `postgresql`).

with postgres_server() as url:       # postgresql+asyncpg://vigorl@127.0.0.1:40123/postgres
    ...
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_USER = "postgres"  # root may not run a server


def postgres_program(name: str) -> Path | None:
    """A program of PostgreSQL: on the path, or where Debian puts it; None where it is missing."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name)
    return beside[-1] if beside else Path(found) if found else None


@contextmanager
def postgres_server() -> Iterator[str]:
    """A new, empty server, and its address as Prefect takes it."""
    initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
    assert initdb and postgres
    other: dict[str, Any] = {"user": _USER, "group": _USER} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="vigorl-postgres-"))
    if other:
        shutil.chown(folder, _USER, _USER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    given = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **other}
    subprocess.run([initdb, "-D", data, "-U", "vigorl", "-A", "trust"], check=True, **given)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = subprocess.Popen([postgres, "-D", data, *settings, "-c", "fsync=off"], **given)
    try:
        end = time.monotonic() + 120
        while not _answers(port):
            assert server.poll() is None, server.communicate()[1].decode()
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.2)
        yield f"postgresql+asyncpg://vigorl@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0

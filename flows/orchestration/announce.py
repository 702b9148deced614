"""Tells the server of `vigorl up` that questions came in, which sets off `retrain/on-new-data`.

    announce_imported(None, "sat2")     # False where no server was told

By its REST API: Prefect itself takes seconds to import. An event may get lost. The nightly cycle
asks the warehouse, and so finds what it was about.
"""

from __future__ import annotations

import time
import uuid

from flows.orchestration.dead_runs import ask_server
from flows.orchestration.local_server import server_address

IMPORTED = "vigorl.data.imported"


def announce_imported(home: str | None, task: str) -> bool:
    """Emit `vigorl.data.imported` of the resource `vigorl.task.<task>`; whether it arrived."""
    address = server_address(home)
    if address is None:
        return False
    event = {
        "id": str(uuid.uuid4()),
        "event": IMPORTED,
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "resource": {"prefect.resource.id": f"vigorl.task.{task}"},
        "payload": {"task": task},
    }
    try:
        ask_server(f"{address}/events", [event])
    except OSError:
        return False
    return True

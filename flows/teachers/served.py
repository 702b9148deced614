"""Where the servers of a model are: noted in the warehouse, where builds on any machine find them.

    note_servers(warehouse, "qwen", "qwen@1f3a…", ["http://10.0.0.4:41001", …])
    served_urls(warehouse, "qwen")         # the addresses as they are now: `--teacher served:qwen`

`vigorl serve --ray` keeps the note for as long as it runs: an address changes when a server is lost
and started again elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warehouse.storage.home import Warehouse


def note_servers(
    warehouse: Warehouse, name: str, model: str, urls: Sequence[str], owner: str = ""
) -> None:
    """Note under a name where a model is served.

    Args:
        model: its name as the servers know it.
        urls: their addresses, as other machines reach them.
        owner: a unique name of who keeps the note; of several under one name the last one does.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"name": name, "model": model, "urls": list(urls), "owner": owner}, file)
        file.flush()
        warehouse.objects.put_file(_key(name), Path(file.name), replace=True)


def forget_servers(warehouse: Warehouse, name: str, owner: str = "") -> None:
    """Remove the note, unless another owner's has taken its place."""
    if _note(warehouse, name).get("owner", "") == owner:
        warehouse.objects.delete(_key(name))


def served_urls(warehouse: Warehouse, name: str) -> list[str]:
    """Return the addresses noted under a name; none where nothing is."""
    return list(_note(warehouse, name).get("urls", ()))


def _note(warehouse: Warehouse, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(warehouse.objects.get(_key(name))))
    except (KeyError, ValueError):
        return {}


def _key(name: str) -> str:
    return f"serving/{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

"""Where the servers of a model are: noted in the warehouse, where builds on any machine find them.

    note_servers(warehouse, "qwen", "qwen@1f3a…", ["http://10.0.0.4:41001", …])
    served_urls(warehouse, "qwen")         # the addresses as they are now: `--teacher served:qwen`

`vigorl serve --ray` keeps the note for as long as it runs: an address changes when a server is lost
and started again elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from warehouse.storage.home import Warehouse
from warehouse.storage.notes import read_note, write_note


def note_servers(
    warehouse: Warehouse, name: str, model: str, urls: Sequence[str], owner: str = ""
) -> None:
    """Note under a name where a model is served.

    Args:
        model: its name as the servers know it.
        urls: their addresses, as other machines reach them.
        owner: a unique name of who keeps the note; of several under one name the last one does.
    """
    note = {"name": name, "model": model, "urls": list(urls), "owner": owner}
    write_note(warehouse, _key(name), note)


def forget_servers(warehouse: Warehouse, name: str, owner: str = "") -> None:
    """Remove the note, unless another owner's has taken its place."""
    if read_note(warehouse, _key(name)).get("owner", "") == owner:
        warehouse.objects.delete(_key(name))


def served_urls(warehouse: Warehouse, name: str) -> list[str]:
    """Return the addresses noted under a name; none where nothing is."""
    return list(read_note(warehouse, _key(name)).get("urls", ()))


def _key(name: str) -> str:
    return f"serving/{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

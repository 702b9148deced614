"""Small objects of JSON that are replaced: what a pass has seen, a count, where a model is served.

    write_note(warehouse, "serving/qwen.json", {"urls": [...]})
    read_note(warehouse, "serving/qwen.json")      # {} where there is none, or no readable one

A note can be made again, so that one which can't be read is as one that is not there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warehouse.storage.home import Warehouse


def read_note(warehouse: Warehouse, key: str) -> dict[str, Any]:
    """Return the fields of a note; none where it is not there or is no JSON object."""
    try:
        note = json.loads(warehouse.objects.get(key))
    except (KeyError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def write_note(warehouse: Warehouse, key: str, note: Mapping[str, Any]) -> None:
    """Store a note in place of the one that is there."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(note, file, sort_keys=True, indent=1)
        file.flush()
        warehouse.objects.put_file(key, Path(file.name), replace=True)

"""Publishing every trace as one data set version, in a process of its own: its time and its memory.

for row in publishing(warehouse): print(row.line())
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.search.lines import Row
from warehouse.storage.home import Warehouse

_CODE = """
import json, resource, sys, time
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish

began = time.perf_counter()
version = publish(Warehouse(sys.argv[1]), "everything", "SELECT trace_id FROM traces")
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": version.n_rows, "seconds": seconds, "peak_mb": peak}))
"""


def publishing(warehouse: Warehouse) -> Iterator[Row]:
    """How long it takes, and the most memory it holds."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, warehouse.root], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    yield Row(f"publish of {told['rows']:,} rows: most memory", told["peak_mb"], "MB",
              at_most=2000)  # fmt: skip
    yield Row("  rows a second", told["rows"] / told["seconds"], "rows/s")

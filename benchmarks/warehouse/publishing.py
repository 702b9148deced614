"""Time and memory of publishing every trace as one dataset version, in a process of its own.

for row in publishing(warehouse): print(row.line())
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.rows import Row
from warehouse.storage.home import Warehouse

_CODE = """
import json, resource, sys, time
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish

start = time.perf_counter()
version = publish(Warehouse(sys.argv[1]), "everything", "SELECT trace_id FROM traces")
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": version.n_rows, "seconds": seconds, "peak_mb": peak}))
"""


def publishing(warehouse: Warehouse) -> Iterator[Row]:
    """Measure the duration and the peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, warehouse.root], capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    yield Row(f"publish of {measured['rows']:,} rows: peak memory", measured["peak_mb"], "MB",
              at_most=2000)  # fmt: skip
    yield Row("  rows per second", measured["rows"] / measured["seconds"], "rows/s")

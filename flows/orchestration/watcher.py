"""The process of `vigorl up` that looks into the watched folder.

    vigorl inbox --watch

A process rather than a deployment on a schedule: a look takes a millisecond, and a run of Prefect's
a process of its own that imports for seconds, a thousand times a day. What it imports it announces.
When it begins it also announces the tasks whose cycle was killed, so that `vigorl up` after a crash
is enough for them to go on.
"""

from __future__ import annotations

import time

from flows.orchestration.announce import announce_imported
from flows.stages.retrain.cycle import retrained_tasks, unfinished
from flows.stages.retrain.inbox import Inbox
from warehouse.storage.home import Warehouse

S3_LOOK_S = 60.0
"""Seconds between two looks at a prefix of S3, each of which is a request that is paid for."""


def watch_inbox(inbox: Inbox, still_s: float, task: str = "") -> None:
    """Look until the process is stopped.

    Args:
        task: its files and cycles alone; those of all without one.
    """
    pause = max(still_s, S3_LOOK_S) if inbox.root.is_s3 else still_s
    tell = {name for name in killed(inbox.warehouse) if not task or name == task}
    while True:
        tell |= {taken.task for taken in inbox.look(task) if taken.added}
        # One that no server heard is told again.
        tell = {name for name in tell if not announce_imported(inbox.warehouse.root, name)}
        time.sleep(pause)


def killed(warehouse: Warehouse) -> list[str]:
    """Return the tasks whose cycle has not ended, though no budget stopped it."""
    open_ = {task: unfinished(warehouse, task) for task in retrained_tasks(warehouse)}
    return [task for task, cycle in open_.items() if cycle is not None and not cycle.paused]

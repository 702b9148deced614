"""Failpoints: named points where a test can kill the process, as `kill -9` would, or fill the disk.

`VIGORL_FAILPOINT=after_journal:17` ends the process, without any clean-up, when it reaches the
point `after_journal` for the 17th time; `journal_write:17:full` raises the error of a full disk
then and every later time. Unset, `reach` does nothing. The points:

    after_response   a model's response has arrived and is not journaled yet
    journal_write    lines are about to be written to the journal; a kill leaves a torn line
    after_journal    a response is journaled and durable, and not used yet
    before_commit    a shard's tables are about to be committed
    between_tables   one of them is committed, others are not
    after_commit     they are committed
    retrain_STAGE    a stage of a cycle of retraining has stored its outcome
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable

EXIT_CODE = 137
"""What a shell reports for a process ended by SIGKILL."""

_times_reached: Counter[str] = Counter()


def reach(point: str, before_exit: Callable[[], object] = lambda: None) -> None:
    """Mark `point` as reached; end the process, after `before_exit`, if the environment says so.

    Raises:
        OSError: ENOSPC, if the environment says `full`.
    """
    setting = os.environ.get("VIGORL_FAILPOINT")
    if not setting:
        return
    name, count, full = [*setting.split(":"), "", ""][:3]
    if name != point:
        return
    _times_reached[point] += 1
    if full and _times_reached[point] >= int(count or 1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not full and _times_reached[point] == int(count or 1):
        before_exit()
        os._exit(EXIT_CODE)

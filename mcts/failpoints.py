"""Named places where a test can make the process die, as `kill -9` would, or the disk be full.

`VIGORL_FAILPOINT=after_journal:17` ends the process, without any clean-up, at the 17th passage of
the point `after_journal`; `journal_write:17:full` raises the error of a full disk there instead,
and at every later passage. Unset, `reach` does nothing. The points:

    after_response   a model's response has arrived and is not journaled yet
    journal_write    lines are about to be written to the journal; a death here leaves a torn line
    after_journal    a response is journaled and durable, and nobody has used it yet
    before_commit    a shard's tables are about to be committed
    between_tables   one of them is committed, others are not
    after_commit     they are committed
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable

EXIT_CODE = 137
"""What a shell reports for a process ended by SIGKILL."""

_passages: Counter[str] = Counter()


def reach(point: str, last_words: Callable[[], object] = lambda: None) -> None:
    """Pass `point`; the process ends here if the environment says so, after `last_words`.

    Raises:
        OSError: ENOSPC, if the environment says `full`.
    """
    wanted = os.environ.get("VIGORL_FAILPOINT")
    if not wanted:
        return
    name, count, full = [*wanted.split(":"), "", ""][:3]
    if name != point:
        return
    _passages[point] += 1
    if full and _passages[point] >= int(count or 1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not full and _passages[point] == int(count or 1):
        last_words()
        os._exit(EXIT_CODE)

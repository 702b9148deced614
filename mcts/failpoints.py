"""Named places where a test can make the process die, as `kill -9` would.

`VIGORL_FAILPOINT=after_journal:17` ends the process, without any clean-up, at the 17th passage of
the point `after_journal`. Unset, `reach` does nothing. The points:

    after_response   a model's response has arrived and is not journaled yet
    after_journal    it is journaled and durable, and nobody has used it yet
    before_commit    a shard's tables are about to be committed
    between_tables   one of them is committed, others are not
    after_commit     they are committed
"""

from __future__ import annotations

import os
from collections import Counter

EXIT_CODE = 137
"""What a shell reports for a process ended by SIGKILL."""

_passages: Counter[str] = Counter()


def reach(point: str) -> None:
    """Pass `point`; the process ends here if the environment says so."""
    wanted = os.environ.get("VIGORL_FAILPOINT")
    if not wanted:
        return
    name, _, count = wanted.partition(":")
    if name == point:
        _passages[point] += 1
        if _passages[point] == int(count or 1):
            os._exit(EXIT_CODE)

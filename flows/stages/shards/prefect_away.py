"""A Prefect server that does not answer: how that shows, and what is said of it.

with answering():                      # a Problem: one sentence that says what to type
    deployment = await client.read_deployment_by_name(name)

outage = Outage(progress.report)       # in the middle of something: wait for it, told once
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.settings_base import Problem


def is_away(error: BaseException) -> bool:
    """Return whether this says that the server can't be reached, or can't do its work now."""
    httpx: Any = sys.modules.get("httpx")  # Prefect's: only what was loaded can have been raised
    if httpx is None:
        return False
    if isinstance(error, httpx.HTTPStatusError):
        return bool(error.response.status_code >= 500)
    # The second is what Prefect makes of an error that it met on its first request.
    return isinstance(error, httpx.TransportError) or "Failed to reach API at" in str(error)


@contextmanager
def answering() -> Iterator[None]:
    """Make a sentence of the failure of a server that is away.

    Raises:
        Problem: it is.
    """
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        from prefect.settings import get_current_settings

        where = get_current_settings().api.url or "the address that Prefect is set to"
        raise Problem(
            f"no Prefect server answers at {where}: start one with `vigorl up`, or set "
            "PREFECT_API_URL=http://HOST:4200/api"
        ) from None


class Outage:
    """Tells once that the server is away, however many wait for it."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report, self._told = report, False

    def met(self, error: Exception) -> None:
        """Tell of it, where this error says so; raise any other."""
        if not is_away(error):
            raise error
        if not self._told:
            self._report("the Prefect server does not answer: it is asked until it does")
        self._told = True

    def over(self) -> None:
        """Tell of the next one again."""
        self._told = False

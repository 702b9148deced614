"""Several small connection pools as one HTTP client, for hundreds of requests at once.

    connections = Connections(lambda: httpx.AsyncClient(...))
    response = await connections.request("POST", url, json=body)
    await connections.close()

A pool of httpx looks at every one of its connections, down to the socket, whenever a request
begins or ends: with hundreds of them that costs more than all else. So each pool carries at most
`SIZE` requests at a time, and one more is opened when all are full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

SIZE = 4


class Connections:
    """As many pools as the requests under way need; `make` opens one."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._pools: list[httpx.AsyncClient] = []
        self._under_way: list[int] = []

    async def request(self, method: str, url: str, **given: Any) -> httpx.Response:
        """As `httpx.AsyncClient.request`, over the first pool that has room."""
        at = next((i for i, n in enumerate(self._under_way) if n < SIZE), len(self._pools))
        if at == len(self._pools):
            self._pools.append(self._make())
            self._under_way.append(0)
        self._under_way[at] += 1
        try:
            return await self._pools[at].request(method, url, **given)
        finally:
            self._under_way[at] -= 1

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools, self._under_way = self._pools, [], []
        for pool in pools:
            await pool.aclose()

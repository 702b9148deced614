"""Several small connection pools as one HTTP client, for hundreds of concurrent requests.

    connections = Connections(lambda: httpx.AsyncClient(...))
    response = await connections.request("POST", url, json=body)
    await connections.close()

An httpx pool checks each of its connections, down to the socket, whenever a request begins or
ends: with hundreds of them that costs more than all else. So each pool carries at most `POOL_SIZE`
requests at a time, and another one is opened when all are full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

POOL_SIZE = 4


class Connections:
    """As many pools as the requests in flight need; `make` opens one."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._pools: list[httpx.AsyncClient] = []
        self._in_flight: list[int] = []

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """As `httpx.AsyncClient.request`, through the first pool with a free connection."""
        at = next((i for i, n in enumerate(self._in_flight) if n < POOL_SIZE), len(self._pools))
        if at == len(self._pools):
            self._pools.append(self._make())
            self._in_flight.append(0)
        self._in_flight[at] += 1
        try:
            return await self._pools[at].request(method, url, **options)
        finally:
            self._in_flight[at] -= 1

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools, self._in_flight = self._pools, [], []
        for pool in pools:
            await pool.aclose()

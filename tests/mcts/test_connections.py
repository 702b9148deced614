"""Connections: no pool carries more than it should, and none is opened needlessly."""

import asyncio

import httpx
import pytest

from mcts.teachers.openai_client import POOL_SIZE, Connections


def counting(opened, most):
    """Connections whose pools note how many requests they carry at once."""

    def make():
        number, now = len(opened), 0
        opened.append(number)

        async def answer(request):
            nonlocal now
            now += 1
            most[number] = max(most.get(number, 0), now)
            await asyncio.sleep(0.01)
            now -= 1
            if request.url.path == "/broken":
                raise httpx.ReadError("gone")
            return httpx.Response(200, text=request.url.path)

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    return Connections(make)


async def test_many_requests_share_as_few_pools_as_carry_them():
    opened, most = [], {}
    connections = counting(opened, most)
    for _ in range(2):
        answers = await asyncio.gather(
            *(connections.request("GET", f"http://model/{i}") for i in range(3 * POOL_SIZE - 1))
        )
        assert [a.text for a in answers] == [f"/{i}" for i in range(3 * POOL_SIZE - 1)]
    assert len(opened) == 3
    assert max(most.values()) == POOL_SIZE
    await connections.close()


async def test_a_request_that_fails_leaves_its_place():
    opened, most = [], {}
    connections = counting(opened, most)
    for _ in range(POOL_SIZE + 1):
        with pytest.raises(httpx.ReadError):
            await connections.request("GET", "http://model/broken")
    assert len(opened) == 1
    await connections.close()

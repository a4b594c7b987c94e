"""The check that no task is left of a request (`LiveGateway.tasks`) goes by the file of its code."""

from __future__ import annotations

import asyncio

import pytest

from kimi_gateway import app
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Response
from kimi_gateway.providers.tokens.health import TokenHealth
from support.live import LiveGateway, serves_requests

OF_REQUESTS = {
    "a method": Turn.settle(None),  # type: ignore[arg-type]
    "of a class that nobody listed": TokenHealth.refresh(None),  # type: ignore[arg-type]
    "of a value": Response(200, []).finish(),
}


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_code_of_the_package_counts(name: str) -> None:
    assert serves_requests(OF_REQUESTS[name])
    OF_REQUESTS[name].close()


def test_what_runs_as_long_as_the_gateway_and_what_is_not_its_own_does_not() -> None:
    for coroutine in (app._beat(None, (), 1, float), asyncio.sleep(0)):  # type: ignore[arg-type]
        assert not serves_requests(coroutine)
        coroutine.close()


def test_a_task_that_is_left_is_seen_while_it_runs(gateway: LiveGateway) -> None:
    end = asyncio.Event()

    async def begin() -> asyncio.Task[None]:
        response = Response(200, [])
        response.close = end.wait  # type: ignore[assignment]
        return asyncio.create_task(response.finish())

    assert gateway.tasks() == []
    task = gateway.do(begin())
    assert ["Response.finish" in each for each in gateway.tasks()] == [True]
    gateway.call(end.set)
    gateway.nothing_left()
    assert task.done()

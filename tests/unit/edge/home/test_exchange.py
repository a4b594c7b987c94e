"""A request that waits for its turn on a connection, and one whose client has left by then."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from kimi_gateway.edge.home.exchange import Exchange
from kimi_gateway.http import Request, Response
from kimi_gateway.settings import Settings


def connection(loop: asyncio.AbstractEventLoop, asked: list[str]) -> Any:
    async def respond(request: Request) -> Response:
        asked.append(request.path)
        await asyncio.sleep(0)
        raise asyncio.CancelledError  # what follows needs a connection

    app = SimpleNamespace(settings=Settings(), respond=respond)
    state = SimpleNamespace(tasks=set())
    return SimpleNamespace(app=app, state=state, loop=loop, client_of=lambda fields: "192.0.2.1")


def exchange(of: Any) -> Exchange:
    return Exchange(of, "GET", b"/ping", (("host", "x"),), keep_alive=True, chunked=True)


def test_it_runs_at_once_and_is_known_as_running_until_its_end() -> None:
    async def scenario() -> None:
        asked: list[str] = []
        of = connection(asyncio.get_running_loop(), asked)
        waiting = exchange(of)
        assert not waiting.started
        waiting.start()
        assert waiting.started
        assert of.state.tasks == {waiting}
        waiting.run()
        assert asked == ["/ping"]
        waiting.leave()
        for _ in range(3):
            await asyncio.sleep(0)
        assert of.state.tasks == set()

    asyncio.run(scenario())


def test_nothing_runs_for_a_client_that_left_before_its_turn() -> None:
    async def scenario() -> None:
        asked: list[str] = []
        of = connection(asyncio.get_running_loop(), asked)
        waiting = exchange(of)
        waiting.start()
        waiting.leave()
        waiting.run()
        await asyncio.sleep(0)
        assert (asked, of.state.tasks) == ([], set())

    asyncio.run(scenario())

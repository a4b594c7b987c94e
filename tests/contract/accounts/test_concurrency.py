"""Upstream calls in flight are bounded by account, free ones too; what is refused for it costs nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from kimi_gateway.accounts.places import Places
from kimi_gateway.errors import RateLimited
from kimi_gateway.http import Headers, Request
from support.client_costs import GOOD
from support.inprocess import Answered, DoubledClient, InProcess, Told


class HeldClient(DoubledClient):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    def send(self, *given: Any) -> AbstractAsyncContextManager[Told]:
        answering = super().send(*given)

        @asynccontextmanager
        async def held() -> AsyncIterator[Told]:
            await self.may.wait()
            async with answering as answer:
                yield answer

        return held()


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess(account_concurrency=4) as desk:
        yield desk


def ask(desk: InProcess, key: str, path: str = "/v1/chat/completions", **more: Any) -> asyncio.Task[Answered]:
    raw = json.dumps(GOOD | more).encode()
    headers = Headers((("authorization", f"Bearer {key}"),))
    return asyncio.ensure_future(desk._call("POST", path, raw, headers, "192.0.2.1"))


async def unread(desk: InProcess, key: str) -> int:
    """The status of a chat whose body nobody may read."""

    async def body() -> bytes:
        raise AssertionError("the body was read")

    headers = Headers((("authorization", f"Bearer {key}"),))
    response = await desk.router.handle(Request("POST", "/v1/chat/completions", headers, "req_1", body))
    await response.finish()
    return response.status


async def sent(client: HeldClient, number: int) -> None:
    """Until so many requests are upstream."""
    async with asyncio.timeout(60):
        while len(client.sent) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("several", [1, 2, 4])
def test_one_account_has_so_many_calls_in_flight_and_others_have_theirs(
    desk: InProcess, several: int, stream: bool
) -> None:
    client = desk.directory.upstream().provider._client = HeldClient()  # type: ignore[attr-defined]
    key, other = desk.key(), desk.key()

    async def scenario() -> None:
        running = [ask(desk, key, n=several, stream=stream) for _ in range(4 // several)]
        await sent(client, 4)
        refused = await ask(desk, key, n=several)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert "KIMI_GATEWAY_ACCOUNT_CONCURRENCY" in refused.json["error"]["message"]
        assert len(client.sent) == 4
        theirs = ask(desk, other)
        await sent(client, 5)
        assert len(client.sent) == 5
        client.may.set()
        assert [(await task).status for task in (*running, theirs)] == [200] * (4 // several + 1)
        assert (await ask(desk, key, n=4)).status == 200

    desk.run(scenario())
    assert desk.account(key).credits == 100 - 4 // several - 1
    assert not desk.running.gateway.gate.places._taken


def test_a_free_call_takes_a_place_and_a_full_account_is_refused_unread(desk: InProcess) -> None:
    client = desk.directory.upstream().provider._client = HeldClient()  # type: ignore[attr-defined]
    key = desk.key()
    free = "/v1/tokenizers/estimate-token-count"

    async def scenario() -> None:
        running = [ask(desk, key, free) for _ in range(4)]
        await sent(client, 4)
        assert await unread(desk, key) == 429
        assert (await ask(desk, key, free)).status == 429
        counted = await ask(desk, key, "/v1/messages/count_tokens")
        assert counted.status == 200  # an estimate of its own
        assert len(client.sent) == 4
        client.may.set()
        assert [(await task).status for task in running] == [200] * 4

    desk.run(scenario())
    assert not desk.running.gateway.gate.places._taken


def test_accounts_without_calls_are_forgotten() -> None:
    places = Places(2)
    for name in "abc":
        with places.held(name), places.held(name), pytest.raises(RateLimited):
            places.take(name, 1)
    assert places._taken == {}

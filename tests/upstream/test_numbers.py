"""Numbers of an upstream's short answers, whatever they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kimi_gateway.catalog.models import ROWS
from kimi_gateway.net.http import Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.moonshot.provider import Moonshot
from kimi_gateway.providers.provider import Token
from support.raw_server import RawServer

TOKEN, MODEL = Token.of("sk-a-token-of-a-test"), ROWS[0]


async def asked(data: bytes, question: Callable[[Moonshot], Awaitable[Any]]) -> Any:
    body = b'{"data":%b}' % data
    client = Http1Client()
    async with RawServer([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)]) as server:
        try:
            times = Timeouts(connect=5, first_byte=5)
            return await question(Moonshot(client, server.url.rstrip("/"), times, 2**20))
        finally:
            await client.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("told", "total"), [(b"7", 7), (b"-7", 0), (b"1" + b"0" * 400, 10**12), (b"7.0", 7)], ids=range(4)
)
async def test_an_estimate_is_clamped(told: bytes, total: int) -> None:
    found = await asked(b'{"total_tokens":%b}' % told, lambda it: it.estimate(TOKEN, MODEL, []))
    assert found == total
    assert type(found) is int


@pytest.mark.anyio
@pytest.mark.parametrize("told", [b"true", b'"7"', b"null", b"1e999", b"[]", b"{}"])
async def test_an_estimate_that_is_no_number_is_a_broken_answer(told: bytes) -> None:
    with pytest.raises(UpstreamFailure):
        await asked(b'{"total_tokens":%b}' % told, lambda it: it.estimate(TOKEN, MODEL, []))


@pytest.mark.anyio
async def test_a_balance_is_clamped_and_a_debt_stays() -> None:
    data = b'{"available_balance":49.5,"voucher_balance":-3,"cash_balance":1e300,"a":1e999,"b":true,"c":"1"}'
    found = await asked(data, lambda it: it.balance(TOKEN))
    assert found == {"available_balance": 49.5, "voucher_balance": -3, "cash_balance": 10**12}

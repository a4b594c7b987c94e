"""Reading goes on in the middle of a file, whether or not the platform knows ranges."""

from __future__ import annotations

import pytest

from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.moonshot.files import MoonshotFiles
from kimi_gateway.providers.provider import Token
from support.fetching import port_of
from support.raw_server import RawServer

pytestmark = pytest.mark.anyio

DATA = bytes(range(100))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def read(answer: bytes, start: int) -> bytes:
    async with RawServer([[answer]]) as server:
        client = Http1Client()
        files = MoonshotFiles(client, f"http://127.0.0.1:{port_of(server)}", 5)
        try:
            async with files.content(Token.of("sk-upstream-a"), "file_1", start) as chunks:
                return b"".join([chunk async for chunk in chunks])
        finally:
            await client.close()


def answer(status: str, data: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(data)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


@pytest.mark.parametrize("start", [0, 1, 99, 100])
async def test_without_ranges_the_bytes_before_are_skipped(start: int) -> None:
    assert await read(answer("200 OK", DATA), start) == DATA[start:]


async def test_with_ranges_only_the_rest_comes() -> None:
    part = answer("206 Partial Content", DATA[40:], "content-range: bytes 40-99/100")
    assert await read(part, 40) == DATA[40:]


async def test_after_the_end_nothing_comes() -> None:
    assert await read(answer("416 Range Not Satisfiable", b"no"), 100) == b""


@pytest.mark.parametrize("told", ["content-range: bytes 0-99/100", "x: y"])
async def test_another_range_than_the_one_asked_for_is_refused(told: str) -> None:
    with pytest.raises(UpstreamFailure):
        await read(answer("206 Partial Content", DATA, told), 40)


async def test_a_part_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(UpstreamFailure):
        await read(answer("206 Partial Content", DATA[40:], "content-range: bytes 40-99/100"), 0)

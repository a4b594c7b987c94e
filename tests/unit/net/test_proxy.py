"""The HTTP client behind a proxy, which is what it is for: a dead kept connection is told there, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from kimi_gateway.net import http
from kimi_gateway.net.http1 import proxied
from kimi_gateway.net.httpx_client import HttpxClient
from support.asking import TIMES
from support.raw_server import RawServer

HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


async def _post(client: http.Client) -> bytes:
    async with client.send("POST", "http://upstream.test/v1/chat", {}, b"{}", TIMES) as answer:
        return await answer.read(100)


@pytest.mark.anyio
async def test_a_dead_kept_connection_to_the_proxy_is_stale_and_a_new_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RawServer([HI, b""], [b""]) as proxy:
        for name in ("no_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        client = HttpxClient()
        assert await _post(client) == b"hi"
        with pytest.raises(http.Stale):
            await _post(client)
        with pytest.raises(http.ConnectionLost) as caught:
            await _post(client)
        assert type(caught.value) is http.ConnectionLost
        assert proxy.accepted == 2
        await client.close()
    assert all(b"http://upstream.test/v1/chat" in request for _, request in proxy.requests)


def test_a_variable_may_go_while_the_environment_is_read() -> None:
    """It is read while requests run, and belongs to the whole process."""

    class Changing(Mapping[str, str]):
        def __init__(self, **values: str) -> None:
            self._values = values

        def __getitem__(self, name: str) -> str:
            return self._values[name]

        def __iter__(self) -> Iterator[str]:
            yield from ("ANOTHER", "https_proxy", *self._values)

        def __len__(self) -> int:
            return len(self._values)

    assert proxied("http://upstream.test/v1", Changing(http_proxy="http://127.0.0.1:9"))
    assert not proxied("https://upstream.test/v1", Changing(http_proxy="http://127.0.0.1:9"))

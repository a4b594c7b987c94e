"""The HTTP client over httpx2: for an upstream behind a proxy, and for differential tests of our own
client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from kimi_gateway import __version__
from kimi_gateway.net.http import (
    Answer,
    ConnectFailed,
    ConnectionLost,
    Stale,
    TimedOut,
    Timeouts,
    no_connection,
    read_up_to,
)

# Their texts quote URLs and header values, so they are not even kept as a cause.
UNSENDABLE = (httpx2.InvalidURL, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, UnicodeError)
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
UNHEARD = "without sending a response"  # httpcore's text; what cannot be read as HTTP has another one
LOST = (httpx2.HTTPError, OSError)  # a TLS record error arrives as OSError
READABLE = {"", "identity", "gzip", "deflate"}


class HttpxClient:
    """`Client` over httpx2. Connections are reused, redirects not followed, cookies not kept; proxy and CA
    variables of the environment are honoured. httpx2 notices a closed idle connection before it reuses it;
    one that closes a moment later is `Stale`. An answer that is cut within its head is `Stale` too, because
    httpx2 does not tell it apart."""

    def __init__(self, connections: int = 1000) -> None:
        self._client = httpx2.AsyncClient(
            headers={"accept-encoding": "identity", "user-agent": f"kimi-gateway/{__version__}"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30
            ),
        )

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        return self._exchange(method, url, headers, body, timeouts)

    def upload(
        self, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes], timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        return self._exchange("POST", url, headers, body, timeouts)

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes],
        timeouts: Timeouts,
    ) -> AsyncIterator[Answer]:
        response = await self._head(method, url, headers, body, timeouts)
        parts = response.aiter_bytes() if "content-encoding" in response.headers else response.aiter_raw()
        try:
            for coding in response.headers.get("content-encoding", "").lower().split(","):
                if coding.strip() not in READABLE:
                    raise ConnectionLost("the answer has a content-encoding that was not asked for")
            yield _HttpxAnswer(response.status_code, response.headers, parts, timeouts.whole)
        finally:
            await response.aclose()
            with suppress(RuntimeError):  # a reader in another task still uses it and ends by itself
                await parts.aclose()

    async def _head(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes],
        timeouts: Timeouts,
    ) -> httpx2.Response:
        # httpx2's read timeout applies to each read of head and body alike. So a clock of our own bounds the
        # whole head; it starts when the connection is open, or when a streamed body was sent.
        begins = "http11.send_request_headers.started"
        if not isinstance(body, bytes):
            begins = "http11.send_request_body.complete"
        limits = httpx2.Timeout(None, connect=timeouts.connect, pool=timeouts.connect)
        reused = True
        try:
            async with asyncio.timeout(None) as clock:

                async def on_event(name: str, info: object) -> None:
                    nonlocal reused
                    if name == "connection.connect_tcp.started":
                        reused = False
                    if name == begins:
                        clock.reschedule(asyncio.get_running_loop().time() + timeouts.first_byte)

                request = self._client.build_request(
                    method, url, headers=headers, content=body, timeout=limits, extensions={"trace": on_event}
                )
                return await self._client.send(request, stream=True)
        except TimeoutError as exc:
            raise TimedOut(f"no answer within {timeouts.first_byte:g} s") from exc
        except UNSENDABLE as exc:
            raise ConnectFailed(f"the request cannot be sent ({type(exc).__name__})") from None
        except NOT_SENT as exc:
            raise ConnectFailed(no_connection(httpx2.URL(url).host, exc)) from exc
        except LOST as exc:
            unheard = isinstance(exc, httpx2.NetworkError) or UNHEARD in str(exc)
            lost = Stale if reused and unheard else ConnectionLost
            raise lost(f"lost before the answer ({type(exc).__name__})") from exc

    async def close(self) -> None:
        await self._client.aclose()


class _HttpxAnswer:
    def __init__(
        self, status: int, headers: Mapping[str, str], parts: AsyncGenerator[bytes, None], whole: float
    ) -> None:
        self._whole = whole
        self.status = status
        self.headers = headers
        self._parts = parts

    def chunks(self, gathered: bool = False) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except LOST as exc:
            raise ConnectionLost(f"lost in the middle of the answer ({type(exc).__name__})") from exc

    async def read(self, limit: int) -> bytes:
        return await read_up_to(limit, self, self._whole)

"""The answer of one address over httpx2, which knows the proxies of the environment."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from kimi_gateway.net.fetch.opened import Unreachable

FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError)


def client(
    at_once: int, connecting: float, transport: httpx2.AsyncBaseTransport | None, tls: ssl.SSLContext | bool
) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        timeout=httpx2.Timeout(None, connect=connecting, pool=connecting),
        limits=httpx2.Limits(max_connections=at_once, max_keepalive_connections=0),
        transport=transport,
        verify=tls,
    )


async def opened(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], name: str) -> Proxied:
    """The certificate must match `name`, not the address. Raises Unreachable."""
    try:
        request = client.build_request("GET", url, headers=headers, extensions={"sni_hostname": name})
        return Proxied(await client.send(request, stream=True))
    except FAILURES as exc:
        raise Unreachable(exc) from None


class Proxied:
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.parts = self._received()

    async def _received(self) -> AsyncGenerator[bytes, None]:
        try:
            async for part in self._response.aiter_raw():
                yield part
        except (httpx2.HTTPError, OSError) as exc:
            raise Unreachable(exc) from None

    async def close(self) -> None:
        await self._response.aclose()

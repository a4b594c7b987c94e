"""Files of a request at the web service: announced, sent to its storage, registered, and read by it.

The storage is another host and never gets the session's token. No source knows how to delete a file there
(docs/kimi-web.md).
"""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from kimi_gateway.net import http
from kimi_gateway.net.fetch import addresses, target
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.kimi_web.prompt import Medium
from kimi_gateway.providers.kimi_web.traces import Ask
from kimi_gateway.providers.provider import Token

LONGEST_ANSWER = 64 * 1024  # bytes that the storage may answer
AGAIN = 1.0  # seconds between two looks at a file that is not ready
READY_WITHIN = 60.0  # seconds for each of the two waits
SENDING = http.Timeouts(connect=10, first_byte=60)
LONGEST_NAME = 200  # characters
READY = frozenset(("initialized", "parsed"))


class WebFiles:
    """`ask` posts JSON to the service. `base` is its address, the only one that may be private."""

    def __init__(
        self,
        ask: Ask,
        client: http.Client,
        base: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._client = client
        self._base = base
        self._sleep = sleep
        self._monotonic = monotonic

    async def upload(self, token: Token, medium: Medium) -> str:
        """The id of a file that the service has read. Raises UpstreamFailure: "invalid" if it cannot."""
        media_type, data = await asyncio.to_thread(decoded, medium.url)
        name = (medium.name or f"file.{media_type.rpartition('/')[2]}")[-LONGEST_NAME:]
        action = "image" if medium.picture else "file"
        place = await self._ask("/api/pre-sign-url", token, {"action": action, "name": name})
        url, object_name, signed = (place.get(each) for each in ("url", "object_name", "file_id"))
        if not isinstance(url, str) or not isinstance(object_name, str):
            raise UpstreamFailure("broken", "the place for an upload has no address")
        await self._send(url, media_type, data)
        about: dict[str, Any] = {"type": "image", "file_id": signed, "name": name}
        if not medium.picture:
            about = {"type": "file", "name": name, "object_name": object_name, "file_id": ""}
        known = await self._registered(token, about)
        id = str(known["id"])
        if not medium.picture and known.get("status") != "parsed":
            await self._parsed(token, id)
        return id

    async def _send(self, url: str, media_type: str, data: bytes) -> None:
        """Put the bytes at the storage, which never gets the session's token."""
        await check_address(url, self._base)
        headers = {"content-type": media_type}
        try:
            async with self._client.send("PUT", url, headers, data, SENDING) as answer:
                await answer.read(LONGEST_ANSWER)
                if not 200 <= answer.status < 300:
                    raise UpstreamFailure("server", f"the storage answered with status {answer.status}")
        except http.NetError as exc:
            raise failures.lost(exc) from exc

    async def _registered(self, token: Token, about: dict[str, Any]) -> dict[str, Any]:
        end = self._monotonic() + READY_WITHIN
        while True:
            known = await self._ask("/api/file", token, about)
            if known.get("status") in READY and isinstance(known.get("id"), str):
                return known
            self._check(known.get("status"), end)
            await self._sleep(AGAIN)

    async def _parsed(self, token: Token, id: str) -> None:
        end = self._monotonic() + READY_WITHIN
        asked = {"file_ids": [id]}
        path = "/apiv2-files/kimi.gateway.file.v1.FileService/GetFileParseProgress"
        while True:
            told = (await self._ask(path, token, asked)).get("progresses")
            states = [each.get("status") for each in told or () if isinstance(each, dict)]
            if states == ["PROCESS_STATUS_SUCCESS"]:
                return
            self._check(states[0] if states else None, end)
            await self._sleep(AGAIN)

    def _check(self, status: object, end: float) -> None:
        if isinstance(status, str) and status.lower().endswith(("failed", "error")):
            raise UpstreamFailure("invalid", "the service could not read the file", quoted=True)
        if self._monotonic() + AGAIN > end:
            raise UpstreamFailure("timeout", "the service did not read the file in time")


def decoded(url: str) -> tuple[str, bytes]:
    """The media type and the bytes of a data URL. Raises UpstreamFailure."""
    head, _, data = url.partition(",")
    try:
        if not head.startswith("data:") or not head.endswith(";base64"):
            raise ValueError
        return head[5:].partition(";")[0], base64.b64decode(data, validate=True)
    except ValueError:
        raise UpstreamFailure("invalid", "a picture that is not within the request", quoted=True) from None


async def check_address(url: str, base: str) -> None:
    """Refuse an address for bytes of users that is not on the public internet, unless it is the service's
    own. Raises UpstreamFailure."""
    own = urlsplit(base)
    if urlsplit(url)[:2] == own[:2]:
        return
    try:
        place = target.read(url)
    except target.BadTarget as exc:
        raise UpstreamFailure("broken", f"the place for an upload: {exc}") from None
    if place.scheme != "https":
        raise UpstreamFailure("broken", "the place for an upload is not an https address")
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError:
        raise UpstreamFailure("connect", "the storage's name is not known") from None
    if not all(addresses.is_public(str(each[4][0])) for each in found):
        raise UpstreamFailure("broken", "the place for an upload is not on the public internet")

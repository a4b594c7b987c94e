"""A POST whose body is streamed, over our own HTTP client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from kimi_gateway.net.connection import Connection
from kimi_gateway.net.connections import Origin, Pool
from kimi_gateway.net.http import Answer, ConnectFailed, ConnectionLost, Stale, Timeouts
from kimi_gateway.net.http1 import Exchange
from kimi_gateway.net.wire import locate, streamed_head


class Upload(Exchange):
    """It is never sent again, because a part of its body is used up. A server that answers before the end
    gets no more of the body."""

    __slots__ = ("_parts",)

    def __init__(
        self,
        pool: Pool,
        url: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        timeouts: Timeouts,
    ) -> None:
        super().__init__(pool, "POST", url, headers, b"", timeouts)
        self._parts = body

    async def __aenter__(self) -> Answer:
        method, url, headers, _ = self._request
        address = locate(url)
        head, length = streamed_head(method, address, headers)
        connection, reused = await self._begin(address.origin, head)
        try:
            await _send(connection, self._parts, length)
            await connection.answered(self._timeouts.first_byte)
        except ConnectionLost as lost:
            if reused and connection.unheard:
                self._pool.drop(address.origin)
                raise Stale(str(lost)) from lost
            raise
        except BaseException:
            connection.abort()
            raise
        return self._begun(connection)

    async def _begin(self, origin: Origin, head: bytes) -> tuple[Connection, bool]:
        """A connection with the head on it, and whether it was used before. Raises ConnectFailed."""
        while True:
            connection = self._pool.take(origin)
            reused = connection is not None
            if connection is None:
                connection, reused = await self._pool.get(origin, self._timeouts.connect)
            if connection.send("POST", head, b""):
                return connection, reused
            connection.abort()
            if not reused:
                raise ConnectFailed("the connection closed before the request was sent")


async def _send(connection: Connection, parts: AsyncIterator[bytes], length: int | None) -> None:
    """Send the body until the server answers or the connection is lost. `length` is in bytes, None for
    chunks. Raises ConnectFailed if the body has another length, and what `parts` raises."""
    count, ends = 0, b""
    async for part in parts:
        count += len(part)
        if length is not None:
            if count > length:
                raise ConnectFailed("the request cannot be sent (length)")
        elif part:
            part, ends = b"%b%x\r\n%b" % (ends, len(part), part), b"\r\n"
        if part and not await connection.sent(part):
            connection.spoil()
            return
    if length is None:
        await connection.sent(ends + b"0\r\n\r\n")
    elif count != length:
        raise ConnectFailed("the request cannot be sent (length)")

"""The Runtime API as HTTP/1.1 on a loopback socket.

Sources: the reference of the Lambda Runtime API; for the form of a streamed answer the API Gateway guide,
response streaming with Lambda proxy integrations.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from .handling import Pairs

BASE = "/2018-06-01/runtime"
EXTENSION = "/2020-01-01/extension"
STREAMED = "application/vnd.awslambda.http-integration-response"
ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
PRELUDE_LIMIT = 16 * 1024  # bytes, including the mark behind it
MARK = bytes(8)
_FRAMING = frozenset(("connection", "content-length", "keep-alive", "transfer-encoding"))


class ApiLost(Exception):
    """The Runtime API is gone, or told the runtime to exit."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Api:
    """A client with one kept connection. Calls have no time-out, because the process may be frozen while it
    waits for `next`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, headers: Pairs = (), body: bytes = b"") -> Reply:
        """Send a request. `path` is relative to the Runtime API, or absolute if it begins with a slash. A
        kept connection that was closed is replaced once. Raises ApiLost."""
        message = self.head(method, path, [*headers, ("Content-Length", str(len(body)))]) + body
        while True:
            kept, self._kept = self._kept, None
            reader, writer = kept or await self.connect()
            try:
                writer.write(message)
                reply = await read(reader)
            except (OSError, EOFError) as exc:
                writer.close()
                if kept is None:
                    raise ApiLost(f"{path}: {exc}") from exc
                continue
            except BaseException:
                writer.close()
                raise
            if reply.headers.get("connection") == "close":
                writer.close()
            else:
                self._kept = reader, writer
            if reply.status >= 500:  # by the reference nothing can recover, and the runtime should exit
                raise ApiLost(f"{path}: status {reply.status}")
            return reply

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a further connection. Raises ApiLost."""
        host, _, port = self.address.rpartition(":")
        try:
            return await asyncio.open_connection(host, int(port), limit=2**20)
        except OSError as exc:
            raise ApiLost(f"no connection: {exc}") from exc

    def head(self, method: str, path: str, headers: Pairs) -> bytes:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        whole = path if path.startswith("/") else f"{BASE}/{path}"
        return f"{method} {whole} HTTP/1.1\r\nHost: {self.address}\r\n{fields}\r\n".encode("latin-1")

    def stream_head(self, path: str, headers: Pairs) -> bytes:
        fixed = [
            ("Content-Type", STREAMED),
            ("Lambda-Runtime-Function-Response-Mode", "streaming"),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", f"{ERROR_TYPE}, {ERROR_BODY}"),
            ("Connection", "close"),
        ]
        return self.head("POST", path, [*fixed, *headers])

    def close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None


def prelude(status: int, headers: Pairs) -> bytes:
    """The head of a streamed answer, followed by the mark. Raises ValueError if it is too large."""
    named: dict[str, list[str]] = {}
    for name, value in headers:
        if name.lower() not in _FRAMING:  # the platform adds its own framing
            named.setdefault(name.lower(), []).append(value)
    cookies = named.pop("set-cookie", [])
    head: dict[str, Any] = {
        "statusCode": status,
        "headers": {name: values[0] for name, values in named.items() if len(values) == 1},
    }
    if multiple := {name: values for name, values in named.items() if len(values) > 1}:
        head["multiValueHeaders"] = multiple
    if cookies:
        head["cookies"] = cookies
    encoded = json.dumps(head, separators=(",", ":")).encode() + MARK
    if len(encoded) > PRELUDE_LIMIT:
        raise ValueError(f"status and headers take {len(encoded)} bytes, {PRELUDE_LIMIT} is the most")
    return encoded


def chunk(data: bytes) -> bytes:
    """One HTTP chunk; empty for no data, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Pairs = ()) -> bytes:
    return b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n"


async def read(reader: asyncio.StreamReader) -> Reply:
    """Read one answer of the Runtime API. Raises OSError or EOFError."""
    status = 100
    while status < 200:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") != "chunked":
        return Reply(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return Reply(status, headers, b"".join(parts))

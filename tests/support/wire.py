"""HTTP/1.1 byte by byte: requests as they stand on the wire, and what a socket gives back."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress

from kimi_gateway.edge.home import protocol
from support.live import HELLO, LiveGateway

CHAT = {"model": "kimi-k3", "messages": HELLO}
CLOSE = "connection: close"
PING = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"


def talk(port: int, *pieces: bytes) -> bytes:
    """Sends until the server closes, gives all that it said."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except OSError:
            pass  # the server has closed: what it said is still to be read
        try:
            while data := client.recv(65536):
                answer += data
        except ConnectionError:
            pass
    return answer


def post(key: str, *lines: str, body: bytes | None = None, version: str = "1.1", **more: object) -> bytes:
    """A chat as it stands on the wire; `body` in place of its own and without a length."""
    raw = json.dumps(CHAT | more).encode()
    length = [f"content-length: {len(raw)}"] if body is None else []
    head = [f"POST /v1/chat/completions HTTP/{version}", "host: x", f"x-api-key: {key}", *length, *lines]
    return "\r\n".join([*head, "", ""]).encode() + (raw if body is None else body)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answer)]


def head(path: str, *lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode()


def check(*lines: str, length: int = 16) -> bytes:
    typed = ("host: x", "content-type: application/json", f"content-length: {length}")
    return head("/token/check", *typed, *lines)


def connect(gateway: LiveGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=30)


def rest_of(client: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while data := client.recv(65536):
            answer += data
    return answer


def ping(gateway: LiveGateway) -> bool:
    with gateway.client() as client:
        return client.get("/ping").text == "pong"


def connections(gateway: LiveGateway) -> list[protocol.Protocol]:
    return list(gateway._server.server_state.connections)  # type: ignore[arg-type]


class OverAsgi(LiveGateway):
    """The same application under uvicorn's own HTTP, as any ASGI server would run it."""

    protocol = "httptools"

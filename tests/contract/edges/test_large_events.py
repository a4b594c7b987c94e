"""A large event gives others time between the steps of its way through the gateway, and arrives whole."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from kimi_gateway.net.sse import LARGE, PAUSE
from support.live import LiveGateway, text_of
from upstream import ScriptedUpstream, Sse, chat_events

STEPS = 3  # it is taken apart, read, and put together; the next one writes it


class Loop(asyncio.SelectorEventLoop):
    """A loop that counts the pauses for a large event."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0

    def call_later(self, delay: float, *rest: Any, **more: Any) -> Any:
        self.pauses += delay == PAUSE
        return super().call_later(delay, *rest, **more)


@pytest.mark.parametrize(("size", "pauses"), [(LARGE // 2, 0), (2 * LARGE, STEPS)], ids=["small", "large"])
def test_others_get_time_between_the_steps_of_a_large_event(
    up: ScriptedUpstream, tmp_path: Path, size: int, pauses: int
) -> None:
    loop, text = Loop(), "x" * size
    up.plan(Sse(chat_events(text, pieces=1)))
    with LiveGateway(tmp_path, up.url, new_loop=lambda: loop) as gateway:
        assert text_of(gateway.chat(gateway.key(), stream=True).text) == text
    assert loop.pauses == pauses


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_large_event_arrives_whole(up: ScriptedUpstream, tmp_path: Path, version: str) -> None:
    text = "word " * LARGE
    up.plan(Sse(chat_events(text, pieces=1)))
    body = b'{"model": "kimi-k3", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    with LiveGateway(tmp_path, up.url) as gateway:
        lines = (
            f"POST /v1/chat/completions HTTP/{version}",
            "host: x",
            f"authorization: Bearer {gateway.key()}",
            "content-type: application/json",
            "connection: close",
            f"content-length: {len(body)}\r\n\r\n",
        )
        with socket.create_connection(("127.0.0.1", gateway.port), 30) as client:
            client.sendall("\r\n".join(lines).encode() + body)
            told = b"".join(iter(lambda: client.recv(1 << 20), b""))
    start, _, rest = told.partition(b"\r\n\r\n")
    if b"chunked" in start.lower():
        rest = unchunked(rest)
    assert text_of(rest.decode()) == text


def unchunked(rest: bytes) -> bytes:
    pieces = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return b"".join(pieces)

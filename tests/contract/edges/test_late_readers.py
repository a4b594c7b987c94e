"""A client that reads late: pieces that waited for it and pieces that need not wait come in their order."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from support.live import HELLO, LiveGateway
from support.wire import connections
from upstream import Gated, ScriptedUpstream, Sse
from upstream.kimi import chat_events

PIECES, SIZE = 600, 16 * 1024  # more than the buffers of both sockets hold
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100},
    "/v1/responses": {"input": "Hello"},
}


def texts(path: str, event: dict[str, Any]) -> str:
    if path == "/v1/chat/completions":
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    if path == "/v1/messages":
        return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


@pytest.mark.parametrize("path", ASKED)
def test_a_client_that_reads_late_gets_all_in_order(path: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    pieces = [f"<{number:05}>".ljust(SIZE, ".") for number in range(PIECES)]
    gate = Gated(Sse(chat_events("".join(pieces), pieces=PIECES)))
    up.plan(gate)
    gate.let(20)
    with LiveGateway(tmp_path, up.url) as gateway, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(30)
        client.connect(("127.0.0.1", gateway.port))
        body = json.dumps({"model": "kimi-k3", "stream": True, **ASKED[path]}).encode()
        head = f"POST {path} HTTP/1.0\r\nauthorization: Bearer {gateway.key()}\r\ncontent-length: {len(body)}"
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        received = [client.recv(100)]
        gate.let(2 * PIECES)
        gateway.until(lambda: connections(gateway)[0].write_paused)
        while part := client.recv(65536):
            received.append(part)
    events = [line[6:] for line in b"".join(received).decode().splitlines() if line.startswith("data: {")]
    assert "".join(texts(path, json.loads(event)) for event in events) == "".join(pieces)

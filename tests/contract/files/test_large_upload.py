"""An 80 MB upload through the gateway in a process of its own: what it adds to the memory, what arrives."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.edges import Case, function
from support.live import LiveGateway
from support.server_process import ServerProcess
from support.uploading import KIND, PURPOSE, form
from support.wire import head, rest_of, statuses
from upstream import ScriptedUpstream

SIZE = 80 * 2**20
PIECE = bytes(range(256)) * 256
MOST_ADDED = 30 * 1024  # kB of memory


class Sink(BaseHTTPRequestHandler):
    """Takes a chunked body without keeping it."""

    protocol_version = "HTTP/1.1"
    seen: dict[str, Any]

    def do_POST(self) -> None:
        digest, size = hashlib.sha256(), 0
        while length := int(self.rfile.readline(), 16):
            chunk = self.rfile.read(length)
            self.rfile.read(2)
            digest.update(chunk)
            size += length
        self.rfile.read(2)
        self.seen |= {"size": size, "digest": digest.hexdigest()}
        answer = json.dumps({"id": "file_1", "object": "file", "bytes": SIZE, "status": "ok"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def sink() -> Iterator[tuple[str, dict[str, Any]]]:
    seen: dict[str, Any] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Sink,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def memory(pid: int) -> int:
    """The most that the process ever had, in kB."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def upload(server: ServerProcess, key: str, size: int) -> list[int]:
    begin, end = form(PURPOSE, ("file", "large.bin", b"|")).split(b"|")
    lines = (
        "host: x", f"authorization: Bearer {key}", f"content-type: {KIND}", "connection: close",
        f"content-length: {len(begin) + size + len(end)}",
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(head("/v1/files", *lines) + begin)
        for _ in range(size // len(PIECE)):
            client.sendall(PIECE)
        client.sendall(end)
        return statuses(rest_of(client))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_a_large_upload_adds_little_to_the_memory(tmp_path: Path) -> None:
    with sink() as (url, seen), ServerProcess(tmp_path, url) as server:
        key = server.key()
        assert upload(server, key, 4 * len(PIECE)) == [200]  # loads what uploads need
        before = memory(server.process.pid)
        assert upload(server, key, SIZE) == [200]
        added = memory(server.process.pid) - before
        assert added <= MOST_ADDED
    assert seen["size"] > SIZE


@pytest.mark.parametrize("streamed", [False, True])
def test_an_upload_of_bytes_comes_through_lambda(
    gateway: LiveGateway, upstream: ScriptedUpstream, streamed: bool
) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4_000
    body = form(PURPOSE, ("file", "a.png", data))
    case = Case(200, "POST", "/v1/files", body)
    headers = [("content-type", KIND), ("authorization", f"Bearer {gateway.key()}")]
    answer = function(gateway, case, headers, streamed)
    assert (answer.status, answer.json["bytes"]) == (200, len(data)), answer.body
    assert [file.data for file in upstream.files.files.values()] == [data]

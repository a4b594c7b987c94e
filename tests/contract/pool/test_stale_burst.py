"""A burst on kept connections that the upstream closes as the requests are sent: no client notices."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.live import LiveGateway

MANY = 24
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
    len(EVENTS),
    EVENTS,
)


class Once(socketserver.ThreadingTCPServer):
    """Answers the first request of each connection and keeps it; closes it at the second, unanswered."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OneAnswer)
        self.answered = self.closed = 0
        self.lock = threading.Lock()


class OneAnswer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Once)
        while self._request():
            with server.lock:
                if not hasattr(self, "used"):
                    server.answered += 1
                else:
                    server.closed += 1
                    return
            self.used = True
            self.wfile.write(ANSWER)

    def _request(self) -> bool:
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return bool(line) and (not length or bool(self.rfile.read(length)))


@pytest.fixture
def once() -> Iterator[Once]:
    with Once() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_burst_on_connections_that_die_as_we_send_is_answered(once: Once, tmp_path: Path) -> None:
    with LiveGateway(tmp_path, f"http://127.0.0.1:{once.server_address[1]}/v1") as gateway:
        key = gateway.key(None)
        for _ in range(3):
            with ThreadPoolExecutor(MANY) as pool:
                answers = list(pool.map(lambda _: gateway.chat(key).status_code, range(MANY)))
            assert answers == [200] * MANY
        gateway.nothing_left(key)
    assert once.answered == 3 * MANY
    assert once.closed > 0
    assert (
        once.closed <= 2 * MANY
    )  # a request meets a dead connection about once, since the others are dropped

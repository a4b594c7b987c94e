"""The server ends, in good order or not: what becomes of the streams and the credits in it."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from kimi_gateway.accounts.values import Limits
from support.fault_table import TEXT, WHOLE
from support.formats import CHAT, FORMATS, Format
from support.live import HELLO, events, text_of
from support.server_process import ServerProcess
from upstream import Flood, Gated, ScriptedUpstream, Silence, Stall

ASKED = {"model": "kimi-k3", "messages": HELLO, "stream": True}
WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


class Reading:
    """A client that reads a stream in a thread of its own: what has come so far, and how it ends."""

    def __init__(
        self, pool: ThreadPoolExecutor, server: ServerProcess, key: str, format: Format = CHAT
    ) -> None:
        self.text = ""
        self._ends = pool.submit(self._read, server, key, format)

    def _read(self, server: ServerProcess, key: str, format: Format) -> int:
        asked = format.asked(stream=True)
        with server.client(key) as client, client.stream("POST", format.path, json=asked) as answer:
            for piece in answer.iter_text():
                self.text += piece
            return answer.status_code

    @property
    def has_content(self) -> bool:
        return TEXT[:8] in self.text

    @property
    def ended(self) -> bool:
        return self._ends.done()

    def result(self) -> tuple[int, str]:
        """The status and the whole text. Raises what the client met."""
        return self._ends.result(60), self.text


def begins(up: ScriptedUpstream, *streaming: Reading) -> None:
    up.until(lambda: all(one.has_content for one in streaming))


@contextmanager
def idle_connections(server: ServerProcess, key: str, number: int = 10) -> Iterator[list[socket.socket]]:
    """Kept open after an answer, in whichever workers took them."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n".encode()
    with ExitStack() as open_ones:
        idle = [open_ones.enter_context(socket.create_connection(address, 20)) for _ in range(number)]
        for each in idle:
            each.sendall(head)
            answer = b""
            while not answer.endswith(b"}"):
                answer += each.recv(65_536)
        yield idle


@WORKERS
def test_a_stream_that_ends_within_the_drain_is_whole(
    up: ScriptedUpstream, pool: ThreadPoolExecutor, tmp_path: Path, workers: int
) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    with ServerProcess(tmp_path, up.url, workers, drain=20) as server:
        key = server.key()
        streaming = Reading(pool, server, key)
        gate.let(2)
        begins(up, streaming)
        with idle_connections(server, key) as idle:
            server.terminate()
            for each in idle:  # closed as soon as the server goes down
                assert each.recv(1) == b""
        assert not streaming.ended
        gate.let(100)
        status, text = streaming.result()
        assert (status, text_of(text), events(text)[-1]) == (200, TEXT, "[DONE]")
        ends_well(server)
        assert (server.account(key).credits, server.account(key).reserved) == (99, 0)


@WORKERS
def test_a_stream_that_does_not_end_is_reported_and_not_charged(
    up: ScriptedUpstream, pool: ThreadPoolExecutor, tmp_path: Path, workers: int
) -> None:
    formats = [*FORMATS.values()]
    up.plan(*[Stall(2, WHOLE)] * len(formats))
    up.always(Silence())
    with ServerProcess(tmp_path, up.url, workers, drain=1) as server:
        keys = [server.key() for _ in range(2 * len(formats))]
        streaming = [Reading(pool, server, *way) for way in zip(keys, formats, strict=False)]
        begins(up, *streaming)
        waiting = [Reading(pool, server, *way) for way in zip(keys[3:], formats, strict=True)]
        up.until(lambda: len(up.chats) == len(keys))
        server.terminate()
        for format, one in zip(formats, streaming, strict=True):
            is_cut(one, format)
        for format, one in zip(formats, waiting, strict=True):
            status, text = one.result()
            assert (status, format.error(json.loads(text))["type"]) == (503, "api_error")
        ends_well(server)
        accounts = [server.account(key) for key in keys]
        assert [(account.credits, account.reserved) for account in accounts] == [(100, 0)] * len(keys)


def is_cut(streaming: Reading, format: Format) -> None:
    status, text = streaming.result()
    told = format.read(text, True)
    assert (status, told.content, told.finishes, told.whole) == (200, TEXT[:8], [], False)
    assert told.error is not None
    assert told.error["type"] == "api_error"
    assert told.error.get("code") == ("service_unavailable" if format.codes else None)


def ends_well(server: ServerProcess) -> None:
    assert server.ended() == 0, server.log
    assert '"crash"' not in server.log


def test_a_client_that_does_not_read_cannot_keep_the_server_up(up: ScriptedUpstream, tmp_path: Path) -> None:
    """It cannot be told, so it is cut; its credit is back all the same."""
    flood = Flood(2**30)
    up.plan(flood)
    body = json.dumps(ASKED).encode()
    with ServerProcess(tmp_path, up.url, drain=0.1) as server, socket.socket() as client:
        key = server.key()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        up.until(lambda: flood.written > 2**20)
        server.terminate()
        ends_well(server)
        assert (server.account(key).credits, server.account(key).reserved) == (100, 0)


def test_a_killed_process_loses_no_credit(
    up: ScriptedUpstream, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    up.always(Stall(3, WHOLE))
    with ServerProcess(tmp_path, up.url, lease=2) as server:
        key = server.key()
        streaming = Reading(pool, server, key)
        begins(up, streaming)
        server.kill()
        with pytest.raises(httpx.TransportError):
            streaming.result()
        assert server.account(key).reserved == 1
    with ServerProcess(tmp_path, up.url, lease=2) as server:
        up.until(lambda: server.account(key).reserved == 0)
        account = server.account(key)
        assert (account.credits, account.reserved, account.consumed) == (100, 0, 0)


def test_a_request_longer_than_its_lease_keeps_it(
    up: ScriptedUpstream, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    gate.let(2)
    # Renewed every 3 s; a busy machine may stall the process for 6 s more.
    with ServerProcess(tmp_path, up.url, lease=9) as server:
        key = server.key(1)
        streaming = Reading(pool, server, key)
        begins(up, streaming)
        first = server.lease_ends()
        up.until(lambda: server.lease_ends() >= first + 2)
        account = server.account(key)
        assert (account.credits, account.reserved) == (1, 1)
        gate.let(100)
        assert events(streaming.result()[1])[-1] == "[DONE]"
        assert server.account(key).credits == 0


def test_workers_share_limits_and_credits_exactly(
    up: ScriptedUpstream, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, up.url, workers=2) as server:
        poor, day = server.key(30, Limits(1000, 1000, 1000)), 0
        while day != today():  # else they fell into two windows
            day, limited = today(), server.key(None, Limits(day=60))
            seen = statuses(server, pool, limited)
        assert seen == {200: 60, 429: 40}
        assert statuses(server, pool, poor) == {200: 30, 403: 70}
        account = server.account(poor)
        assert (account.credits, account.reserved, account.consumed) == (0, 0, 30)


def today() -> int:
    return int(time.time()) // 86_400


def statuses(server: ServerProcess, pool: ThreadPoolExecutor, key: str) -> Counter[int]:
    with server.client(key) as client:
        ask = partial(client.post, "/v1/chat/completions", json=ASKED)
        return Counter(answer.status_code for answer in pool.map(lambda _: ask(), range(100)))

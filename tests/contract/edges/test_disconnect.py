"""The client goes away, or reads slowly: the upstream is left at once or waits, and the price is right."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimi_gateway.edge.home.connections import UNSENT
from support.exchange import CHARGED, UNTOUCHED, ledger, streaming
from support.fault_table import WHOLE
from support.formats import CHAT, EACH, MODES, Format
from support.live import LiveGateway
from support.wire import OverAsgi, connections
from upstream import Delay, Flood, Gated, ScriptedUpstream, Silence, Stall, Step, rate_limited

MIB = 2**20
SIOCOUTQ = 0x5411  # bytes of a socket that its peer has not received (tcp(7))


@pytest.fixture
def gateway(up: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path, up.url) as gateway:
        yield gateway


def send(
    gateway: LiveGateway, key: str, stream: bool = True, buffer: int | None = None, format: Format = CHAT
) -> socket.socket:
    """A bare client: what it does not read stays unread, and it can leave without a word."""
    body = json.dumps(format.asked(stream=stream)).encode()
    client = socket.socket()
    client.settimeout(30)
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect(("127.0.0.1", gateway.port))
    client.sendall(head_of(key, len(body), format) + body)
    return client


def head_of(key: str, length: int, format: Format = CHAT) -> bytes:
    return (
        f"POST {format.path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def is_left(gateway: LiveGateway, up: ScriptedUpstream, key: str) -> None:
    """The upstream sees it, and nothing of the request lives on."""
    up.until(lambda: all(request.closed_early.is_set() for request in up.chats))
    gateway.nothing_left(key)
    assert gateway.lines("crash") == []


BEFORE: dict[str, Step] = {
    "before the head": Silence(),
    "behind the head": Stall(0, WHOLE),
    "behind the role": Stall(1, WHOLE),
    "in a slow start": Delay(30, WHOLE),
}


@MODES
@EACH
@pytest.mark.parametrize("step", BEFORE.values(), ids=BEFORE)
def test_a_client_that_leaves_before_content_pays_nothing(
    gateway: LiveGateway, up: ScriptedUpstream, step: Step, format: Format, stream: bool
) -> None:
    up.plan(step)
    key = gateway.key()
    with send(gateway, key, stream, format=format):
        up.until(lambda: up.chats and up.chats[0].hangs.is_set())
        gateway.rest()
    is_left(gateway, up, key)
    assert (len(up.chats), ledger(gateway, key)) == (1, UNTOUCHED)


@MODES
@EACH
def test_a_client_that_leaves_after_content_pays_one_credit(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool
) -> None:
    gate = Gated(WHOLE)
    up.plan(gate)
    key = gateway.key()
    with send(gateway, key, stream, format=format) as client:
        gate.let(3)
        if stream:
            seen = b""
            while b'"Hello' not in seen:
                seen += client.recv(65536)
        else:
            up.until(lambda: gate.sent == 3)
            gateway.until(lambda: any(turn.rounds.first_content for turn in turns(gateway)))
    is_left(gateway, up, key)
    assert ledger(gateway, key) == CHARGED
    assert gateway.usage(key)[0].output > 0
    assert gateway.lines("request")[-1]["outcome"] == "left_settled"


def turns(gateway: LiveGateway) -> list[object]:
    assert gateway.app.running is not None
    return list(gateway.app.running.gateway.turns)


def test_a_client_that_leaves_between_attempts_is_not_tried_for_again(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    up.always(rate_limited("engine_overloaded", 2))
    key = gateway.key()
    with send(gateway, key):
        gateway.until(lambda: gateway.lines("attempt_failed"))
    gateway.until(lambda: not gateway.tasks())
    gateway.nothing_left(key)
    assert (len(up.chats), ledger(gateway, key)) == (1, UNTOUCHED)


def test_a_client_that_leaves_while_it_sends_is_not_admitted(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    key = gateway.key()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(head_of(key, 1000) + b'{"model":"kimi-k3",')
        gateway.until(gateway.tasks)
    gateway.until(lambda: not gateway.tasks())
    assert (up.chats, gateway.usage(key), ledger(gateway, key)) == ([], [], UNTOUCHED)
    (line,) = gateway.lines("request")
    assert line["status"] == 499


def test_many_clients_that_leave_at_once_leave_nothing(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    up.always(Stall(3, WHOLE))
    key = gateway.key(None)
    clients = [send(gateway, key, stream=number % 2 == 0) for number in range(30)]
    up.until(lambda: len(up.chats) == len(clients))
    for client in clients:
        client.close()
    is_left(gateway, up, key)
    assert up.open_connections == 0


def test_a_client_that_does_not_read_makes_the_upstream_wait(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    """The sockets' own buffers take some MiB; of 1 GiB nothing more may move."""
    flood = Flood(1024 * MIB)
    up.plan(flood)
    key = gateway.key()
    with send(gateway, key, buffer=64 * 1024):
        stands_still(gateway, up, flood)
        assert flood.written < 64 * MIB
        assert flood.written > 64 * 1024
    is_left(gateway, up, key)
    assert ledger(gateway, key) == CHARGED


@pytest.mark.parametrize("edge", [LiveGateway, OverAsgi], ids=["home", "ASGI"])
def test_a_client_that_reads_nothing_for_the_idle_time_out_has_left(
    edge: type[LiveGateway], up: ScriptedUpstream, tmp_path: Path
) -> None:
    """It stays connected; what was passed on to it is paid for."""
    flood = Flood(1024 * MIB)
    up.plan(flood)
    with edge(tmp_path, up.url) as gateway:
        key = gateway.key()
        with send(gateway, key, buffer=64 * 1024):
            stands_still(gateway, up, flood)

            def has_left() -> bool:
                gateway.pass_time(100)
                return up.chats[0].closed_early.is_set()

            up.until(has_left)
            gateway.nothing_left(key)
        assert ledger(gateway, key) == CHARGED
        assert gateway.lines("request")[-1]["outcome"] == "left_settled"
        assert gateway.lines("crash") == []


def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Its socket takes 64 KiB of what waits at a time, and not a third of a buffer of 4 MiB. So it stays if
    it reads that much in each time-out."""
    up.plan(Flood(1024 * MIB))
    with LiveGateway(tmp_path, up.url) as gateway:
        key = gateway.key()
        with send(gateway, key, buffer=4096) as client:
            read = 0
            while read < 6 * UNSENT and (data := client.recv(4096)):
                read += len(data)
                gateway.pass_time(4)
            assert read >= 6 * UNSENT
            assert not up.chats[0].closed_early.is_set()
        is_left(gateway, up, key)
        assert ledger(gateway, key) == CHARGED


def test_what_a_client_does_not_read_holds_little_memory(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    """Neither the socket's own buffer, nor the connection's, nor the mailbox grows with the answer."""
    flood = Flood(1024 * MIB)
    up.plan(flood)
    key = gateway.key()
    with send(gateway, key, buffer=64 * 1024):
        stands_still(gateway, up, flood)
        (connection,) = connections(gateway)
        (turn,) = gateway.app.running.gateway.turns  # type: ignore[union-attr]
        unsent = fcntl.ioctl(connection._transport.get_extra_info("socket").fileno(), SIOCOUTQ, bytes(4))
        assert 0 < struct.unpack("i", unsent)[0] <= 4 * UNSENT
        assert connection._transport.get_write_buffer_size() <= 256 * 1024
        assert 0 < len(turn.rounds.box._items) <= 5  # reads of the upstream's socket
    is_left(gateway, up, key)


def stands_still(gateway: LiveGateway, up: ScriptedUpstream, flood: Flood) -> None:
    """The upstream's socket takes no more, though the gateway has nothing left to do."""

    def full() -> bool:
        return any(not connection.writable.is_set() for connection in up.connections)

    def still() -> bool:
        before = flood.written
        for _ in range(10):
            if not full():
                return False
            gateway.rest()
        return full() and flood.written == before > 0

    up.until(still)


def test_a_slow_client_is_not_the_upstreams_silence(up: ScriptedUpstream, tmp_path: Path) -> None:
    """It reads nothing for longer than the upstream may be idle, and still gets all there is."""
    flood = Flood(48 * MIB)
    up.plan(flood)
    with LiveGateway(tmp_path, up.url, idle_timeout=1.0) as gateway:  # the client's is two seconds
        key = gateway.key()
        with streaming(gateway, key) as (_, lines):
            next(lines)
            stands_still(gateway, up, flood)
            gateway.pass_time(1.1)
            data = list(lines)
            assert sum(line.count("x") for line in data[:-2]) >= 48 * MIB
            assert data[-1] == "data: [DONE]"
        assert ledger(gateway, key) == CHARGED
        gateway.nothing_left(key)

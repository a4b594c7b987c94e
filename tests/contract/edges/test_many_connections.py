"""Whose connections make room for whose, and what ends with its server, on sockets and in processes."""

from __future__ import annotations

import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kimi_gateway.edge.home.pacing import AT_ONCE
from kimi_gateway.edge.home.protocol import Protocol
from kimi_gateway.endpoints.token_check import CHECKS
from kimi_gateway.net.http1 import Http1Client
from support.live import HELLO, LiveGateway
from support.server_process import ServerProcess
from support.wire import CLOSE, check, connect, connections, head, ping, post, rest_of, statuses, talk
from upstream import Kimi, ScriptedUpstream

WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])


def test_too_many_keyless_connections_of_an_address_end_the_oldest(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with LiveGateway(tmp_path, up.url, keyless_per_address=4) as gateway, ExitStack() as stack:
        key, up_gate = gateway.key(), Kimi(gap=0.05)
        keyed = stack.enter_context(connect(gateway))
        keyed.sendall(post(key))
        while b"[DONE]" not in (data := keyed.recv(65536)) and b'"usage"' not in data:
            pass
        clients = [stack.enter_context(connect(gateway)) for _ in range(12)]
        for client in clients:
            client.sendall(check())  # and never the body
        for client in clients[:8]:
            assert statuses(rest_of(client)) == []
        gateway.until(lambda: gateway.app.connections.keyless == 4)
        up.plan(up_gate)
        keyed.sendall(post(key, CLOSE))
        assert statuses(rest_of(keyed)) == [200]
        assert ping(gateway)


def test_bodies_that_do_not_arrive_leave_room_for_others(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Of one account, which is charged for nothing: it has all connections, and each is at work."""
    with LiveGateway(tmp_path, up.url, connections=8) as gateway, ExitStack() as stack:
        greedy, other, bound = gateway.key(1), gateway.key(9), gateway.app.connections
        for number in range(8):
            client = stack.enter_context(connect(gateway))
            client.sendall(post(greedy, "content-length: 50", body=b"{"))
            gateway.until(lambda number=number: len(bound._waits) == number + 1)  # type: ignore[misc]
        for _ in range(3):  # each next one takes the place of the one before, which is idle
            newcomer = stack.enter_context(connect(gateway))
            newcomer.sendall(post(other))
            assert statuses(newcomer.recv(65536)) == [200]
            assert len(bound._waits) == 7
    assert gateway.app.connections._waiting == {}


def test_large_heads_count_until_they_are_complete(tmp_path: Path) -> None:
    lines = "host: x", "x: " + "y" * 40_000
    with LiveGateway(tmp_path) as gateway, connect(gateway) as client, connect(gateway) as other:
        bound = gateway.app.connections
        for each in (client, other):
            each.sendall(head("/ping", *lines, method="GET")[:-2])
        gateway.until(lambda: len(bound._heads) == 2)
        assert bound._of_heads > 80_000
        for _ in range(2):
            client.sendall(b"\r\n")
            assert statuses(client.recv(65536)) == [200]
            gateway.until(lambda: len(bound._heads) == 1)
            client.sendall(head("/ping", *lines, method="GET")[:-2])
            gateway.until(lambda: len(bound._heads) == 2)
    assert (bound._of_heads, bound._heads) == (0, {})


def in_debt(gateway: LiveGateway, name: str) -> None:
    """Of so many refusals that the next one has to wait the longest."""
    now = gateway._loop.time()
    gateway.app.pace._refusals.spend(name, now, 2 * AT_ONCE)


def paused(gateway: LiveGateway) -> list[Protocol]:
    """Connections with a request whose refusal waits."""
    return [each for each in connections(gateway) if each._exchanges and each.idle]


@pytest.mark.parametrize("known", [True, False], ids=["an account", "an address"])
def test_who_is_refused_too_often_waits_for_it_and_a_server_that_ends_does_not(
    up: ScriptedUpstream, tmp_path: Path, known: bool
) -> None:
    with LiveGateway(tmp_path, up.url) as gateway, ExitStack() as stack:
        key = gateway.key(0) if known else "sk-kg-unknown"
        in_debt(gateway, gateway.account(key).id if known else "127.0.0.1")
        client, gone = (stack.enter_context(connect(gateway)) for _ in range(2))
        for each in (client, gone):
            each.sendall(post(key))
        gateway.until(lambda: len(paused(gateway)) == 2)
        assert ping(gateway)
        gone.close()
        gateway.until(lambda: len(paused(gateway)) == 1)
        with gateway.client(gateway.key()) as other:
            answer = other.post("/v1/chat/completions", json={"model": "kimi-k3", "messages": HELLO})
            assert answer.status_code == 200
        gateway.begin_stop()
        assert statuses(rest_of(client)) == [403 if known else 401]
    statuses_logged = {line["status"] for line in gateway.lines("request")}
    assert statuses_logged == {200, 403 if known else 401}


def test_a_refusal_that_waits_makes_room_for_others(up: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(tmp_path, up.url, connections=4) as gateway, ExitStack() as stack:
        flood, other = gateway.key(0), gateway.key(9)
        clients = []
        for _ in range(4):  # each is known as one with a key before the next comes
            clients.append(client := stack.enter_context(connect(gateway)))
            client.sendall(post(flood))
            assert statuses(client.recv(65536)) == [403]
        in_debt(gateway, gateway.account(flood).id)
        for client in clients:
            client.sendall(post(flood))
        gateway.until(lambda: len(paused(gateway)) == len(clients))
        newcomer = stack.enter_context(connect(gateway))
        newcomer.sendall(post(other))
        assert statuses(newcomer.recv(65536)) == [200]


def test_behind_a_trusted_proxy_the_last_untrusted_hop_counts(tmp_path: Path) -> None:
    def answers(gateway: LiveGateway, forwarded: str) -> list[int]:
        content = b'{"token": "sk-kg-x"}'
        sent = check(f"x-forwarded-for: {forwarded}", CLOSE, length=len(content)) + content
        return statuses(talk(gateway.port, sent))

    with LiveGateway(tmp_path, trusted_proxies=("127.0.0.0/8",)) as gateway:
        assert gateway.app.running is not None
        askers = gateway.app.running.endpoints.token_check()._askers
        askers.spend("192.0.2.1", gateway.clock(), 2 * CHECKS)
        assert answers(gateway, "198.51.100.9, 192.0.2.1, 127.0.0.9") == [429]
        assert answers(gateway, "192.0.2.1, 198.51.100.9") == [200]
    with LiveGateway(tmp_path) as gateway:
        assert gateway.app.running is not None
        askers = gateway.app.running.endpoints.token_check()._askers
        askers.spend("192.0.2.1", gateway.clock(), 2 * CHECKS)
        assert answers(gateway, "192.0.2.1") == [200]


def connected(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10)


@WORKERS
def test_idle_connections_and_half_sent_bodies_do_not_keep_a_server_that_ends(
    up: ScriptedUpstream, tmp_path: Path, workers: int
) -> None:
    with ServerProcess(tmp_path, up.url, workers, drain=60) as server, ExitStack() as stack:
        idle = stack.enter_context(server.client(server.key()))
        asked = {"model": "kimi-k3", "messages": HELLO, "stream": True}
        assert idle.post("/v1/chat/completions", json=asked).status_code == 200  # and its connection stays
        clients = [stack.enter_context(connected(server)) for _ in range(4)]
        for number, client in enumerate(clients):
            lines = "content-length: 50", "expect: 100-continue"
            client.sendall(
                check("expect: 100-continue") if number % 2 else post(server.key(), *lines, body=b"")
            )
            assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"  # so the body is waited for
            client.sendall(b"{")
        server.terminate()
        assert server.ended() == 0
        assert '"crash"' not in server.log
        assert [statuses(rest_of(client)) for client in clients] == [[503]] * 4


def test_workers_end_when_their_parent_is_killed(up: ScriptedUpstream, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, up.url, workers=2, drain=0.1) as server:
        with connected(server):
            os.kill(server.process.pid, signal.SIGKILL)
            server.ended(60)  # its output has an end only when the workers are gone
        with pytest.raises(ConnectionRefusedError):
            connected(server)


def test_a_flood_of_connections_leaves_room_for_whoever_shows_a_key(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    """With 192 descriptors: strangers ask for nearly as many again."""
    own = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Small(ServerProcess):
        def __enter__(self) -> ServerProcess:
            self._command = ["prlimit", "--nofile=96:192", *self._command]
            return super().__enter__()

    with Small(tmp_path, up.url, keyless_per_address=1000) as server, ExitStack() as stack:
        key = server.key()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == own
        for _ in range(3):
            for _ in range(45):
                client = stack.enter_context(connected(server))
                with suppress(OSError):
                    client.sendall(check())
            with server.client(key) as asking:
                asked = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hi"}]}
                assert asking.post("/v1/chat/completions", json=asked).status_code == 200
        assert "Too many open files" not in server.log
        files = list(Path(f"/proc/{server.process.pid}/fd").iterdir())
        assert len(files) < 96  # the bound is 64, a quarter of it keyless


def test_there_is_an_upstream_connection_for_each_of_the_clients(tmp_path: Path) -> None:
    with LiveGateway(tmp_path, connections=3000) as gateway:
        assert gateway.app.running is not None
        client = gateway.app.running.client
    assert isinstance(client, Http1Client)
    assert client.most == 3000

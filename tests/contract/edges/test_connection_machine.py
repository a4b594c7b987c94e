"""Connections that do anything in any order: what the server holds for them stays within stated bounds."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kimi_gateway.edge.home.protocol import HIGH_WATER
from support.live import HELLO, LiveGateway
from support.wire import PING, connections

PER_ADDRESS, BODY = 8, 100_000  # connections, bytes
READ = 256 * 1024  # bytes of one read
LARGEST_ANSWER = 2_000_000  # bytes: a script of the page /docs
HELD = READ + HIGH_WATER + BODY + 64 * 1024 + LARGEST_ANSWER  # bytes for one connection
CHAT = json.dumps({"model": "kimi-k3", "messages": HELLO}).encode()
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
CHECK = b"POST /token/check HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
PIECES = [
    PING,
    PING * 500,
    b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 20,
    b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n" * 3,
    b"GET /ping HTTP/1.1\r\nhost: x\r\nx: ",
    b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    CHECK + b"content-length: 50\r\n\r\n",
    CHECK + b"content-length: 50\r\nexpect: 100-continue\r\n\r\n",
    CHECK + b"content-length: 900000\r\n\r\n",
    CHECK + b'content-length: 16\r\n\r\n{"token": "a b"}',
    CHECK + b"transfer-encoding: chunked\r\n\r\n",
    CHUNKED + b"\r\n",
    CHUNKED + b"x-api-key: KEY\r\n\r\n",
    CHUNKED + b"x-api-key: KEY\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(CHAT), CHAT),
    b"1\r\na\r\n" * 3000,
    b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"x: y\r\n" * 2000,
    b"\r\n",
    b"\r\n\r\n",
    b"a" * 70_000,
    b"1;" + b"b" * 20_000,
]


class Clients(RuleBasedStateMachine):
    gateway: LiveGateway
    key: str

    def __init__(self) -> None:
        super().__init__()
        self.open: list[socket.socket] = []

    @rule()
    def connect(self) -> None:
        client = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=10)
        client.setblocking(False)
        self.open.append(client)

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 30), pieces=st.lists(st.sampled_from(range(len(PIECES))), min_size=1, max_size=4)
    )
    def send(self, which: int, pieces: list[int]) -> None:
        with suppress(OSError):
            self._one(which).send(
                b"".join([PIECES[each] for each in pieces]).replace(b"KEY", self.key.encode())
            )

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30), noise=st.binary(max_size=200))
    def make_noise(self, which: int, noise: bytes) -> None:
        with suppress(OSError):
            self._one(which).send(noise)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30))
    def read(self, which: int) -> None:
        with suppress(OSError):
            self._one(which).recv(65536)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30))
    def close_half(self, which: int) -> None:
        with suppress(OSError):
            self._one(which).shutdown(socket.SHUT_WR)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30))
    def close(self, which: int) -> None:
        client = self._one(which)
        self.open.remove(client)
        client.close()

    @invariant()
    def the_bounds_hold(self) -> None:
        self.gateway.do(self._look())

    async def _look(self) -> None:
        held = connections(self.gateway)
        state = self.gateway._server.server_state
        assert self.gateway.app.connections.keyless <= PER_ADDRESS
        # Those that were ended a moment ago are still being closed.
        assert len(self.gateway.app.connections) <= len(self.open) + len(held)
        assert len(state.tasks) <= len(held) + len(self.open) + PER_ADDRESS  # cancelled ones end a turn later
        for each in held:
            assert len(each._exchanges) <= 3
            assert len(each._rest) <= READ
            bodies = sum(len(part) for exchange in each._exchanges for part in exchange._parts)
            waiting = each._transport.get_write_buffer_size()
            assert bodies + waiting + len(each._rest) <= HELD

    def teardown(self) -> None:
        for client in self.open:
            client.close()
        self.gateway.until(lambda: not connections(self.gateway))
        self.gateway.nothing_left(self.key)
        assert not len(self.gateway.app.connections)
        with self.gateway.client() as client:
            assert client.get("/ping").text == "pong"

    def _one(self, which: int) -> socket.socket:
        return self.open[which % len(self.open)]


@pytest.mark.fuzz
def test_whatever_connections_do_the_server_holds_little_for_them() -> None:
    """With one server for all examples; what it holds afterwards is what it held before."""
    more: dict[str, int] = {"body_limit": BODY, "keyless_per_address": PER_ADDRESS}
    with tempfile.TemporaryDirectory() as folder, LiveGateway(Path(folder), **more) as gateway:

        class Here(Clients):
            pass

        Here.gateway, Here.key = gateway, gateway.key(None)
        chosen = settings(settings.default, deadline=None, stateful_step_count=30)
        files = len(os.listdir("/proc/self/fd"))
        run_state_machine_as_test(Here, settings=chosen)
        assert len(os.listdir("/proc/self/fd")) <= files + 8  # the store's own

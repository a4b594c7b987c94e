"""The bytes of request bodies that a process holds before their requests are admitted, on both home edges."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kimi_gateway.edge import body
from kimi_gateway.edge.home.bodies import SMALL
from support.attaching import PATHS, user
from support.attaching import body as asked
from support.error_shape import anthropic_error, openai_error
from support.live import LiveGateway
from support.wire import OverAsgi, connect, head, rest_of, statuses
from upstream import ScriptedUpstream
from upstream.steps import Silence

MOST = 600_000
MORE = MOST // 2  # of two bodies, both fit; with a byte more they do not


@pytest.fixture(params=[LiveGateway, OverAsgi], ids=["home", "ASGI"], scope="module")
def gateway(
    request: pytest.FixtureRequest,
    module_upstream: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with request.param(folder, module_upstream.url, body_memory=MOST, batches=("*",)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def nothing_is_held_afterwards(gateway: LiveGateway) -> Iterator[None]:
    yield
    gateway.until(lambda: gateway.app.bodies.held == 0)
    assert gateway.app.bodies._of == {}
    gateway.until(lambda: gateway.app.bodies.running == 0)
    assert gateway.app.bodies._running == {}


def begun(gateway: LiveGateway, key: str, path: str, size: int, sent: int, *lines: str) -> socket.socket:
    """A request whose body of `size` bytes has begun."""
    client = connect(gateway)
    lines = ("host: x", f"authorization: Bearer {key}", f"content-length: {size}", *lines)
    client.sendall(head(path, *lines) + b" " * sent)
    return client


def holds(gateway: LiveGateway, size: int) -> None:
    gateway.until(lambda: gateway.app.bodies.held == size)


def error_of(form: str, client: socket.socket) -> dict[str, Any]:
    """The error of an answer with the status 503 that may be repeated soon."""
    answer = rest_of(client)
    assert statuses(answer) == [503]
    lines, _, told = answer.partition(b"\r\n\r\n")
    assert b"retry-after: 1" in lines.lower()
    return anthropic_error(json.loads(told)) if form == "messages" else openai_error(json.loads(told))


def chat(form: str, size: int) -> bytes:
    """A request of `size` bytes."""
    raw = json.dumps(asked(form, user(form))).encode()
    return raw + b" " * (size - len(raw))


@pytest.mark.parametrize("form", PATHS)
def test_the_account_that_holds_most_loses_a_body_and_the_others_go_on(
    gateway: LiveGateway, form: str
) -> None:
    path, greedy, other = PATHS[form], gateway.key(1), gateway.key(1)
    raw = chat(form, MORE)
    with ExitStack() as held:
        first = held.enter_context(begun(gateway, greedy, path, MOST, MORE - SMALL))
        second = held.enter_context(begun(gateway, greedy, path, MOST, SMALL + 1))
        holds(gateway, MORE + 1)
        third = held.enter_context(begun(gateway, other, path, len(raw), 0, "connection: close"))
        third.sendall(raw)
        assert statuses(rest_of(third)) == [200]
        assert "too many large requests" in error_of(form, first)["message"]
        holds(gateway, SMALL + 1)
        second.sendall(b" ")
        holds(gateway, SMALL + 2)
    assert (gateway.account(greedy).credits, gateway.account(greedy).reserved) == (1, 0)


@pytest.mark.parametrize("form", PATHS)
def test_who_goes_beyond_the_bound_alone_among_equals_is_refused(gateway: LiveGateway, form: str) -> None:
    path, key = PATHS[form], gateway.key(1)
    with begun(gateway, key, path, MOST, MORE) as first:
        holds(gateway, MORE)
        with begun(gateway, key, path, MOST, MORE + 1) as second:
            error_of(form, second)
        holds(gateway, MORE)
        first.sendall(b" " * SMALL)
        holds(gateway, MORE + SMALL)


FRAMINGS = {
    "length": (f"content-length: {30 * 2**20}",),
    "chunks": ("transfer-encoding: chunked",),
    "gzip": ("content-length: 9000", "content-encoding: gzip"),
}


@pytest.mark.parametrize("repeated", [(), ("idempotency-key: once",)], ids=["plain", "idempotent"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("form", PATHS)
def test_a_key_without_credits_is_refused_before_its_first_large_body_is_read(
    gateway: LiveGateway, form: str, framing: str, repeated: tuple[str, ...]
) -> None:
    are_refused_unread(gateway, PATHS[form], "no credits left", *FRAMINGS[framing], *repeated)


FILES = {
    "/v1/files": "no credits left",
    "/anthropic/v1/files": "no credits left",
    "/v1/batches": "unlimited accounts only",
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("path", FILES)
def test_neither_a_file_nor_a_batch_of_a_key_without_credits_is_read(
    gateway: LiveGateway, path: str, framing: str
) -> None:
    typed = "content-type: multipart/form-data; boundary=xx"
    are_refused_unread(gateway, path, FILES[path], *FRAMINGS[framing], typed)


def are_refused_unread(gateway: LiveGateway, path: str, words: str, *lines: str) -> None:
    """Several at once, of an account without credits that is new to this process. Their bodies never come."""
    lines = "host: x", f"authorization: Bearer {gateway.key(0)}", *lines
    with ExitStack() as held:
        clients = [held.enter_context(connect(gateway)) for _ in range(4)]
        for client in clients:
            client.sendall(head(path, *lines))
        for client in clients:
            answer = b""
            while words.encode() not in answer:  # the connection may stay open for the rest of the body
                assert (data := client.recv(65536)), answer
                answer += data
            assert statuses(answer) == [403]


def test_a_declared_length_takes_no_room_and_small_bodies_always_have_some(gateway: LiveGateway) -> None:
    path, key = PATHS["chat"], gateway.key()
    with ExitStack() as held:
        for _ in range(5):
            held.enter_context(begun(gateway, key, path, 40 * 2**20, 1_000))
        holds(gateway, 5_000)
        held.enter_context(begun(gateway, key, path, 40 * 2**20, MOST - 5_000))
        holds(gateway, MOST)
        raw = chat("chat", SMALL)
        with gateway.client(gateway.key()) as client:
            assert client.post(path, content=raw).status_code == 200


def test_one_request_alone_may_be_as_large_as_the_limit_of_bodies(gateway: LiveGateway) -> None:
    raw = chat("chat", 2 * MOST)
    with gateway.client(gateway.key()) as client:
        assert client.post(PATHS["chat"], content=raw).status_code == 200
        packed = {"content-encoding": "gzip"}
        assert client.post(PATHS["chat"], content=gzip.compress(raw), headers=packed).status_code == 200


def test_what_a_compressed_body_becomes_is_counted(gateway: LiveGateway) -> None:
    with begun(gateway, gateway.key(), PATHS["chat"], MOST, SMALL):
        holds(gateway, SMALL)
        packed = gzip.compress(chat("chat", MOST))
        lines = ("host: x", f"authorization: Bearer {gateway.key()}", f"content-length: {len(packed)}")
        whole = head(PATHS["chat"], *lines, "content-encoding: gzip", "connection: close") + packed
        for sent in (len(whole), len(whole) - 1):  # the body is here with its head, or behind it
            with connect(gateway) as client:
                client.sendall(whole[:sent])
                if sent < len(whole):
                    gateway.until(lambda: gateway.app.bodies.held > SMALL)
                    client.sendall(whole[sent:])
                error_of("chat", client)
            holds(gateway, SMALL)


@pytest.mark.parametrize("form", PATHS)
def test_an_account_has_large_requests_running_in_half_of_what_the_others_leave(
    gateway: LiveGateway, upstream: ScriptedUpstream, form: str
) -> None:
    """The upstream takes its time, and the client is not charged for a request that has no room."""
    upstream.always(Silence())
    path, greedy, others, running = PATHS[form], gateway.key(9), [gateway.key(9), gateway.key(9)], 0
    raw = chat(form, MORE // 2)
    with ExitStack() as held:
        for key, fits in (
            (greedy, True),
            (greedy, True),
            (greedy, False),
            (others[0], True),
            (others[0], False),
        ):
            client = held.enter_context(begun(gateway, key, path, len(raw), 0, "connection: close"))
            client.sendall(raw)
            if fits:
                running += len(raw)
                gateway.until(lambda size=running: gateway.app.bodies.running == size)  # type: ignore[misc]
            else:
                assert "too many large requests running" in error_of(form, client)["message"]
        client = held.enter_context(begun(gateway, others[1], path, MORE, 0))
        client.sendall(chat(form, MORE))  # more than half, but the only one of its account
        gateway.until(lambda: gateway.app.bodies.running == running + MORE)
        upstream.until(lambda: len(upstream.chats) == 4)
    gateway.nothing_left(greedy, *others)
    assert [gateway.account(key).consumed for key in (greedy, *others)] == [0, 0, 0]
    upstream.forget()


def test_an_admitted_request_counts_as_running_only(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.plan(Silence())
    raw = chat("chat", MORE)
    with begun(gateway, gateway.key(), PATHS["chat"], len(raw), 0) as client:
        client.sendall(raw)
        upstream.until(lambda: upstream.chats)
        holds(gateway, 0)
        assert gateway.app.bodies.running == MORE


def ends(gateway: LiveGateway, how: str, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Begin a body and end it in one of many ways; returns the status."""
    path, key, size = PATHS["messages"], gateway.key(), MORE
    if how == "wrong JSON":
        with begun(gateway, key, path, size, size, "connection: close") as client:
            return statuses(rest_of(client))[0]
    if how == "too slow":
        monkeypatch.setattr(body, "FIRST_BYTE", 0.1)
        monkeypatch.setattr(body, "WINDOW", 0.1)
    if how == "counted":
        raw = chat("messages", size)
        with begun(gateway, key, f"{path}/count_tokens", size, 0, "connection: close") as client:
            client.sendall(raw)
            return statuses(rest_of(client))[0]
    with begun(gateway, key, path, size, size - 1) as client:
        if how == "too slow":
            return statuses(rest_of(client))[0]
        holds(gateway, size - 1)
    return None


@pytest.mark.parametrize(
    ("how", "status"), [("wrong JSON", 400), ("too slow", 408), ("counted", 200), ("disconnect", None)]
)
def test_every_end_gives_the_room_back(
    gateway: LiveGateway, how: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ends(gateway, how, monkeypatch) == status
    holds(gateway, 0)

"""The HTTP seam against real sockets: what each failure becomes, what is reused, and what closes when."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from kimi_gateway import __version__
from kimi_gateway.net import http
from upstream import (
    CLOSE,
    DONE,
    HANG,
    RESET,
    Cut,
    Delay,
    HeaderFlood,
    Kimi,
    Pieces,
    Raw,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Silence,
    Sse,
    Stall,
    Status,
    Step,
)

T = TypeVar("T")
SECRET = "sk-very-secret"
HEADERS = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
BODY = b'{"model":"kimi-k3","stream":true,"messages":[{"role":"user","content":"hi"}]}'
TIMES = http.Timeouts(connect=5, first_byte=5)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
LENGTH = HEAD + b"content-length: 10\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


def run(scenario: Callable[[http.Client], Awaitable[T]], connections: int = 100) -> T:
    async def main() -> T:
        client = http.HttpxClient(connections)
        try:
            return await scenario(client)
        finally:
            await client.close()

    return asyncio.run(main())


async def ask(client: http.Client, up: ScriptedUpstream, times: http.Timeouts = TIMES) -> list[bytes]:
    async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, times) as answer:
        return [chunk async for chunk in answer.chunks()]


def failure(up: ScriptedUpstream, step: Step, times: http.Timeouts = TIMES) -> http.NetError:
    up.always(step)
    with pytest.raises(http.NetError) as caught:
        run(lambda client: ask(client, up, times))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


def refuse(url: str, times: http.Timeouts = TIMES, headers: dict[str, str] = HEADERS) -> http.NetError:
    async def scenario(client: http.Client) -> None:
        async with client.send("POST", url, headers, BODY, times):
            pass

    with pytest.raises(http.NetError) as caught:
        run(scenario)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_a_refused_connection_is_a_failed_connect() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = refuse(f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert type(error) is http.ConnectFailed


def test_a_connection_that_is_not_taken_is_a_failed_connect() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        error = refuse(f"http://127.0.0.1:{full.getsockname()[1]}/v1", http.Timeouts(0.2, 0.1))
    assert type(error) is http.ConnectFailed


def test_a_tls_failure_is_a_failed_connect(up: ScriptedUpstream) -> None:
    assert type(refuse(up.url.replace("http:", "https:"))) is http.ConnectFailed
    assert up.requests == []


@pytest.mark.parametrize("url", ["http://a:b:c/", "ftp://127.0.0.1/", "/v1", f"http://{'a' * 64}.test/"])
def test_an_address_that_leads_nowhere_is_a_failed_connect(url: str) -> None:
    assert type(refuse(url)) is http.ConnectFailed


def test_no_free_connection_is_a_failed_connect(up: ScriptedUpstream) -> None:
    up.always(Stall(1))

    async def scenario(client: http.Client) -> None:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES):
            await ask(client, up, http.Timeouts(connect=0.05, first_byte=5))

    with pytest.raises(http.ConnectFailed):
        run(scenario, connections=1)
    assert len(up.requests) == 1


@pytest.mark.parametrize("value", [f"{SECRET}\r\nx: y", f"{SECRET}\0", f"{SECRET}\N{SNOWMAN}"])
def test_a_header_that_cannot_be_sent_is_not_shown(up: ScriptedUpstream, value: str) -> None:
    assert type(refuse(up.url, headers={"authorization": value})) is http.ConnectFailed
    assert up.requests == []


LOST: dict[str, Step] = {
    "reset before the head": ResetBeforeHeaders(),
    "closed before the head": Raw(),
    "closed in the head": Raw(HEAD),
    "a head without end": HeaderFlood(),
    "no HTTP at all": Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a header without a colon": Raw(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"),
    "two lengths": Raw(LENGTH[:-2] + b"content-length: 11\r\n\r\n0123456789"),
    "shorter than its length": Raw(LENGTH + b"012"),
    "reset in the body": Cut(10, end=RESET),
    "cut between chunks": Cut(10, end=CLOSE),
    "a chunk without a size": Raw(CHUNKED + b"xyz\r\n"),
    "broken gzip": Status(200, b"no gzip", {"content-encoding": "gzip"}),
    "an encoding nobody asked for": Status(200, b"??", {"content-encoding": "br"}),
}


@pytest.mark.parametrize("step", LOST.values(), ids=LOST)
def test_an_answer_that_breaks_or_cannot_be_read_is_a_lost_connection(
    up: ScriptedUpstream, step: Step
) -> None:
    assert type(failure(up, step)) is http.ConnectionLost
    assert len(up.requests) == 1


def test_silence_is_a_timeout_and_closes_the_connection(up: ScriptedUpstream) -> None:
    error = failure(up, Silence(), http.Timeouts(connect=5, first_byte=0.1))
    assert type(error) is http.TimedOut
    assert up.requests[0].closed_early.wait(5)


def test_interim_answers_do_not_prolong_the_wait(up: ScriptedUpstream) -> None:
    interim: list[bytes | float] = [b"HTTP/1.1 102 Processing\r\n\r\n", 0.03]
    error = failure(up, Raw(*interim * 1000), http.Timeouts(connect=5, first_byte=0.2))
    assert type(error) is http.TimedOut


def test_a_body_may_be_silent_for_longer_than_the_first_byte(up: ScriptedUpstream) -> None:
    up.plan(Sse([{"n": 1}, {"n": 2}], gap=0.4))
    chunks = run(lambda client: ask(client, up, http.Timeouts(connect=0.2, first_byte=0.2)))
    assert chunks == [b'data: {"n":1}\n\n', b'data: {"n":2}\n\n', DONE]


def test_chunks_are_given_as_they_arrive(up: ScriptedUpstream) -> None:
    """The server says no more until it is left, so a chunk held back would never come."""
    frames = [b"data: %d\n\n" % n for n in range(5)]
    up.plan(Stall(5, Sse(frames, gap=0.05)))

    async def scenario(client: http.Client) -> list[bytes]:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
            chunks = answer.chunks()
            return [await anext(chunks) for _ in frames]

    assert run(scenario) == frames
    assert up.requests[0].closed_early.wait(5)


def test_leaving_early_closes_the_connection_at_once(up: ScriptedUpstream) -> None:
    up.always(Stall(2))

    async def scenario(client: http.Client) -> None:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
            async for _ in answer.chunks():
                break
        assert await asyncio.to_thread(up.requests[0].closed_early.wait, 5)

    run(scenario)
    assert up.open_connections == 0


def test_leaving_without_reading_closes_the_connection(up: ScriptedUpstream) -> None:
    up.always(Stall(0))

    async def scenario(client: http.Client) -> None:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES):
            pass
        assert await asyncio.to_thread(up.requests[0].closed_early.wait, 5)

    run(scenario)


@pytest.mark.parametrize("step", [Silence(), Stall(1)], ids=["before the head", "in the body"])
def test_cancelling_closes_the_connection_at_once(up: ScriptedUpstream, step: Step) -> None:
    up.always(step)

    async def scenario(client: http.Client) -> None:
        task = asyncio.create_task(ask(client, up))
        await asyncio.to_thread(up.until, lambda: up.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(up.requests[0].closed_early.wait, 5)

    run(scenario)


def test_leaving_while_another_task_reads_ends_that_reader(up: ScriptedUpstream) -> None:
    up.always(Stall(1))

    async def scenario(client: http.Client) -> None:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
            chunks = answer.chunks()
            await anext(chunks)
            reader = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0.01)
        with pytest.raises(http.ConnectionLost):
            await reader

    run(scenario)


def test_an_answer_read_to_its_end_leaves_its_connection_to_the_next(up: ScriptedUpstream) -> None:
    async def scenario(client: http.Client) -> None:
        for _ in range(5):
            assert (await ask(client, up))[-1] == DONE

    run(scenario)
    assert (len(up.requests), up.accepted) == (5, 1)


def test_a_connection_closed_while_idle_is_replaced_unseen(up: ScriptedUpstream) -> None:
    async def scenario(client: http.Client) -> None:
        await ask(client, up)
        await asyncio.to_thread(up.close_idle)
        await ask(client, up)

    run(scenario)
    assert (len(up.requests), up.accepted) == (2, 2)


def test_a_reused_connection_closed_under_a_request_is_lost_and_nothing_is_sent_twice(
    up: ScriptedUpstream,
) -> None:
    up.plan(Kimi(), Raw())

    async def scenario(client: http.Client) -> None:
        await ask(client, up)
        with pytest.raises(http.ConnectionLost):
            await ask(client, up)

    run(scenario)
    assert (len(up.requests), up.accepted) == (2, 1)


def test_many_requests_at_once_have_a_connection_each(up: ScriptedUpstream) -> None:
    up.always(Delay(0.2))

    async def scenario(client: http.Client) -> None:
        await asyncio.gather(*(ask(client, up) for _ in range(20)))

    run(scenario)
    assert up.accepted == 20


BODIES: dict[str, tuple[Step, bytes]] = {
    "after interim answers": (
        Raw(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            + LENGTH
            + b"0123456789"
        ),
        b"0123456789",
    ),
    "in chunks with trailers": (
        Raw(CHUNKED + b"5;ext=1\r\n01234\r\n5\r\n56789\r\n0\r\nx-sum: 9\r\n\r\n"),
        b"0123456789",
    ),
    "until the connection closes": (Raw(HEAD + b"\r\n", b"01234", 0.02, b"56789"), b"0123456789"),
    "cut into single bytes": (Raw(*[bytes([byte]) for byte in LENGTH + b"0123456789"]), b"0123456789"),
    "in gzip though not asked for": (
        Pieces(3, Status(200, gzip.compress(b"0123456789"), {"content-encoding": "gzip"})),
        b"0123456789",
    ),
    "empty": (Status(204), b""),
}


@pytest.mark.parametrize(("step", "body"), BODIES.values(), ids=BODIES)
def test_a_body_is_read_however_it_is_framed(up: ScriptedUpstream, step: Step, body: bytes) -> None:
    up.plan(step)
    assert b"".join(run(lambda client: ask(client, up))) == body


def test_read_stops_at_its_limit(up: ScriptedUpstream) -> None:
    up.plan(Raw(HEAD + b"\r\n", b"x" * 1000, HANG))

    async def scenario(client: http.Client) -> bytes:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
            return await answer.read(100)

    assert run(scenario) == b"x" * 100


def test_read_gives_what_the_chunks_left(up: ScriptedUpstream) -> None:
    up.plan(Sse([b"one", b"two", b"three"], done=False))

    async def scenario(client: http.Client) -> bytes:
        async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
            assert await anext(answer.chunks()) == b"one"
            return await answer.read(1000)

    assert run(scenario) == b"twothree"


def test_redirects_are_answers_and_cookies_are_forgotten(up: ScriptedUpstream) -> None:
    up.always(
        Status(302, b"", {"location": f"{up.url}/models", "set-cookie": "a=b; Path=/", "X-Case": "Kept"})
    )

    async def scenario(client: http.Client) -> None:
        for _ in range(2):
            async with client.send("POST", f"{up.url}/chat/completions", HEADERS, BODY, TIMES) as answer:
                assert (answer.status, answer.headers["x-case"]) == (302, "Kept")
                await answer.read(10)

    run(scenario)
    assert [request.path for request in up.requests] == ["/v1/chat/completions"] * 2
    assert not any("cookie" in request.headers for request in up.requests)


def test_a_request_says_who_sends_it_and_wants_no_compression(up: ScriptedUpstream) -> None:
    run(lambda client: ask(client, up))
    (request,) = up.requests
    assert (request.token, request.raw) == (SECRET, BODY)
    assert request.headers["user-agent"] == f"kimi-gateway/{__version__}"
    assert request.headers["accept-encoding"] == "identity"


def test_nothing_secret_is_logged(up: ScriptedUpstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run(lambda client: ask(client, up))
    assert caplog.records
    assert SECRET not in caplog.text

"""The HTTP seam against real sockets: what each failure becomes, what closes when, and what is reused."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback

import pytest

from kimi_gateway.net import http
from support.asking import BODY, CHUNKED, HEAD, HEADERS, LENGTH, SECRET, TIMES, Run, ask, post
from support.idle import pass_time, settle
from upstream import (
    CLOSE,
    DONE,
    RESET,
    Cut,
    Gated,
    HeaderFlood,
    Kimi,
    Raw,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Silence,
    Sse,
    Stall,
    Status,
    Step,
)


def failure(
    run: Run, url: str, times: http.Timeouts = TIMES, headers: dict[str, str] = HEADERS
) -> type[http.NetError]:
    async def scenario(client: http.Client) -> None:
        async with client.send("POST", url, headers, BODY, times) as answer:
            await answer.read(2**20)

    with pytest.raises(http.NetError) as caught:
        run(scenario)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return type(caught.value)


def test_a_refused_connection_is_a_failed_connect(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert failure(run, f"http://127.0.0.1:{free.getsockname()[1]}/v1") is http.ConnectFailed


def test_a_connection_that_is_not_taken_is_a_failed_connect(run: Run) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        address = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        assert failure(run, address, http.Timeouts(connect=0.2, first_byte=0.1)) is http.ConnectFailed


def test_a_tls_handshake_without_answer_is_a_failed_connect(run: Run) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"https://127.0.0.1:{mute.getsockname()[1]}/v1"
        assert failure(run, address, http.Timeouts(connect=0.2, first_byte=0.1)) is http.ConnectFailed


def test_a_tls_failure_is_a_failed_connect(run: Run, up: ScriptedUpstream) -> None:
    assert failure(run, up.url.replace("http:", "https:")) is http.ConnectFailed
    assert up.requests == []


@pytest.mark.parametrize("url", ["http://a:b:c/", "ftp://127.0.0.1/", "/v1", f"http://{'a' * 64}.test/"])
def test_an_address_that_leads_nowhere_is_a_failed_connect(run: Run, url: str) -> None:
    assert failure(run, url) is http.ConnectFailed


def test_no_free_connection_is_a_failed_connect(run: Run, up: ScriptedUpstream) -> None:
    up.always(Stall(1))

    async def scenario(client: http.Client) -> None:
        async with post(client, up):
            await ask(client, up, http.Timeouts(connect=0.05, first_byte=5))

    with pytest.raises(http.ConnectFailed):
        run(scenario, connections=1)
    assert len(up.requests) == 1


@pytest.mark.parametrize("value", [f"{SECRET}\r\nx: y", f"{SECRET}\0", f"{SECRET}\N{SNOWMAN}"])
def test_a_header_that_cannot_be_sent_is_not_shown(run: Run, up: ScriptedUpstream, value: str) -> None:
    assert failure(run, up.url, headers={"authorization": value}) is http.ConnectFailed
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
    "reset in a body without a length": Raw(HEAD + b"\r\n", b"012", RESET),
    "cut between chunks": Cut(10, end=CLOSE),
    "a chunk without a size": Raw(CHUNKED + b"xyz\r\n"),
    "broken gzip": Status(200, b"no gzip", {"content-encoding": "gzip"}),
    "an encoding nobody asked for": Status(200, b"??", {"content-encoding": "br"}),
}


@pytest.mark.parametrize("step", LOST.values(), ids=LOST)
def test_an_answer_that_breaks_or_cannot_be_read_is_a_lost_connection(
    run: Run, up: ScriptedUpstream, step: Step
) -> None:
    up.plan(step)
    assert failure(run, f"{up.url}/chat/completions") is http.ConnectionLost
    assert len(up.requests) == 1


def test_silence_is_a_timeout_and_closes_the_connection(run: Run, up: ScriptedUpstream) -> None:
    up.plan(Silence())
    assert failure(run, f"{up.url}/chat/completions", http.Timeouts(5, 0.1)) is http.TimedOut
    assert up.requests[0].closed_early.wait(5)


def test_interim_answers_do_not_prolong_the_wait(run: Run, up: ScriptedUpstream) -> None:
    interim: list[bytes | float] = [b"HTTP/1.1 102 Processing\r\n\r\n", 0.03]
    up.plan(Raw(*interim * 1000))
    assert failure(run, f"{up.url}/chat/completions", http.Timeouts(5, 0.2)) is http.TimedOut


def test_a_body_may_be_silent_for_longer_than_the_first_byte(run: Run, up: ScriptedUpstream) -> None:
    gate = Gated(Sse([{"n": 1}, {"n": 2}]))
    gate.let(1)
    up.plan(gate)

    async def scenario(client: http.Client) -> bytes:
        async with post(client, up, http.Timeouts(connect=30, first_byte=30)) as answer:
            chunks = answer.chunks()
            first = await anext(chunks)
            await pass_time(31)
            gate.let(2)
            return first + b"".join([chunk async for chunk in chunks])

    assert run(scenario) == b'data: {"n":1}\n\ndata: {"n":2}\n\n' + DONE


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_leaving_early_closes_the_connection_at_once(run: Run, up: ScriptedUpstream, reads: int) -> None:
    frames = [b"data: %d\n\n" % n for n in range(reads)]
    up.always(Stall(reads, Sse(frames)))

    async def scenario(client: http.Client) -> None:
        async with post(client, up) as answer:
            read = b""
            while read != b"".join(frames):
                read += await anext(answer.chunks())
        assert await asyncio.to_thread(up.requests[0].closed_early.wait, 5)

    run(scenario)


@pytest.mark.parametrize("step", [Silence(), Stall(1)], ids=["before the head", "in the body"])
def test_cancelling_closes_the_connection_at_once(run: Run, up: ScriptedUpstream, step: Step) -> None:
    up.always(step)

    async def scenario(client: http.Client) -> None:
        task = asyncio.create_task(ask(client, up))
        await asyncio.to_thread(up.until, lambda: up.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(up.requests[0].closed_early.wait, 5)

    run(scenario)


def test_leaving_while_another_task_reads_ends_that_reader(run: Run, up: ScriptedUpstream) -> None:
    up.always(Stall(1))

    async def scenario(client: http.Client) -> None:
        async with post(client, up) as answer:
            chunks = answer.chunks()
            await anext(chunks)
            reader = asyncio.ensure_future(anext(chunks))
            await settle()
        with pytest.raises(http.ConnectionLost):
            await reader

    run(scenario)


def test_an_answer_read_to_its_end_leaves_its_connection_to_the_next(run: Run, up: ScriptedUpstream) -> None:
    async def scenario(client: http.Client) -> None:
        for _ in range(5):
            assert b"".join(await ask(client, up)).endswith(DONE)

    run(scenario)
    assert (len(up.requests), up.accepted) == (5, 1)


def test_a_connection_closed_while_idle_is_replaced_unseen(run: Run, up: ScriptedUpstream) -> None:
    async def scenario(client: http.Client) -> None:
        await ask(client, up)
        await asyncio.to_thread(up.close_idle)
        await ask(client, up)

    run(scenario)
    assert (len(up.requests), up.accepted) == (2, 2)


@pytest.mark.parametrize(
    ("step", "raised"),
    [
        (Raw(), http.Stale),
        (ResetBeforeHeaders(), http.Stale),
        (Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), http.ConnectionLost),
        (Cut(10), http.ConnectionLost),
    ],
    ids=["closed", "reset", "no HTTP", "cut in the body"],
)
def test_only_an_unheard_end_of_a_reused_connection_is_stale_and_nothing_is_sent_twice(
    run: Run, up: ScriptedUpstream, step: Step, raised: type[http.NetError]
) -> None:
    up.plan(Kimi(), step)

    async def scenario(client: http.Client) -> None:
        await ask(client, up)
        with pytest.raises(http.ConnectionLost) as caught:
            await ask(client, up)
        assert type(caught.value) is raised

    run(scenario)
    assert (len(up.requests), up.accepted) == (2, 1)


def test_many_requests_at_once_have_a_connection_each(run: Run, up: ScriptedUpstream) -> None:
    gate = Gated()
    up.always(gate)

    async def scenario(client: http.Client) -> None:
        asking = [asyncio.create_task(ask(client, up)) for _ in range(20)]
        while len(up.requests) < len(asking):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        gate.let(1000)
        await asyncio.gather(*asking)

    run(scenario)
    assert up.accepted == 20


def test_nothing_secret_is_logged(run: Run, up: ScriptedUpstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    run(lambda client: ask(client, up))
    assert caplog.records
    assert SECRET not in caplog.text

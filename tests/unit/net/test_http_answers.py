"""The HTTP seam against real sockets: what is sent, and what is read of an answer."""

from __future__ import annotations

import gzip

import pytest

from kimi_gateway import __version__
from kimi_gateway.net import http
from support.asking import BODY, CHUNKED, HEAD, LENGTH, SECRET, Run, ask, post
from upstream import HANG, Pieces, Raw, ScriptedUpstream, Sse, Stall, Status, Step

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
def test_a_body_is_read_however_it_is_framed(run: Run, up: ScriptedUpstream, step: Step, body: bytes) -> None:
    up.plan(step)
    assert b"".join(run(lambda client: ask(client, up))) == body


def test_read_stops_at_its_limit(run: Run, up: ScriptedUpstream) -> None:
    up.plan(Raw(HEAD + b"\r\n", b"x" * 1000, HANG))

    async def scenario(client: http.Client) -> bytes:
        async with post(client, up) as answer:
            return await answer.read(100)

    assert run(scenario) == b"x" * 100


def test_read_gives_what_the_chunks_left(run: Run, up: ScriptedUpstream) -> None:
    up.plan(Sse([b"one", b"two", b"three"], gap=0.05, done=False))

    async def scenario(client: http.Client) -> bytes:
        async with post(client, up) as answer:
            first = await anext(answer.chunks())
            assert first.startswith(b"one")
            return first + await answer.read(1000)

    assert run(scenario) == b"onetwothree"


def test_an_answer_that_does_not_end_is_not_waited_for(run: Run, up: ScriptedUpstream) -> None:
    """A caller may hold a lock meanwhile, as that of the model list. Its connection serves nobody else."""
    up.always(Raw(LENGTH + b"12345", HANG))

    async def scenario(client: http.Client) -> None:
        for _ in range(2):
            async with post(client, up, http.Timeouts(5, 5, whole=0.05)) as answer:
                with pytest.raises(http.TimedOut, match="did not end within"):
                    await answer.read(1000)

    run(scenario)
    assert len(up.requests) == 2


def test_redirects_are_answers_and_cookies_are_forgotten(run: Run, up: ScriptedUpstream) -> None:
    up.always(
        Status(302, b"", {"location": f"{up.url}/models", "set-cookie": "a=b; Path=/", "X-Case": "Kept"})
    )

    async def scenario(client: http.Client) -> None:
        for _ in range(2):
            async with post(client, up) as answer:
                assert (answer.status, answer.headers["x-case"]) == (302, "Kept")
                await answer.read(10)

    run(scenario)
    assert [request.path for request in up.requests] == ["/v1/chat/completions"] * 2
    assert not any("cookie" in request.headers for request in up.requests)


@pytest.mark.parametrize("location", ["http://[", "//", "http://a b/", "ftp://x/", "\xff", ""])
def test_a_redirect_to_nowhere_is_an_answer_too(run: Run, up: ScriptedUpstream, location: str) -> None:
    up.plan(Status(301, b"moved", {"location": location}))
    assert run(lambda client: ask(client, up)) == [b"moved"]


def test_a_request_says_who_sends_it_and_wants_no_compression(run: Run, up: ScriptedUpstream) -> None:
    run(lambda client: ask(client, up))
    (request,) = up.requests
    assert (request.token, request.raw) == (SECRET, BODY)
    assert request.headers["user-agent"] == f"kimi-gateway/{__version__}"
    assert request.headers["accept-encoding"] == "identity"


def test_chunks_are_given_as_they_arrive(run: Run, up: ScriptedUpstream) -> None:
    """The server says no more until it is left, so a chunk held back would never come."""
    frames = [b"data: %d\n\n" % n for n in range(5)]
    up.plan(Stall(5, Sse(frames, gap=0.05)))

    async def scenario(client: http.Client) -> None:
        async with post(client, up) as answer:
            read = b""
            while read != b"".join(frames):
                read += await anext(answer.chunks())

    run(scenario)
    assert up.requests[0].closed_early.wait(5)

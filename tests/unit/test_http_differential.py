"""Our HTTP/1.1 client against httpx2, over the same random bytes: what is valid reads the same, what is not
is refused by both. Ours may be stricter, where a reason is given; never looser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import RawServer

from kimi_gateway.net.http import Client, HttpxClient, NetError, Timeouts
from kimi_gateway.net.http1 import Http1Client

TIMES = Timeouts(connect=10, first_byte=10)
Read = tuple[int, dict[str, str], bytes] | type[NetError]


class Duo:
    """Both clients and one server, for as many examples as a test has."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.server = RawServer([])
        self.theirs: Client = HttpxClient()
        self.ours: Client = Http1Client()
        runner.run(self.server.__aenter__())

    def read(self, pieces: Sequence[bytes], method: str = "GET") -> tuple[Read, Read]:
        self.server.connections = [[list(pieces)]]
        ours = self.runner.run(self._one(self.ours, method))
        return ours, self.runner.run(self._one(self.theirs, method))

    async def _one(self, client: Client, method: str) -> Read:
        try:
            async with client.send(method, self.server.url, {}, b"", TIMES) as answer:
                body = await answer.read(2**20)
                return answer.status, dict(answer.headers), body
        except NetError as exc:
            return type(exc)

    async def close(self) -> None:
        await self.ours.close()
        await self.theirs.close()
        await self.server.__aexit__(None, None, None)


@pytest.fixture(scope="module")
def duo() -> Iterator[Duo]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        duo = Duo(runner)
        yield duo
        runner.run(duo.close())


many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Responses

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefXYZ"
FRAMING = {"content-length", "transfer-encoding", "connection", "content-encoding", "upgrade"}
names = st.one_of(
    st.text(TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in FRAMING),
    st.sampled_from(["Content-Type", "set-cookie", "VARY", "x-request-id", "Link", "Keep-Alive"]),
)
visible = st.characters(min_codepoint=33, max_codepoint=126)
values = st.lists(st.text(visible, min_size=1, max_size=8), max_size=3).map(" \t".join)
space = st.sampled_from(["", " ", "\t", "  \t "])
fields = st.lists(
    st.tuples(names, space, values, space).map(lambda f: f"{f[0]}:{f[1]}{f[2]}{f[3]}\r\n"), max_size=6
)
reasons = st.one_of(
    st.just(""),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=12).map(
        lambda text: f" {text}"
    ),
)
extensions = st.sampled_from(["", ";a", ";a=b", ';a="b c;d"', ";a;b=1"])


@st.composite
def framed(draw: st.DrawFn, version: str) -> tuple[str, bytes]:
    """A framing header, and the body as it goes on the wire."""
    pieces = draw(st.lists(st.binary(max_size=40), max_size=4))
    kind = draw(st.sampled_from(["length", "close"] if version == "1.0" else ["length", "close", "chunked"]))
    if kind == "length":
        return f"Content-Length: {sum(map(len, pieces))}\r\n", b"".join(pieces)
    if kind == "close":
        return "", b"".join(pieces)
    body = b""
    for piece in filter(None, pieces):
        size = "0" * draw(st.integers(0, 3)) + draw(st.sampled_from(["%x", "%X"])) % len(piece)
        body += f"{size}{draw(extensions)}\r\n".encode() + piece + b"\r\n"
    trailers = "".join(draw(fields)) if draw(st.booleans()) else ""
    return "transfer-encoding: chunked\r\n", body + f"0{draw(extensions)}\r\n{trailers}\r\n".encode()


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    text = ""
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    for status in (
        draw(st.lists(st.sampled_from([100, 102, 103, 110]), max_size=2)) if version == "1.1" else []
    ):
        text += f"HTTP/1.1 {status} Wait\r\n{''.join(draw(fields))}\r\n"
    status = draw(st.one_of(st.integers(200, 599), st.sampled_from([204, 304])))
    framing, body = draw(framed(version))
    if status in (204, 304):
        framing, body = draw(st.sampled_from(["", framing])), b""
    lines = draw(fields)
    lines.insert(draw(st.integers(0, len(lines))), framing)
    head = f"HTTP/{version} {status}{draw(reasons)}\r\n{''.join(lines)}\r\n"
    return (text + head).encode("latin-1") + body


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Into reads: as one, byte by byte, or anywhere."""
    style = draw(st.sampled_from(["one", "bytes", "anywhere"]))
    if style == "one" or not data:
        return [data]
    if style == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    marks = sorted(draw(st.sets(st.integers(1, len(data)), max_size=5)))
    return [data[a:b] for a, b in zip([0, *marks], [*marks, len(data)], strict=True) if a < b]


@many
@given(st.data())
def test_a_valid_response_reads_the_same(duo: Duo, data: st.DataObject) -> None:
    ours, theirs = duo.read(data.draw(cut(data.draw(responses()))))
    assert ours == theirs
    assert isinstance(ours, tuple)


@many
@given(st.data())
def test_a_damaged_response_is_never_read_where_httpx2_refuses_it(duo: Duo, data: st.DataObject) -> None:
    whole = data.draw(responses())
    at = data.draw(st.integers(0, len(whole) - 1))
    removed = data.draw(st.integers(0, 3))
    put = data.draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"\r", b"\r\n", b"\0", b" ", b"-1", b"0"]))
    )
    ours, theirs = duo.read(data.draw(cut(whole[:at] + put + whole[at + removed :])))
    assert ours == theirs or isinstance(ours, type), (ours, theirs)

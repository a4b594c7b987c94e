"""Our HTTP/1.1 client against httpx2, over the same random bytes: what is valid reads the same, what is not
is refused by both. Ours may be stricter, for a reason that is given here; where it is looser, that too.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_gateway.net.http import Client, NetError, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.httpx_client import HttpxClient
from support.examples import examples
from support.raw_server import RawServer

TIMES = Timeouts(connect=10, first_byte=10)
Read = tuple[int, dict[str, str], bytes] | type[NetError]


class Duo:
    """Both clients and one server, for as many examples as a test has."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.server = RawServer([])
        self.ours: Client = Http1Client()
        self.theirs: Client = HttpxClient()
        runner.run(self.server.__aenter__())

    def read(self, *pieces: bytes, method: str = "GET") -> tuple[Read, Read]:
        """What our client makes of it, and what theirs."""
        self.server.connections = [[pieces]]
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


many = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefXYZ"
FRAMING = {"content-length", "transfer-encoding", "connection", "content-encoding", "upgrade"}
INTERIM = st.lists(st.sampled_from([100, 102, 103, 110]), max_size=2)

names = st.one_of(
    st.text(TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in FRAMING),
    st.sampled_from(["Content-Type", "set-cookie", "VARY", "x-request-id", "Link", "Keep-Alive"]),
)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
values = st.lists(words, max_size=3).map(" \t".join)
space = st.sampled_from(["", " ", "\t", "  \t "])
field = st.builds("{}:{}{}{}\r\n".format, names, space, values, space)
fields = st.lists(field, max_size=6)
reason = st.one_of(st.just(""), st.text("OK no~\t\xe9\xff", max_size=8).map(" {}".format))
extension = st.sampled_from(["", ";a", ";a=b", ';a="b c;d"', ";a;b=1"])


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
        body += f"{size}{draw(extension)}\r\n".encode() + piece + b"\r\n"
    trailers = "".join(draw(st.one_of(st.just([]), fields)))
    return "transfer-encoding: chunked\r\n", body + f"0{draw(extension)}\r\n{trailers}\r\n".encode()


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    text = ""
    for interim in draw(INTERIM) if version == "1.1" else []:
        text += f"HTTP/1.1 {interim} Wait\r\n{''.join(draw(fields))}\r\n"
    status = draw(st.one_of(st.integers(200, 599), st.sampled_from([204, 304])))
    framing, body = draw(framed(version))
    if status in (204, 304):
        framing, body = draw(st.sampled_from(["", framing])), b""
    lines = draw(fields)
    lines.insert(draw(st.integers(0, len(lines))), framing)
    head = f"HTTP/{version} {status}{draw(reason)}\r\n{''.join(lines)}\r\n"
    return (text + head).encode("latin-1") + body


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Into reads: one, one for each byte, or anywhere."""
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
    ours, theirs = duo.read(*data.draw(cut(data.draw(responses()))))
    assert ours == theirs
    assert isinstance(ours, tuple)


@many
@given(st.data())
def test_a_cut_response_reads_the_same(duo: Duo, data: st.DataObject) -> None:
    whole = data.draw(responses())
    ours, theirs = duo.read(*data.draw(cut(whole[: data.draw(st.integers(0, len(whole)))])))
    assert ours == theirs


@many
@given(st.data())
def test_a_damaged_response_is_read_only_where_httpx2_reads_the_same(duo: Duo, data: st.DataObject) -> None:
    whole = data.draw(responses())
    at, removed = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 3))
    put = data.draw(st.one_of(st.text("aA0-:; \t", max_size=3), st.sampled_from(["\n", "\r", "\r\n", "\0"])))
    damaged = whole[:at] + put.encode() + whole[at + removed :]
    ours, theirs = duo.read(*data.draw(cut(damaged)))
    if isinstance(ours, tuple) and ours != theirs:
        assert duo.read(without_what_is_let_pass(damaged)) == (ours, ours)


def without_what_is_let_pass(data: bytes) -> bytes:
    """The entries of LOOSER that damage can bring about."""
    data = re.sub(rb"(?<=\n\r\n)[\r\n]+(?=HTTP/)", b"", data)
    return re.sub(rb"HTTP/1\.[01] \d{3} [^\r\n]*", lambda line: line[0].replace(b"\0", b""), data)


OK = b"HTTP/1.1 200 OK\r\n"
REST = b"content-length: 2\r\n\r\nhi"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
END = b"\r\nhi\r\n0\r\n\r\n"
GZIP = OK + b"content-encoding: gzip\r\n\r\n"

REFUSED = {
    "nothing": b"",
    "another protocol": b"RTSP/1.0 200 OK\r\n" + REST,
    "line ends before the status": b"\r\n" + OK + REST,
    "a status of two digits": b"HTTP/1.1 20 OK\r\n" + REST,
    "a status below 100": b"HTTP/1.1 099 OK\r\n" + REST,
    "an interim answer with a body": b"HTTP/1.1 110 Hint\r\n" + REST + OK + REST,
    "an upgrade": b"HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhi",
    "no colon": OK + b"x\r\n" + REST,
    "no name": OK + b": x\r\n" + REST,
    "a space before the colon": OK + b"content-length : 2\r\n\r\nhi",
    "a NUL in a value": OK + b"x: \0\r\n" + REST,
    "a CR in a value": OK + b"x: a\rb\r\n" + REST,
    "two different lengths": OK + b"content-length: 3\r\n" + REST,
    "an empty length": OK + b"content-length:\r\n\r\nhi",
    "a negative length": OK + b"content-length: -2\r\n\r\nhi",
    "a length with a sign": OK + b"content-length: +2\r\n\r\nhi",
    "a length beyond the body": OK + b"content-length: 3\r\n\r\nhi",
    "an unknown framing": OK + b"transfer-encoding: gzip, chunked\r\n\r\n2" + END,
    "chunked twice": OK + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n2" + END,
    "a size that is no number": CHUNKED + b"g" + END,
    "a negative size": CHUNKED + b"-2" + END,
    "a size with a prefix": CHUNKED + b"0x2" + END,
    "a size beyond 64 bits": CHUNKED + b"f" * 17 + END,
    "a size beyond the chunk": CHUNKED + b"3" + END,
    "a chunk beyond its size": CHUNKED + b"1" + END,
    "LF after a size": CHUNKED + b"2" + END.replace(b"\r\n", b"\n", 1),
    "no last chunk": CHUNKED + b"2\r\nhi\r\n",
    "no end after the last chunk": CHUNKED + b"2\r\nhi\r\n0\r\n",
    "a trailer without a colon": CHUNKED + b"2\r\nhi\r\n0\r\nx\r\n\r\n",
}

STRICTER = {
    "a length and chunks: the two ends that request smuggling needs": OK
    + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2"
    + END,
    "a length twice, as one header": OK + b"content-length: 2, 2\r\n\r\nhi",
    "a length twice, as two headers": OK + b"content-length: 2\r\n" + REST,
    "LF alone as line end: a recipient may, and should not need to, take it": (OK + REST).replace(b"\r", b""),
    "a folded header: obsolete": OK + b"x: a\r\n b\r\n" + REST,
    "a control character in a value": OK + b"x: \x11\r\n" + REST,
    "a space after a chunk's size": CHUNKED + b"2 " + END,
    "an extension without a name": CHUNKED + b"2;" + END,
    "an extension with spaces": CHUNKED + b"2;a = b" + END,
    "an interim answer that closes": b"HTTP/1.1 103 Hint\r\nconnection: close\r\n\r\n" + OK + REST,
    "an interim answer with a length": b"HTTP/1.1 110 Hint\r\n" + REST[:-2] + OK + REST,
    "a version nobody speaks": b"HTTP/1.2 200 OK\r\n" + REST,
    "a version that is spoken otherwise": b"HTTP/2.0 200 OK\r\n" + REST,
    "a head above 64 KiB": OK + b"x: %b\r\n" % (b"x" * 2**16) + REST,
    "more than 256 headers": OK + b"x: y\r\n" * 256 + REST,
    "gzip cut short": GZIP + gzip.compress(b"hi")[:-1],
    "bytes after gzip's end": GZIP + gzip.compress(b"hi") + b"x",
    "two codings": GZIP.replace(b"gzip", b"gzip, gzip") + gzip.compress(gzip.compress(b"hi")),
}

LOOSER = {
    "a NUL in the reason phrase, which is not looked at": b"HTTP/1.1 200 O\0K\r\n" + REST,
    "line ends between an interim answer and the next": b"HTTP/1.1 103 Hint\r\n\r\n\r\n\n" + OK + REST,
    "a chunk's size with more than 20 digits, most of them 0": CHUNKED + b"0" * 25 + b"2" + END,
}


@pytest.mark.parametrize("response", REFUSED.values(), ids=REFUSED)
def test_both_refuse(duo: Duo, response: bytes) -> None:
    ours, theirs = duo.read(response)
    assert not isinstance(ours, tuple)
    assert ours == theirs


@pytest.mark.parametrize("response", STRICTER.values(), ids=STRICTER)
def test_only_ours_refuses(duo: Duo, response: bytes) -> None:
    ours, theirs = duo.read(response)
    assert (isinstance(ours, tuple), isinstance(theirs, tuple)) == (False, True)


@pytest.mark.parametrize("response", LOOSER.values(), ids=LOOSER)
def test_only_theirs_refuses(duo: Duo, response: bytes) -> None:
    ours, theirs = duo.read(response)
    assert isinstance(ours, tuple)
    assert (ours[0], ours[2], isinstance(theirs, tuple)) == (200, b"hi", False)


def test_header_bytes_beyond_ascii_stay_bytes_where_theirs_guesses_at_utf_8(duo: Duo) -> None:
    ours, theirs = duo.read(OK + "x: 你\r\n".encode() + REST)
    assert isinstance(ours, tuple)
    assert isinstance(theirs, tuple)
    assert (ours[1]["x"].encode("latin-1"), theirs[1]["x"]) == ("你".encode(), "你")


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked", b"x: y"])
def test_an_answer_to_head_has_no_body(duo: Duo, framing: bytes) -> None:
    ours, theirs = duo.read(OK + framing + b"\r\n\r\n", method="HEAD")
    assert ours == theirs
    assert isinstance(ours, tuple)


def test_every_cut_in_two_reads_the_same(duo: Duo) -> None:
    response = b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" + OK + b"A: b \r\n" + CHUNKED[len(OK) :] + b"2;x" + END
    (whole, _) = duo.read(response)
    assert isinstance(whole, tuple)
    for at in range(1, len(response)):
        assert duo.read(response[:at], response[at:]) == (whole, whole)

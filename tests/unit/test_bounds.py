"""What a client's or an upstream's data may cost: cut, refused or counted before the work is done."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from kimi_gateway.dialects.messages.request import _check_stops
from kimi_gateway.dialects.responses import references
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.flow.attempts import START_WITHIN, next_attempt
from kimi_gateway.net import jsonio
from kimi_gateway.net.http import ConnectionLost, Stale, Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.inflate import Inflater
from kimi_gateway.observe import LONGEST_TEXT, excerpt, line_of, redact
from kimi_gateway.pivot import fields, request
from kimi_gateway.pivot.chunks import Progress, Unreadable
from kimi_gateway.pivot.stop import StopFinder, _Search, _table
from kimi_gateway.pivot.usage import MOST_MEMBERS, counts
from kimi_gateway.providers.failures import UpstreamFailure
from support.raw_server import RawServer

TIMES = Timeouts(connect=30, first_byte=30)
HI = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
TOKEN = "eyJhbGciOiJI.eyJzdWIi.c2ln"


@pytest.mark.parametrize(
    "text", [TOKEN, f"x {TOKEN}", f"token_{TOKEN}", f'"{TOKEN}"', f"eyJ.{TOKEN}", f"bearer  {TOKEN}"]
)
def test_a_token_is_hidden_wherever_its_word_begins(text: str) -> None:
    assert "zdWIi" not in redact(text)


def test_a_text_is_cut_and_no_part_of_a_secret_is_left_at_the_cut() -> None:
    line = line_of({"event": "x", "detail": "eyJ" * 10**6})
    assert len(line) < LONGEST_TEXT + 100
    for longest in range(1000, 1040):
        assert "sk-" not in excerpt("a" * 1000 + " sk-0123456789abcdef0123456789 " + "b" * 10_000, longest)
    ends = " sk-" + "0" * 100
    assert "sk-0" not in excerpt("a" * (1000 + 4096 - 50) + ends, 1000 + 4096)


@pytest.mark.parametrize(("check", "where"), [(request._stop, "stop"), (_check_stops, "stop_sequences")])
def test_a_stop_string_has_a_length(check: Callable[[Any, str], None], where: str) -> None:
    check(["a" * 4096], where)
    for long in ("a" * 4097, "é" * 2049):
        with pytest.raises(InvalidRequest, match=rf"{where}\.1: .*4096 bytes"):
            check(["x", long], where)


def test_looking_for_a_stop_string_costs_as_much_as_the_text() -> None:
    class Counted(list[int]):
        read = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.read += 1
            return super().__getitem__(at)

    stop = "a" * 4095 + "b"
    search = _Search(stop, _table(stop))
    search._back = Counted(search._back)
    for _ in range(10_000):
        assert search.feed("a") < 0
    assert search.feed("b") == 1
    assert Counted.read <= 10_001
    finder = StopFinder((stop,))
    assert "".join(finder.feed("a") for _ in range(5000)) == "a" * 905
    assert finder.feed("b") == ""
    assert finder.found


async def _post(client: Http1Client, url: str) -> bytes:
    async with client.send("POST", url, {}, b"{}", TIMES) as answer:
        return await answer.read(100)


@pytest.mark.anyio
async def test_after_a_stale_post_the_idle_connections_are_dropped() -> None:
    client = Http1Client()
    async with RawServer([HI, b""], [HI, b""], [HI, RawServer.KEEP]) as server:
        async with client.send("POST", server.url, {}, b"", TIMES) as first:
            async with client.send("POST", server.url, {}, b"", TIMES) as second:
                assert await second.read(9) == await first.read(9) == b"hi"
                await anext(second.chunks(), None)
            await anext(first.chunks(), None)
        with pytest.raises(Stale):
            await _post(client, server.url)
        assert await _post(client, server.url) == b"hi"
        assert server.accepted == 3
    await client.close()


def test_a_stale_connection_is_no_attempt_and_time_bounds_them() -> None:
    failure = UpstreamFailure("broken")
    failure.stale = True
    assert next_attempt(failure, 0, 0, False, False, 0.5) is not None
    assert next_attempt(failure, 0, START_WITHIN, False, False, 0.5) is None


def test_what_grows_too_much_is_refused() -> None:
    coder = zlib.compressobj(9, wbits=31)
    inflater = Inflater("gzip")
    inflater.feed(coder.compress(bytes(10**7)) + coder.flush())
    given: list[bytes] = []
    with pytest.raises(ConnectionLost, match="grows"):
        given.extend(iter(inflater.read, b""))
    assert len(given) * 2**18 <= 2 * 2**20


def test_counts_are_clamped_where_they_are_read() -> None:
    usage: dict[str, Any] = {"prompt_tokens": -5, "completion_tokens": 10**400, "total_tokens": "7"}
    usage["cached_tokens"] = True
    usage["prompt_tokens_details"] = {"cached_tokens": 1e300, "x_tokens": 3.7, "y": float("inf")}
    assert counts(usage) == {
        "prompt_tokens": 0,
        "completion_tokens": 10**12,
        "prompt_tokens_details": {"cached_tokens": 10**12, "x_tokens": 3},
    }
    assert len(counts({f"a{n}": 1 for n in range(1000)})) == MOST_MEMBERS


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"index": 0, "delta": {}}] * 4097},
        {"choices": [{"index": 5000, "delta": {}}]},
        {"choices": [{"index": -1, "delta": {}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}] * 4097}}]},
        {"choices": [{"index": 0, "delta": {}, "x": [[]] * 250_000}]},
    ],
    ids=["choices", "index", "negative", "calls", "values"],
)
def test_an_event_beyond_all_sense_breaks_the_stream(body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        Progress().read((jsonio.dumps(body), b""))


def test_a_dense_body_is_refused_unread_and_a_large_text_is_not() -> None:
    with pytest.raises(InvalidRequest, match="250000 values"):
        fields.json_object(b'{"a":[' + b"[]," * 300_000)  # never read: it would be no JSON
    assert fields.json_object(b'{"a":"%b"}' % (b"A" * 10**7)).values["a"]


def test_what_separates_values_counts_outside_of_strings_only() -> None:
    """A prompt may be code."""
    code = 'f([1, 2], {"a": [b, c], "\\": d}),\n' * 40_000
    assert fields.json_object(jsonio.dumps({"a": code, "b": [code, "[" * 10**6]})).values["a"] == code
    for text in ('"', "\\", '\\"', "x"):
        dense = jsonio.dumps({"a": [text] * 130_000, "b": [[]] * 130_000})
        with pytest.raises(InvalidRequest, match="250000 values"):
            fields.json_object(dense)


def test_a_number_without_end_is_a_clean_refusal() -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        fields.json_object(b'{"a":' + b"1" * 10**6 + b"}")


def test_kept_answers_are_bounded_before_they_are_unpacked() -> None:
    packed = zlib.compress(jsonio.dumps([{"id": "x", "text": "a" * 500_000}]), 1)
    found = {f"items:{n:x}": packed for n in range(130)}
    with pytest.raises(
        InvalidRequest,
        match=r"input: refers to more than 4 MiB of earlier answers; send",
    ):
        references.unpack(found)
    kept, size = references.unpack({"items:1": packed})
    assert kept["items:1"][0]["id"] == "x"
    assert size > 500_000

"""The SSE codec: each behaviour of the standard, and any stream at any split point against httpx-sse."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from kimi_gateway.net import sse

CHARACTERS = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]) | st.sampled_from(
    ": \u2028\u2029\x85\x0b\x0c你👋"
)
TEXT = st.text(CHARACTERS, max_size=12)
FIELD = st.sampled_from(["data", "data", "data", "event", "id", "retry", "", "bogus", "DATA", "data "])
LINE = st.builds("{}{}{}".format, FIELD, st.sampled_from([":", ": ", ":  ", ""]), TEXT) | st.just("")
STREAM = st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r\n", "\r", "\n\n"])), max_size=12).map(
    lambda lines: "".join(line + end for line, end in lines)
)
# The shape the vendor sends, with a disturbance here and there: the fast path and its edges.
COMMON = st.lists(st.sampled_from(["data: {}\n\n", "data: [DONE]\n\n", ": ping\n\n", "\n", "data: a\n", "x"]))


def decode(*pieces: bytes) -> list[sse.Event]:
    decoder = sse.Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def drain(pieces: Iterable[bytes], limit: int) -> tuple[list[sse.Event], bool, bool]:
    """The events, whether one was too large, and whether something was pending at the end."""
    decoder = sse.Decoder(limit)
    events = []
    try:
        for piece in [*pieces, b""]:
            events += decoder.feed(piece)
    except sse.EventTooLarge:
        return events, True, decoder.pending
    return events, False, decoder.pending


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in zip(places, places[1:], strict=False)]


def oracle(text: str) -> list[tuple[bytes, bytes]]:
    lines, decoder = SSELineDecoder(), SSEDecoder()
    read = [*(lines.decode(text) if text else []), *lines.flush()]
    events = [event for line in read if (event := decoder.decode(line))]
    # httpx-sse does not tell an event without data from one with empty data.
    return [(event.data.encode(), event.event.encode()) for event in events if event.data]


@given(STREAM | COMMON.map("".join))
def test_any_stream_is_read_as_httpx_sse_reads_it(text: str) -> None:
    events = [(data, name or b"message") for data, name in decode(text.encode()) if data]
    assert events == oracle(text)


@given(STREAM | COMMON.map("".join))
def test_every_split_point_gives_what_one_read_gives(text: str) -> None:
    data = text.encode()
    whole = drain([data], 2**20)
    for at in range(len(data) + 1):
        assert drain([data[:at], data[at:]], 2**20) == whole


@given(st.binary(max_size=40) | STREAM.map(str.encode), st.lists(st.integers(0, 200), max_size=8))
def test_any_bytes_in_any_pieces_give_what_one_read_gives(data: bytes, at: list[int]) -> None:
    assert drain(cut(data, at), 2**20) == drain([data], 2**20)
    assert drain([data[i : i + 1] for i in range(len(data))], 2**20) == drain([data], 2**20)


@given(STREAM | COMMON.map("".join), st.lists(st.integers(0, 200), max_size=8), st.integers(0, 30))
@example("\n\n\ndata: ab\n\n", [3], 8)
@example("data: ab\n\n\n\ndata: ab\n\n", [11], 8)
def test_the_limit_does_not_depend_on_how_the_stream_was_cut(text: str, at: list[int], limit: int) -> None:
    data = text.encode()
    assert drain(cut(data, at), limit)[:2] == drain([data], limit)[:2]


@given(st.lists(st.tuples(TEXT, st.none() | st.sampled_from([b"error", b"ping"]))))
def test_what_is_encoded_is_decoded(events: list[tuple[str, bytes | None]]) -> None:
    stream = b"".join(sse.encode(text.encode(), name) + sse.comment(b"ping") for text, name in events)
    assert decode(stream) == [(text.encode(), name or b"") for text, name in events]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_lf_crlf_or_cr(end: bytes) -> None:
    assert decode(b"data: a" + end + end + b"data: b" + end + end) == [(b"a", b""), (b"b", b"")]


def test_a_cr_and_its_lf_in_two_reads_are_one_line_end() -> None:
    assert decode(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [(b"a\nb", b"")]


def test_an_event_that_ends_in_cr_does_not_wait_for_the_next_read() -> None:
    assert decode(b"data: a\r\n\r") == [(b"a", b"")]


def test_data_lines_are_joined_by_newlines() -> None:
    assert decode(b"data: a\ndata:\ndata: b\n\n") == [(b"a\n\nb", b"")]


def test_one_space_after_the_colon_is_dropped_and_no_more() -> None:
    assert decode(b"data:a\n\ndata:  b\n\n") == [(b"a", b""), (b" b", b"")]


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    assert decode(b"data\n\n") == [(b"", b"")]


def test_comments_are_ignored() -> None:
    assert decode(b": ping\n\ndata: a\n: in between\ndata: b\n\n:\n\n") == [(b"a\nb", b"")]


def test_id_retry_and_unknown_fields_are_ignored() -> None:
    assert decode(b"id: 7\nretry: 10\nDATA: x\ndata: a\n\n") == [(b"a", b"")]


def test_an_event_keeps_its_name_and_the_next_one_has_none() -> None:
    assert decode(b"event: error\ndata: a\n\ndata: b\n\n") == [(b"a", b"error"), (b"b", b"")]


def test_an_event_without_data_is_dropped_with_its_name() -> None:
    assert decode(b"event: error\n\ndata: a\n\n") == [(b"a", b"")]


def test_a_byte_order_mark_is_ignored_at_the_start_only() -> None:
    for at in range(4):
        stream = sse.BOM + b"data: a\n\n" + sse.BOM + b"data: b\n\n"
        assert decode(stream[:at], stream[at:]) == [(b"a", b"")]


def test_unicode_line_separators_are_not_newlines() -> None:
    text = "a\u2028b\u2029c\x85d\x0be".encode()
    assert decode(b"data: " + text + b"\n\n") == [(text, b"")]


def test_a_character_split_over_two_reads_arrives_whole() -> None:
    wave = "👋".encode()
    assert decode(b"data: " + wave[:2], wave[2:] + b"\n\n") == [(wave, b"")]


@pytest.mark.parametrize("rest", [b"data: b", b"data: b\n", b"event: x\n", b": comm"])
def test_an_unfinished_event_is_not_given_but_is_pending(rest: bytes) -> None:
    decoder = sse.Decoder()
    assert decoder.feed(b"data: a\n\n" + rest) == [(b"a", b"")]
    assert decoder.pending


def test_nothing_is_pending_between_events() -> None:
    decoder = sse.Decoder()
    assert not decoder.pending
    decoder.feed(b"data: a\r\n\r\n\r\n")
    assert not decoder.pending


def test_an_event_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    event = b"data: " + b"x" * 94
    assert sse.Decoder(100).feed(event + b"\n\n") == [(b"x" * 94, b"")]
    with pytest.raises(sse.EventTooLarge):
        sse.Decoder(100).feed(event + b"x\n\n")


def test_events_before_one_that_is_too_large_are_still_given() -> None:
    decoder = sse.Decoder(20)
    assert decoder.feed(b"data: a\n\ndata: b\n\n" + b"x" * 21) == [(b"a", b""), (b"b", b"")]
    assert decoder.pending
    for _ in range(2):
        with pytest.raises(sse.EventTooLarge):
            decoder.feed(b"\n\ndata: c\n\n")


def refused_after(piece: bytes, limit: int) -> int:
    """How many bytes a decoder takes of an endless repetition."""
    decoder = sse.Decoder(limit)
    for fed in range(0, 100 * limit, len(piece)):
        try:
            decoder.feed(piece)
        except sse.EventTooLarge:
            return fed
    raise AssertionError("memory without bound")


def test_a_line_without_end_is_refused_as_soon_as_it_passes_the_limit() -> None:
    assert refused_after(b"x" * 1000, 2**16) <= 2**16


def test_many_short_lines_without_a_blank_one_are_bounded_too() -> None:
    assert refused_after(b"data: abc\n", 2**16) <= 2**16 + 1


def test_a_large_event_in_tiny_pieces_is_not_copied_again_for_each() -> None:
    """Copying the prefix each time would move some 500 GB here and never end."""
    event = b"data: " + b"x" * (8 * 2**20 - 6) + b"\n\n"
    events = decode(*(event[at : at + 64] for at in range(0, len(event), 64)))
    assert [len(data) for data, _ in events] == [8 * 2**20 - 6]


def test_newlines_in_encoded_data_become_data_lines() -> None:
    assert sse.encode(b"a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"


def test_a_name_becomes_an_event_line() -> None:
    assert sse.encode(b"{}", b"ping") == b"event: ping\ndata: {}\n\n"


def test_a_comment_cannot_smuggle_an_event() -> None:
    assert decode(sse.comment(b"a\n\ndata: b"), sse.comment(), sse.DONE) == [(b"[DONE]", b"")]

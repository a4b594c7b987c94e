"""Any pivot stream gives a valid sequence of Anthropic's events, and they fold to the JSON answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.messages import ids
from kimi_gateway.dialects.messages.answer import HIDDEN, PING, StreamWriter
from kimi_gateway.dialects.messages.content import SIGNATURE
from kimi_gateway.errors import Unavailable
from kimi_gateway.pivot.call_ids import marked, vendors
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.stop import StopFilter
from support import sdks
from support.messages_stream import (
    CUTS,
    IDENTITY,
    USAGE,
    Told,
    answered,
    asked,
    chunks_of,
    events_of,
    folded,
    streamed,
    tellings,
)

Json = dict[str, Any]
PLAIN = asked()


def blocks(message: Json, kind: str) -> list[Json]:
    return [block for block in message["content"] if block["type"] == kind]


@pytest.fixture(scope="module")
def accumulated() -> Iterator[Callable[[bytes], Json]]:
    """A stream put together by the official SDK."""
    answer = [b""]

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=answer[0])

    with (
        httpx2.Client(transport=httpx2.MockTransport(reply), trust_env=False) as http,
        sdks.anthropic.Anthropic(api_key="k", base_url="http://gateway.test", http_client=http) as client,
    ):

        def accumulate(stream: bytes) -> Json:
            answer[0] = stream
            with client.messages.stream(model="m", max_tokens=9, messages=[]) as events:
                message: Json = events.get_final_message().to_dict(mode="json")
                return message

        yield accumulate


@pytest.mark.fuzz
@given(told=tellings(), cuts=CUTS)
def test_any_stream_is_grammatical_and_folds_to_the_json_answer(told: Told, cuts: list[int]) -> None:
    stream = streamed(chunks_of(told.body, cuts), PLAIN)
    result = folded(stream)
    assert result.ended
    assert result.message == answered(chunks_of(told.body, []), PLAIN)


@pytest.mark.fuzz
@given(told=tellings(), cuts=CUTS)
def test_nothing_of_what_was_told_is_lost_or_told_twice(told: Told, cuts: list[int]) -> None:
    message = answered(chunks_of(told.body, cuts), PLAIN)
    assert "".join(block["text"] for block in blocks(message, "text")) == told.text("content")
    thinking = "".join(block["thinking"] for block in blocks(message, "thinking"))
    assert thinking == told.text("reasoning_content")
    calls = blocks(message, "tool_use")
    assert [(call["name"], call["input"]) for call in calls] == [call[1:] for call in told.calls]
    for call, (id, _, _) in zip(calls, told.calls, strict=True):
        made = vendors(ids.upstream(call["id"]))
        assert made == id if id else made.startswith(("toolu_", "call_"))
    assert len({call["id"] for call in calls}) == len(calls)


@pytest.mark.fuzz
@given(told=tellings(), cuts=CUTS)
def test_the_sdk_accumulates_the_stream_to_the_json_answer(
    accumulated: Callable[[bytes], Json], told: Told, cuts: list[int]
) -> None:
    summed = accumulated(streamed(chunks_of(told.body, cuts), PLAIN))
    assert summed.pop("stop_details") is None  # a member of the SDK's own
    assert summed == answered(chunks_of(told.body, []), PLAIN)


@pytest.mark.fuzz
@given(told=tellings(), cuts=CUTS, at=st.integers(0, 40), silences=st.sets(st.integers(0, 6)))
def test_a_stream_that_breaks_anywhere_ends_with_an_error_and_looks_unfinished(
    told: Told, cuts: list[int], at: int, silences: set[int]
) -> None:
    writer = StreamWriter(IDENTITY, PLAIN, 5)
    stream = b""
    for index, batch in enumerate(chunks_of(told.body, cuts)[:at]):
        if index in silences:
            stream += writer.silence()
        stream += writer.add(batch)
    stream += writer.error(Unavailable("The upstream failed."))
    result = folded(stream)
    assert result.error == {"type": "api_error", "message": "The upstream failed."}
    assert not result.ended
    assert result.message.get("stop_reason") is None


@pytest.mark.fuzz
@given(
    told=tellings(),
    cuts=CUTS,
    thinking=st.sampled_from([{"type": "disabled"}, {"type": "adaptive", "display": "omitted"}]),
    one_call=st.booleans(),
)
def test_thinking_and_further_calls_stay_out_where_they_are_not_wanted(
    told: Told, cuts: list[int], thinking: Json, one_call: bool
) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": one_call}
    wanted = asked(thinking=thinking, tool_choice=choice)
    result = folded(streamed(chunks_of(told.body, cuts), wanted).replace(PING, b""))
    assert result.message == answered(chunks_of(told.body, []), wanted)
    assert {block["thinking"] for block in blocks(result.message, "thinking")} <= {""}
    if thinking["type"] == "disabled":
        assert not blocks(result.message, "thinking")
    assert len(blocks(result.message, "tool_use")) == (
        min(1, len(told.calls)) if one_call else len(told.calls)
    )
    assert "".join(block["text"] for block in blocks(result.message, "text")) == told.text("content")


def said(*deltas: Json, finish: str | None = "stop") -> list[list[Chunk]]:
    """Without a finish reason the answer goes on."""
    batches = chunks_of(Told(list(deltas), finish).body, [])
    return batches if finish else [[chunk for chunk in batch if not chunk.finishes] for batch in batches]


def call(index: int, text: str = "", **more: Any) -> Json:
    function = {"arguments": text, **({"name": more.pop("name")} if "name" in more else {})}
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def shape(batches: list[list[Chunk]]) -> list[str]:
    """The blocks in order, each with what is in it."""
    content = folded(streamed(batches, PLAIN)).message["content"]
    return [str(block.get("thinking") or block.get("text") or block.get("name")) for block in content]


A = call(0, '{"x":', id="a:0", name="A")
A_REST = call(0, "1}")
B = call(1, '{"y":', id="b:1", name="B")
B_REST = call(1, "2}")
ORDERS: dict[str, tuple[list[Json], list[str]]] = {
    "thinking, text, call": ([{"reasoning_content": "t"}, {"content": "w"}, A, A_REST], ["t", "w", "A"]),
    "a call before the text": ([A, A_REST, {"content": "w"}], ["A", "w"]),
    "text that comes inside a call's arguments waits": ([A, {"content": "w"}, A_REST], ["A", "w"]),
    "parallel calls one after the other": ([A, A_REST, B, B_REST], ["A", "B"]),
    "parallel calls interleaved": ([A, B, A_REST, B_REST], ["A", "B"]),
    "the later call whole before the first": ([A, B, B_REST, A_REST], ["A", "B"]),
    "nothing but thinking": ([{"reasoning_content": "t"}], ["t"]),
    "thinking again after the text": (
        [{"reasoning_content": "t"}, {"content": "w"}, {"reasoning_content": "u"}],
        ["t", "w", "u"],
    ),
    "empty deltas make no block": ([{"content": ""}, {}, {"reasoning_content": ""}, {"content": None}], []),
    "a refusal is text": ([{"refusal": "No."}], ["No."]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_blocks_stand_in_the_order_that_clients_understand(name: str) -> None:
    deltas, expected = ORDERS[name]
    assert shape(said(*deltas)) == expected


def test_a_call_is_shown_as_it_comes_and_the_next_as_soon_as_the_first_is_whole() -> None:
    writer = StreamWriter(IDENTITY, PLAIN, 1)
    first, second, third = (chunk for batch in said(A, B, A_REST, finish=None) for chunk in batch)
    opened = events_of(writer.add([first]))
    assert [event["type"] for event in opened[1:]] == ["content_block_start", "content_block_delta"]
    assert writer.add([second]) == b""
    rest = events_of(writer.add([third]))
    assert [event["type"] for event in rest] == [
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]


def test_an_id_that_clients_refuse_is_written_in_their_letters_and_one_that_is_missing_is_made() -> None:
    content = answered(said(A, A_REST, call(1, "{}", name="B")), PLAIN)["content"]
    assert [block["id"] for block in content] == [
        ids.shown(marked("a:0", bytes)),
        marked("call_1", lambda size: (1).to_bytes(size, "big")),
    ]


REASONS: dict[str, tuple[list[list[Chunk]], str]] = {
    "stop": (said({"content": "w"}), "end_turn"),
    "length": (said({"content": "w"}, finish="length"), "max_tokens"),
    "tool_calls": (said(A, A_REST, finish="tool_calls"), "tool_use"),
    "stop, though a tool was called": (said(A, A_REST), "tool_use"),
    "length inside a call": (said(A, finish="length"), "max_tokens"),
    "tool_calls without any": (said({"content": "w"}, finish="tool_calls"), "end_turn"),
    "content_filter": (said({"content": "w"}, finish="content_filter"), "refusal"),
    "one that nobody knows": (said({"content": "w"}, finish="odd"), "end_turn"),
    "none before [DONE]": (said({"content": "w"}, finish=None), "end_turn"),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_finish_reason_becomes_a_stop_reason(name: str) -> None:
    batches, reason = REASONS[name]
    assert answered(batches, PLAIN)["stop_reason"] == reason


def test_a_stop_sequence_is_named_and_its_text_not_shown() -> None:
    wanted, stops = asked(stop_sequences=["END", "FIN"]), StopFilter(("END", "FIN"))
    filtered = [
        [kept for chunk in batch if (kept := stops.apply(chunk)) is not None]
        for batch in said({"content": "so FI"}, {"content": "N more"})
    ]
    answer = answered(filtered, wanted)
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "FIN")
    assert answer["content"] == [{"type": "text", "text": "so "}]


def test_a_stop_reason_of_the_upstreams_own_is_not_taken_for_a_stop_sequence() -> None:
    choice = {"index": 0, "delta": {"content": "w"}, "finish_reason": "stop", "stop_reason": "<|end|>"}
    answer = answered([[Chunk({"choices": [choice]}, True, True)]], asked(stop_sequences=["END"]))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)


USAGES: dict[str, tuple[Json, Json]] = {
    "cached at the top": (USAGE, {"input_tokens": 18, "cache_read_input_tokens": 12, "output_tokens": 7}),
    "cached and written in the details": (
        {
            "prompt_tokens": 30,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
        },
        {"input_tokens": 15, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 5},
    ),
    "nulls": (
        {"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None},
        {"input_tokens": 3, "cache_read_input_tokens": 0, "output_tokens": 0},
    ),
    "more cached than sent": ({"prompt_tokens": 3, "cached_tokens": 5}, {"input_tokens": 0}),
    "reasoning": (
        {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
        {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_is_reported_in_anthropics_shares(name: str) -> None:
    given_, expected = USAGES[name]
    whole, result = answered(said({"content": "w"}), PLAIN, given_), folded(streamed([], PLAIN, given_))
    assert whole["usage"].items() >= expected.items()
    assert result.message["usage"] == whole["usage"]


def test_the_first_event_has_an_estimate_of_the_input_and_no_output() -> None:
    first = events_of(StreamWriter(IDENTITY, PLAIN, 5).silence())[0]
    assert first["message"]["usage"]["input_tokens"] == 5
    assert first["message"]["usage"]["output_tokens"] == 0


def test_silence_before_anything_else_begins_the_message() -> None:
    writer = StreamWriter(IDENTITY, PLAIN, 5)
    assert [event["type"] for event in events_of(writer.silence())] == ["message_start", "ping"]
    assert writer.silence() == PING


def test_long_thinking_that_is_not_shown_is_heard_of_by_pings() -> None:
    writer = StreamWriter(IDENTITY, asked(thinking={"type": "disabled"}), 5)
    writer.silence()
    sent = [writer.add(said({"reasoning_content": "t"}, finish=None)[0]) for _ in range(2 * HIDDEN)]
    assert sent == ([b""] * (HIDDEN - 1) + [PING]) * 2


def test_a_thinking_block_has_a_signature_that_never_changes() -> None:
    (block,) = answered(said({"reasoning_content": "t"}), PLAIN)["content"]
    assert block == {"type": "thinking", "thinking": "t", "signature": SIGNATURE}


@pytest.mark.parametrize("text", ['{"x": ', "[1]", "oops"])
def test_arguments_that_are_no_object_reach_the_client_under_a_name_that_no_tool_has(text: str) -> None:
    (block,) = answered(said(call(0, text, id="a", name="A"), finish="length"), PLAIN)["content"]
    assert block["input"] == {"_unreadable_arguments": text}
    deltas = [event["delta"] for event in events_of(streamed(said(call(0, text, name="A")), PLAIN))
              if event["type"] == "content_block_delta"]  # fmt: skip
    assert deltas == [{"type": "input_json_delta", "partial_json": text}]


def test_half_a_character_in_each_of_two_deltas_is_whole_in_the_answer() -> None:
    frames = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % half
        for half in (b"\\ud83d", b"\\udc4b")
    )
    batches = chunks_of(frames + b"data: [DONE]\n\n", [])
    assert answered(batches, PLAIN)["content"][0]["text"] == "👋"
    assert b"\\ud83d" in streamed(batches, PLAIN)


def test_bytes_of_a_stream_hold_text_as_it_is() -> None:
    stream = streamed(said({"content": "ça 你 \u2028 \r\n"}), PLAIN)
    assert "ça 你 \u2028 \\r\\n".encode() in stream
    assert json.dumps("ça").encode() not in stream

"""A round's chunks are parted: the client sees texts and its own calls, the gateway gets its own."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.flow.search.round import RoundReader
from kimi_gateway.flow.search.tools import OPEN_PAGE, SEARCH
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.collect import Collector


def chunk(finish: str | None = None, **delta: Any) -> Chunk:
    return Chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}, True, bool(finish))


def fragment(index: int, name: str = "", arguments: str = "", id: str = "") -> Chunk:
    made: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name:
        made["function"]["name"] = name
    if id:
        made |= {"id": id, "type": "function"}
    return chunk(tool_calls=[made])


def folded(chunks: list[Chunk]) -> dict[str, Any]:
    collector = Collector()
    for each in chunks:
        collector.add(each)
    choices = collector.answer()["choices"]
    return choices[0]["message"] if choices else {}


def test_a_round_that_searches_shows_its_texts_only() -> None:
    reader = RoundReader()
    shown = reader.read(
        [
            chunk(role="assistant", content=""),
            chunk(reasoning_content="Hm."),
            chunk(content="Let me look."),
            fragment(0, SEARCH, '{"que', "call-1"),
            fragment(0, "", 'ry":"x"}'),
            chunk("tool_calls"),
        ]
    )
    message = folded(shown)
    assert (message["content"], message["reasoning_content"]) == ("Let me look.", "Hm.")
    assert "tool_calls" not in message
    assert not any(each.finishes for each in shown)
    assert [(call.id, call.name, call.arguments) for call in reader.calls] == [
        ("call-1", SEARCH, '{"query":"x"}')
    ]
    assert not reader.clients
    assert reader.message["reasoning_content"] == "Hm."


def test_the_last_round_ends_the_answer() -> None:
    reader = RoundReader()
    shown = reader.read([chunk(role="assistant", content=""), chunk(content="Found."), chunk("stop")])
    assert reader.calls == []
    rest = reader.end()
    assert [each.finishes for each in rest] == [True]
    assert folded(shown)["content"] == "Found."


def test_a_round_whose_calls_nobody_sees_ends_as_if_the_model_were_done() -> None:
    reader = RoundReader()
    reader.read([chunk(content="x"), fragment(0, SEARCH, "{}", "a"), chunk("tool_calls")])
    (last,) = reader.end()
    assert last.body["choices"][0]["finish_reason"] == "stop"


def test_the_clients_calls_beside_ours_keep_their_order_from_nought() -> None:
    reader = RoundReader()
    shown = reader.read(
        [
            fragment(0, SEARCH, '{"query":"x"}', "a"),
            fragment(1, "mine", "{", "b"),
            fragment(2, OPEN_PAGE, "{}", "c"),
            fragment(3, "other", "{}", "d"),
            fragment(1, "", "}"),
            chunk("tool_calls"),
        ]
    )
    shown += reader.end()
    calls = folded(shown)["tool_calls"]
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("b", "mine", "{}"),
        ("d", "other", "{}"),
    ]
    assert reader.clients
    assert [call.id for call in reader.calls] == ["a", "c"]


names = st.sampled_from([SEARCH, OPEN_PAGE, "mine", "other"])
calls = st.lists(st.tuples(names, st.text(max_size=6), st.booleans()), max_size=6)


@given(calls, st.randoms(use_true_random=False))
def test_whatever_the_order_of_fragments_each_call_goes_to_one_side(
    asked: list[tuple[str, str, bool]], chance: Any
) -> None:
    streams: list[list[Chunk]] = []
    for index, (name, text, late) in enumerate(asked):
        arguments = json.dumps({"query": text})
        first = [fragment(index, "", "", f"id-{index}"), fragment(index, name)] if late else []
        streams.append([*first, *([] if late else [fragment(index, name, "", f"id-{index}")])])
        streams[-1] += [fragment(index, "", piece) for piece in (arguments[:3], arguments[3:])]
    order: list[Chunk] = []
    while streams:
        stream = chance.choice(streams)
        order.append(stream.pop(0))
        streams = [each for each in streams if each]
    reader, whole = RoundReader(), RoundReader()
    shown = [seen for each in order for seen in reader.read([each])] + reader.read([chunk("tool_calls")])
    shown += reader.end()
    whole.read([*order, chunk("tool_calls")])
    ours = [(call.id, call.name, call.arguments) for call in reader.calls]
    mine = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in folded(shown).get("tool_calls", [])
    ]
    expected = [(f"id-{i}", name, json.dumps({"query": text})) for i, (name, text, _) in enumerate(asked)]
    assert sorted(ours + mine) == sorted(expected)
    assert ours == [each for each in expected if each[1] in (SEARCH, OPEN_PAGE)]
    assert whole.calls == reader.calls

"""collect(stream) is the upstream's own JSON answer, however the stream was cut and mixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.chat.answer import JsonAnswer
from kimi_gateway.pivot.call_ids import vendors
from kimi_gateway.pivot.chunks import ErrorEvent, Identity, Progress, Unreadable
from kimi_gateway.pivot.collect import Collector
from upstream import chat_events, completion

Json = dict[str, Any]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
TEXT = st.text(max_size=12)
SCALAR = st.none() | st.booleans() | st.integers() | TEXT
UNKNOWN = st.dictionaries(st.sampled_from(["x_a", "x_b"]), SCALAR | st.lists(SCALAR, max_size=2), max_size=2)


@st.composite
def calls(draw: st.DrawFn) -> list[Json]:
    made = []
    for index in range(draw(st.integers(1, 3))):
        function = {"name": f"tool_{index}", "arguments": draw(TEXT)}
        made.append(
            {"id": f"tool_{index}:{index}", "type": "function", "function": function, **draw(UNKNOWN)}
        )
    return made


@st.composite
def choices(draw: st.DrawFn, index: int) -> Json:
    message: Json = {"role": "assistant", "content": draw(TEXT), **draw(UNKNOWN)}
    for name in ("reasoning_content", "refusal"):
        if draw(st.booleans()):
            message[name] = draw(TEXT)
    if draw(st.booleans()):
        message["tool_calls"] = draw(calls())
    finish = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    choice: Json = {"index": index, "message": message, "finish_reason": finish, **draw(UNKNOWN)}
    if draw(st.booleans()):
        entries = st.lists(st.fixed_dictionaries({"token": TEXT, "logprob": st.integers(-9, 0)}), max_size=4)
        choice["logprobs"] = {"content": draw(entries), "refusal": draw(st.none() | entries)}
    return choice


@st.composite
def answers(draw: st.DrawFn) -> Json:
    body = {"id": "cmpl-1", "object": "chat.completion", "created": 1, "model": "kimi-k3", **draw(UNKNOWN)}
    return body | {"choices": [draw(choices(index)) for index in range(draw(st.integers(1, 3)))]}


def split(draw: st.DrawFn, text: Any) -> list[Any]:
    """One or more pieces of a string or a list, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def mixed(draw: st.DrawFn, queues: list[list[Any]]) -> Iterator[Any]:
    """One item after the other from any queue; each queue keeps its order."""
    queues = [list(queue) for queue in queues if queue]
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1))]
        yield queue.pop(0)
        queues = [queue for queue in queues if queue]


def call_pieces(draw: st.DrawFn, index: int, call: Json) -> list[Json]:
    first, *rest = split(draw, call["function"]["arguments"])
    named = {"name": call["function"]["name"], "arguments": first}
    pieces = [{"index": index, **call, "function": named}]
    return pieces + [{"index": index, "function": {"arguments": piece}} for piece in rest]


def choice_pieces(draw: st.DrawFn, choice: Json) -> list[Json]:
    """The choice as the upstream would stream it: role first, the finish reason last."""
    message, index = choice["message"], choice["index"]
    texts = [name for name in ("content", "reasoning_content", "refusal") if name in message]
    queues = [[{"delta": {name: piece}} for piece in split(draw, message[name])] for name in texts]
    for at, call in enumerate(message.get("tool_calls", ())):
        queues.append([{"delta": {"tool_calls": [piece]}} for piece in call_pieces(draw, at, call)])
    others = {name: value for name, value in message.items() if name not in (*texts, "role", "tool_calls")}
    queues.append([{"delta": {name: value}} for name, value in others.items()])
    logprobs = choice.get("logprobs") or {}
    for name, entries in logprobs.items():
        cut = [None] if entries is None else split(draw, entries)
        queues.append([{"delta": {}, "logprobs": {name: piece}} for piece in cut])
    rest = {
        name: value
        for name, value in choice.items()
        if name not in ("index", "message", "logprobs", "finish_reason")
    }
    first = {"index": index, "delta": {"role": message["role"], "content": ""}, "finish_reason": None}
    last = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"], **rest}
    return [first, *({"index": index, "finish_reason": None, **piece} for piece in mixed(draw, queues)), last]


@st.composite
def streams(draw: st.DrawFn) -> tuple[Json, list[Json]]:
    """An answer, and the events of the same answer."""
    answer = draw(answers())
    head = {name: value for name, value in answer.items() if name != "choices"}
    pieces = mixed(draw, [choice_pieces(draw, choice) for choice in answer["choices"]])
    events = [{**head, "object": "chat.completion.chunk", "choices": [piece]} for piece in pieces]
    place = draw(st.sampled_from(["top", "choice", "own", "all"]))
    if place in ("top", "all"):
        events[-1]["usage"] = USAGE
    if place in ("choice", "all"):
        events[-1]["choices"][0]["usage"] = USAGE
    if place in ("own", "all"):
        events.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
    return answer, events


def collected(events: list[Json]) -> tuple[Json, Progress]:
    """Nobody mends the arguments here, and the marks of the ids are taken off."""
    progress, collector = Progress(free=[f"tool_{index}" for index in range(3)]), Collector()
    for event in events:
        chunk = progress.read((json.dumps(event).encode(), b""))
        if chunk is not None:
            collector.add(chunk)
    answer = collector.answer()
    for choice in answer["choices"]:
        calls = choice["message"].get("tool_calls") or []
        for call in calls:
            call["id"] = vendors(call["id"])
        calls.sort(key=lambda call: str(call["id"]))  # their order is that of their beginnings
    return answer, progress


@given(made=streams())
def test_a_collected_stream_is_the_json_answer(made: tuple[Json, list[Json]]) -> None:
    answer, events = made
    whole, progress = collected(events)
    assert whole | {"object": "chat.completion"} == answer
    assert progress.usage == USAGE
    assert progress.complete


@given(made=streams())
def test_it_is_complete_with_the_last_finish_reason_and_not_before(made: tuple[Json, list[Json]]) -> None:
    answer, events = made
    finishing = [
        at for at, event in enumerate(events) if any(c.get("finish_reason") for c in event["choices"])
    ]
    assert not collected(events[: finishing[-1]])[1].complete or len(answer["choices"]) > 1
    assert collected(events[: finishing[-1] + 1])[1].complete


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_the_emulators_two_forms_of_one_answer_agree(pieces: int) -> None:
    tools = [("get_a", {"x": "ü"}), ("get_b", [])]
    whole, _ = collected(chat_events("Text 你好", "Thought", tools, pieces=pieces))
    expected = completion("Text 你好", "Thought", tools)
    del expected["usage"]
    assert whole | {"object": "chat.completion"} == expected


def test_a_character_sent_in_two_halves_is_whole_in_the_answer() -> None:
    events = [
        b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\\udc4b"},"finish_reason":"stop"}]}',
    ]
    progress, answer = Progress(), JsonAnswer(Identity("i", "m", 1, "fp"))
    answer.add([chunk for chunk in (progress.read((event, b"")) for event in events) if chunk])
    assert json.loads(answer.end({}))["choices"][0]["message"]["content"] == "👋"


def test_a_call_whose_function_comes_later_is_put_together() -> None:
    pieces: list[Json] = [
        {"index": 0, "id": "a:0", "type": "function", "function": None},
        {"index": 0, "function": {"name": "a", "arguments": None}},
        {"index": 0, "function": {"arguments": "{}"}},
    ]
    whole, _ = collected([{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces])
    call = {"id": "a:0", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    assert whole["choices"][0]["message"]["tool_calls"] == [call]


def test_a_call_without_an_id_and_a_name_has_both_in_the_answer() -> None:
    pieces: list[Json] = [
        {"index": 4, "function": {"arguments": "{"}},
        {"index": 4, "function": {"arguments": "}"}},
    ]
    whole, _ = collected([{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces])
    call = {"id": "call_0", "type": "function", "function": {"name": "", "arguments": "{}"}}
    assert whole["choices"][0]["message"]["tool_calls"] == [call]


ODD = st.recursive(
    SCALAR | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "delta",
                    "content",
                    "tool_calls",
                    "function",
                    "arguments",
                    "id",
                    "logprobs",
                    "usage",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
EVENTS = st.lists(
    ODD
    | st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries({}, optional={"index": ODD, "delta": ODD, "logprobs": ODD})
            )
        }
    ),
    max_size=4,
)


@given(events=EVENTS)
def test_whatever_comes_is_collected_or_breaks_the_stream(events: list[Any]) -> None:
    """No third thing: what an odd event raises is one of the two that the attempt knows."""
    progress, answer = Progress(), JsonAnswer(Identity("i", "m", 1, "fp"))
    try:
        for event in events:
            chunk = progress.read((json.dumps(event).encode(), b""))
            answer.add([chunk] if chunk else [])
    except (Unreadable, ErrorEvent):
        return
    json.loads(answer.end(progress.usage or {}))


@pytest.mark.parametrize(
    "text", [b"NaN", b'{"choices":[{"index":0,"logprobs":-Infinity}]}', b"\xff", b"", b"{}}"]
)
def test_what_is_not_json_breaks_the_stream(text: bytes) -> None:
    with pytest.raises(Unreadable):
        Progress().read((text, b""))

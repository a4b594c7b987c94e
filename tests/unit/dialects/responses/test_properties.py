"""Whatever an upstream streams, in whatever order and pieces, its events are a valid response, and the same
one as the JSON answer's.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_gateway.dialects.responses.free_text import FreeText
from kimi_gateway.dialects.responses.seal import seal, unseal
from kimi_gateway.errors import InvalidRequest, RateLimited, Unavailable
from support.responding import NAME, USAGE, called, chunk, chunks, identity, read, whole
from support.response_events import Checker, checked, events_of

pytestmark = pytest.mark.fuzz
any_time = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
    {"type": "custom", "name": "c"},
    {
        "type": "namespace",
        "name": "n",
        "description": "d",
        "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
    },
]
TEXT = st.text(min_size=1, max_size=6)
PIECES = (
    st.sampled_from(['{"input":', '"', 'x\\n"}', "\\ud83d", "\\ude00", "{}", "é", '{"a":1}', " ", ""]) | TEXT
)
NAMES = st.sampled_from(["f", "c", "n__f", "n__c", "unknown", "", None])
FRAGMENTS = st.builds(
    lambda index, arguments, name, id: called(index, arguments, name=name, id=id and f"{id}:{index}"),
    st.integers(0, 3),
    PIECES,
    NAMES,
    st.sampled_from(["call", "f", "", None]),
)
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, TEXT | st.just("")),
    st.builds(lambda text: {"reasoning_content": text}, TEXT | st.none()),
    st.builds(lambda text: {"refusal": text}, TEXT),
    st.builds(lambda fragments: {"tool_calls": fragments}, st.lists(FRAGMENTS, min_size=1, max_size=3)),
    st.builds(lambda one, two: {"content": one, "reasoning_content": two}, TEXT, TEXT),
    st.just({"role": "assistant", "content": ""}),
    st.just({}),
)
LOGPROBS = st.none() | st.just(
    {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
)
BODIES = st.lists(
    st.builds(lambda delta, scores: chunk(logprobs=scores, **delta), DELTAS, LOGPROBS), max_size=12
)
FINISHES = st.sampled_from(["stop", "length", "tool_calls", "content_filter", None])
ASKED = st.fixed_dictionaries(
    {"tools": st.just(TOOLS)},
    optional={
        "include": st.just(["reasoning.encrypted_content"]),
        "instructions": st.just("Be brief."),
        "store": st.booleans(),
        "metadata": st.just({"a": "b"}),
    },
)


@any_time
@given(st.data(), ASKED, BODIES, FINISHES)
def test_any_stream_is_a_valid_response_and_folds_into_the_json_answer(
    data: st.DataObject, asked: dict[str, Any], bodies: list[dict[str, Any]], finish: str | None
) -> None:
    bodies = [*bodies, chunk(finish)] if finish else bodies
    parsed = read(asked)
    writer, read_as = parsed.writer(identity()), chunks(*bodies)
    stream, at = b"", 0
    while at < len(read_as):
        if data.draw(st.booleans()):
            stream += writer.silence()
        size = data.draw(st.integers(1, 4))
        stream += writer.add(read_as[at : at + size])
        at += size
    assert not any(event["type"] in ("response.completed", "error") for event in events_of(stream))
    kept = parsed.kept()
    response = checked(stream + writer.end(USAGE))
    assert response == whole(read(asked), *bodies)
    assert bool(kept) is asked.get("store", True)
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish or "")
    assert response["incomplete_details"] == ({"reason": reason} if reason else None)


@any_time
@given(ASKED, BODIES, st.booleans())
def test_a_stream_that_breaks_anywhere_never_looks_complete(
    asked: dict[str, Any], bodies: list[dict[str, Any]], silent: bool
) -> None:
    writer = read(asked).writer(identity())
    stream = writer.silence() if silent else b""
    if bodies:
        stream += writer.add(chunks(*bodies))
    events = events_of(stream + writer.error(Unavailable("The upstream failed.")))
    checker = Checker()
    checker.feed(events)
    assert [event["type"] for event in events[-2:]] == ["response.failed", "error"]
    assert checker.response is not None
    assert checker.response["error"] == {"code": "server_error", "message": "The upstream failed."}
    shown = checker.response["output"]
    assert [item for item in shown if item.get("status") == "completed"] == [
        item for item in checker.done.values() if item.get("status") == "completed"
    ]


@any_time
@given(st.text(min_size=1), st.text(min_size=1), st.lists(st.text(), max_size=3), st.booleans())
def test_an_answer_sent_back_is_the_message_that_the_model_wrote(
    thought: str, said: str, arguments: list[str], sealed: bool
) -> None:
    fragments = [
        called(
            index,
            json.dumps({"input": text}, ensure_ascii=False),
            name="c",
            id=f"c:{index}",
        )
        for index, text in enumerate(arguments)
    ]
    bodies = [chunk(reasoning_content=thought), chunk(content=said)]
    bodies += [chunk(tool_calls=[fragment]) for fragment in fragments]
    include = ["reasoning.encrypted_content"] if sealed else []
    answer = whole(read({"tools": TOOLS, "include": include}), *bodies, chunk("stop"))
    if sealed:
        for item in answer["output"]:
            item.pop("summary", None)
    back = read({"input": answer["output"], "tools": TOOLS}).chat.body["messages"]
    calls = [
        {"id": f"c:{index}", "type": "function", "function": {"name": "c", "arguments": {"input": text}}}
        for index, text in enumerate(arguments)
    ]
    for call in back[0].get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    expected = {"role": "assistant", "content": said, "reasoning_content": thought}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "(no result)"} for call in calls]
    assert back == [expected | ({"tool_calls": calls} if calls else {}), *results]


def read_in_pieces(arguments: str, cuts: list[int]) -> str:
    reader, places = FreeText(), sorted({0, len(arguments), *(min(cut, len(arguments)) for cut in cuts)})
    pieces = [arguments[start:end] for start, end in itertools.pairwise(places)]
    return "".join(map(reader.feed, pieces)) + reader.rest()


@any_time
@given(st.text(), st.booleans(), st.lists(st.integers(0, 400), max_size=8))
def test_free_text_comes_out_whole_however_its_arguments_are_cut(
    text: str, plain: bool, cuts: list[int]
) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=plain)
    assert read_in_pieces(arguments, cuts) == text


@any_time
@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 60), max_size=4))
def test_arguments_of_any_kind_give_the_same_free_text_however_they_are_cut(
    pieces: list[str], cuts: list[int]
) -> None:
    arguments = "".join(pieces)
    assert read_in_pieces(arguments, cuts) == read_in_pieces(arguments, [])


@any_time
@given(st.text())
def test_sealed_reasoning_comes_back_as_it_was(text: str) -> None:
    assert unseal(seal(text)) == text


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.sampled_from(
    ["message", "user", "assistant", "developer", "input_text", "output_text", "input_image", "input_file",
     "refusal", "reasoning", "summary_text", "function_call", "function_call_output", "custom_tool_call",
     "custom_tool_call_output", "local_shell_call", "local_shell_call_output", "web_search_call",
     "item_reference", "additional_tools", "function", "custom", "namespace", "allowed_tools", "auto",
     "required", "json_schema", "grammar", "x", "data:text/plain;base64,eA==", "data:image/png;base64,eA=="]
)  # fmt: skip
MEMBERS = st.sampled_from(
    ["type", "role", "content", "text", "id", "call_id", "name", "namespace", "arguments", "input", "output",
     "summary", "encrypted_content", "image_url", "file_data", "filename", "tools", "action", "parameters",
     "description", "format", "definition", "syntax", "mode", "schema", "effort", "strict", "defer_loading"]
)  # fmt: skip
SHAPES = st.recursive(
    WORDS | WORDS | JUNK,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=6),
    max_leaves=24,
)
FIELDS = st.sampled_from(
    ["input", "tools", "tool_choice", "text", "reasoning", "include", "instructions", "previous_response_id",
     "metadata", "store", "background", "conversation", "truncation", "max_output_tokens", "user"]
)  # fmt: skip
ITEMS = st.lists(st.dictionaries(MEMBERS, SHAPES, max_size=7) | SHAPES, min_size=1, max_size=4)


@any_time
@given(st.dictionaries(FIELDS, SHAPES, max_size=5), st.none() | ITEMS, st.none() | ITEMS)
def test_any_request_is_read_or_refused_with_the_field_at_fault(
    body: dict[str, Any], items: list[Any] | None, tools: list[Any] | None
) -> None:
    body |= {} if items is None else {"input": items}
    body |= {} if tools is None else {"tools": tools}
    try:
        parsed = read(body)
    except InvalidRequest as exc:
        refused = exc
    else:
        assert parsed.chat.body["messages"]
        assert events_of(parsed.writer(identity()).silence())[0]["response"]["id"] == f"resp_{NAME}"
        return
    assert refused.param
    assert refused.param.split(".")[0] in body


def test_an_error_says_what_the_client_can_do_about_it() -> None:
    writer = read({}).writer(identity())
    *_, failed, last = events_of(writer.error(RateLimited("Slow down.", retry_after=3)))
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}
    assert last["error"]["type"] == "rate_limit_error"
    assert last["code"] == last["error"]["code"] == "rate_limit_exceeded"

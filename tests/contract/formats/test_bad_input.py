"""Whatever is sent: a refusal in the right shape, nothing charged, nothing counted, nothing sent upstream."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.accounts.values import Limits
from support.error_shape import openai_error
from support.examples import examples
from support.inprocess import Answered, InProcess

GOOD = b'"model":"kimi-k3","messages":[{"role":"user","content":"Hello"}]'
HELLO = {"role": "user", "content": "Hello"}
MINUTE = 400


@pytest.fixture(scope="module")
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def refused(desk: InProcess, body: object, *headers: tuple[str, str], status: int = 400) -> dict[str, Any]:
    """The error of a chat that left no trace: the next one is the key's first."""
    key = desk.key(100, Limits(minute=MINUTE))
    desk.client.sent.clear()
    answer = desk.chat(key, body, *headers)
    assert answer.status == status, answer.body
    error = openai_error(answer.json)
    assert not desk.client.sent
    assert desk.run(desk.store.usage(0, desk.account(key).id)) == []
    first = desk.chat(key, {})
    assert (first.status, first.headers["x-ratelimit-remaining"]) == (200, str(MINUTE - 1)), first
    assert first.headers["x-credits-remaining"] == "99"
    return error


def nested(depth: int, open: bytes = b"[", close: bytes = b"]") -> bytes:
    return open * depth + close * depth


NOT_JSON = {
    "nothing": b"",
    "a cut object": b"{" + GOOD,
    "a trailing comma": b"{" + GOOD + b",}",
    "two texts": b"{" + GOOD + b"}{}",
    "single quotes": b"{'model':'kimi-k3'}",
    "an array": b"[{" + GOOD + b"}]",
    "a string": b'"kimi-k3"',
    "null": b"null",
    "a number": b"7",
    "NaN": b"{" + GOOD + b',"temperature":NaN}',
    "NaN in an unknown field": b"{" + GOOD + b',"x":{"y":[NaN]}}',
    "Infinity": b"{" + GOOD + b',"x":Infinity}',
    "-Infinity": b"{" + GOOD + b',"x":-Infinity}',
    "a number beyond a double": b"{" + GOOD + b',"x":1e400}',
    "a number of 5,000 digits": b"{" + GOOD + b',"x":' + b"9" * 5000 + b"}",
    "half a surrogate pair": b'{"model":"kimi-k3","messages":[{"role":"user","content":"\\ud83d"}]}',
    "half a pair in a name": b"{" + GOOD + b',"\\uDC00":1}',
    "half a pair in UTF-8": b'{"model":"kimi-k3","messages":[{"role":"user","content":"\xed\xa0\xbd"}]}',
    "a raw NUL": b'{"model":"kimi-k3","messages":[{"role":"user","content":"a\x00b"}]}',
    "a NUL between": b"{" + GOOD + b"}\x00",
    "a raw line feed in a string": b'{"model":"kimi-k3","messages":[{"role":"user","content":"a\nb"}]}',
    "invalid UTF-8": b'{"model":"kimi-k3","messages":[{"role":"user","content":"\xff"}]}',
    "overlong UTF-8": b'{"model":"kimi-k3","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "a byte order mark": b"\xef\xbb\xbf{" + GOOD + b"}",
    "UTF-16": ("{" + GOOD.decode() + "}").encode("utf-16"),
    "UTF-16 without a mark": ("{" + GOOD.decode() + "}").encode("utf-16-le"),
    "UTF-32": ("{" + GOOD.decode() + "}").encode("utf-32-be"),
    "gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 40,
    "a form": b"model=kimi-k3&messages=hello",
    "a name twice": b"{" + GOOD + b',"model":"kimi-k2"}',
    "a name twice, spelt otherwise": b"{" + GOOD + b',"mode\\u006c":"kimi-k2"}',
    "a name twice within": b'{"model":"kimi-k3","messages":[{"role":"user","role":"tool","content":"x"}]}',
    "many names, two alike at the end": b"{"
    + b",".join(b'"%d":0' % number for number in range(100_000))
    + b',"99999":1}',
    "100,000 arrays in each other": nested(100_000),
    "100,000 objects in each other": nested(100_000, b'{"a":', b"}"),
    "100,000 open arrays": b"[" * 100_000,
    "257 arrays in an unknown field": b"{" + GOOD + b',"x":' + nested(256) + b"}",
    "900 arrays in an unknown field": b"{" + GOOD + b',"x":' + nested(900) + b"}",
    "100,000 arrays in an unknown field": b"{" + GOOD + b',"x":' + nested(100_000) + b"}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_one_strict_json_object_is_refused(desk: InProcess, body: bytes) -> None:
    assert refused(desk, body)["code"] == "invalid_request"


@pytest.mark.parametrize("depth", [200, 255])
def test_nesting_short_of_the_bound_passes_whole(desk: InProcess, depth: int) -> None:
    deep = json.loads(nested(depth))
    tool = {"type": "function", "function": {"name": "abc", "parameters": {"type": "object"}}}
    body = {"x": deep, "tools": [tool | {"x": deep[0]}]} if depth == 200 else {"x": deep}
    answer = desk.chat(desk.key(), body)
    assert answer.status == 200
    assert desk.client.chats[-1].body["x"] == deep


def test_an_escaped_nul_is_text_like_any_other(desk: InProcess) -> None:
    assert desk.chat(desk.key(), {"messages": [{"role": "user", "content": "a\x00b"}]}).status == 200
    assert desk.client.chats[-1].body["messages"][0]["content"] == "a\x00b"


def test_a_whole_surrogate_pair_is_one_character(desk: InProcess) -> None:
    body = b'{"model":"kimi-k3","messages":[{"role":"user","content":"\\ud83d\\udc4b"}]}'
    assert desk.chat(desk.key(), body).status == 200
    assert desk.client.chats[-1].body["messages"][0]["content"] == "👋"


# A value of each JSON type; each known field with the types that are right for it.
VALUES: dict[str, Any] = {
    "true": True, "a number": 0.5, "an integer": 7, "a string": "x", "an array": [5], "an object": {"x": 1},
}  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {
    "model": ("a string",),
    "messages": (),
    "temperature": ("a number",),
    "top_p": ("a number",),
    "presence_penalty": ("a number",),
    "frequency_penalty": ("a number",),
    "max_tokens": ("an integer",),
    "max_completion_tokens": ("an integer",),
    "n": (),
    "stop": ("a string",),
    "stream": ("true",),
    "stream_options": ("an object",),
    "tools": (),
    "tool_choice": ("an object",),
    "response_format": (),
    "thinking": (),
    "reasoning_effort": ("a string",),
    "logprobs": ("true",),
    "top_logprobs": (),
    "user": ("a string",),
    "prompt_cache_key": ("a string",),
    "safety_identifier": ("a string",),
}
WRONG = [(name, value) for name, right in FIELDS.items() for value in VALUES if value not in right]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{name} is {value}" for name, value in WRONG])
def test_a_known_field_of_a_wrong_type_is_named(desk: InProcess, field: str, value: str) -> None:
    error = refused(desk, {field: VALUES[value]})
    assert error["param"].startswith(field)
    assert field in error["message"]


def message(**members: Any) -> dict[str, Any]:
    return {"messages": [HELLO | members]}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "abc"} | function}]}


def called(**members: Any) -> dict[str, Any]:
    return message(role="assistant", tool_calls=[{"id": "a", "type": "function"} | members])


def media(kind: str, url: Any) -> dict[str, Any]:
    return message(content=[{"type": "text", "text": "?"}, {"type": kind, kind: url}])


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
MISSHAPEN: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "a message that is a string": ({"messages": ["x"]}, "messages.0"),
    "no role": ({"messages": [{"content": "x"}]}, "messages.0.role"),
    "an unknown role": (message(role="robot"), "messages.0.role"),
    "a role that is a number": (message(role=1), "messages.0.role"),
    "content that is a number": (message(content=1), "messages.0.content"),
    "content that is an object": (message(content={}), "messages.0.content"),
    "no content": (message(content=None), "messages.0.content"),
    "a part that is a string": (message(content=["x"]), "messages.0.content.0"),
    "a part without a type": (message(content=[{}]), "messages.0.content.0.type"),
    "a text part without text": (message(content=[{"type": "text"}]), "messages.0.content.0.text"),
    "a tool message without an id": (message(role="tool"), "messages.0.tool_call_id"),
    "tool calls that are a string": (message(role="assistant", tool_calls="x"), "messages.0.tool_calls"),
    "a tool call that is a string": (message(role="assistant", tool_calls=["x"]), "messages.0.tool_calls.0"),
    "a called function of text": (called(function="abc"), "messages.0.tool_calls.0.function"),
    "a call of no name": (called(function={"name": []}), "messages.0.tool_calls.0.function.name"),
    "a call's id that is a number": (called(id=5), "messages.0.tool_calls.0.id"),
    "a call's type that is an object": (called(type={}), "messages.0.tool_calls.0.type"),
    "reasoning that is a list": (
        message(role="assistant", reasoning_content=[]),
        "messages.0.reasoning_content",
    ),
    "a name that is a number": (message(name=1), "messages.0.name"),
    "partial that is a word": (message(role="assistant", partial="yes"), "messages.0.partial"),
    "partial in the user's message": (message(partial=True), "messages.0.partial"),
    "partial before the end": (
        {"messages": [{"role": "assistant", "content": "x", "partial": True}, HELLO]},
        "messages.0.partial",
    ),
    "nothing but an empty assistant message": (
        {"messages": [{"role": "assistant", "content": ""}]},
        "messages",
    ),
    "a tool without a type": ({"tools": [{"function": {"name": "a"}}]}, "tools.0.type"),
    "a tool without a function": ({"tools": [{"type": "function"}]}, "tools.0.function"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    "a description that is a list": (tool(description=[]), "tools.0.function.description"),
    "an unknown tool choice": ({"tool_choice": "perhaps"}, "tool_choice"),
    "five stop strings": ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    "an empty stop string": ({"stop": ""}, "stop"),
    "an empty stop string in a list": ({"stop": ["a", ""]}, "stop"),
    "a stop string that is a number": ({"stop": [1]}, "stop"),
    "n of 0": ({"n": 0}, "n"),
    "n of 5": ({"n": 5}, "n"),
    "max_tokens of 0": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens of -1": ({"max_tokens": -1}, "max_tokens"),
    "max_tokens of a string": ({"max_tokens": "10"}, "max_tokens"),
    "max_tokens of 1e9": ({"max_tokens": 1e9}, "max_tokens"),
    "max_tokens of 400 digits": ({"max_tokens": 10**400}, "max_tokens"),
    "max_completion_tokens above the window": (
        {"max_tokens": 5, "max_completion_tokens": 2**20 + 1},
        "max_completion_tokens",
    ),
    "temperature of 2.1": ({"temperature": 2.1}, "temperature"),
    "temperature of -0.1": ({"temperature": -0.1}, "temperature"),
    "temperature of 400 digits": ({"temperature": 10**400}, "temperature"),
    "top_p of 1.1": ({"top_p": 1.1}, "top_p"),
    "a penalty of 2.5": ({"presence_penalty": 2.5}, "presence_penalty"),
    "top_logprobs of 21": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "top_logprobs without logprobs": ({"top_logprobs": 2}, "top_logprobs"),
    "include_usage that is a word": (
        {"stream_options": {"include_usage": "yes"}},
        "stream_options.include_usage",
    ),
    "an unknown response format": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "json_schema without a schema": (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
    "thinking without a type": ({"thinking": {}}, "thinking.type"),
    "a kind of thinking that is no text": ({"thinking": {"type": 1}}, "thinking.type"),
    "a budget that is a word": (
        {"thinking": {"type": "enabled", "budget_tokens": "all"}},
        "thinking.budget_tokens",
    ),
    "an image without an address": (media("image_url", {}), "messages.0.content.1.image_url"),
    "a file address": (media("image_url", "file:///etc/passwd"), "messages.0.content.1.image_url"),
    "half an ms address": (media("image_url", "ms:x"), "messages.0.content.1.image_url"),
    "SVG": (media("image_url", f"data:image/svg+xml;base64,{PNG}"), "messages.0.content.1.image_url"),
    "no media type": (media("image_url", f"data:;base64,{PNG}"), "messages.0.content.1.image_url"),
    "a video as an image": (
        media("image_url", f"data:video/mp4;base64,{PNG}"),
        "messages.0.content.1.image_url",
    ),
    "an image as a video": (
        media("video_url", f"data:image/png;base64,{PNG}"),
        "messages.0.content.1.video_url",
    ),
    "no base64": (media("image_url", "data:image/png,abc"), "messages.0.content.1.image_url"),
    "bad base64": (media("image_url", "data:image/png;base64,a$b="), "messages.0.content.1.image_url"),
    "cut base64": (media("image_url", "data:image/png;base64,abcde"), "messages.0.content.1.image_url"),
    "base64 of other letters": (
        media("image_url", "data:image/png;base64,ßßßß"),
        "messages.0.content.1.image_url",
    ),
}


@pytest.mark.parametrize("case", MISSHAPEN)
def test_a_misshapen_field_is_named(desk: InProcess, case: str) -> None:
    body, field = MISSHAPEN[case]
    assert refused(desk, body)["param"] == field


@pytest.mark.parametrize("field", ["model", "messages"])
def test_what_is_required_is_named_when_missing(desk: InProcess, field: str) -> None:
    whole = {"model": "kimi-k3", "messages": [HELLO]}
    for body in ({name: value for name, value in whole.items() if name != field}, whole | {field: None}):
        assert refused(desk, json.dumps(body).encode())["param"] == field


def test_null_in_a_known_field_means_that_it_is_absent(desk: InProcess) -> None:
    nothing = dict.fromkeys(FIELDS.keys() - {"model", "messages"})
    null = {"name": None, "partial": None, "tool_calls": None, "reasoning_content": None, "x_new": None}
    answer = desk.chat(desk.key(), nothing | {"messages": [HELLO | null]})
    assert answer.status == 200, answer.body
    assert not nothing.keys() & desk.client.chats[-1].body.keys() - {"stream", "stream_options"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*FIELDS, "x"])
PART = st.dictionaries(st.sampled_from(["type", "text", "image_url", "video_url"]), JSON | st.text())
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | JSON},
    optional={
        "content": st.text() | st.lists(PART, max_size=3) | JSON,
        "tool_calls": JSON,
        "partial": JSON,
        "tool_call_id": JSON,
    },
)
BODY = st.dictionaries(NAMES, JSON, max_size=5).flatmap(
    lambda some: st.fixed_dictionaries(
        {
            "model": st.sampled_from(["kimi-k3", "kimi-k2", "kimi-k2.6", "kimi-k2.7-code"]),
            "messages": st.lists(MESSAGE, min_size=1, max_size=3),
        }
    ).map(lambda good: {**good, **some} if "x" in some else {**some, **good})
)


@pytest.fixture(scope="module")
def unlimited(desk: InProcess) -> str:
    return desk.key(None)


@given(body=BODY | JSON)
@settings(max_examples=examples(250), deadline=None)
def test_any_json_is_answered_or_refused_in_shape(desk: InProcess, unlimited: str, body: Any) -> None:
    answer = desk.call("POST", "/v1/chat/completions", body, unlimited)
    check(answer)


@given(body=st.binary(max_size=60))
@settings(max_examples=examples(100), deadline=None)
def test_any_bytes_are_refused_in_shape(desk: InProcess, unlimited: str, body: bytes) -> None:
    answer = desk.call("POST", "/v1/chat/completions", body, unlimited)
    assert answer.status == 400
    check(answer)


def check(answer: Answered) -> None:
    assert answer.status in {200, 400, 404, 413}, answer
    assert "access-control-allow-origin" in answer.headers
    if answer.status != 200:
        openai_error(answer.json)
    elif answer.headers["content-type"] == "application/json":
        assert answer.json["choices"]
    else:
        assert answer.body.endswith(b"data: [DONE]\n\n")

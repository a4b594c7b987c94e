"""What a function does with an event before it knows the caller: little, whatever the event is."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.edge.aws.function import Function, request_of
from kimi_gateway.edge.aws.lambda_runtime import Streamed
from kimi_gateway.errors import BodyTooLarge
from support import api_gateway
from support.examples import examples
from support.inprocess import InProcess
from support.proxy_events import CHAT, body, bound, context

CHATS = "/v1/chat/completions"


class Text(str):
    """A body that notes each time when it is encoded."""

    encoded = 0

    def encode(self, *args: Any, **more: Any) -> bytes:
        type(self).encoded += 1
        return super().encode(*args, **more)


@pytest.fixture(scope="module")
def gateway() -> Iterator[InProcess]:
    with InProcess() as gateway:
        yield gateway


def answered(gateway: InProcess, function: Function, event: Any) -> tuple[int, bytes]:
    """Status and body, in the form that the integration takes."""
    answer = gateway.run(function(event, context()))
    if isinstance(answer, Streamed):
        assert isinstance(answer.body, bytes)
        gateway.run(answer.close())
        return answer.status, answer.body
    told = api_gateway.of_proxy(answer)
    return told.status, told.body


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "event",
    [
        None, [], "text", {}, {"version": "2.0", "rawPath": "/ping"}, {"httpMethod": "GET", "path": None},
        {"httpMethod": "GET", "path": "/ping", "headers": ["x"]},
        {"httpMethod": "GET", "path": "/ping", "headers": {"x": None}},
        {"httpMethod": "GET", "path": "/ping", "multiValueHeaders": {"x": "y"}},
        {"httpMethod": "GET", "path": "/ping", "multiValueHeaders": {"x": [1]}},
        {"httpMethod": "GET", "path": "/ping", "pathParameters": {"proxy": 1}},
        {"httpMethod": "GET", "path": "/ping", "requestContext": {"identity": "me"}},
        {"httpMethod": "POST", "path": "/v1/chat/completions", "body": {"model": "kimi-k3"}},
    ],
)  # fmt: skip
def test_an_event_of_another_kind_is_refused_and_says_what_is_wanted(
    gateway: InProcess, event: Any, streamed: bool
) -> None:
    status, text = answered(gateway, bound(gateway, streamed=streamed), event)
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (400, "invalid_request")
    assert "API Gateway REST API with Lambda proxy integration" in error["message"]


NAMES = (
    "httpMethod", "path", "resource", "headers", "multiValueHeaders", "pathParameters", "requestContext",
    "body", "isBase64Encoded", "identity", "sourceIp", "requestId", "Authorization", "Host", "proxy",
)  # fmt: skip
WORDS = st.sampled_from(["GET", "POST", CHATS, "/token/check", "\ud83d", "Bearer \ud83d"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
SPOILT = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3).map(
    lambda spoilt: api_gateway.event("POST", CHATS, [("Host", "h")], b"{}") | spoilt
)


@settings(max_examples=examples(300), deadline=None)
@given(event=SPOILT | VALUES)
def test_no_event_breaks_a_function_or_passes_as_a_fault_of_ours(gateway: InProcess, event: Any) -> None:
    status, _ = answered(gateway, bound(gateway), event)
    assert status < 500


@pytest.mark.parametrize("encoded", [True, False])
def test_a_body_without_a_key_is_not_decoded(gateway: InProcess, encoded: bool) -> None:
    Text.encoded = 0
    event = api_gateway.event("POST", CHATS, [("Authorization", "Bearer sk-kg-none")])
    event |= {"body": Text("x" * 4_000_000), "isBase64Encoded": encoded}
    assert answered(gateway, bound(gateway), event)[0] == 401
    assert Text.encoded == 0


@pytest.mark.parametrize(("encoded", "size"), [(False, 10_001), (True, 13_340)])
def test_a_body_that_is_too_large_is_refused_before_it_is_decoded(encoded: bool, size: int) -> None:
    Text.encoded = 0
    event = api_gateway.event("POST", CHATS) | {"body": Text("A" * size), "isBase64Encoded": encoded}
    with pytest.raises(BodyTooLarge):
        body(request_of(event, context(), 10_000))
    assert Text.encoded == 0


@pytest.mark.parametrize("size", range(9_996, 10_005))
@pytest.mark.parametrize("letter", [b"a", b"\xff"])
def test_the_limit_is_of_the_bytes_that_come_out(letter: bytes, size: int) -> None:
    raw = letter * size
    text = base64.b64encode(raw).decode()
    event = api_gateway.event("POST", CHATS) | {"body": text, "isBase64Encoded": True}
    request = request_of(event, context(), 10_000)
    if size <= 10_000:
        assert body(request) == raw
    else:
        with pytest.raises(BodyTooLarge):
            body(request)


def test_base64_that_is_none_is_refused_whatever_is_wrong(gateway: InProcess) -> None:
    for text in ("?", "abc", "ü" * 8, "aaaa\n=", "\ud83d"):
        event = api_gateway.event("POST", CHATS, [("Authorization", f"Bearer {gateway.key()}")])
        event |= {"body": text, "isBase64Encoded": True}
        assert answered(gateway, bound(gateway), event)[0] == 400


@pytest.mark.parametrize("streamed", [True, False])
def test_a_body_that_api_gateway_unpacked_is_taken_as_it_is(gateway: InProcess, streamed: bool) -> None:
    """Its guide: a request body with Content-Encoding is decompressed on its way; the header may stay."""
    sent = json.dumps(CHAT).encode()
    headers = [("Authorization", f"Bearer {gateway.key()}"), ("Content-Encoding", "gzip")]
    event = api_gateway.event("POST", CHATS, headers, api_gateway.unpacked(headers, gzip.compress(sent)))
    status, text = answered(gateway, bound(gateway, streamed=streamed), event)
    assert (status, json.loads(text)["object"]) == (200, "chat.completion")


def test_a_compressed_body_that_was_damaged_on_its_way_is_reported(gateway: InProcess) -> None:
    headers = [("Authorization", f"Bearer {gateway.key()}"), ("Content-Encoding", "gzip")]
    event = api_gateway.event("POST", CHATS, headers)
    event["body"] = gzip.compress(json.dumps(CHAT).encode()).decode("utf-8", "replace")
    status, text = answered(gateway, bound(gateway), event)
    assert status == 400
    assert "Send it without Content-Encoding" in json.loads(text)["error"]["message"]

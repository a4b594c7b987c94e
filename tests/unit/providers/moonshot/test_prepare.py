"""What the provider makes of a chat before it goes upstream, and which headers go with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.catalog.models import ROWS
from kimi_gateway.dialects.messages import request as messages
from kimi_gateway.http import Headers
from kimi_gateway.pivot import request as chat
from kimi_gateway.providers.moonshot.prepare import MessagesCall, PreparedChat, prepare
from kimi_gateway.providers.provider import Costly

Json = dict[str, Any]
MODELS = {row.id: row for row in ROWS}
# More than the steps that a schema may take before the admission, and another one than any other test has.
LARGE = {"type": "object", "properties": {f"prepare{at}": {"oneOf": [{"const": at}]} for at in range(90)}}
HELLO = [{"role": "user", "content": "Hello"}]
NO_HEADERS = Headers(())


def prepared(
    body: Json, *pairs: tuple[str, str], native: bool = False, cheaply: bool = False
) -> PreparedChat:
    body = {"model": "kimi-k3", "messages": HELLO} | body
    asked = chat.read(json.dumps(body, indent=1).encode())
    return prepare(asked, MODELS[body["model"]], Headers(pairs), cheaply, native)


def message(model: str = "kimi-k3", native: bool = True) -> PreparedChat:
    body = {"model": model, "max_tokens": 9, "messages": HELLO}
    asked = messages.read(json.dumps(body).encode()).chat
    return prepare(asked, MODELS[model], NO_HEADERS, native=native)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=3))
def test_what_the_model_takes_goes_upstream_in_the_client_s_own_bytes(texts: list[str]) -> None:
    told = [{"role": "user", "content": text or "?"} for text in texts]
    raw = json.dumps(told, indent=1).encode()
    body = b'{"model": "kimi-k3", "messages":' + raw + b"}"
    call = prepare(chat.read(body), MODELS["kimi-k3"], NO_HEADERS).call()
    assert raw in call.payload
    assert json.loads(call.payload) == call.body


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k2"])
@pytest.mark.parametrize("nonces", [[], ["n-1"], ["n-1", "n-2"], ["n" * 513], ["n\u00e9"], ["n 1"], [""]])
def test_of_the_client_s_headers_one_good_nonce_passes(model: str, nonces: list[str]) -> None:
    pairs = [("authorization", "Bearer sk-kg-x"), ("x-stainless-os", "Linux"), ("anthropic-beta", "b")]
    pairs += [("x-msh-request-nonce", nonce) for nonce in nonces]
    passes = nonces == ["n-1"] and model == "kimi-k3"  # the other is rewritten, and the signature covers it
    headers = prepared({"model": model}, *pairs).call().headers
    assert headers == ({"x-msh-request-nonce": "n-1"} if passes else {})


def test_only_messages_go_to_the_messages_endpoint_and_only_where_it_has_the_model() -> None:
    assert isinstance(message().call(), MessagesCall)
    assert not isinstance(message(native=False).call(), MessagesCall)
    assert not isinstance(message("kimi-k2").call(), MessagesCall)
    assert not isinstance(prepared({}, native=True).call(), MessagesCall)


def test_costly_schemas_are_left_for_after_the_admission() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": LARGE}}
    with pytest.raises(Costly):
        prepared({"tools": [tool]}, cheaply=True)
    assert prepared({"tools": [tool]}).call().body["tools"][0]["function"]["name"] == "f"
    assert prepared({"tools": [tool]}, cheaply=True)  # it is remembered now


def test_names_that_were_changed_are_restored_before_reasoning_is_kept() -> None:
    tool = {"type": "function", "function": {"name": "a.b", "parameters": {"type": "object"}}}
    asked = prepared({"tools": [tool]})
    (sent,) = [each["function"]["name"] for each in asked.body["tools"]]
    assert sent != "a.b"
    assert [type(tap).__name__ for tap in asked.taps()] == ["Restorer", "ReasoningCollector"]
    assert prepared({}).taps() == []

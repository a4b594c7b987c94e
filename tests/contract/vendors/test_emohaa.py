"""The second free API's requests, as they stand in its README, on the vendor's official endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.exchange import CHARGED, ledger
from support.formats import EACH, MODES, Format
from support.live import LiveGateway, events
from support.vendors import with_vendors
from upstream import ScriptedUpstream
from upstream.vendors import TEXT, last, sent_to

Json = dict[str, Any]
# Without its comment: "true for a stream, false is the default".
SEED = {"messages": [{"role": "user", "content": "你好"}], "stream": False}
SHAPE = {"id", "model", "object", "choices", "usage", "created"}
REQUIRED = {"bot_name", "bot_info", "user_name", "user_info"}


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with with_vendors(up, tmp_path_factory.mktemp("emohaa"), aliases=(("default", "emohaa"),)) as gateway:
        yield gateway


def post(gateway: LiveGateway, key: str, body: Json) -> httpx.Response:
    with gateway.client(key) as client:
        return client.post("/v1/chat/completions", json=body)


def test_the_body_as_it_stands_gets_the_shape_that_stands_there(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    key = gateway.key()
    answer = post(gateway, key, SEED)
    told = answer.json()
    assert (answer.status_code, told.keys() >= SHAPE) == (200, True), answer.text
    (choice,) = told["choices"]
    message = choice["message"]
    assert (message["role"], message["content"], choice["finish_reason"]) == ("assistant", TEXT, "stop")
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= told["usage"].keys()
    assert (told["object"], told["model"], ledger(gateway, key)) == ("chat.completion", "glm/emohaa", CHARGED)
    sent = last(up, "glm")
    assert (sent["model"], sent["messages"]) == ("emohaa", SEED["messages"])
    assert sent["meta"].keys() == REQUIRED


def test_the_same_body_streams(gateway: LiveGateway) -> None:
    answer = post(gateway, gateway.key(), {**SEED, "stream": True})
    *chunks, done = events(answer.text)
    assert done == "[DONE]"
    assert {json.loads(chunk)["model"] for chunk in chunks} == {"glm/emohaa"}


@MODES
@EACH
def test_character_and_user_are_the_clients_one_by_one(
    gateway: LiveGateway, up: ScriptedUpstream, format: Format, stream: bool
) -> None:
    """In the other formats they are the gateway's own, since these have no such field."""
    given = {"user_name": "Ana", "bot_name": "Mo"} if format.path == "/v1/chat/completions" else {}
    more = {"meta": given} if given else {}
    with gateway.client(gateway.key()) as client:
        answer = client.post(format.path, json=format.asked("你好", model="emohaa", stream=stream, **more))
    assert format.read(answer.text, stream).content == TEXT
    meta = last(up, "glm")["meta"]
    assert meta.keys() == REQUIRED
    assert {name: meta[name] for name in given} == given
    assert all(isinstance(value, str) and value for value in meta.values())


def test_several_turns_send_the_same_character_and_leave_nothing_there(
    gateway: LiveGateway, up: ScriptedUpstream
) -> None:
    """The official API keeps no conversation; nothing but chats is ever asked of it."""
    key, meta = gateway.key(), {"user_name": "Ana"}
    up.requests.clear()
    first = post(gateway, key, {**SEED, "model": "emohaa", "conversation_id": "none", "meta": meta}).json()
    again = {"messages": [{"role": "user", "content": "还在吗?"}], "model": "emohaa", "meta": meta}
    assert post(gateway, key, {**again, "conversation_id": first["id"]}).status_code == 200
    sent = last(up, "glm")
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["meta"]["user_name"] == "Ana"
    assert {each.path.rpartition("/")[2] for each in sent_to(up, "glm")} == {"completions"}


@pytest.mark.parametrize("meta", ["Ana", 5, ["Ana"]])
def test_a_wrong_meta_is_named(gateway: LiveGateway, meta: object) -> None:
    refused = post(gateway, gateway.key(), {**SEED, "model": "emohaa", "meta": meta})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "meta")


def test_without_that_alias_a_chat_needs_a_model(
    up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with with_vendors(up, tmp_path_factory.mktemp("plain")) as gateway:
        for body in (SEED, {**SEED, "model": None}, {**SEED, "model": "default"}):
            refused = post(gateway, gateway.key(), body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")

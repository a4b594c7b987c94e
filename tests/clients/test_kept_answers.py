"""Kept answers and conversations through the official SDKs, unchanged, with the store of a gateway."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from clients.drivers import Driver
from clients.sdk import NO_TLS
from kimi_gateway.storage.sqlite.opening import STORE_NAME
from support import sdks
from support.live import LiveGateway
from support.resolving import pdf
from upstream import Kimi, ScriptedUpstream

TOOLS: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
CALLING = Kimi("I look.", reasoning="Where?", tools=[("look", {})])


@pytest.fixture
def client(gateway: LiveGateway, upstream: ScriptedUpstream) -> Iterator[sdks.openai.OpenAI]:
    """It refuses answers that do not fit its types."""
    http = sdks.openai.DefaultHttpxClient(verify=NO_TLS)
    base, key = f"{gateway.url}/v1", gateway.key(None)
    with sdks.openai.OpenAI(
        api_key=key, base_url=base, max_retries=0, http_client=http, _strict_response_validation=True
    ) as client:
        yield client


def rows(gateway: LiveGateway, key: str) -> int:
    """The entries of the key's account in the store's file."""
    with sqlite3.connect(gateway.settings.data / STORE_NAME) as db:
        found = db.execute("SELECT count(*) FROM replay WHERE account = ?", (gateway.account(key).id,))
        return int(found.fetchone()[0])


def test_pythons_sdk_shows_and_deletes_a_response(
    client: sdks.openai.OpenAI, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.always(CALLING)
    answered = client.responses.create(model="kimi-k3", input="Look", tools=TOOLS)
    assert client.responses.retrieve(answered.id).to_dict() == answered.to_dict()
    items = client.responses.input_items.list(answered.id, order="asc")
    assert [item.type for item in items] == ["message"]
    assert rows(gateway, client.api_key) == 3
    with pytest.raises(sdks.openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(answered.id)
    client.responses.delete(answered.id)
    assert rows(gateway, client.api_key) == 0
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(sdks.openai.NotFoundError, match="not found"):
            ask(answered.id)
    with pytest.raises(sdks.openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="kimi-k3", input="And?", previous_response_id=answered.id)


def test_pythons_sdk_continues_and_deletes_a_conversation(
    client: sdks.openai.OpenAI, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    def ask(text: str, conversation: str, stream: bool) -> set[str]:
        said: Any = [{"role": "user", "content": text}]
        more = {"conversation_id": conversation}
        if stream:
            chunks = client.chat.completions.create(model="kimi", messages=said, stream=True, extra_body=more)
            return {chunk.id for chunk in chunks}
        return {client.chat.completions.create(model="kimi", messages=said, extra_body=more).id}

    (id,) = ask("My name is Ann", "none", True)
    for number, stream in enumerate((False, True), 1):
        assert ask("Who am I?", id, stream) == {id}
        assert len(upstream.chats[-1].body["messages"]) == 1 + 2 * number
    gone = client.conversations.delete(id)
    assert (gone.id, gone.object, gone.deleted) == (id, "conversation.deleted", True)
    assert rows(gateway, client.api_key) == 0
    assert ask("Who am I?", id, False) != {id}


@pytest.mark.parametrize("store", [False, True])
def test_the_text_of_a_document_is_kept_unless_the_request_forbids_it(
    client: sdks.openai.OpenAI, gateway: LiveGateway, upstream: ScriptedUpstream, store: bool
) -> None:
    data = f"data:application/pdf;base64,{base64.b64encode(pdf('Words')).decode()}"
    document = {"type": "input_file", "file_data": data, "filename": "a.pdf"}
    said: Any = [{"role": "user", "content": [document]}]
    for count in (1, 2):
        client.responses.create(model="kimi-k3", input=said, store=store)
        assert "Words" in str(upstream.chats[-1].body["messages"])
        assert upstream.files.uploads == (1 if store else count)
    assert bool(rows(gateway, client.api_key)) is store


def test_nodes_sdk_shows_and_deletes_a_response(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key, body = gateway.key(None), {"model": "kimi-k3", "input": "Hello", "instructions": "Be brief"}
    with Driver("node", "openai", f"{gateway.url}/v1") as sdk:
        outcome = sdk("kept", key=key, body=body)
    assert not outcome.classes, outcome
    told = outcome.value
    assert (told["shown"]["id"], told["shown"]["instructions"]) == (told["id"], "Be brief")
    assert [item["content"][0]["text"] for item in told["items"]] == ["Hello"]
    assert "Cannot cancel" in told["refused"]
    assert told["gone"] == 404
    assert rows(gateway, key) == 0


def test_the_sdk_compacts_a_conversation(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.always(Kimi("The cat is under the sofa.", ""))
    http = sdks.openai.DefaultHttpxClient(verify=NO_TLS)
    with sdks.openai.OpenAI(
        api_key=gateway.key(), base_url=f"{gateway.url}/v1", max_retries=0, http_client=http
    ) as client:
        said: Any = [{"role": "user", "content": "Find the cat"}]
        found = client.responses.compact(model="kimi-k3", input=said)
        assert (found.object, [item.type for item in found.output]) == (
            "response.compaction",
            ["message", "compaction"],
        )
        # The SDK's types know of no message of the user's here.
        kept = [item.model_dump(exclude_none=True, warnings=False) for item in found.output]
        more: Any = [*kept, *said]
        assert client.responses.create(model="kimi-k3", input=more).output_text
    assert "under the sofa" in str(upstream.chats[-1].body["messages"])

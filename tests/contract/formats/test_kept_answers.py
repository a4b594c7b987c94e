"""`GET` and `DELETE /v1/responses/{id}`: what was kept, whose it is, and that nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.dialects.responses import references
from kimi_gateway.storage.cache import DELETABLE
from support import sdks
from support.error_shape import openai_error
from support.inprocess import Answered, InProcess, Sent, Told, streamed, told
from support.response_events import events_of
from upstream import chat_events

Json = dict[str, Any]
TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
MODES = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def ask(desk: InProcess, key: str, stream: bool = False, **more: Any) -> Json:
    """The response, as its request was answered."""
    body = {"model": "kimi-k3", "input": "A secret", "stream": stream, **more}
    answer = desk.call("POST", "/v1/responses", body, key)
    assert answer.status == 200, answer.body
    if stream:
        return dict(events_of(answer.body)[-1]["response"])
    return dict(answer.json)


def get(desk: InProcess, key: str, id: str, rest: str = "") -> Answered:
    return desk.call("GET", f"/v1/responses/{id}{rest}", b"", key)


def kept(desk: InProcess) -> list[str]:
    shelves = desk.running.gateway.conversations._cache._shelves.values()  # type: ignore[attr-defined]
    return [name for shelf in shelves for name in shelf.entries]


def calling(sent: Sent) -> Told:
    return streamed(*chat_events("", "I look", [("look", {})]))


def searching(sent: Sent) -> Told:
    if sent.path.startswith("/v1/tools"):
        return told({"search_results": [{"url": "https://a.example/", "title": "A", "snippet": "S"}]})
    asked = sent.body["messages"][-1]["role"] == "user"
    return streamed(*chat_events("Done", tools=[("gateway_web_search", {"query": "x"})] if asked else ()))


ANSWERS: dict[str, tuple[Any, Json]] = {
    "a text": (lambda sent: streamed(*chat_events("Hello", "I think")), {"instructions": "Be brief"}),
    "a call": (calling, {"tools": TOOLS, "metadata": {"a": "b"}}),
    "a search": (
        searching,
        {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]},
    ),
    "a cut": (lambda sent: streamed(*chat_events("Hel", finish="length")), {"max_output_tokens": 5}),
}


@MODES
@pytest.mark.parametrize("name", ANSWERS)
def test_a_kept_response_is_shown_as_it_was_answered(desk: InProcess, name: str, stream: bool) -> None:
    desk.client.answer, more = ANSWERS[name]
    key = desk.key(None)
    answered = ask(desk, key, stream, **more)
    shown = get(desk, key, answered["id"])
    assert shown.status == 200
    assert shown.json == answered
    sdks.openai.types.responses.Response.model_validate(shown.json, strict=False)
    assert desk.call("GET", f"/api/v1/responses/{answered['id']}", b"", key).json == answered


def test_what_was_answered_is_listed_in_pages(desk: InProcess) -> None:
    desk.client.answer = calling
    key = desk.key(None)
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    question = [{"role": "user", "content": [{"type": "input_text", "text": "Look"}, picture]}]
    first = ask(desk, key, input=question, tools=TOOLS)
    call = next(item for item in first["output"] if item["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    second = ask(desk, key, input=[result], previous_response_id=first["id"], tools=TOOLS)
    listed = get(desk, key, second["id"], "/input_items")
    page = sdks.openai.types.responses.response_item_list.ResponseItemList.model_validate(listed.json)
    assert [item.type for item in page.data] == ["function_call_output", "function_call", "message"]
    assert listed.json["data"][2]["content"][0] == {"type": "input_text", "text": "Look"}
    assert (page.first_id, page.last_id, page.has_more) == (page.data[0].id, page.data[2].id, False)
    assert len({item.id for item in page.data}) == 3
    path = f"/v1/responses/{second['id']}/input_items"
    found = desk.run(_query(desk, path, key, "order=asc&limit=2")).json
    assert [item["type"] for item in found["data"]] == ["message", "function_call"]
    assert found["has_more"]
    rest = desk.run(_query(desk, path, key, f"order=asc&after={found['last_id']}")).json
    assert [item["type"] for item in rest["data"]] == ["function_call_output"]
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_1"):
        assert desk.run(_query(desk, path, key, query)).status == 400
    assert desk.run(_query(desk, f"/v1/responses/{second['id']}", key, "stream=true")).status == 400


@pytest.mark.parametrize("continues", [True, False], ids=["by its id", "by items"])
def test_calls_are_listed_under_the_ids_that_the_client_got(desk: InProcess, continues: bool) -> None:
    """The vendor gives the calls of all turns the same ids."""
    two = [("look", {}), ("look", {"at": 2})]
    desk.client.answer = lambda sent: streamed(*chat_events("", "I look", two))
    key, told, given, more = desk.key(None), list[str](), list[Json](), dict[str, Any]()
    given.append({"role": "user", "content": "Look"})
    for _ in range(3):
        answered = ask(desk, key, input=given, tools=TOOLS, **more)
        calls = [item for item in answered["output"] if item["type"] == "function_call"]
        ids = [item["call_id"] for item in calls]
        results = [{"type": "function_call_output", "call_id": id, "output": id} for id in reversed(ids)]
        given = results if continues else [*given, *calls, *results]
        more = {"previous_response_id": answered["id"]} if continues else {}
        told += ids
    last = ask(desk, key, input=given, tools=TOOLS, **more)["id"]
    items = desk.run(_query(desk, f"/v1/responses/{last}/input_items", key, "order=asc&limit=100")).json[
        "data"
    ]
    assert [item["call_id"] for item in items if item["type"] == "function_call"] == told
    results = [item for item in items if item["type"] == "function_call_output"]
    assert [item["call_id"] for item in results] == [item["output"] for item in results]
    assert {item["call_id"] for item in results} == set(told)
    assert len(set(told)) == 6


async def _query(desk: InProcess, path: str, key: str, query: str) -> Answered:
    from kimi_gateway.http import Headers, Query, Request

    headers = Headers((("authorization", f"Bearer {key}"),))
    request = Request("GET", path, headers, "req_1", query=Query(query))
    response = await desk.router.handle(request)
    assert isinstance(response.body, bytes)
    await response.close()
    return Answered(response.status, dict(response.headers), response.body)


@MODES
def test_after_a_deletion_nothing_is_left_and_nothing_goes_on_from_it(desk: InProcess, stream: bool) -> None:
    desk.client.answer = calling
    key = desk.key(None)
    id = ask(desk, key, stream, tools=TOOLS)["id"]
    assert len(kept(desk)) == 3, "the conversation, its items, and the reasoning before the call"
    deleted = desk.call("DELETE", f"/v1/responses/{id}", b"", key)
    assert deleted.json == {"id": id, "object": "response", "deleted": True}
    assert kept(desk) == []
    for method, path in REACHES:
        assert desk.call(method, path.format(id), b"", key).status == 404
    more = {"model": "kimi-k3", "input": "More", "previous_response_id": id}
    refused = desk.call("POST", "/v1/responses", more, key)
    assert (refused.status, openai_error(refused.json)["param"]) == (400, "previous_response_id")


REACHES = [
    ("GET", "/v1/responses/{}"),
    ("GET", "/v1/responses/{}/input_items"),
    ("POST", "/v1/responses/{}/cancel"),
    ("DELETE", "/v1/responses/{}"),
]


@pytest.mark.parametrize(("method", "path"), REACHES)
def test_another_account_reaches_nothing(desk: InProcess, method: str, path: str) -> None:
    mine, other = desk.key(None), desk.key(None)
    id = ask(desk, mine)["id"]
    refused = desk.call(method, path.format(id), b"", other)
    assert (refused.status, openai_error(refused.json)["code"]) == (404, "not_found")
    assert desk.call(method, path.format(id), b"").status == 401
    assert get(desk, mine, id).status == 200


@pytest.mark.parametrize("id", ["resp_1", "resp_", "resp_xyz", "chatcmpl-1", "x" * 900, "resp_" + "a" * 65])
def test_an_unknown_id_is_404(desk: InProcess, id: str) -> None:
    for method, path in REACHES:
        assert desk.call(method, path.format(id), b"", desk.key(None)).status == 404


def test_a_response_cannot_be_cancelled(desk: InProcess) -> None:
    key = desk.key(None)
    refused = desk.call("POST", f"/v1/responses/{ask(desk, key)['id']}/cancel", b"", key)
    assert refused.status == 400
    assert openai_error(refused.json)["message"] == "Cannot cancel a synchronous response."


@MODES
@pytest.mark.parametrize("name", ANSWERS)
def test_store_false_keeps_nothing_at_all(desk: InProcess, name: str, stream: bool) -> None:
    desk.client.answer, more = ANSWERS[name]
    key = desk.key(None)
    id = ask(desk, key, stream, store=False, **more)["id"]
    assert kept(desk) == []
    assert get(desk, key, id).status == 404


def test_nothing_is_shown_if_the_operator_keeps_nothing() -> None:
    with InProcess(keep_conversations=False) as desk:
        key = desk.key(None)
        assert get(desk, key, ask(desk, key)["id"]).status == 404
        assert kept(desk) == []


def test_every_process_asks_the_store_for_what_can_be_deleted() -> None:
    assert all(name.startswith(DELETABLE) for name in references.names("ab"))

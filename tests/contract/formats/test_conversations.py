"""`conversation_id` in Chat Completions: begun, continued, kept apart, bounded and deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.dialects.chat import conversation
from kimi_gateway.flow.conversation_cache import KEPT
from kimi_gateway.storage.cache import DELETABLE, LARGEST
from support.error_shape import openai_error
from support.inprocess import Answered, InProcess, Sent, Told, streamed, told
from support.live import events
from upstream import chat_events

FORM = re.compile(r"[0-9a-z]{20}")
PLAIN = re.compile(r"chatcmpl-[0-9a-f-]{36}")
Json = dict[str, Any]

# The requests of the first free API's README, with its way to several turns (2024-12).
SEED: Json = {"model": "kimi", "messages": [{"role": "user", "content": "test"}], "use_search": False}
MODES = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def desk() -> Iterator[InProcess]:
    with InProcess() as desk:
        yield desk


def turn(desk: InProcess, key: str, text: str, stream: bool = False, **more: Any) -> Answered:
    body = SEED | {"messages": [{"role": "user", "content": text}], "stream": stream, **more}
    return desk.call("POST", "/v1/chat/completions", body, key)


def ids(answer: Answered) -> set[str]:
    """The ids of all chunks, or the one of the answer."""
    assert answer.status == 200, answer.body
    if answer.body.startswith(b"data: "):
        return {json.loads(data)["id"] for data in events(answer.body.decode()) if data != "[DONE]"}
    return {answer.json["id"]}


def begun(desk: InProcess, key: str, text: str = "My name is Ann", stream: bool = False, **more: Any) -> str:
    (id,) = ids(turn(desk, key, text, stream, conversation_id="none", **more))
    assert FORM.fullmatch(id)
    return id


def said(desk: InProcess) -> list[str]:
    """The texts of the messages that went upstream last, with their roles."""
    return [f"{message['role']}: {message['content']}" for message in desk.client.chats[-1].body["messages"]]


def answering(*texts: str) -> Any:
    left = list(texts)

    def answer(sent: Sent) -> Told:
        return streamed(*chat_events(left.pop(0)))

    return answer


@MODES
def test_a_conversation_is_continued_by_its_id(desk: InProcess, stream: bool) -> None:
    key = desk.key(None)
    desk.client.answer = answering("Hello Ann", "You are Ann", "Bye")
    id = begun(desk, key, stream=stream)
    assert ids(turn(desk, key, "Who am I?", stream, conversation_id=id)) == {id}
    assert said(desk) == ["user: My name is Ann", "assistant: Hello Ann", "user: Who am I?"]
    assert ids(turn(desk, key, "Bye", stream, conversation_id=id)) == {id}
    assert said(desk)[2:] == ["user: Who am I?", "assistant: You are Ann", "user: Bye"]


@MODES
@pytest.mark.parametrize("given", [{}, {"conversation_id": None}, {"conversation_id": ""}])
def test_other_requests_keep_their_ids_and_nothing_is_stored(
    desk: InProcess, given: Json, stream: bool
) -> None:
    (id,) = ids(turn(desk, desk.key(None), "test", stream, **given))
    assert PLAIN.fullmatch(id)
    assert kept(desk) == []
    assert "conversation_id" not in desk.client.chats[-1].body


def kept(desk: InProcess) -> list[str]:
    """The names of all entries, of all accounts."""
    shelves = desk.running.gateway.conversations._cache._shelves.values()  # type: ignore[attr-defined]
    return [name for shelf in shelves for name in shelf.entries]


UNKNOWN = ["cnndivilnl96vah411dg", "0f8fad5b-d9cb-469f-a165-70867728950e", "NONE", "x" * 500, "../etc", "ä"]


@pytest.mark.parametrize("given", UNKNOWN)
def test_an_unknown_id_starts_anew(desk: InProcess, given: str) -> None:
    key = desk.key(None)
    (id,) = ids(turn(desk, key, "test", conversation_id=given))
    assert FORM.fullmatch(id)
    assert id != given
    assert said(desk) == ["user: test"]
    assert ids(turn(desk, key, "more", conversation_id=id)) == {id}
    assert len(said(desk)) == 3


@pytest.mark.parametrize("given", [7, True, ["none"], {"id": "none"}])
def test_another_type_is_refused_by_name(desk: InProcess, given: object) -> None:
    answer = turn(desk, desk.key(1), "test", conversation_id=given)
    assert (answer.status, openai_error(answer.json)["param"]) == (400, "conversation_id")


def test_the_seeds_multi_turn_body_and_an_agents_id(desk: InProcess) -> None:
    key = desk.key(None)
    first = SEED | {"conversation_id": "none", "stream": False}
    answer = desk.call("POST", "/v1/chat/completions", first, key)
    assert FORM.fullmatch(answer.json["id"])
    assert (answer.json["object"], answer.json["model"]) == ("chat.completion", "kimi")
    second = SEED | {"conversation_id": answer.json["id"], "stream": True}
    assert ids(desk.call("POST", "/v1/chat/completions", second, key)) == {answer.json["id"]}
    agent = turn(desk, key, "test", model="crm40ee9e5jvhsn7ptcg", conversation_id="none")
    assert agent.status == 400
    assert "Agent ids" in openai_error(agent.json)["message"]


def test_another_account_starts_anew(desk: InProcess) -> None:
    id = begun(desk, desk.key(None))
    (other,) = ids(turn(desk, desk.key(None), "Who am I?", conversation_id=id))
    assert other != id
    assert said(desk) == ["user: Who am I?"]


@MODES
def test_only_complete_answers_extend_a_conversation(desk: InProcess, stream: bool) -> None:
    key = desk.key(None)
    id = begun(desk, key)
    cut = chat_events("Half of")[:3]
    desk.client.answer = lambda sent: streamed(*cut, done=False)
    turn(desk, key, "Lost?", stream, conversation_id=id)
    desk.client.answer = lambda sent: told({"error": {"type": "invalid_request_error", "message": "no"}}, 400)
    turn(desk, key, "Refused?", stream, conversation_id=id)
    desk.client.answer = answering("Yes")
    turn(desk, key, "Still there?", stream, conversation_id=id)
    assert [line.partition(": ")[2] for line in said(desk)][2:] == ["Still there?"]


def test_of_requests_at_one_time_the_last_to_end_counts(desk: InProcess) -> None:
    """Both continue what was kept when they began; the conversation goes on from one of them."""
    key = desk.key(None)
    id = begun(desk, key)

    def while_another_one_runs(sent: Sent) -> Told:
        desk.client.answer = lambda sent: streamed(*chat_events("inner answer"))
        other = SEED | {"messages": [{"role": "user", "content": "inner"}], "conversation_id": id}
        inner.append(json.dumps(other))
        return streamed(*chat_events("outer answer"))

    inner: list[str] = []
    desk.client.answer = while_another_one_runs
    request, response = desk.run(opened(desk, key, SEED | {"conversation_id": id, "stream": True}))
    assert ids(desk.call("POST", "/v1/chat/completions", inner[0].encode(), key)) == {id}
    assert said(desk)[2:] == ["user: inner"], "what runs is not part of it yet"
    desk.run(finished(response))
    turn(desk, key, "Next", conversation_id=id)
    assert said(desk)[2:] == ["user: test", "assistant: outer answer", "user: Next"]
    assert request.record.status == 200


async def opened(desk: InProcess, key: str, body: Json) -> Any:
    """A streamed request that was answered up to its first chunk."""
    from kimi_gateway.http import Headers, Request

    async def read() -> bytes:
        return json.dumps(body).encode()

    headers = Headers((("authorization", f"Bearer {key}"), ("content-type", "application/json")))
    request = Request("POST", "/v1/chat/completions", headers, "req_1", read)
    return request, await desk.router.handle(request)


async def finished(response: Any) -> None:
    async for _ in response.body:
        pass
    await response.close()


def test_a_system_message_that_is_sent_again_stands_once(desk: InProcess) -> None:
    key = desk.key(None)
    system = {"role": "system", "content": "Be brief"}
    hello, more = {"role": "user", "content": "Hello"}, {"role": "user", "content": "More"}
    (id,) = ids(turn(desk, key, "", messages=[system, hello], conversation_id="none"))
    turn(desk, key, "", messages=[system, more], conversation_id=id)
    assert [message["role"] for message in desk.client.chats[-1].body["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    turn(desk, key, "", messages=[{"role": "system", "content": "Be long"}, more], conversation_id=id)
    assert said(desk)[-2:] == ["system: Be long", "user: More"]


def test_calls_of_tools_go_on_across_turns(desk: InProcess) -> None:
    key = desk.key(None)
    function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    desk.client.answer = lambda sent: streamed(*chat_events("", "I look", [("look", {})]))
    first = turn(desk, key, "Look", conversation_id="none", tools=tools)
    (call,) = first.json["choices"][0]["message"]["tool_calls"]
    desk.client.answer = answering("It rains")
    result = {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
    assert ids(turn(desk, key, "", messages=[result], tools=tools, conversation_id=first.json["id"])) == ids(
        first
    )
    asked, called, looked = desk.client.chats[-1].body["messages"]
    assert (asked["content"], called["tool_calls"][0]["id"], looked["content"]) == (
        "Look", looked["tool_call_id"], "rain",
    )  # fmt: skip
    assert called["reasoning_content"] == "I look"


@MODES
def test_store_false_keeps_nothing(desk: InProcess, stream: bool) -> None:
    key = desk.key(None)
    (id,) = ids(turn(desk, key, "test", stream, conversation_id="none", store=False))
    assert PLAIN.fullmatch(id)
    assert kept(desk) == []
    id = begun(desk, key)
    before = kept(desk)
    assert ids(turn(desk, key, "Secret", stream, conversation_id=id, store=False)) == {id}
    assert kept(desk) == before
    turn(desk, key, "Next", conversation_id=id)
    assert "user: Secret" not in said(desk)


def test_an_operator_who_keeps_nothing_refuses_to_continue() -> None:
    with InProcess(keep_conversations=False) as desk:
        key = desk.key(None)
        (id,) = ids(turn(desk, key, "test", conversation_id="none"))
        assert PLAIN.fullmatch(id)
        answer = turn(desk, key, "test", conversation_id="cnndivilnl96vah411dg")
        assert (answer.status, openai_error(answer.json)["param"]) == (400, "conversation_id")


def test_it_ends_after_a_day_without_use(desk: InProcess) -> None:
    key = desk.key(None)
    id = begun(desk, key)
    desk.now += KEPT - 1
    assert ids(turn(desk, key, "More", conversation_id=id)) == {id}
    desk.now += KEPT - 1
    assert ids(turn(desk, key, "More", conversation_id=id)) == {id}
    desk.now += KEPT
    assert ids(turn(desk, key, "More", conversation_id=id)) != {id}


def test_a_conversation_that_becomes_too_large_is_refused_and_not_cut(desk: InProcess) -> None:
    key = desk.key(None)
    id = begun(desk, key)
    noise = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(150_000))
    assert ids(turn(desk, key, noise, conversation_id=id)) == {id}
    answer = turn(desk, key, "More", conversation_id=id)
    assert (answer.status, openai_error(answer.json)["param"]) == (400, "conversation_id")
    assert "larger" in openai_error(answer.json)["message"]
    assert desk.call("DELETE", f"/v1/conversations/{id}", b"", key).status == 200
    assert conversation.MOST_PACKED + 64 < LARGEST
    assert conversation.entry(id).startswith(DELETABLE)


def test_a_conversation_is_deleted_with_all_that_was_kept_for_it(desk: InProcess) -> None:
    path = "/v1/conversations"
    key, other = desk.key(None), desk.key(None)
    function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    desk.client.answer = lambda sent: streamed(*chat_events("", "I look", [("look", {})]))
    id = begun(desk, key, tools=tools, model="kimi-k3")
    assert len(kept(desk)) == 2, "the conversation, and the reasoning before the call"
    refused = desk.call("DELETE", f"{path}/{id}", b"", other)
    assert (refused.status, openai_error(refused.json)["code"]) == (404, "not_found")
    deleted = desk.call("DELETE", f"{path}/{id}", b"", key)
    assert deleted.json == {"id": id, "object": "conversation.deleted", "deleted": True}
    assert kept(desk) == []
    assert desk.call("DELETE", f"{path}/{id}", b"", key).status == 404
    assert ids(turn(desk, key, "Who am I?", conversation_id=id)) != {id}


def test_an_answer_that_ends_after_the_deletion_brings_nothing_back(desk: InProcess) -> None:
    key = desk.key(None)
    id = begun(desk, key)
    _, response = desk.run(opened(desk, key, SEED | {"conversation_id": id, "stream": True}))
    assert desk.call("DELETE", f"/v1/conversations/{id}", b"", key).status == 200
    desk.run(finished(response))
    assert kept(desk) == []


@MODES
def test_a_search_and_a_name_with_options_go_together_with_it(desk: InProcess, stream: bool) -> None:
    """The line that `math` adds is not part of the conversation; what the model said is kept, without the
    lines that show a search."""
    key = desk.key(None)

    def answer(sent: Sent) -> Told:
        if sent.path.startswith("/v1/tools"):
            page = {"url": "https://a.example/", "title": "A", "snippet": "S"}
            return told({"search_results": [page]})
        asked = sent.body["messages"][-1]["role"] == "user" and len(desk.client.chats) == 1
        return streamed(*chat_events("Done", tools=[("gateway_web_search", {"query": "x"})] if asked else ()))

    desk.client.answer = answer
    id = begun(desk, key, "First", stream, model="kimi-math-search")
    turn(desk, key, "Second", stream, model="kimi-math-search", conversation_id=id)
    roles = [message["role"] for message in desk.client.chats[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "a.example" not in said(desk)[2]

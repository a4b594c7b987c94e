"""What ends a session of a real tool, or loops for money: small inputs of each kind, in all three formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.accounts.pardons import AN_HOUR
from kimi_gateway.pivot.call_ids import vendors
from support.formats import EACH, FORMATS, MESSAGES, MODES, Format
from support.inprocess import InProcess, Sent, Told, kimi, streamed
from support.messages_stream import events_of as messages_events
from upstream import chat_events
from upstream.kimi import usage_of

Json = dict[str, Any]
SVG = "data:image/svg+xml;base64,PHN2Zy8+"
TOOLS: dict[str, Json] = {
    "chat": {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}},
    "messages": {"name": "run", "input_schema": {"type": "object"}},
    "responses": {"type": "function", "name": "run", "parameters": {"type": "object"}},
}
USAGE = usage_of(20, 1)


@pytest.fixture
def without_search() -> Iterator[InProcess]:
    with InProcess(search=False) as desk:
        yield desk


def name_of(format: Format) -> str:
    return next((word for word in TOOLS if format.path.endswith(word)), "chat")


def posted(desk: InProcess, format: Format, body: Json, key: str | None = None) -> Any:
    return desk.call("POST", format.path, {"model": "kimi-k3", **body}, key or desk.key())


def say(desk: InProcess, *events: Json, done: bool = True) -> None:
    desk.client.answer = lambda sent: streamed(*events, done=done) if "chat" in sent.path else kimi(sent)


def piece(delta: Json, finish: str | None = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


CALL = {"id": "run:0", "type": "function", "function": {"name": "run", "arguments": '{"a":1}'}}


@EACH
@MODES
def test_done_without_a_finish_reason_makes_one_and_a_bare_cut_is_an_error(
    desk: InProcess, format: Format, stream: bool
) -> None:
    say(desk, piece({"content": "Hi"}), {"choices": [], "usage": USAGE})
    asked = format.asked(stream=stream)
    told = format.read(posted(desk, format, asked).body.decode(), stream)
    assert (told.content, told.finishes, told.whole) == ("Hi", [format.stop], True)
    say(desk, piece({"content": "Hi"}), done=False)
    answer = posted(desk, format, asked)
    assert format.read(answer.body.decode(), stream).error is not None
    say(desk, piece({"tool_calls": [{"index": 0, **CALL}]}), {"choices": [], "usage": USAGE})
    called = posted(desk, format, asked | {"tools": [TOOLS[name_of(format)]]}).body.decode()
    assert {"chat": '"tool_calls"', "messages": '"tool_use"', "responses": '"completed"'}[
        name_of(format)
    ] in called
    assert vendors(json.loads(desk_calls(called, stream, name_of(format)))) == "run:0"


def desk_calls(text: str, stream: bool, name: str) -> str:
    """The JSON text of the one call's id, as the client sees it; Messages writes it in its own letters."""
    member = "call_id" if name == "responses" else "id"
    rest = next(part for part in text.split(f'"{member}":')[1:] if part.startswith(('"run:0', '"kimi_run')))
    return rest[: rest.index('"', 1) + 1].replace("kimi_run-3a0", "run:0")


@EACH
@MODES
def test_a_call_id_never_comes_again_and_goes_back_as_the_vendors(
    desk: InProcess, format: Format, stream: bool
) -> None:
    say(desk, piece({"tool_calls": [{"index": 0, **CALL}]}), piece({}, "tool_calls"))
    asked = format.asked(stream=stream, tools=[TOOLS[name_of(format)]])
    seen = {desk_calls(posted(desk, format, asked).body.decode(), stream, name_of(format)) for _ in range(5)}
    assert len(seen) == 5
    assert {vendors(json.loads(id)) for id in seen} == {"run:0"}


def with_result(format: Format, content: str) -> Json:
    """A history whose tool result holds a picture; `content` is its address."""
    match name_of(format):
        case "messages":
            source = {"type": "url", "url": content}
            if content.startswith("data:"):
                head, _, data = content.partition(",")
                source = {"type": "base64", "media_type": head[5:].partition(";")[0], "data": data}
            use = {"type": "tool_use", "id": "a", "name": "run", "input": {}}
            result = {"type": "tool_result", "tool_use_id": "a",
                      "content": [{"type": "image", "source": source}]}  # fmt: skip
            return {"max_tokens": 9, "messages": [
                {"role": "user", "content": "Hi"}, {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result]}]}  # fmt: skip
        case "responses":
            return {"input": [
                {"type": "function_call", "call_id": "a", "name": "run", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a",
                 "output": [{"type": "input_image", "image_url": content}]}]}  # fmt: skip
        case _:
            call = {"id": "a", "type": "function", "function": {"name": "run", "arguments": "{}"}}
            return {"messages": [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a",
                 "content": [{"type": "image_url", "image_url": {"url": content}}]}]}  # fmt: skip


@EACH
@pytest.mark.parametrize("address", [SVG, "https://a.test/x.png", "data:image/png;base64,@@", "file:///x"])
def test_a_picture_in_a_result_that_cannot_be_sent_is_reported_in_words(
    desk: InProcess, format: Format, address: str
) -> None:
    answer = posted(desk, format, with_result(format, address))
    assert answer.status == 200, answer.body
    result = desk.client.chats[-1].body["messages"][-1]
    assert "picture was here that cannot be shown" in json.dumps(result)
    assert "image_url" not in json.dumps(result)


def histories() -> Iterator[tuple[Format, Json, str]]:
    orphan = {"type": "function_call_output", "call_id": "c9", "output": "x"}
    call = {"type": "function_call", "call_id": "c9", "name": "run", "arguments": "{}"}
    user: Json = {"role": "user", "content": "next"}
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "c9", "name": "run", "input": {}}]}
    done = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c9", "content": "x"}]}
    for format in FORMATS.values():
        if name_of(format) == "responses":
            yield format, {"input": [orphan, user]}, "input.0.call_id"
            yield format, {"input": [user, call, user]}, "input.1.call_id"
        if name_of(format) == "messages":
            yield format, {"max_tokens": 9, "messages": [done, user]}, "messages.0.content.0.tool_use_id"
            yield format, {"max_tokens": 9, "messages": [user, use, user]}, "messages.1.content.0.id"
            yield (
                format,
                {"max_tokens": 9, "messages": [user, use, done, use, done]},
                "messages.3.content.0.id",
            )


@pytest.mark.parametrize(("format", "body", "name"), list(histories()))
def test_what_was_repaired_is_named_as_the_client_wrote_it(
    desk: InProcess, format: Format, body: Json, name: str
) -> None:
    answer = posted(desk, format, body)
    assert (answer.status, answer.headers["x-param-ignored"]) == (200, name)


def test_an_empty_list_of_tools_is_not_sent(desk: InProcess) -> None:
    assert desk.chat(desk.key(), {"tools": [], "tool_choice": "auto"}).status == 200
    assert not {"tools", "tool_choice"} & desk.client.chats[-1].body.keys()


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
FORCED = {"type": "tool", "name": "web_search"}
QUESTION = {"role": "user", "content": "Perform a web search for the query: kimi k3 price"}
OTHER = {"role": "user", "content": "What is new?"}


@MODES
@pytest.mark.parametrize(
    ("more", "query"),
    [
        ({"tool_choice": FORCED, "messages": [QUESTION]}, "kimi k3 price"),
        ({"tool_choice": FORCED, "messages": [OTHER], "tools": [SEARCH, TOOLS["messages"]]}, "What is new?"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION["content"]}]}]},
         "kimi k3 price"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_its_own_error_and_costs_nothing(
    without_search: InProcess, stream: bool, more: Json, query: str
) -> None:
    desk = without_search
    key = desk.key(5)
    body = {"max_tokens": 9, "tools": [SEARCH], "stream": stream, **more}
    answer = posted(desk, MESSAGES, body, key)
    assert answer.status == 200
    text = answer.body.decode()
    if stream:
        kinds = [event["type"] for event in messages_events(answer.body)]
        assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    for part in ('"server_tool_use"', '"web_search_tool_result_error"', '"unavailable"', query):
        assert part in text
    assert not desk.client.chats
    account = desk.account(key)
    assert (account.credits, account.reserved) == (5, 0)
    left = int(answer.headers["x-ratelimit-remaining"])
    assert int(posted(desk, MESSAGES, body, key).headers["x-ratelimit-remaining"]) == left - 1


@pytest.mark.parametrize(
    "more", [{"messages": [OTHER]}, {"messages": [QUESTION], "tools": [SEARCH, TOOLS["messages"]]}]
)
def test_other_requests_with_a_search_are_answered_by_the_model(desk: InProcess, more: Json) -> None:
    assert posted(desk, MESSAGES, {"max_tokens": 9, "tools": [SEARCH], **more}).status == 200
    assert len(desk.client.chats) == 1


def test_the_search_that_failed_may_come_back_in_the_history(without_search: InProcess) -> None:
    desk = without_search
    body = {"max_tokens": 9, "tools": [SEARCH], "tool_choice": FORCED, "messages": [QUESTION]}
    said = posted(desk, MESSAGES, body).json["content"]
    history = [QUESTION, {"role": "assistant", "content": said}, OTHER]
    assert posted(desk, MESSAGES, {"max_tokens": 9, "messages": history}).status == 200
    assert "unavailable" in desk.client.chats[-1].body["messages"][1]["content"]


EMPTY = [piece({"role": "assistant", "content": ""}), piece({}, "stop", usage=USAGE)]
LATE = [piece({}, "stop"), {"choices": [], "usage": USAGE}]


def in_turn(desk: InProcess, *answers: list[Json]) -> None:
    def answer(sent: Sent) -> Told:
        if "chat" not in sent.path:
            return kimi(sent)
        return streamed(*answers[min(len(desk.client.chats), len(answers)) - 1])

    desk.client.answer = answer


@EACH
@MODES
@pytest.mark.parametrize("empty", [EMPTY, LATE], ids=["usage with it", "usage behind it"])
def test_an_empty_answer_is_tried_once_more(
    desk: InProcess, format: Format, stream: bool, empty: list[Json]
) -> None:
    in_turn(desk, empty, chat_events("Here."))
    key = desk.key(5)
    told = format.read(posted(desk, format, format.asked(stream=stream), key).body.decode(), stream)
    assert (told.content, told.finishes, len(desk.client.chats)) == ("Here.", [format.stop], 2)
    assert desk.account(key).credits == 4


@EACH
def test_a_second_empty_answer_passes_uncharged_five_times_an_hour(desk: InProcess, format: Format) -> None:
    in_turn(desk, EMPTY)
    key = desk.key(9)
    for _ in range(AN_HOUR):
        assert posted(desk, format, format.asked(), key).status == 200
    assert (desk.account(key).credits, len(desk.client.chats)) == (9, 2 * AN_HOUR)
    assert posted(desk, format, format.asked(), key).status == 200
    assert (desk.account(key).credits, desk.account(key).reserved) == (8, 0)


@pytest.mark.parametrize(
    ("events", "more"),
    [
        ([piece({}, "length", usage=USAGE)], {}),
        ([piece({}, "stop", usage=usage_of(20, 2))], {}),
        ([piece({}, "stop")], {}),
        ([piece({}, "stop", usage=USAGE)], {"stop": ["END"]}),
        ([piece({"reasoning_content": "Hm."}), piece({}, "stop", usage=USAGE)], {}),
        ([piece({"tool_calls": [{"index": 0, **CALL}]}), piece({}, "stop", usage=USAGE)], {}),
    ],
)
def test_what_is_not_plainly_empty_is_not_tried_again(
    desk: InProcess, events: list[Json], more: Json
) -> None:
    in_turn(desk, events)
    key = desk.key(5)
    assert desk.chat(key, more).status == 200
    assert (len(desk.client.chats), desk.account(key).credits) == (1, 4)

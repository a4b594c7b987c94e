"""Chats through the web service of kimi.com, in each format and mode, against an emulator of its protocol."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from kimi_gateway.accounts.values import Budget
from support.exchange import CHARGED, NOT_CHARGED, ask, ledger
from support.formats import EACH, MESSAGES, MODES, RESPONSES, Format
from support.kimi_web import with_web
from support.live import LiveGateway
from upstream import ScriptedUpstream, Status
from upstream.kimi_web import TEXT, THOUGHT, Answer, Frames, WebService, trailer

Json = dict[str, Any]
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))


def chat(gateway: LiveGateway, *messages: Json, key: str = "", **more: Any) -> httpx.Response:
    asked = list(messages) or [{"role": "user", "content": "hi"}]
    return gateway.chat(key or gateway.key(), **{"model": "kimi-web/k2.6", "messages": asked, **more})


def said(answer: httpx.Response) -> Json:
    assert answer.status_code == 200, answer.text
    message: Json = answer.json()["choices"][0]["message"]
    return message


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


@MODES
@EACH
def test_every_format_has_the_answer(
    gateway: LiveGateway, fresh: WebService, format: Format, stream: bool
) -> None:
    seen = ask(gateway, stream, "hi", format, model="kimi-web/k2.6")
    assert (seen.seen.status, seen.seen.content, seen.seen.finishes) == (200, TEXT, [format.stop])
    assert (seen.seen.done, seen.ledger) == (True, CHARGED)
    (sent,) = fresh.asked
    assert fresh.contents == ["hi\n"]
    assert (sent["options"]["model"], sent["tools"]) == ("k2d6-chat", [])
    (row,) = gateway.usage(seen.key)
    assert row.output > 0, "the service counts nothing, so the gateway estimates"


def test_the_gateway_says_who_it_is_and_pretends_nothing(gateway: LiveGateway, fresh: WebService) -> None:
    said(chat(gateway))
    for request in fresh.up.requests:
        assert request.headers["user-agent"].startswith("kimi-gateway/")
        browsers = {"origin", "referer", "cookie", "accept-language", "x-msh-platform", "x-msh-device-id"}
        assert not browsers & request.headers.keys()
        assert not [name for name in request.headers if name.startswith(("sec-", "x-msh-", "x-traffic"))]


def test_reads_of_any_size_give_the_same_answer(gateway: LiveGateway, fresh: WebService) -> None:
    for piece in (1, 7):
        fresh.plan(Answer("你好 \ufffd 👋 " * 3, piece))
        message = said(chat(gateway, model="kimi-web/k3"))
        assert message["content"] == "你好 \ufffd 👋 " * 3
        assert message["reasoning_content"] == THOUGHT


THINKS: list[tuple[str, Json, Json]] = [
    ("k3", {}, {"model": "k3", "thinking": True}),
    ("k3", {"reasoning_effort": "low"}, {"thinking": True, "reasoning_effort": "REASONING_EFFORT_LOW"}),
    (
        "k3",
        {"thinking": {"type": "disabled"}},
        {"thinking": False, "reasoning_effort": "REASONING_EFFORT_NONE"},
    ),
    ("k2.6", {}, {"thinking": False}),
    ("kimi-k1", {}, {"model": "k2d6-chat", "thinking": True}),
]


@pytest.mark.parametrize(("model", "asked", "sent"), THINKS)
def test_thinking_is_asked_for_in_the_services_words(
    gateway: LiveGateway, fresh: WebService, model: str, asked: Json, sent: Json
) -> None:
    message = said(chat(gateway, model=f"kimi-web/{model}", **asked))
    options = fresh.asked[0]["options"]
    assert {name: options.get(name) for name in sent} == sent
    assert ("reasoning_content" in message) == options["thinking"]


def test_a_conversation_becomes_one_text_and_a_repeated_request_the_same(
    gateway: LiveGateway, fresh: WebService
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        user("See https://sea.example/a."),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "20 C"},
        user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),
    ]
    for _ in range(2):
        said(chat(gateway, *messages))
    first, second = fresh.contents
    url = '<url id="" type="url" status="" title="" wc="">https://sea.example/a</url>'
    assert (
        first
        == second
        == (f"system:Be brief.\nuser:See {url}.\ntool:20 C\nsystem:关注用户最新的消息\nuser:one\ntwo\n")
    )


def test_fields_without_a_counterpart_are_named(gateway: LiveGateway, fresh: WebService) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    schema = {"name": "a", "schema": {"type": "object", "title": "Find me"}}
    style = {"type": "json_schema", "json_schema": schema}
    answer = chat(gateway, temperature=0.5, max_tokens=5, stop=["x"], tools=[tool], response_format=style)
    named = set(answer.headers["x-param-ignored"].split(", "))
    assert named >= {"temperature", "max_tokens", "stop", "tools", "response_format"}
    assert "Find me" in fresh.contents[0], "the schema is asked for in words"


@MODES
def test_a_search_is_shown_as_lines_and_annotations(
    gateway: LiveGateway, fresh: WebService, stream: bool
) -> None:
    seen = ask(gateway, stream, "tides?", model="kimi-web/kimi-search").seen
    first = r"【检索 1】 [Tides \[explained\]](https://sea.example/a%281%29)"
    second = "【检索 2】 [Moon](https://moon.example/)"
    if stream:
        assert seen.content == f"{first}\n{second}\n\n{TEXT}"
    else:
        assert seen.content == f"{TEXT}\n\n搜索结果来自：\n{first}\n\n{second}\n\n"
    assert fresh.asked[0]["tools"] == [{"type": "TOOL_TYPE_SEARCH", "search": {}}]
    assert "x-param-ignored" not in seen.headers
    silent = ask(gateway, stream, "tides?", model="kimi-web/kimi-search-silent").seen
    assert silent.content == TEXT
    assert "url_citation" in silent.text


@MODES
def test_a_search_is_shown_in_the_other_formats(
    gateway: LiveGateway, fresh: WebService, stream: bool
) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    seen = ask(gateway, stream, "tides?", MESSAGES, model="kimi-web/k2.6", tools=[tool]).seen
    for word in ("server_tool_use", "web_search_tool_result", "https://sea.example/", '"tides"'):
        assert word in seen.text.replace("\\", ""), word
    include = ["web_search_call.action.sources"]
    asked = {"model": "kimi-web/k2.6", "tools": [{"type": "web_search"}], "include": include}
    seen = ask(gateway, stream, "tides?", RESPONSES, **asked).seen
    for word in ("web_search_call", "https://sea.example/", '"status":"completed"'):
        assert word in seen.text, word


def test_an_agent_is_named_by_its_id(gateway: LiveGateway, fresh: WebService) -> None:
    """The id counts as a whole, whatever parts are within it."""
    agent = "coo6l3pkqq4ri39k1abc"
    for model in (agent, f"kimi-web/{agent}"):
        answer = chat(gateway, model=model)
        assert (said(answer)["content"], answer.json()["model"]) == (TEXT, model)
        assert "reasoning_content" not in said(answer)
    assert [each["kimi_plus_id"] for each in fresh.asked] == [agent, agent]


def test_several_turns_by_conversation_id(gateway: LiveGateway, fresh: WebService) -> None:
    """The gateway keeps the conversation, so nothing of it stays at the service."""
    key = gateway.key()
    first = chat(gateway, user("My name is Ana."), key=key, conversation_id="none")
    second = chat(gateway, user("Who am I?"), key=key, conversation_id=first.json()["id"])
    assert said(second)["content"] == TEXT
    assert fresh.contents[1] == (
        f"user:My name is Ana.\nassistant:{TEXT}\nsystem:关注用户最新的消息\nuser:Who am I?\n"
    )
    other = chat(gateway, user("Who am I?"), conversation_id=first.json()["id"])
    assert "Ana" not in fresh.contents[-1], other.text
    gateway.until(lambda: not fresh.chats)


def document(name: str = "tides.pdf", data: bytes = PDF) -> Json:
    text = f"data:application/pdf;base64,{base64.b64encode(data).decode()}"
    return {"type": "file", "file": {"filename": name, "file_data": text}}


def picture() -> Json:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@MODES
def test_documents_and_pictures_are_uploaded(gateway: LiveGateway, fresh: WebService, stream: bool) -> None:
    fresh.ready_after = 2
    text = {"type": "text", "text": "What do they say?"}
    answer = chat(gateway, user([document(), picture(), text]), stream=stream)
    assert answer.status_code == 200, answer.text
    files = [block["file"]["id"] for block in fresh.asked[0]["message"]["blocks"][1:]]
    assert [fresh.stored[id] for id in files] == [PDF, PNG]
    names = [each.body["name"] for each in fresh.up.requests if each.path == "/api/pre-sign-url"]
    assert names == ["tides.pdf", "file.png"]
    puts = [each for each in fresh.up.requests if each.method == "PUT"]
    assert [each.headers["content-type"] for each in puts] == ["application/pdf", "image/png"]
    assert not any("authorization" in each.headers for each in puts), "the storage is another host"
    fresh.ready_after = 1


def test_a_document_of_plain_text_is_read_here(gateway: LiveGateway, fresh: WebService) -> None:
    said(chat(gateway, user([document("a.txt", b"High tide at noon."), {"type": "text", "text": "When?"}])))
    assert "High tide at noon." in fresh.contents[0]
    assert not fresh.stored or not [each for each in fresh.up.requests if each.method == "PUT"]


def test_a_document_that_the_service_cannot_read_is_refused(gateway: LiveGateway, fresh: WebService) -> None:
    fresh.fails, key = True, gateway.key()
    try:
        refused = chat(gateway, user([document(), {"type": "text", "text": "Hm?"}]), key=key)
    finally:
        fresh.fails = False
    assert (refused.status_code, "could not read the file" in refused.text) == (400, True)
    assert (ledger(gateway, key), fresh.asked) == (NOT_CHARGED, [])


@pytest.mark.parametrize(
    "place", ["http://storage.example", "https://127.0.0.1:8443", "https://169.254.169.254", "file:///etc"]
)
def test_files_are_sent_to_public_places_only(gateway: LiveGateway, fresh: WebService, place: str) -> None:
    """A service that has turned hostile cannot make the gateway send bytes into its own network."""
    fresh.place = place
    try:
        refused = chat(gateway, user([picture()]))
    finally:
        fresh.place = ""
    assert refused.status_code == 503, refused.text
    assert not fresh.asked


def test_the_models_are_listed(gateway: LiveGateway) -> None:
    with gateway.client(gateway.key()) as client:
        entries = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
    assert {"kimi-web/kimi", "kimi-web/k2.6", "kimi-web/k3"} <= entries.keys()
    assert entries["kimi-web/k3"]["owned_by"] == "kimi-web"
    assert "may cost you the account" in gateway.lines("unofficial")[0]["note"]


def test_a_key_with_a_budget_is_refused_because_nobody_knows_a_price(gateway: LiveGateway) -> None:
    key = gateway.limit(gateway.key(), Budget("usd", "day", 1_000_000))
    refused = chat(gateway, key=key)
    assert refused.status_code in (400, 403), refused.text
    assert "price" in json.dumps(refused.json())


def test_a_budget_in_tokens_pays_for_an_estimate(gateway: LiveGateway, fresh: WebService) -> None:
    key = gateway.limit(gateway.key(), Budget("tokens", "day", 1_000_000))
    usage = chat(gateway, key=key).json()["usage"]
    assert 0 < usage["completion_tokens"] < 30
    (row,) = gateway.usage(key)
    assert row.input + row.output == usage["total_tokens"]
    (budget,) = gateway.account(key).keys[0].budgets
    assert budget.limit == 1_000_000


@pytest.mark.parametrize("what", ["a video", "too many pictures"])
def test_what_is_not_taken_is_refused_before_any_call(
    gateway: LiveGateway, fresh: WebService, what: str
) -> None:
    video = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    refused = chat(gateway, user([video] if what == "a video" else [picture()] * 21))
    assert refused.status_code == 400, refused.text
    assert not fresh.up.requests


@pytest.mark.parametrize(
    ("model", "more"),
    [("kimi-k1-search-silent", {}), ("kimi-k1", {"use_search": True})],
    ids=["name", "field"],
)
def test_search_and_thinking_go_together(
    gateway: LiveGateway, fresh: WebService, model: str, more: Json
) -> None:
    answer = chat(gateway, model=f"kimi-web/{model}", **more)
    message, (sent,) = said(answer), fresh.asked
    assert (answer.json()["model"], message["reasoning_content"]) == (f"kimi-web/{model}", THOUGHT)
    assert (bool(sent["tools"]), sent["options"]["thinking"]) == (True, True)
    assert ("【检索 1】" in message["content"]) == ("silent" not in model)


def test_an_input_that_is_too_long_has_the_error_that_clients_react_to(
    gateway: LiveGateway, fresh: WebService
) -> None:
    fresh.plan(Frames([trailer("invalid_argument", words="the message is too long")]))
    refused = chat(gateway)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    large = chat(gateway, user("word " * 200_000))
    assert (large.status_code, large.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert len(fresh.asked) == 1, "what cannot fit is not sent"


def test_a_document_by_its_address_keeps_its_name(service: WebService, tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        own = WebService(upstream)
        upstream.at("/h/a.pdf", Status(200, PDF, {"content-type": "application/pdf"}))
        part = {"type": "file", "file_url": {"url": f"{own.address}/h/a.pdf?sig=1/2"}}
        with with_web(own, tmp_path, fetch_allowed=(f"127.0.0.1:{upstream.port}",)) as gateway:
            said(chat(gateway, user([part, {"type": "text", "text": "What?"}])))
            gateway.until(lambda: not own.chats)
        (signed,) = [each.body["name"] for each in upstream.requests if each.path == "/api/pre-sign-url"]
        assert (signed, list(own.stored.values())) == ("a.pdf", [PDF])

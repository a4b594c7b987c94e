"""Web search in all three formats, on real sockets: what client and upstream see, and what it costs."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import OPEN_PAGE, SEARCH
from support import sdks
from support.live import LiveGateway, events, text_of
from upstream import Delay, Kimi, ScriptedUpstream, Status
from upstream.kimi import usage_of
from upstream.search import SEARCH as PATH
from upstream.search import SEARCH_PRO, refused, result

ASK = [{"role": "user", "content": "What is new at https://example.com/9 ?"}]


def asks(*queries: str) -> Kimi:
    tools = [(SEARCH, {"query": query}) for query in queries]
    return Kimi("Let me look. ", "I should search.", tools=tools, usage=usage_of(100, 20))


ANSWERS = Kimi("It is new [1].", "I found it.", usage=usage_of(300, 30))


SETTINGS = {"ping_interval": 0.05}  # of the gateway of this module


def line_of(gateway: LiveGateway, key: str) -> dict[str, Any]:
    gateway.nothing_left(key)
    mine = gateway.account(key).keys[0].id
    gateway.until(lambda: any(line.get("key") == mine for line in gateway.lines("request")))
    return [line for line in gateway.lines("request") if line.get("key") == mine][-1]


def ask(gateway: LiveGateway, key: str, **body: Any) -> Any:
    answer = gateway.chat(key, **{"messages": ASK, **body})
    assert answer.status_code == 200, answer.text
    return answer


LINES = "【检索 1】 [Page 1](https://example.com/1)\n【检索 2】 [Page 2](https://example.com/2)\n"


def test_a_search_model_streams_lines_and_answers(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.web.results = [result(1), result(2)]
    upstream.plan(asks("news"), ANSWERS)
    key = gateway.key(5)
    answer = ask(gateway, key, model="kimi-search", stream=True)
    assert text_of(answer.text) == f"Let me look. \n{LINES}\nIt is new [1]."
    chunks = [json.loads(data) for data in events(answer.text) if data != "[DONE]"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    assert not any("tool_calls" in delta for delta in deltas)
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [each for each in finishes if each] == ["stop"]
    first, second = upstream.chats
    assert {chunk["model"] for chunk in chunks} == {"kimi-search"}
    assert [tool["function"]["name"] for tool in first.body["tools"]] == [SEARCH, OPEN_PAGE]
    assert second.body["tools"] == first.body["tools"]
    assert second.body["messages"][: len(first.body["messages"])] == first.body["messages"]
    asked, told = second.body["messages"][-2:]
    assert (asked["content"], asked["reasoning_content"]) == ("Let me look. ", "I should search.")
    assert told["tool_call_id"] == asked["tool_calls"][0]["id"]
    assert "[1] Page 1\nURL: https://example.com/1" in told["content"]
    line = line_of(gateway, key)
    assert gateway.account(key).credits == 4
    assert (line["input_tokens"], line["output_tokens"], line["credits"], line["searches"]) == (400, 50, 1, 1)


def test_the_same_as_json_has_a_footer(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.web.results = [result(1)]
    upstream.plan(asks("news"), ANSWERS)
    message = ask(gateway, gateway.key(5), model="kimi-search").json()["choices"][0]["message"]
    head = "Let me look. \n\nIt is new [1]."
    assert message["content"] == f"{head}\n\n搜索结果来自：\n【检索 1】 [Page 1](https://example.com/1)\n\n"
    assert message["annotations"][0]["url_citation"]["url"] == "https://example.com/1"
    assert message["reasoning_content"] == "I should search.I found it."


@pytest.mark.parametrize("name", ["kimi-search-silent", "kimi-silent-search", "kimi-k1-search-silent"])
def test_a_silent_name_shows_no_lines(gateway: LiveGateway, upstream: ScriptedUpstream, name: str) -> None:
    upstream.plan(asks("news"), ANSWERS)
    text = text_of(ask(gateway, gateway.key(5), model=name, stream=True).text)
    assert text == "Let me look. \n\nIt is new [1]."
    thinks = upstream.chats[0].body["thinking"]["type"]
    assert thinks == ("enabled" if "k1" in name else "disabled")


def test_research_is_thorough(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.plan(*[asks(f"news {number}") for number in range(7)], ANSWERS)
    ask(gateway, gateway.key(5), model="kimi-research", stream=True)
    assert [request.path for request in upstream.searches] == [SEARCH_PRO] * 7
    assert upstream.searches[0].body["limit"] == 10


@pytest.mark.parametrize(
    "body",
    [
        {"use_search": True},
        {"web_search_options": {"search_context_size": "low"}},
        {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
        {"model": "kimi-k2.6:online"},
    ],
)
def test_every_way_to_ask_searches(
    gateway: LiveGateway, upstream: ScriptedUpstream, body: dict[str, Any]
) -> None:
    upstream.plan(asks("news"), ANSWERS)
    answer = ask(gateway, gateway.key(5), **body)
    assert "It is new [1]." in answer.json()["choices"][0]["message"]["content"]
    assert "x-param-ignored" not in answer.headers
    assert len(upstream.searches) == 1


def test_a_page_is_opened_only_where_it_was_named(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.web.pages = {"https://example.com/9": "# Nine", "https://evil.example/?q=secret": "x"}
    urls = ("https://example.com/9", "https://evil.example/?q=secret")
    upstream.plan(Kimi("", "", tools=[(OPEN_PAGE, {"url": url}) for url in urls]), ANSWERS)
    ask(gateway, gateway.key(5), web_search_options={})
    assert [request.body for request in upstream.searches] == [{"url": "https://example.com/9"}]
    good, bad = upstream.chats[1].body["messages"][-2:]
    assert "# Nine" in good["content"]
    assert "Only addresses" in bad["content"]


@pytest.mark.parametrize(
    "step",
    [
        refused(401),
        refused(429, "rate_limited"),
        refused(500, "internal_error", "at /srv/x"),
        Status(200, "<"),
    ],
)
def test_a_search_that_fails_is_told_to_the_model_and_fails_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, step: Status
) -> None:
    upstream.at(PATH, step)
    upstream.plan(asks("news"), ANSWERS)
    key = gateway.key(5)
    ask(gateway, key, use_search=True, stream=True)
    told = upstream.chats[1].body["messages"][-1]["content"]
    assert told.startswith(("The search failed.", "Too many searches"))
    assert "/srv" not in told
    assert "searches" not in line_of(gateway, key)
    assert gateway.account(key).credits == 4


def test_a_model_that_never_stops_still_answers(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.always(asks("again and again"))
    upstream.plan(*[asks(f"news {number}") for number in range(4)])
    key = gateway.key(5)
    answer = ask(gateway, key, use_search=True)
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    chats = [request.body for request in upstream.chats]
    assert len(chats) == 7
    assert "Do not search" in chats[5]["messages"][-1]["content"]
    assert all("tools" in body for body in chats[:6])
    assert "tools" not in chats[6]
    assert gateway.account(key).credits == 4


def test_several_choices_are_refused(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    answer = gateway.chat(gateway.key(5), model="kimi", n=2, use_search=True)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert upstream.chats == []


def test_text_arrives_before_the_search_ends_and_pings_meanwhile(
    gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.at(PATH, Delay(60, Status(200, {"search_results": [result(1)]})))
    upstream.plan(asks("news"), ANSWERS)
    seen = b""
    with gateway.client(gateway.key(5)) as client:
        body = {"model": "kimi-search", "messages": ASK, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for data in answer.iter_raw():
                seen += data
                if b'"content":' in seen and b": ping" in seen.rpartition(b'"content":')[2]:
                    assert len(upstream.chats) == 1
                    break
            else:
                pytest.fail("no sign of life while it searched")


def test_a_client_that_leaves_meanwhile_pays_once(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.at(PATH, Delay(60, Status(200, {"search_results": []})))
    upstream.plan(asks("news"))
    key = gateway.key(5)
    with gateway.client(key) as client:
        body = {"model": "kimi-search", "messages": ASK, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.iter_raw()  # held, since the client leaves when it is collected
            next(pieces)
            upstream.until(lambda: upstream.searches)
    upstream.until(lambda: upstream.searches[0].closed_early.is_set())
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 4


def test_it_can_be_switched_off(module_upstream: ScriptedUpstream, tmp_path: Any) -> None:
    module_upstream.forget()
    module_upstream.requests.clear()
    with LiveGateway(tmp_path, module_upstream.url, search=False) as gateway:
        answer = gateway.chat(gateway.key(5), use_search=True)
        assert answer.headers["x-param-ignored"] == "use_search"
        assert "tools" not in module_upstream.chats[0].body


def responses(gateway: LiveGateway, key: str) -> sdks.openai.OpenAI:
    return sdks.openai.OpenAI(
        api_key=key, base_url=f"{gateway.url}/v1", max_retries=0, _strict_response_validation=True
    )


INCLUDE: Any = ["web_search_call.action.sources"]


def test_responses_shows_items_and_annotations(
    gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack
) -> None:
    upstream.web.results = [result(1), result(2)]
    upstream.plan(asks("news"), ANSWERS)
    client = closing.enter_context(responses(gateway, gateway.key(5)))
    asked: Any = {"model": "kimi-k3", "input": "News?", "tools": [{"type": "web_search"}], "include": INCLUDE}
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert [item.type for item in final.output] == [
        "reasoning",
        "message",
        "web_search_call",
        "reasoning",
        "message",
    ]
    search = final.output[2]
    assert (search.status, search.action.query) == ("completed", "news")
    assert [source.url for source in search.action.sources] == [
        "https://example.com/1",
        "https://example.com/2",
    ]
    begun = kinds.index("response.web_search_call.in_progress")
    assert kinds[begun : begun + 2] == [
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
    ]
    assert kinds.index("response.web_search_call.completed") > begun
    assert kinds.index("response.output_text.annotation.added") > begun
    (annotation,) = final.output[4].content[0].annotations
    assert (annotation.type, annotation.url) == ("url_citation", "https://example.com/1")
    assert final.output[4].content[0].text[annotation.start_index : annotation.end_index] == "[1]"
    assert final.tool_usage.web_search.num_requests == 1
    upstream.plan(asks("news"), ANSWERS)
    whole = client.responses.create(**asked)
    assert [item.type for item in whole.output] == [item.type for item in final.output]


def messages(gateway: LiveGateway, key: str) -> sdks.anthropic.Anthropic:
    return sdks.anthropic.Anthropic(
        api_key=key, base_url=gateway.url, max_retries=0, _strict_response_validation=True
    )


def test_messages_shows_blocks_citations_and_usage(
    gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack
) -> None:
    upstream.web.results = [result(1)]
    upstream.web.pages = {"https://example.com/1": "# One"}
    opens = Kimi("", "", tools=[(OPEN_PAGE, {"url": "https://example.com/1"})])
    upstream.plan(asks("news"), opens, ANSWERS)
    client = closing.enter_context(messages(gateway, gateway.key(5)))
    asked: Any = {
        "model": "kimi-k3",
        "max_tokens": 2_000,
        "messages": ASK,
        "tools": [
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
            {"type": "web_fetch_20250910", "name": "web_fetch"},
        ],
    }
    with client.messages.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_message()
    kinds = ["thinking", "text", "server_tool_use", "web_search_tool_result", "server_tool_use"]
    assert [block.type for block in final.content] == [*kinds, "web_fetch_tool_result", "thinking", "text"]
    _, _, use, found, _, page, _, text = final.content
    assert (use.name, use.input) == ("web_search", {"query": "news"})
    assert found.tool_use_id == use.id
    assert (found.content[0].url, found.content[0].page_age) == ("https://example.com/1", None)
    assert page.content.content.source.data == "# One"
    assert [citation.url for citation in text.citations] == ["https://example.com/1"]
    assert final.stop_reason == "end_turn"
    used = final.usage.server_tool_use
    assert (used.web_search_requests, used.web_fetch_requests) == (1, 1)
    upstream.plan(asks("news"), opens, ANSWERS)
    whole = client.messages.create(**asked)
    assert [block.type for block in whole.content] == [block.type for block in final.content]
    upstream.plan(ANSWERS)  # the history brings its evidence back
    history = [*ASK, {"role": "assistant", "content": [block.model_dump() for block in final.content]}]
    again: Any = [*history, {"role": "user", "content": "More?"}]
    client.messages.create(**{**asked, "messages": again})
    assert "The snippet of page 1." in json.dumps(upstream.chats[-1].body["messages"])


def test_messages_shows_a_search_that_failed_and_no_more_than_are_allowed(
    gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack
) -> None:
    upstream.at(PATH, refused(429, "rate_limited"))
    upstream.plan(asks("one", "two"), ANSWERS)
    client = closing.enter_context(messages(gateway, gateway.key(5)))
    final = client.messages.create(
        model="kimi-k3",
        max_tokens=2_000,
        messages=[{"role": "user", "content": "News?"}],
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
    )
    results: list[Any] = [block for block in final.content if block.type == "web_search_tool_result"]
    assert sorted(each.content.error_code for each in results) == ["max_uses_exceeded", "too_many_requests"]
    assert final.usage.server_tool_use is not None
    assert final.usage.server_tool_use.web_search_requests == 0


def test_the_search_of_claude_codes_helper_runs(
    gateway: LiveGateway, upstream: ScriptedUpstream, closing: ExitStack
) -> None:
    upstream.plan(asks("kimi"), ANSWERS)
    client = closing.enter_context(messages(gateway, gateway.key(5)))
    final = client.messages.create(
        model="kimi-k3",
        max_tokens=2_000,
        messages=[{"role": "user", "content": "Perform a web search for the query: kimi"}],
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
    )
    assert "web_search_tool_result" in [block.type for block in final.content]
    assert len(upstream.searches) == 1

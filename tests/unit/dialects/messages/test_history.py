"""What a conversation of Messages becomes in the pivot, block by block, and what comes back of an answer."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given

from kimi_gateway.dialects.messages.answer import JsonAnswer
from kimi_gateway.dialects.messages.content import SIGNATURE
from kimi_gateway.pivot import request as pivot
from support.messages_blocks import (
    DATA_URL,
    HI,
    IMAGE,
    IMAGE_PART,
    MARKED,
    Json,
    assistant,
    called,
    chat,
    result,
    text,
    tool,
    use,
    user,
)
from support.messages_stream import IDENTITY, Told, asked, chunks_of, tellings

MESSAGES: dict[str, tuple[list[Json], list[Json]]] = {
    "a string": ([HI], [HI]),
    "one text block is a string": ([user(text("Hi"))], [HI]),
    "several stay apart": ([user(text("Hi"), text("you"))], [user(text("Hi"), text("you"))]),
    "cache marks and citations are left out": (
        [user(text("a", cache_control=MARKED, citations=[]), text("b"))],
        [user(text("a"), text("b"))],
    ),
    "an empty text says nothing": ([user(text(""), text("Hi"))], [HI]),
    "an image": ([user(text("?"), IMAGE)], [user(text("?"), IMAGE_PART)]),
    "an image as a data URL": (
        [user({"type": "image", "source": {"type": "url", "url": DATA_URL}})],
        [user(IMAGE_PART)],
    ),
    "a document's text": (
        [user({"type": "document", "title": "Notes", "context": "old",
               "source": {"type": "text", "media_type": "text/plain", "data": "Be."}})],
        [{"role": "user", "content": "Document 'Notes' (old):\nBe."}],
    ),
    "a document of blocks": (
        [user({"type": "document", "source": {"type": "content", "content": [text("a"), IMAGE]}})],
        [user(text("Document:"), text("a"), IMAGE_PART)],
    ),
    "a document of one string": (
        [user({"type": "document", "source": {"type": "content", "content": "a"}})],
        [{"role": "user", "content": "Document:\na"}],
    ),
    "a search result": (
        [user({"type": "search_result", "title": "T", "source": "S", "content": [text("a"), text("b")]})],
        [{"role": "user", "content": "Search result T (S):\na\nb"}],
    ),
    "a role of system in its place": (
        [HI, {"role": "system", "content": [text("Be kind.", cache_control=MARKED)]}],
        [HI, {"role": "system", "content": "Be kind."}],
    ),
    "thinking is kept as the assistant's reasoning, its seal is not": (
        [HI, assistant({"type": "thinking", "thinking": "So.", "signature": "x"},
                       {"type": "redacted_thinking", "data": "x"}, text("Hello")), HI],
        [HI, {"role": "assistant", "content": "Hello", "reasoning_content": "So."}, HI],
    ),
    "texts of the assistant are one, as it said them": (
        [HI, assistant(text("Hel"), text("lo")), HI],
        [HI, {"role": "assistant", "content": "Hello"}, HI],
    ),
    "a begun answer is for the model to go on with": (
        [HI, {"role": "assistant", "content": "The answer is"}],
        [HI, {"role": "assistant", "content": "The answer is", "partial": True}],
    ),
    "an assistant that says nothing is left out": (
        [HI, {"role": "assistant", "content": ""}, HI, assistant({"type": "thinking", "thinking": "t"}), HI],
        [HI, HI, HI],
    ),
    "a tool's round": (
        [HI, assistant(text("Wait."), use("a")), user(result("a"))],
        [HI, called("a", content="Wait."), tool("a")],
    ),
    "results stand before what the user says besides, wherever it stood": (
        [HI, assistant(use("a"), use("b")), user(text("x"), result("b"), text("y"), result("a"))],
        [HI, called("a", "b"), tool("b"), tool("a"), user(text("x"), text("y"))],
    ),
    "results stand before a system message": (
        [HI, assistant(use("a")), {"role": "system", "content": "Hm."}, user(result("a"))],
        [HI, called("a"), tool("a"), {"role": "system", "content": "Hm."}],
    ),
    "results in two messages of the user": (
        [HI, assistant(use("a"), use("b")), user(result("a")), user(result("b"), text("x"))],
        [HI, called("a", "b"), tool("a"), tool("b"), {"role": "user", "content": "x"}],
    ),
    "calls in two messages of the assistant": (
        [HI, assistant({"type": "thinking", "thinking": "t"}, use("a")), assistant(text("x"), use("b")),
         user(result("a"), result("b"))],
        [HI, called("a", "b", content="x", reasoning_content="t"), tool("a"), tool("b")],
    ),
    "the same id in two turns": (
        [HI, assistant(use("a")), user(result("a")), assistant(use("a")), user(result("a", "43"))],
        [HI, called("a"), tool("a"), called("a"), tool("a", "43")],
    ),
    "an id in the client's letters is the vendor's again": (
        [HI, assistant(use("kimi_get-3a0")), user(result("kimi_get-3a0"))],
        [HI, called("get:0"), tool("get:0")],
    ),
    "a result of blocks with an image": (
        [HI, assistant(use("a")), user(result("a", [text("see"), IMAGE]))],
        [HI, called("a"), tool("a", [text("see"), IMAGE_PART])],
    ),
    "a result of one text block": (
        [HI, assistant(use("a")), user(result("a", [text("see")]))],
        [HI, called("a"), tool("a", "see")],
    ),
    "an error says so": (
        [HI, assistant(use("a"), use("b")),
         user(result("a", "no file", is_error=True), result("b", is_error=False))],
        [HI, called("a", "b"), tool("a", "Error: no file"), tool("b")],
    ),
    "an error of an image": (
        [HI, assistant(use("a")), user(result("a", [IMAGE], is_error=True))],
        [HI, called("a"), tool("a", [text("Error:"), IMAGE_PART])],
    ),
    "a result of nothing": (
        [HI, assistant(use("a"), use("b"), use("c")),
         user(result("a", ""), result("b", []), result("c", None))],
        [HI, called("a", "b", "c"), tool("a", "(empty)"), tool("b", "(empty)"), tool("c", "(empty)")],
    ),
    "what Anthropic's servers did is told in words": (
        [HI, assistant({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "?"}},
                       {"type": "web_search_tool_result", "tool_use_id": "s", "content": [
                           {"type": "web_search_result", "title": "T", "encrypted_content": "x"}]},
                       text("Found.")), HI],
        [HI, {"role": "assistant", "content":
              '[server_tool_use: {"id":"s","name":"web_search","input":{"q":"?"}}]'
              '[web_search_tool_result: {"tool_use_id":"s",'
              '"content":[{"type":"web_search_result","title":"T"}]}]Found.'}, HI],
    ),
    "a summary of what was compacted": (
        [user({"type": "compaction", "content": "Earlier: x.", "signature": "s"}, text("Go on."))],
        [user(text("Earlier: x."), text("Go on."))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_become_the_pivots(name: str) -> None:
    given_, expected = MESSAGES[name]
    assert chat(messages=given_)["messages"] == expected
    pivot.read(json.dumps({"model": "m", "messages": expected}).encode())  # which takes them


@pytest.mark.fuzz
@given(told=tellings())
def test_an_answer_sent_back_is_what_the_model_said(told: Told) -> None:
    """The round trip that a tool loop lives on: pivot → message → history → pivot."""
    answer = JsonAnswer(IDENTITY, asked())
    for batch in chunks_of(told.body, []):
        answer.add(batch)
    message = json.loads(answer.end({}))
    calls = [block for block in message["content"] if block["type"] == "tool_use"]
    results = [result(block["id"], f"result {at}") for at, block in enumerate(calls)]
    turn = {"role": message["role"], "content": message["content"]}
    sent = chat(messages=[HI, turn, user(*results, text("Go on."))])["messages"]
    if not told.text("content") and not calls:
        assert [said["role"] for said in sent] == ["user", "user"]
        return
    said_ = sent[1]
    assert said_["content"] == told.text("content")
    assert said_.get("reasoning_content", "") == told.text("reasoning_content")
    functions = [call["function"] for call in said_.get("tool_calls", ())]
    assert [(one["name"], json.loads(one["arguments"])) for one in functions] == [
        call[1:] for call in told.calls
    ]
    results_sent = sent[2 : 2 + len(calls)]
    assert [one["tool_call_id"] for one in results_sent] == [
        call["id"] for call in said_.get("tool_calls", ())
    ]
    for call, (id, _, _) in zip(said_.get("tool_calls", ()), told.calls, strict=True):
        assert not id or call["id"] == id


def test_the_seal_of_thinking_is_base64() -> None:
    assert base64.b64decode(SIGNATURE, validate=True) == b"kimi-gateway"

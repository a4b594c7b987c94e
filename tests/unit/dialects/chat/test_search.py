"""How an answer of Chat Completions shows web searches."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.chat.search import FOOTER, address, line
from kimi_gateway.dialects.chat.searching import SearchingJsonAnswer, SearchingStreamWriter
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.search import SearchCall, SearchChunk, Source

IDENTITY = Identity("chatcmpl-1", "kimi-search", 1, "fp")
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
ONE, TWO = Source("https://a.example/1", "One", text="First."), Source("https://b.example/2", "Two")


def text(content: str) -> Chunk:
    return Chunk({"choices": [{"index": 0, "delta": {"content": content}}]}, True, False)


FINISH = Chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, True, True)


def searched(*sources: Source, done: bool = True) -> SearchChunk:
    return SearchChunk(SearchCall("1", "search", "kimi", done, sources if done else ()))


def streamed(lines: bool, *chunks: Chunk) -> list[dict[str, Any]]:
    writer = SearchingStreamWriter(IDENTITY, False, lines)
    frames = b"".join([*(writer.add([chunk]) for chunk in chunks), writer.end(USAGE)])
    events = [line.removeprefix("data: ") for line in frames.decode().split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def content_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def annotations_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (found,) = [event for event in events if "annotations" in event["choices"][0]["delta"]] or [None]
    return found["choices"][0]["delta"]["annotations"] if found else []


def json_answer(lines: bool, *chunks: Chunk) -> dict[str, Any]:
    answer = SearchingJsonAnswer(IDENTITY, lines)
    answer.add(list(chunks))
    message: dict[str, Any] = json.loads(answer.end(USAGE))["choices"][0]["message"]
    return message


def test_a_stream_has_a_line_for_each_page_and_then_its_annotations() -> None:
    events = streamed(True, text("Let me look."), searched(ONE, TWO), text("Found"), text(" it."), FINISH)
    content = content_of(events)
    lines = "【检索 1】 [One](https://a.example/1)\n【检索 2】 [Two](https://b.example/2)\n"
    assert content == f"Let me look.\n{lines}\nFound it."
    annotations = annotations_of(events)
    for annotation, source in zip(annotations, (ONE, TWO), strict=True):
        found = annotation["url_citation"]
        assert (found["url"], found["title"]) == (source.url, source.title)
        assert source.url in content[found["start_index"] : found["end_index"]]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_json_answer_has_a_footer() -> None:
    message = json_answer(True, searched(ONE, TWO), text("Found 👋."), FINISH)
    assert message["content"] == (
        f"Found 👋.{FOOTER}【检索 1】 [One](https://a.example/1)\n\n【检索 2】 [Two](https://b.example/2)\n\n"
    )
    first = message["annotations"][0]["url_citation"]
    assert message["content"][first["start_index"] : first["end_index"]] == line(1, ONE)
    assert first["content"] == "First."


@pytest.mark.parametrize("streaming", [True, False])
def test_without_lines_the_text_is_the_models_and_annotations_tell(streaming: bool) -> None:
    chunks = (searched(ONE, TWO), text("See https://b.example/2 for it."), FINISH)
    if streaming:
        events = streamed(False, *chunks)
        content, annotations = content_of(events), annotations_of(events)
    else:
        message = json_answer(False, *chunks)
        content, annotations = message["content"], message["annotations"]
    assert content == "See https://b.example/2 for it."
    mentioned, unmentioned = (each["url_citation"] for each in annotations)
    assert unmentioned["start_index"] == unmentioned["end_index"] == len(content)
    assert content[mentioned["start_index"] : mentioned["end_index"]] == TWO.url


def test_a_page_that_was_found_twice_stands_once() -> None:
    events = streamed(True, searched(ONE), searched(ONE, TWO), text("x"), FINISH)
    assert len(annotations_of(events)) == 2
    assert content_of(events).count("a.example") == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_the_text_behind_a_search_begins_a_paragraph(streaming: bool) -> None:
    chunks = (text("Let me look."), searched(done=False), searched(), text("Nothing"), text("."), FINISH)
    content = content_of(streamed(False, *chunks)) if streaming else json_answer(True, *chunks)["content"]
    assert content == "Let me look.\n\nNothing."


def test_a_search_that_found_nothing_shows_nothing() -> None:
    events = streamed(True, searched(done=False), searched(), text("x"), FINISH)
    assert content_of(events) == "x"
    assert annotations_of(events) == []


@given(st.text(), st.text())
def test_nothing_of_a_title_or_address_leaves_its_link(title: str, rest: str) -> None:
    told = line(1, Source(f"https://a.example/{rest}", title))
    head, tail = told.split("](https://a.example/", 1) if "](" in told else (told, "")
    inside = head.removeprefix("【检索 1】 [")
    assert not re.search(r"(?<!\\)(?:\\\\)*[\[\]<>`!]", inside)
    assert "\n" not in told
    assert not re.search(r"[\s()<>\[\]\"'`]", tail.removesuffix(")"))
    assert address(f"https://a.example/{rest}").startswith("https://a.example/")

"""A chunk that is not parsed, since it is like one before it, reads as if it had been."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot.chunks import Chunk, Progress, Run, Unreadable
from kimi_gateway.pivot.template import LONGEST, learn

HEAD = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k3"}
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc", "Cs"]))
TEXTS = PLAIN | st.text() | st.sampled_from(['"content":"', '","finish_reason":"stop', "}", "\\", "\n", "é"])
CHUNKS = st.tuples(st.sampled_from(["content", "reasoning_content", "refusal", "x"]), TEXTS)


def chunk(name: str, text: str, ascii: bool = False, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {name: text}, "finish_reason": None, **more}
    written = json.dumps({**HEAD, "choices": [choice]}, ensure_ascii=ascii, separators=(",", ":"))
    return written.encode("utf-8", "replace")


@given(st.lists(CHUNKS, min_size=2, max_size=12), st.booleans(), st.booleans())
def test_a_stream_reads_as_if_each_chunk_were_its_first(
    sent: list[tuple[str, str]], ascii: bool, usage: bool
) -> None:
    stream, written = Progress(), 0.0
    for name, text in sent:
        data = chunk(name, text, ascii)
        data = data[:-1] + b',"usage":null}' if usage else data
        alone = Progress()
        assert stream.read((data, b"")) == alone.read((data, b""))
        written += alone.written
    assert stream.written == pytest.approx(written)
    assert not stream.complete


def test_chunks_that_are_alike_are_not_parsed() -> None:
    progress = Progress()
    progress.read((chunk("content", "one"), b""))
    assert progress._template is not None
    found = progress._template.read(chunk("content", "你好"))
    assert found is not None
    assert found[1] == "你好"
    assert progress._template.read(chunk("reasoning_content", "two")) is None
    for number in range(5):
        progress.read((chunk("reasoning_content", f"thought {number}"), b""))
    assert progress._template.read(chunk("reasoning_content", "two")) is not None  # it has learnt anew


@pytest.mark.parametrize(
    "text", [b'a","b":"c', b"a\\", b"a\\n", b"a\nb", b"a\x00", b"\xff", b""], ids=lambda text: repr(text)
)
def test_a_text_that_is_not_plain_is_for_the_parser(text: bytes) -> None:
    first = chunk("content", "plain")
    template = learn(first, json.loads(first))
    assert template is not None
    assert template.read(first.replace(b"plain", text)) is None


@pytest.mark.parametrize("broken", [b"\xff", b"a\nb", b'a"'])
def test_what_no_parser_reads_breaks_the_stream_behind_a_good_chunk_too(broken: bytes) -> None:
    progress = Progress()
    progress.read((chunk("content", "plain"), b""))
    with pytest.raises(Unreadable):
        progress.read((chunk("content", "plain").replace(b"plain", broken), b""))


@pytest.mark.parametrize(
    "data",
    [
        rb'{"x\"content":"plain","choices":[{"index":0,"delta":{"cont\u0065nt":"plain"}}]}',
        b'{"a":{"content":"plain"},"choices":[{"index":0,"delta":{"content":"plain"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"x","content":"plain"}}]}',
        b'{"choices":[{"delta":{"content":"plain"}}],"choices":[{"delta":{"content":"plain"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"plain","role":"assistant"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"plain"},"logprobs":{}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"plain"}},{"index":1}]}',
    ],
)
def test_where_the_place_of_the_text_is_not_certain_nothing_is_learnt(data: bytes) -> None:
    assert learn(data, json.loads(data)) is None


def test_a_long_chunk_is_parsed_and_leaves_the_template_as_it_is() -> None:
    progress, chunks = Progress(), list[Chunk]()
    short, long = chunk("content", "one"), chunk("content", "x" * LONGEST)
    progress.read_all([(long, b""), (short, b"")], chunks)
    learnt = progress._template
    assert learnt is not None
    progress.read_all([(long, b""), (long, b""), (short, b"")], chunks)
    assert [each.matched for each in chunks] == [None, None, None, None, learnt]
    assert not any(isinstance(each, Run) for each in chunks)
    assert [len(each.body["choices"][0]["delta"]["content"]) for each in chunks] == [
        LONGEST,
        3,
        LONGEST,
        LONGEST,
        3,
    ]
    assert progress._template is learnt

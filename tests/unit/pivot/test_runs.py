"""Events that are read as one run give the same answers as events that are read one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.chat.dialect import ChatCompletions
from kimi_gateway.dialects.messages.dialect import Messages
from kimi_gateway.dialects.responses.dialect import Responses
from kimi_gateway.net import sse
from kimi_gateway.pivot.chunks import Chunk, ErrorEvent, Identity, Progress, Run, Unreadable, frame
from kimi_gateway.pivot.dialect import Dialect, ParsedRequest

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "chat": ChatCompletions,
    "messages": Messages,
    "responses": lambda: Responses(lambda: 1.0, False),
}
MESSAGES = {"messages": [{"role": "user", "content": "Hello"}]}
BODIES: dict[str, dict[str, Any]] = {
    "chat": MESSAGES,
    "messages": {**MESSAGES, "max_tokens": 100},
    "messages, thoughts hidden": {**MESSAGES, "max_tokens": 100, "thinking": {"type": "disabled"}},
    "messages, thoughts sealed": {
        **MESSAGES,
        "max_tokens": 100,
        "thinking": {"type": "adaptive", "display": "omitted"},
    },
    "responses": {"input": "Hello"},
    "responses, thoughts sealed": {"input": "Hello", "include": ["reasoning.encrypted_content"]},
}
HEAD = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "upstream"}


USED = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def event(
    delta: Any, finish: str | None = None, ascii: Any = False, blank: Any = False, **more: Any
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    separators = None if blank else (",", ":")
    body = {**HEAD, "choices": [choice], **more}
    return json.dumps(body, ensure_ascii=ascii, separators=separators).encode("utf-8", "surrogatepass")


TEXT = st.sampled_from(
    ["a", " word", "你好", ",", '"', "\\", "\n", "é🙂", "\ud83d", "", '","', '"content":"']
) | st.text(st.characters(codec="utf-8"), max_size=6)
PLAIN = st.builds(
    lambda name, text, ascii, more: event({name: text}, ascii=ascii, **more),
    st.sampled_from(["content", "content", "content", "reasoning_content"]),
    TEXT,
    st.booleans(),
    st.sampled_from([{}, {}, {"usage": None}]),
)
ODD = st.sampled_from(
    [
        event({"role": "assistant", "content": ""}),
        event({"content": "last"}, "stop"),
        event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
        event({"content": "blank"}, blank=True),
        event({}, usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
        event({"content": "x"}).replace(b'"x"', b'"\xff"'),
        event({"content": "x"}).replace(b'"x"', b'"\\q"'),
        event({"content": "x"}).replace(b'"x"', b'"a\nb"'),  # an event of two lines
        event({"content": "x"}).replace(b'"x"', b'"a\\\nb"'),
        event({"content": "x"}).replace(b'"x"', b'"\xe4\xbd"'),  # half of a character
        event({"content": "x"}).replace(b'"x"', b'"a","content":"b"'),
        b'{"error":{"message":"no"}}',
        b"[DONE]",
        b"not JSON",
        (b"", b"ping"),
        (event({"content": "named"}), b"message"),
        (event({"content": "x"})[:-1], b""),
    ]
)
ALIKE = st.lists(TEXT, min_size=2, max_size=8).map(lambda texts: [event({"content": text}) for text in texts])
EVENTS = st.lists(ALIKE | PLAIN.map(lambda one: [one]) | ODD.map(lambda one: [one]), max_size=8).map(
    lambda groups: [one if isinstance(one, tuple) else (one, b"") for group in groups for one in group]
)


def outcome(progress: Progress) -> tuple[Any, ...]:
    """All but `size`, which counts less of events that were not parsed."""
    return progress.usage, round(progress.written, 6), progress.done, progress.complete, progress.silent


def read(batches: Sequence[list[sse.Event]], whole: bool) -> tuple[list[list[Chunk]], Any, str]:
    """The chunks of each batch, the outcome, and the error that ended the stream."""
    progress, read, error = Progress(bytes), list[list[Chunk]](), ""
    for batch in batches:
        chunks = list[Chunk]()
        read.append(chunks)
        try:
            if whole:
                progress.read_all(batch, chunks)
            else:
                for one in batch:
                    if chunk := progress.read(one):
                        chunks.append(chunk)
        except (Unreadable, ErrorEvent) as exc:
            error = repr(exc)
            break
    return read, outcome(progress), error


def cut(events: list[sse.Event], places: list[int]) -> list[list[sse.Event]]:
    edges = [0, *sorted({place % (len(events) + 1) for place in places}), len(events)]
    return [events[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def parsed(name: str) -> ParsedRequest:
    body = json.dumps({"model": "kimi-k3", "stream": True, **BODIES[name]}).encode()
    return DIALECTS[name.partition(",")[0]]().read(body).complete({}, ())


@pytest.mark.parametrize("name", BODIES)
@given(events=EVENTS, places=st.lists(st.integers(0, 80), max_size=5))
def test_a_run_is_written_as_its_chunks_are(name: str, events: list[sse.Event], places: list[int]) -> None:
    batches = cut(events, places)
    alone, wanted, error = read(batches, whole=False)
    runs, found, same = read(batches, whole=True)
    assert (found, same) == (wanted, error)
    writers = [parsed(name).writer(Identity("id", "kimi-k3", 1, "fp")) for _ in range(2)]
    answers = [parsed(name).answer(Identity("id", "kimi-k3", 1, "fp")) for _ in range(2)]
    for one, several in zip(alone, runs, strict=True):
        assert writers[0].add(one) == writers[1].add(several)
        answers[0].add(one)
        answers[1].add(several)
    if not error:
        assert writers[0].end(USED) == writers[1].end(USED)
        assert answers[0].end(USED) == answers[1].end(USED)


@pytest.mark.parametrize("blank", [False, True])
def test_events_that_are_alike_become_one_chunk(blank: bool) -> None:
    events = [(event({"content": f"word {n}\n"}, blank=blank), b"") for n in range(200)]
    progress, chunks = Progress(), list[Chunk]()
    progress.read_all(events, chunks)
    assert [type(chunk) for chunk in chunks] == [Chunk, Run]
    assert chunks[1].body["choices"][0]["delta"]["content"].startswith("word 1\nword 2\n")
    progress.read_all(events[:1], chunks)
    assert type(chunks[2]) is Chunk


class WholeRun(Run):
    def apart(self) -> list[Chunk]:
        raise AssertionError("the run was taken apart")


@pytest.mark.parametrize("member", ["content", "reasoning_content", "refusal"])
@pytest.mark.parametrize("name", BODIES)
def test_a_run_is_written_in_one_step(name: str, member: str) -> None:
    """No object is made for each of its events."""
    events = [(event({member: f"word {n}"}), b"") for n in range(20)]
    progress, chunks = Progress(), list[Chunk]()
    progress.read_all(events, chunks)
    first, run = chunks
    assert isinstance(run, Run)
    whole = WholeRun(run.body, True, False, template=run.template, strings=run.strings, texts=run.texts)
    writer = parsed(name).writer(Identity("id", "kimi-k3", 1, "fp"))
    written = writer.add([first, whole]) + writer.end(USED)
    shown = member != "reasoning_content" or not name.startswith("messages,")
    assert (b"word 17" in written) == shown


@pytest.mark.parametrize("number", [1, 2, 5])
def test_chunks_whose_json_spans_lines_stay_whole(number: int) -> None:
    """A line end in the JSON is a line end of its event, so each line needs `data:` again."""
    lines = event({"content": "x"}).replace(b',"choices"', b',\n"choices"')
    ours, progress, chunks = Identity("chatcmpl-1", "kimi-k3", 1, "fp"), Progress(), list[Chunk]()
    progress.read_all([(lines, b"")], chunks)
    progress.read_all([(lines, b"")] * number, chunks)
    framed = b"".join(frame(chunk, ours) for chunk in chunks)
    texts = [json.loads(data)["choices"][0]["delta"]["content"] for data, _ in sse.Decoder().feed(framed)]
    assert texts == ["x"] * (number + 1)

"""What an upstream's answer may cost on its way into a message: steps grow with the answer, no faster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kimi_gateway.dialects.messages import block_sequencer
from kimi_gateway.dialects.messages.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.messages.block_sequencer import arguments
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import calls
from kimi_gateway.pivot.chunks import Chunk, Progress, Unreadable
from kimi_gateway.providers.moonshot import messages
from support.messages_stream import IDENTITY, USAGE, asked, events_of

Json = dict[str, Any]


def lines(work: Callable[[], object]) -> int:
    """Lines of Python that it runs."""
    count = 0

    def seen(frame: Any, what: str, argument: Any) -> Any:
        nonlocal count
        count += what == "line"
        return seen

    before = sys.gettrace()
    sys.settrace(seen)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def calls_of(function: Callable[..., object], work: Callable[[], object]) -> int:
    count = 0

    def seen(frame: Any, what: str, argument: Any) -> None:
        nonlocal count
        count += what == "call" and frame.f_code is function.__code__

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def read(deltas: Iterable[Json]) -> list[Chunk]:
    progress = Progress()
    events = (jsonio.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas)
    return [chunk for event in events if (chunk := progress.read((event, b"")))]


def call(index: int, text: str, name: str | None = "f") -> Json:
    told = {"arguments": text} if name is None else {"name": name, "arguments": text}
    return {"tool_calls": [{"index": index, "function": told, **({"id": f"c{index}"} if name else {})}]}


def unnamed_then(texts: int) -> list[Json]:
    """A call without a name, behind which all texts wait."""
    return [call(0, "{", None), *[{"reasoning_content": "a", "content": "b"}] * texts]


def streamed(deltas: list[Json]) -> list[Json]:
    writer = StreamWriter(IDENTITY, asked(), 0)
    return events_of(writer.add(read(deltas)) + writer.end(USAGE))


def test_what_waits_is_bounded_and_nothing_of_it_is_lost() -> None:
    events = streamed(unnamed_then(5_000))
    blocks = [each for each in events if each["type"] == "content_block_start"]
    assert len(blocks) <= block_sequencer.MOST_WAITING + 1
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "b" * 5_000
    assert "".join(delta.get("thinking", "") for delta in deltas) == "a" * 5_000


def test_what_waits_is_shown_in_steps_that_do_not_grow_with_it() -> None:
    def end(texts: int) -> int:
        answer = JsonAnswer(IDENTITY, asked())
        answer.add(read(unnamed_then(texts)))
        return lines(lambda: answer.end(USAGE))

    assert end(8_000) < 1.1 * end(4_000)


def test_arguments_that_wait_are_read_once() -> None:
    """Each piece may be the last: it ends in a brace, inside of a string."""

    def adding(pieces: int) -> int:
        more = [call(0, "}", None)] * pieces
        chunks = read([call(0, '{"a":"'), call(1, "{}"), *more, call(0, '"}', None)])
        answer = JsonAnswer(IDENTITY, asked())
        count = calls_of(arguments, lambda: answer.add(chunks))
        content = jsonio.loads(answer.end(USAGE))["content"]
        assert [each["input"] for each in content] == [{"a": "}" * pieces}, {}]
        return count

    assert adding(2_000) == adding(1_000)


@pytest.mark.parametrize("last", ['{"a":1}', '{"a":"}"}', '{"a":"\\"}"}', '{"a":[{}]}', ' {"a":1}'])
def test_a_call_is_whole_with_its_last_character_and_not_before(last: str) -> None:
    """The next call opens then."""
    for at in range(len(last)):
        writer = StreamWriter(IDENTITY, asked(), 0)
        begun = [call(0, ""), call(1, "{}"), *[call(0, each, None) for each in last[: at + 1]]]
        starts = [
            each for each in events_of(writer.add(read(begun))) if each["type"] == "content_block_start"
        ]
        assert len(starts) == (2 if at == len(last) - 1 else 1)


def test_calls_without_end_break_the_stream() -> None:
    most = calls.MOST_CALLS
    assert len(read(call(index, "{}") for index in range(most))) == most
    with pytest.raises(Unreadable):
        read(call(index, "{}") for index in range(most + 1))


def test_many_system_messages_are_said_in_order() -> None:
    told = [{"role": "system", "content": f"s{number}"} for number in range(3)]
    body = {"model": "m", "max_completion_tokens": 1, "messages": [*told, {"role": "user", "content": "Hi"}]}
    sent = jsonio.loads(messages.payload(body, {}))
    assert [block["text"] for block in sent["system"]] == ["s0", "s1", "s2"]
    assert [message["role"] for message in sent["messages"]] == ["user"]

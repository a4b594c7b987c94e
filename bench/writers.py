"""CPU of writing a streamed answer in each dialect, in one process without a socket: microseconds a chunk,
its reading included, and what of it is beyond Chat Completions, where the upstream's bytes pass on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from kimi_gateway.dialects.chat.dialect import ChatCompletions
from kimi_gateway.dialects.messages.dialect import Messages
from kimi_gateway.dialects.responses.dialect import Responses
from kimi_gateway.pivot.chunks import Identity, Progress
from kimi_gateway.pivot.dialect import Dialect, ParsedRequest

USAGE = {"prompt_tokens": 5, "completion_tokens": 100, "total_tokens": 105}
CUSTOM = {"type": "custom", "name": "edit"}
CHAT: dict[str, Any] = {
    "model": "kimi-k3",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
}
MESSAGE = {**CHAT, "max_tokens": 1024}
RESPONSE = {"model": "kimi-k3", "input": "Hello", "stream": True, "tools": [CUSTOM]}


DIALECTS: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat completions": (ChatCompletions(), CHAT),
    "messages": (Messages(), MESSAGE),
    "responses": (Responses(time.time), RESPONSE),
}


def stream(deltas: list[dict[str, Any]]) -> list[bytes]:
    head = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k3"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return [json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode() for choice in choices]


def called(arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": "edit"} if more else {})
    return {"tool_calls": [{"index": 0, "function": function} | more]}


STREAMS = {
    "text": stream([{"content": "some words "}] * 100),
    "reasoning": stream([{"reasoning_content": "some words "}] * 100),
    "a call": stream([called('{"input":"', id="edit:0"), *[called("a line\\n")] * 98, called('"}')]),
}


def microseconds_a_chunk(question: ParsedRequest, events: list[bytes]) -> float:
    writer, progress = question.writer(Identity("chatcmpl-0-1", "kimi-k3", 1, "fp_x")), Progress()
    started = time.process_time()
    for event in events:
        chunk = progress.read((event, b""))
        if chunk is not None:
            writer.add([chunk])
    writer.end(USAGE)
    return (time.process_time() - started) / len(events) * 1e6


def measure(rounds: int) -> None:
    """The dialects in turn, so that what else the machine does falls on all of them."""
    for name, events in STREAMS.items():
        took: dict[str, list[float]] = {dialect: [] for dialect in DIALECTS}
        for _ in range(rounds):
            for dialect, (reader, body) in DIALECTS.items():
                question = reader.read(json.dumps(body).encode()).complete({}, ())
                took[dialect].append(microseconds_a_chunk(question, events))
        least = statistics.median(took["chat completions"])
        for dialect, times in took.items():
            median = statistics.median(times)
            print(f"{name:12}{dialect:20}{median:8.1f} µs a chunk{median - least:+8.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    measure(max(1, parser.parse_args().rounds))

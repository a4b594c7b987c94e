"""CPU per chunk of each dialect's stream writer, in process: `python bench/writers.py`.

The same chunks, parsed as the gateway parses them, go through the writers in turn, round by round; the
pass-through of Chat Completions is the yardstick.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median

from kimi_gateway.dialects.anthropic import answer as anthropic
from kimi_gateway.dialects.anthropic.request import read
from kimi_gateway.dialects.dialect import StreamWriter
from kimi_gateway.dialects.openai import answer as openai
from kimi_gateway.dialects.openai.chunks import Identity, Progress

CHUNKS, ROUNDS, STREAMS = 100, 15, 100
WORDS = "a few words"
DELTAS = {
    "text": {"content": WORDS},
    "thinking": {"reasoning_content": WORDS},
    "tool call": {"tool_calls": [{"index": 0, "function": {"name": "get", "arguments": WORDS}}]},
}
_ASKED = read(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hello"}]}')
WRITERS: dict[str, Callable[[Identity], StreamWriter]] = {
    "Chat Completions": lambda identity: openai.StreamWriter(identity, False),
    "Messages": lambda identity: anthropic.StreamWriter(identity, _ASKED, 5),
}


def microseconds(make: Callable[[Identity], StreamWriter], events: list[bytes]) -> float:
    begun = time.process_time()
    for _ in range(STREAMS):
        writer, progress = make(Identity("chatcmpl-1", "kimi-k3", 1, "fp_kimi-k3")), Progress()
        for event in events:
            chunk = progress.read((event, b""))
            writer.add([chunk] if chunk else [])
        writer.end({"prompt_tokens": 5, "completion_tokens": CHUNKS})
    return (time.process_time() - begun) / STREAMS / len(events) * 1e6


def main() -> None:
    head = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k3"}
    for name, delta in DELTAS.items():
        body = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        events = [json.dumps(body, separators=(",", ":")).encode()] * CHUNKS
        rounds = [
            {writer: microseconds(make, events) for writer, make in WRITERS.items()} for _ in range(ROUNDS)
        ]
        times = {writer: median(round[writer] for round in rounds) for writer in WRITERS}
        print(f"{name:10}", *(f"{writer} {time:5.2f} µs" for writer, time in times.items()), sep="  ")


if __name__ == "__main__":
    main()

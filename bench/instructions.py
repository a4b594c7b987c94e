"""Instructions of one request in process, counted by callgrind; other work does not change them.

Needs valgrind. Options: the form of the answer, its number of chunks, the path, and the size of the body.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from load import chat

ROOT = Path(__file__).resolve().parents[1]
FEW, MANY = 8, 24  # requests; the difference leaves out the start
INPUT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1000},
    "/v1/responses": {"input": "Hello"},
}


def events(chunks: int) -> bytes:
    """An answer as the platform streams it, in one read."""
    head = {"id": "chatcmpl-12345678", "object": "chat.completion.chunk", "created": 1, "model": "kimi-k3"}
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": f"word {number} "}, None) for number in range(chunks)]
    bodies: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in [*deltas, ({}, "stop")]
    ]
    bodies[-1]["usage"] = {"prompt_tokens": 5, "completion_tokens": chunks, "total_tokens": 5 + chunks}
    lines = [json.dumps(body, separators=(",", ":")) for body in bodies]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


def question(path: str, size: int) -> dict[str, Any]:
    """A short question, or one behind a history of about `size` bytes."""
    asked = INPUT[path]
    if not size:
        return asked
    history = chat({}, False, size)["messages"]
    return {**asked, "input" if "input" in asked else "messages": history}


def ask(form: str, chunks: int, path: str, size: int, requests: int) -> None:
    """In one run of the loop, because each start of one costs as much as a request."""
    sys.path.insert(0, str(ROOT / "tests"))
    from kimi_gateway.http import Headers
    from support.inprocess import InProcess, Told

    told = Told(200, {"content-type": "text/event-stream"}, events(chunks))
    given = {"model": "kimi-k3", "stream": form == "stream", **question(path, size)}
    body = json.dumps(given, ensure_ascii=False).encode()
    with InProcess() as desk:
        desk.client.reads = False  # what the upstream does is not counted
        desk.client.answer = lambda sent: told
        key = desk.key(None)
        headers = Headers((("authorization", f"Bearer {key}"), ("content-type", "application/json")))

        async def all_of_them() -> list[int]:
            answers = [await desk._call("POST", path, body, headers, "192.0.2.1") for _ in range(requests)]
            return [answer.status for answer in answers]

        if set(desk.run(all_of_them())) != {200}:
            raise SystemExit("the gateway refused a request")


def counted(program: str, *arguments: str) -> int:
    """Instructions of a Python program with these arguments."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, program]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([*command, *arguments], env=environ, capture_output=True, text=True, check=True)  # noqa: S603
    return int(re.findall(r"Collected : (\d+)", done.stderr)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--form", choices=("stream", "json"), default="stream")
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--path", choices=INPUT, default="/v1/chat/completions")
    parser.add_argument("--body", type=int, default=0, help="bytes of a history before the question")
    parser.add_argument("--requests", type=int, help="make so many requests and count nothing")
    given = parser.parse_args()
    if given.requests is not None:
        return ask(given.form, given.chunks, given.path, given.body, given.requests)
    shape = ("--form", given.form, "--chunks", str(given.chunks), "--path", given.path)
    shape = (*shape, "--body", str(given.body)) if given.body else shape
    few, many = (counted(__file__, *shape, "--requests", str(number)) for number in (FEW, MANY))
    print(f"{' '.join(shape)}: {(many - few) / (MANY - FEW) / 1e6:.2f} M instructions a request")


if __name__ == "__main__":
    main()

"""What a search costs beside the search and the model: CPU until the client sees that it began, and for each
further round. One process without sockets: the upstream's answers are ready at once, so only the gateway
works. The least of many runs, because a busy machine only adds. Bars: 5 ms each.
Results: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "functions"), str(ROOT / "tests")]

from kimi_gateway.flow.search.tools import SEARCH  # noqa: E402
from kimi_gateway.http import Headers, Request  # noqa: E402
from support.inprocess import InProcess, Sent, Told, streamed, told  # noqa: E402
from upstream.kimi import chat_events  # noqa: E402
from upstream.search import result  # noqa: E402

BAR = 5.0  # ms
PATH, MARK = "/v1/responses", b"response.web_search_call.in_progress"


class Model:
    """Searches in so many rounds, then answers. `ready` is when its last round was handed over."""

    def __init__(self) -> None:
        self.searches = 0
        self.ready = 0.0

    def __call__(self, sent: Sent) -> Told:
        if sent.path != "/v1/chat/completions":
            return told({"search_results": [result(number, snippet="word " * 200) for number in range(5)]})
        asked = sum(message["role"] == "tool" for message in sent.body["messages"])
        tools = [(SEARCH, {"query": f"news {asked}"})] if asked < self.searches else []
        events = chat_events("A few words of text.", tools=tools, model="kimi-k3")
        self.ready = time.process_time()
        return streamed(*events)


async def once(desk: InProcess, key: str, model: Model, searches: int) -> tuple[float, float]:
    """CPU milliseconds: of the request, and from the answer of round 1 to the first event of its search."""
    model.searches = searches
    tools = [{"type": "web_search"}]
    body = json.dumps({"model": "kimi-k3", "input": "News?", "stream": True, "tools": tools}).encode()

    async def read() -> bytes:
        return body

    headers = Headers((("authorization", f"Bearer {key}"), ("content-type", "application/json")))
    begun, first = time.process_time(), 0.0
    response = await desk.router.handle(Request("POST", PATH, headers, "req_1", read, "192.0.2.1"))
    pieces: AsyncIterator[bytes] = response.body  # type: ignore[assignment]
    async for piece in pieces:
        if not first and MARK in piece:
            first = time.process_time() - model.ready
    await response.close()
    return (time.process_time() - begun) * 1000, first * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs: int = parser.parse_args().runs
    with InProcess() as desk:
        model: Any = Model()
        desk.client.answer = model
        key = desk.key(None)

        async def least(searches: int) -> tuple[float, float]:
            found = [await once(desk, key, model, searches) for _ in range(runs)]
            return min(each[0] for each in found), min(each[1] for each in found)

        async def all() -> tuple[float, float]:
            few, first = await least(1)
            many, _ = await least(4)
            return first, (many - few) / 3

        first, added = desk.run(all())
    print(f"first event of a search: {first:.2f} ms of CPU (bar {BAR:g})")
    print(f"each further round with a search: {added:.2f} ms of CPU (bar {BAR:g})")
    return 0 if max(first, added) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a request leaves behind is freed when it ends, and does not wait for the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest

from kimi_gateway.edge.home.bodies import SMALL
from support.live import HELLO, LiveGateway

Json = dict[str, Any]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
LONG = [{"role": "user", "content": "word " * SMALL}]
PATHS: dict[str, tuple[str, Json]] = {
    "chat": (CHAT, {"messages": HELLO}),
    "a long chat": (CHAT, {"messages": LONG}),
    "messages": (MESSAGES, {"messages": HELLO, "max_tokens": 100}),
    "responses": (RESPONSES, {"input": "Hello", "store": False}),
    "refused": (CHAT, {"messages": HELLO, "temperature": "hot"}),
}


def left() -> Counter[str]:
    """The types of the gateway's own objects that only the collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        names = [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    return Counter(name for name in names if name.startswith("kimi_gateway"))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
@pytest.mark.parametrize("case", PATHS)
def test_no_request_leaves_a_cycle(gateway: LiveGateway, case: str, stream: bool) -> None:
    path, body = PATHS[case]
    with gateway.client(gateway.key()) as client:
        ask = lambda: client.post(path, json={"model": "kimi-k3", "stream": stream, **body})  # noqa: E731
        first = ask().status_code
        gc.collect()
        gc.disable()
        try:
            assert [ask().status_code for _ in range(3)] == [first] * 3
            gateway.nothing_left()
            gateway.rest()
            assert left() == {}
        finally:
            gc.enable()

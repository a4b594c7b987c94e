"""What a request leaves behind is freed when it ends, and does not wait for the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

from kimi_gateway.edge.home.bodies import SMALL
from support.fault_table import WHOLE
from support.formats import MODES
from support.live import HELLO, LiveGateway
from upstream import Cut, Raw, ScriptedUpstream, Sse, Stall, Status, Step, chat_events, error

Json = dict[str, Any]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
LONG = [{"role": "user", "content": "word " * SMALL}]
PATHS: dict[str, tuple[str, Json]] = {
    "chat": (CHAT, {"messages": HELLO}),
    "a long chat": (CHAT, {"messages": LONG}),
    "messages": (MESSAGES, {"messages": HELLO, "max_tokens": 100}),
    "responses": (RESPONSES, {"input": "Hello", "store": False}),
    "refused": (CHAT, {"messages": HELLO, "temperature": "hot"}),
    "unknown model": (CHAT, {"messages": HELLO, "model": "nope"}),
    "unknown answer": (RESPONSES, {"input": "Hello", "previous_response_id": "resp_nope"}),
}
EVENTS_FOLLOW = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
FAULTS: dict[str, Step] = {
    "refused": Status(400, error("invalid_request_error", "no")),
    "no such model": Status(404, error("resource_not_found_error", "no")),
    "no stream": Status(200, "hello"),
    "cut after content": Cut(900, WHOLE),
    "an error after content": Sse([*chat_events()[:4], error("server_error", "no")], done=False),
    "no event": Raw(EVENTS_FOLLOW + b"content-length: 9\r\n\r\ndata: {\n\n"),
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


@contextmanager
def freed_at_once(gateway: LiveGateway) -> Iterator[None]:
    """What happens inside leaves nothing to the garbage collector."""
    gc.collect()
    gc.freeze()  # what was there before need not be looked at again
    gc.disable()
    try:
        yield
        gateway.nothing_left()
        gateway.rest()
        assert left() == {}
    finally:
        gc.enable()


@MODES
@pytest.mark.parametrize("case", PATHS)
def test_no_request_leaves_a_cycle(gateway: LiveGateway, case: str, stream: bool) -> None:
    path, body = PATHS[case]
    with gateway.client(gateway.key()) as client:
        ask = lambda: client.post(path, json={"model": "kimi-k3", "stream": stream, **body})  # noqa: E731
        first = ask().status_code
        with freed_at_once(gateway):
            assert [ask().status_code for _ in range(3)] == [first] * 3


@MODES
@pytest.mark.parametrize("case", FAULTS)
def test_no_fault_of_the_upstream_leaves_a_cycle(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str, stream: bool
) -> None:
    upstream.always(FAULTS[case])
    with gateway.client(gateway.key()) as client:
        ask = lambda: client.post(CHAT, json={"model": "kimi-k3", "stream": stream, "messages": HELLO})  # noqa: E731
        first = ask().status_code
        with freed_at_once(gateway):
            assert [ask().status_code for _ in range(3)] == [first] * 3


@MODES
def test_no_client_that_leaves_causes_a_cycle(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.always(Stall(3, WHOLE))
    key = gateway.key()
    with gateway.client(key) as client:
        for attempt in range(4):
            with ExitStack() as stack:
                if attempt:  # the first one makes what is made once
                    stack.enter_context(freed_at_once(gateway))
                with suppress(httpx.ReadTimeout):
                    body = {"model": "kimi-k3", "stream": stream, "messages": HELLO}
                    client.post(CHAT, json=body, timeout=0.2)


def test_the_fields_of_a_head_are_not_kept_beside_the_request(gateway: LiveGateway) -> None:
    with gateway.client(gateway.key()) as client:
        client.get("/v1/models", headers={"x-more": "field"})
        connections: Any = gateway._server.server_state.connections
        assert [each._fields for each in connections] == [[]]

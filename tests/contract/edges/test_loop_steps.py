"""What one request makes the loop itself do: its steps do not grow with what the body holds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import kimi_gateway
from kimi_gateway.flow.apart import LARGE
from kimi_gateway.net import jsonio
from support.live import LiveGateway
from upstream import ScriptedUpstream

Json = dict[str, Any]
OURS = str(Path(kimi_gateway.__file__).parent)
MANY = 4_000
MOST = MANY  # calls on the loop, also of reading the body from the socket in pieces
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
LONG = "word " * (LARGE // 4)  # so that no body counts as small
HI = [{"role": "user", "content": LONG}]
SHORT = [{"role": "user", "content": "a short question"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
NUMBERED = range(MANY)
TOOLS = [{"name": f"t{n}", "input_schema": SCHEMA} for n in NUMBERED]
FUNCTIONS = [{"type": "function", "name": f"t{n}", "parameters": SCHEMA} for n in NUMBERED]
USED = [{"type": "tool_use", "id": f"c{n}", "name": "t", "input": {}} for n in NUMBERED]
RESULTS = [{"type": "tool_result", "tool_use_id": f"c{n}", "content": "x"} for n in NUMBERED]
PAIRS = {f"k{n}": "v" for n in NUMBERED}
DOCUMENTS = [
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}
] * MANY
ORPHANS = [{"role": "tool", "tool_call_id": f"c{n}", "content": "x"} for n in NUMBERED]
CALLS = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in NUMBERED]
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "x"}
MANY_MEMBERS = {"name": "t", **PAIRS}
THOUGHT = {"type": "thinking", "thinking": "t", "signature": ""}
CASES: dict[str, tuple[str, Json]] = {
    "tools to count": (f"{MESSAGES}/count_tokens", {"messages": HI, "tools": TOOLS}),
    "functions to count": (f"{RESPONSES}/input_tokens", {"input": LONG, "tools": FUNCTIONS}),
    "documents to count": (
        f"{MESSAGES}/count_tokens",
        {"messages": [{"role": "user", "content": DOCUMENTS}]},
    ),
    "messages to count": (f"{MESSAGES}/count_tokens", {"messages": SHORT * MANY}),
    "messages to estimate": ("/v1/tokenizers/estimate-token-count", {"messages": SHORT * MANY}),
    "tools": (MESSAGES, {"messages": HI, "tools": TOOLS}),
    "functions": (RESPONSES, {"input": LONG, "tools": FUNCTIONS}),
    "calls": (
        MESSAGES,
        {"messages": [*HI, {"role": "assistant", "content": USED}, {"role": "user", "content": RESULTS}]},
    ),
    "messages": (CHAT, {"messages": SHORT * MANY}),
    "items": (RESPONSES, {"input": SHORT * MANY}),
    "parts": (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * MANY}]}),
    "references": (
        RESPONSES,
        {"input": [{"type": "item_reference", "id": f"msg_{n}"} for n in NUMBERED]},
    ),
    "documents": (MESSAGES, {"messages": [{"role": "user", "content": DOCUMENTS}]}),
    "pairs of metadata": (CHAT, {"messages": HI, "metadata": PAIRS}),
    "pairs of metadata, Responses": (RESPONSES, {"input": LONG, "metadata": PAIRS}),
    "unknown members, Chat": (CHAT, {"messages": HI, **PAIRS}),
    "unknown members, Messages": (MESSAGES, {"messages": HI, **PAIRS}),
    "unknown members, Responses": (RESPONSES, {"input": LONG, **PAIRS}),
    "stops": (CHAT, {"messages": HI, "stop": ["a"] * MANY}),
    "members of a message": (CHAT, {"messages": [{**HI[0], **PAIRS}]}),
    "members of an item": (RESPONSES, {"input": [{**HI[0], **PAIRS}]}),
    "members of a tool": (CHAT, {"messages": HI, "tools": [{"type": "function", "function": MANY_MEMBERS}]}),
    "members of arguments": (
        MESSAGES,
        {"messages": [*HI, {"role": "assistant", "content": [{**USED[0], "input": PAIRS}]},
                      {"role": "user", "content": RESULTS[:1]}]},
    ),
    "results without calls": (CHAT, {"messages": [*ORPHANS, *HI]}),
    "calls of one message": (
        CHAT, {"messages": [*HI, {"role": "assistant", "content": None, "tool_calls": CALLS}, *ORPHANS, *HI]}
    ),
    "the same call often": (RESPONSES, {"input": [CALL] * MANY + [OUTPUT] * MANY}),
    "blocks of thinking": (
        MESSAGES, {"messages": [*HI, {"role": "assistant", "content": [THOUGHT] * MANY}, *HI]}
    ),
    "blocks of the system": (MESSAGES, {"messages": HI, "system": [{"type": "text", "text": "a"}] * MANY}),
}  # fmt: skip


class Steps:
    """Calls of our functions, and of C functions by them, on the thread that installs it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def note(self, frame: Any, event: str, _: object) -> None:
        if event in ("call", "c_call") and OURS in frame.f_code.co_filename:
            self.seen[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    def of(self, gateway: LiveGateway, step: Callable[[], int]) -> int:
        gateway.call(lambda: sys.setprofile(self.note))
        try:
            return step()
        finally:
            gateway.call(lambda: sys.setprofile(None))
            gateway.rest()


@pytest.mark.parametrize("case", CASES)
def test_the_loops_steps_do_not_grow_with_the_body(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str
) -> None:
    path, body = CASES[case]
    key, steps = gateway.key(), Steps()
    with gateway.client(key) as client:
        body = {"model": "kimi-k3", "max_tokens": 50, **body}
        status = steps.of(gateway, lambda: client.post(path, json=body).status_code)
    assert status in (200, 400)
    found = sum(steps.seen.values())
    assert found < MOST, (case, status, steps.seen.most_common(5))
    gateway.nothing_left(key)


@pytest.mark.parametrize("case", ["messages", "unknown members, Chat", "members of a message", "items"])
def test_neither_do_they_for_a_request_that_may_be_repeated(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str
) -> None:
    path, body = CASES[case]
    key, steps = gateway.key(), Steps()
    with gateway.client(key, {"idempotency-key": "one"}) as client:
        for replayed in (False, True):
            asked = {"model": "kimi-k3", "max_tokens": 50, **body}
            answer: list[httpx.Response] = []
            steps.of(gateway, lambda: answer.append(client.post(path, json=asked)) or 0)  # type: ignore[func-returns-value] # noqa: B023
            assert answer[0].status_code == 200
            assert ("idempotent-replayed" in answer[0].headers) is replayed
    assert sum(steps.seen.values()) < MOST, (case, steps.seen.most_common(5))


class Written(Steps):
    """The sizes of the JSON texts that were written on the thread that installs it."""

    def note(self, frame: Any, event: str, result: object) -> None:
        if event == "return" and frame.f_code is jsonio.dumps.__code__:
            self.seen[len(result or b"")] += 1  # type: ignore[arg-type, index]


@pytest.mark.parametrize(
    "case", ["messages to count", "messages to estimate", "tools", "calls", "items", "documents"]
)
def test_no_large_text_is_written_on_the_loop(
    gateway: LiveGateway, upstream: ScriptedUpstream, case: str
) -> None:
    """One is a single call into C; twenty of them in one turn of the loop would hold it for long."""
    path, body = CASES[case]
    key, written = gateway.key(), Written()
    with gateway.client(key) as client:
        body = {"model": "kimi-k3", "max_tokens": 50, **body}
        status = written.of(gateway, lambda: client.post(path, json=body).status_code)
    assert status in (200, 400)
    assert max(written.seen, default=0) < LARGE, (case, status)  # type: ignore[operator]

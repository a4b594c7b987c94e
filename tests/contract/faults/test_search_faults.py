"""Faults in each phase of a turn that searches: round 1, the search, round 2. A pairwise selection of fault,
phase, format and way of delivery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import SEARCH
from support.live import LiveGateway
from upstream import (
    Cut,
    ErrorEvent,
    HtmlError,
    Kimi,
    Malformed,
    NoDone,
    ResetBeforeHeaders,
    ScriptedUpstream,
    Silence,
    Stall,
    Status,
    Step,
    error,
    rate_limited,
)
from upstream.search import SEARCH as PATH
from upstream.search import refused, result

ANSWER = Kimi("It is new [1]. " * 6)
LOOKS = Kimi("Let me look. ", tools=[(SEARCH, {"query": "news"})])
CUT = 900  # bytes: after content, before the finish reason
# Each fault, and whether the answer is whole all the same.
FAULTS: dict[str, tuple[Step, bool]] = {
    "429 with Retry-After": (rate_limited("rate_limit_reached", 7), False),
    "429 without Retry-After": (rate_limited("engine_overloaded"), False),
    "500": (Status(500, error("server_error", "internal of org-0123456789")), False),
    "503": (Status(503), False),
    "502 page": (HtmlError(502), False),
    "reset": (ResetBeforeHeaders(), False),
    "silent upstream": (Silence(), False),
    "cut": (Cut(CUT, ANSWER), False),
    "stall": (Stall(3, ANSWER), False),
    "malformed chunk": (Malformed(3, ANSWER), False),
    "error event": (ErrorEvent(3, error("server_error", "x"), ANSWER), False),
    "missing [DONE]": (NoDone(ANSWER), True),
    "context-length 400": (
        Status(400, error("invalid_request_error", "exceeded model token limit : 9")),
        False,
    ),
    "content-filter 400": (Status(400, error("content_filter", "high risk")), False),
    "dead token": (Status(401, error("invalid_authentication_error", "Invalid Authentication")), False),
    "empty 403": (Status(403), False),
}
SEARCH_FAULTS: dict[str, Step] = {
    "empty 401": refused(401),
    "empty 403": refused(403),
    "429 with Reset": refused(429, "rate_limited", x_ratelimit_reset="9999999999"),
    "429 without Reset": refused(429, "rate_limited"),
    "500": refused(500, "internal_error", "at /srv/org-0123456789"),
    "504": refused(504, "timeout"),
    "reset": ResetBeforeHeaders(),
    "cut": Cut(40, Status(200, {"search_results": [result(1)]})),
    "not JSON": Status(200, "<html>"),
    "nothing found": Status(200, {"search_results": []}),
}
FORMATS = ("chat", "messages", "responses")
PHASES = (1, 2)
# Each fault in both rounds; formats and deliveries take turns, so that each pair of them occurs with each.
CASES = [
    (name, phase, FORMATS[(at + phase) % 3], bool((at // 3 + at + phase) % 2))
    for at, name in enumerate(FAULTS)
    for phase in PHASES
]
SEARCHES = [(name, FORMATS[at % 3], bool(at % 2)) for at, name in enumerate(SEARCH_FAULTS)]
SEARCHES += [(name, FORMATS[(at + 1) % 3], not at % 2) for at, name in enumerate(SEARCH_FAULTS)]


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    patience = {"first_byte_timeout": 60.0, "ping_interval": 0.1}
    with LiveGateway(tmp_path_factory.mktemp("gateway"), module_upstream.url, **patience) as gateway:
        gateway.never_wait(module_upstream, 100)
        yield gateway


def ask(gateway: LiveGateway, key: str, format: str, stream: bool) -> Any:
    said = [{"role": "user", "content": "What is new?"}]
    path, body = {
        "chat": ("/v1/chat/completions", {"messages": said, "use_search": True}),
        "messages": (
            "/v1/messages",
            {
                "messages": said,
                "max_tokens": 900,
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
            },
        ),
        "responses": ("/v1/responses", {"input": "What is new?", "tools": [{"type": "web_search"}]}),
    }[format]
    with gateway.client(key) as client:
        return client.post(path, json={"model": "kimi-k3", "stream": stream, **body})


def is_whole(answer: Any, format: str, stream: bool) -> bool:
    """Whether the client takes it for a complete answer."""
    if not stream:
        return bool(answer.status_code == 200)
    marks = {"chat": '"finish_reason":"stop"', "messages": "message_stop", "responses": "response.completed"}
    return answer.status_code == 200 and marks[format] in answer.text


def ends_with_an_error(answer: Any, format: str, stream: bool) -> bool:
    if not stream or answer.status_code != 200:
        return answer.status_code >= 400 and "error" in json.loads(answer.text)
    return '"error"' in answer.text or "response.failed" in answer.text


@pytest.mark.parametrize(("name", "phase", "format", "stream"), CASES)
def test_a_fault_in_a_round(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str, phase: int, format: str, stream: bool
) -> None:
    fault, whole = FAULTS[name]
    upstream.plan(*[LOOKS] * (phase - 1))
    upstream.always(fault)
    key = gateway.key(5)
    answer = ask(gateway, key, format, stream)
    assert is_whole(answer, format, stream) is whole
    assert whole or ends_with_an_error(answer, format, stream), answer.text
    assert "org-0123456789" not in answer.text
    assert len(upstream.searches) == phase - 1
    gateway.nothing_left(key)
    account = gateway.account(key)
    assert (account.credits, account.reserved) == (4 if whole else 5, 0)


@pytest.mark.parametrize(("name", "format", "stream"), SEARCHES)
def test_a_fault_of_a_search_fails_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, name: str, format: str, stream: bool
) -> None:
    upstream.plan(LOOKS, ANSWER)
    upstream.at(PATH, SEARCH_FAULTS[name])
    key = gateway.key(5)
    answer = ask(gateway, key, format, stream)
    assert is_whole(answer, format, stream), answer.text
    assert "org-0123456789" not in json.dumps(upstream.chats[-1].body["messages"])
    assert len(upstream.chats) == 2
    gateway.nothing_left(key)
    assert gateway.account(key).credits == 4

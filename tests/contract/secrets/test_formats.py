"""What a client says in the other two formats stays out of the log, wherever in a request it stands."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from kimi_gateway import observe
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.flow.conversation_cache import ConversationCache
from support.inprocess import InProcess, Sent, Told, kimi, streamed, told
from upstream.kimi import chat_events, error

SAID = "CANARY-of-the-client"
CALL_ID = "call_CANARY"
FUNCTION = {"name": "look", "description": SAID}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {
        "max_tokens": 100,
        "system": SAID,
        "service_tier": SAID,
        "mcp_servers": [{"url": SAID, "authorization_token": SAID}],
        "container": SAID,
        "metadata": {"user_id": SAID},
        "tools": [
            {**FUNCTION, "input_schema": {"type": "object", "description": SAID}},
            {"type": "web_search_20250305", "name": SAID, "blocked_domains": [SAID]},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "web_search_tool_result", "content": SAID}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": CALL_ID, "name": "look", "input": {"a": SAID}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": CALL_ID, "content": SAID}],
            },
        ],
    },
    "/v1/responses": {
        "instructions": SAID,
        "user": SAID,
        "metadata": {"a": SAID},
        "client_metadata": {"a": SAID},
        "tools": [
            {**FUNCTION, "type": "function"},
            {"type": "mcp", "server_label": SAID, "headers": {"authorization": SAID}},
        ],
        "input": [
            {"role": "user", "content": SAID},
            {"type": "mcp_call", "arguments": SAID, "output": SAID},
            {"type": "reasoning", "encrypted_content": SAID, "summary": []},
            {"type": "function_call", "call_id": CALL_ID, "name": "look", "arguments": SAID},
            {"type": "function_call_output", "call_id": CALL_ID, "output": SAID},
        ],
    },
}


class Locked:
    """A Replay that is down."""

    async def keep(self, *given: Any) -> None:
        raise StoreDown("the file is locked")

    async def recall(self, *given: Any) -> dict[str, bytes]:
        raise StoreDown("the file is locked")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(observe.JsonLines())
    logger = logging.getLogger("kimi_gateway")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)


def refusing(sent: Sent) -> Told:
    return told(error("invalid_request_error", f"I read {SAID}"), 400) if "chat" in sent.path else kimi(sent)


def calling(sent: Sent) -> Told:
    if "chat" not in sent.path:
        return kimi(sent)
    return streamed(*chat_events("", f"{SAID}?", [("look", {"a": SAID})]))


@pytest.mark.parametrize("answer", [calling, refusing], ids=["a call", "a refusal that quotes"])
@pytest.mark.parametrize("path", REQUESTS)
def test_nothing_that_was_said_is_logged(log: io.StringIO, path: str, answer: Any) -> None:
    with InProcess() as desk:
        desk.running.gateway.conversations = ConversationCache(Locked(), lambda: desk.now)
        desk.client.answer = answer
        for stream in (True, False):
            body = {"model": "kimi-k2.6", "stream": stream} | REQUESTS[path]
            answered = desk.call("POST", path, body, desk.key())
            assert answered.status == (200 if answer is calling else 400)
            assert "CANARY" not in str(answered.headers)
    assert "CANARY" not in log.getvalue()
    assert '"request"' in log.getvalue()
    assert "replay_down" in log.getvalue()

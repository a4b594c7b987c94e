"""The built-in upstream of a fresh clone: offline and deterministic; each answer says that it is a demo."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from kimi_gateway.catalog.models import ROWS, Model
from kimi_gateway.http import Headers
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.moonshot.prepare import PreparedChat, prepare
from kimi_gateway.providers.provider import Call, Token

NOTICE = "This is the demo provider of Kimi Gateway: no model ran. Set MOONSHOT_API_KEY for real answers."
PACE = 0.02  # seconds between two words, so that streaming is visible


class Demo:
    name = "demo"

    def __init__(self, pace: float = PACE) -> None:
        self._pace = pace

    def prepare(
        self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False
    ) -> PreparedChat:
        """Adapt a chat like the platform does, so that the demo refuses the same requests."""
        return prepare(chat, model, headers, cheaply)

    async def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        messages = call.body["messages"]
        words = re.findall(r"\S+\s*", f'{NOTICE} You said: "{_last_text(messages)}"')
        limit = call.body.get("max_completion_tokens", len(words))
        yield [_event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})]
        for word in words[:limit]:
            await asyncio.sleep(self._pace)
            yield [_event({"delta": {"content": word}, "finish_reason": None})]
        prompt, written = token_estimate.of_messages(messages), min(len(words), limit)
        usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        reason = "stop" if limit >= len(words) else "length"
        yield [_event({"delta": {}, "finish_reason": reason}, usage), (b"[DONE]", b"")]

    async def models(self, token: Token) -> list[dict[str, Any]]:
        return [{"id": upstream, "object": "model"} for upstream in sorted({row.upstream for row in ROWS})]

    async def live(self, token: Token) -> bool:
        return False

    async def balance(self, token: Token) -> dict[str, float]:
        return {"available_balance": 0.0, "voucher_balance": 0.0, "cash_balance": 0.0}

    async def estimate(self, token: Token, model: Model, messages: list[Any]) -> int:
        return token_estimate.of_messages(messages)


def _event(choice: dict[str, Any], usage: dict[str, int] | None = None) -> sse.Event:
    body = {"choices": [{"index": 0, **choice}], **({"usage": usage} if usage else {})}
    return jsonio.dumps(body), b""


def _last_text(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message, cut to 200 characters."""
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, list):
                content = " ".join(part["text"] for part in content if part.get("type") == "text")
            return str(content)[:200]
    return ""

"""Counts and estimates of input tokens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.values import Key
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.messages import request as anthropic
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate
from kimi_gateway.errors import RateLimited, Unavailable
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.http import Request, Response
from kimi_gateway.pivot import fields, placement, token_estimate
from kimi_gateway.pivot.dialect import Dialect
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.registry import Registry

COUNTING = 5.0  # seconds that the upstream has to count tokens


@dataclass(slots=True)
class Counts:
    gate: Gate
    registry: Registry
    counting: float = COUNTING

    async def estimate(self, request: Request) -> Response:
        """The upstream's token count; an estimate for an account without credits."""
        key, raw = await self._body(request)
        body = (await apart(len(raw), lambda: fields.json_object(raw))).values
        for name, check in {"model": fields.string, "messages": fields.array}.items():
            check(body.get(name), name)
        resolved = await self.registry.resolve(body["model"], partial(self.gate.has_credit, key))
        if not resolved.directory.counts or not await self.gate.has_credit(key):
            total = await apart(len(raw), lambda: token_estimate.of_messages(body["messages"]))
            return answer({"data": {"total_tokens": total}})
        try:
            with self.gate.places.held(key.account):
                total = await resolved.directory.estimate(resolved.model, body["messages"])
        except UpstreamFailure as failure:
            raise failure.shown(resolved.known, request.id, resolved.window) from failure
        return answer({"data": {"total_tokens": total}})

    async def count_tokens(self, request: Request) -> Response:
        """Anthropic's count: the upstream counts the messages, and an estimate of the tools is added. The
        whole number is an estimate for an account without credits and if the upstream does not answer,
        because clients ask before each turn."""
        key, raw = await self._body(request)
        chat = (await apart(len(raw), lambda: anthropic.read(raw, counting=True))).chat
        return answer({"input_tokens": await self._count(key, chat, len(raw))})

    async def count_input(
        self, request: Request, dialect: Dialect, conversations: ConversationCache
    ) -> Response:
        """The same count for a Responses request, including stored content that it refers to."""
        key, raw = await self._body(request)
        ask = await apart(len(raw), lambda: dialect.read(raw))
        found = await conversations.recall(key.account, ask.needs, renew=False) if ask.needs else {}
        parsed = await apart(len(raw), lambda: ask.complete(found, ()))
        count = await self._count(key, parsed.chat, parsed.size)
        return answer({"object": "response.input_tokens", "input_tokens": count})

    async def _body(self, request: Request) -> tuple[Key, bytes]:
        key = await authenticate(self.gate, request)
        await self.gate.refuse_free(key, request.is_large)
        raw = await request.body()
        self.gate.read_free(key, len(raw))
        return key, raw

    async def _count(self, key: Key, chat: ChatRequest, size: int) -> int:
        """Input tokens of a chat; `size` is the size of the request in bytes. Nothing is fetched or uploaded
        for a count, so the share of attachments is a guess."""
        messages, attached, count, tools = await apart(size, lambda: _estimated(chat))
        resolved = await self.registry.resolve(chat.model, partial(self.gate.has_credit, key))
        if await self.gate.has_credit(key):
            with (
                suppress(UpstreamFailure, Unavailable, RateLimited, TimeoutError),
                self.gate.places.held(key.account),
            ):
                if resolved.directory.counts:
                    async with asyncio.timeout(self.counting):
                        count = await resolved.directory.estimate(resolved.model, messages)
        return max(1, count + attached + tools)


def _estimated(chat: ChatRequest) -> tuple[list[dict[str, Any]], int, int, int]:
    """The messages without attachments, and the estimated tokens of attachments, messages and tools."""
    messages, attached = placement.without(chat.body["messages"])
    tools = token_estimate.of_messages([], chat.body.get("tools"))
    return messages, attached, token_estimate.of_messages(messages), tools

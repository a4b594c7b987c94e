"""Conversations that the gateway's requests leave in the account: each is recorded before it can exist, and
deleted behind the answer (files/cleaning.py).

The service makes the id of a chat. One whose id was never received is found by its first message: recent
chats are looked through, and only the one with the same text counts. So chats of the account's owner are
never touched.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token

LISTED = 20  # newest chats that are looked through
READ = 10  # messages of each
CLOCKS = 600  # seconds by which the service's clock may differ

Ask = Callable[[str, Token, dict[str, Any]], Awaitable[dict[str, Any]]]  # path, token, body


def mark_of(content: str) -> str:
    """The mark of a first message."""
    return hashlib.sha256(content.strip().encode("utf-8", "replace")).hexdigest()


class WebConversations:
    """Implements `Conversations`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def delete(self, token: Token, chat: str) -> bool:
        """Whether it existed."""
        try:
            await self._ask("/apiv2/kimi.chat.v1.ChatService/DeleteChat", token, {"chat_id": chat})
        except UpstreamFailure as failure:
            if failure.cause != "model":  # how a chat that is gone is reported
                raise
            return False
        return True

    async def found(self, token: Token, mark: str, since: int) -> list[str]:
        """The ids of recent chats with a message of this mark, that were made after `since` (unix
        seconds)."""
        asked = {"project_id": "", "page_size": LISTED, "query": ""}
        listed = await self._ask("/apiv2/kimi.chat.v1.ChatService/ListChats", token, asked)
        chats = _entries(listed, "chats")[:LISTED]
        recent = [chat for chat in chats if _made(chat) >= since - CLOCKS]
        ids = [str(chat["id"]) for chat in recent if isinstance(chat.get("id"), str) and chat["id"]]
        return [id for id in ids if mark in await self._marks(token, id)]

    async def _marks(self, token: Token, chat: str) -> set[str]:
        """The marks of the user's messages."""
        asked = {"chat_id": chat, "page_size": READ}
        told = await self._ask("/apiv2/kimi.gateway.chat.v1.ChatService/ListMessages", token, asked)
        users = [each for each in _entries(told, "messages") if each.get("role") == "user"]
        texts = [block.get("text") for each in users for block in _entries(each, "blocks")]
        contents = [text.get("content") for text in texts if isinstance(text, dict)]
        return {mark_of(content) for content in contents if isinstance(content, str)}


def _made(chat: dict[str, Any]) -> float:
    """When a chat was made; in the future if it does not tell."""
    told = chat.get("createTime")
    try:
        return datetime.fromisoformat(told).timestamp() if isinstance(told, str) else math.inf
    except (ValueError, OverflowError):
        return math.inf


def _entries(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = told.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

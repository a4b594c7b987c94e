"""Deletes the conversations that requests leave at the web service of kimi.com, also after a crash.

A record is written before the conversation can exist, as for files (cleaning.py), whose machinery does the
rest: deletion behind the answer, repeated, and a sweep for what a dead process left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.accounts.files import FileRecord
from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import Unavailable
from kimi_gateway.files.cleaning import REACHED, Cleaner
from kimi_gateway.observe import emit
from kimi_gateway.providers.conversations import Conversations, KeepsConversations
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token, Upstream

PURPOSE = "conversation"  # of the records
OWNER = "kimi-web"  # in place of an account


class ConversationTraces:
    """Implements `Traces`. `upstreams` are the web services with their tokens, for records of
    other processes. `begun` and `deleted` count this process's conversations."""

    def __init__(self, cleaner: Cleaner, upstreams: Callable[[], Iterable[Upstream]]) -> None:
        self.begun = 0
        self.deleted = 0
        self._cleaner = cleaner
        self._upstreams = upstreams
        self._own = BoundedDict[tuple[Conversations, Token]](REACHED)
        cleaner.others[PURPOSE] = self.delete

    async def begin(self, token: Token, mark: str, conversations: Conversations) -> ConversationTrace:
        try:
            record = await self._cleaner.begin(OWNER, token, PURPOSE, "", detail=mark)
        except StoreDown as exc:
            raise UpstreamFailure("server", "the conversation cannot be recorded") from exc
        self.begun += 1
        self._own[record.id] = conversations, token
        return ConversationTrace(self._cleaner, record)

    async def delete(self, record: FileRecord) -> int:
        """The number of conversations that are gone now. Raises UpstreamFailure and Unavailable."""
        conversations, token = self._reach(record)
        found = (
            [record.upstream]
            if record.upstream
            else await conversations.found(token, record.detail, record.created)
        )
        for chat in found:
            await conversations.delete(token, chat)
        if found:
            self._own.pop(record.id, None)
            self.deleted += len(found)
            left = self.begun - self.deleted
            emit("conversations_deleted", begun=self.begun, deleted=self.deleted, left=max(0, left))
        return len(found)

    def _reach(self, record: FileRecord) -> tuple[Conversations, Token]:
        if record.id in self._own:
            return self._own[record.id]
        try:
            for upstream in self._upstreams():
                for token in upstream.tokens.all():
                    if token.id == record.token and isinstance(upstream.provider, KeepsConversations):
                        return upstream.provider.conversations, token
        except Unavailable as exc:
            raise UpstreamFailure("server", "the tokens cannot be read") from exc
        raise UpstreamFailure("authentication", "the conversation's token is gone")


@dataclass(slots=True)
class ConversationTrace:
    """Implements `Trace`."""

    cleaner: Cleaner
    record: FileRecord

    async def known(self, chat: str) -> None:
        self.record = await self.cleaner.known(
            self.record, replace(self.record, upstream=chat, state="ready")
        )

    def end(self, begun: bool) -> None:
        (self.cleaner.delete_later if begun else self.cleaner.forget_later)(self.record)

"""Chat Completions as a dialect: the pivot unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.chat.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.chat.searching import SearchingJsonAnswer, SearchingStreamWriter
from kimi_gateway.pivot import request
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Ask
from kimi_gateway.pivot.request import ChatRequest


@dataclass(frozen=True, slots=True)
class ParsedChatRequest:
    chat: ChatRequest
    size: int

    @property
    def include_usage(self) -> bool:
        """Whether the client wants usage in the stream."""
        options = self.chat.source.values.get("stream_options") if self.chat.source else None
        return bool(options and options.get("include_usage"))

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        if (search := self.chat.search) is not None:
            return SearchingStreamWriter(identity, self.include_usage, search.lines)
        return StreamWriter(identity, self.include_usage)

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        if (search := self.chat.search) is not None:
            return SearchingJsonAnswer(identity, search.lines)
        return JsonAnswer(identity)

    @property
    def stores(self) -> bool:
        return self.chat.source is None or self.chat.source.values.get("store") is not False

    @property
    def continues(self) -> str:
        return ""

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        return {}


@dataclass(frozen=True, slots=True)
class ChatCompletions:
    """`keeps`: whether this gateway keeps conversations."""

    keeps: bool = True

    def read(self, raw: bytes) -> Ask:
        chat = request.read(raw)
        if chat.source is None or not chat.source.values.get("conversation_id"):
            return Ask.whole(chat, len(raw), ParsedChatRequest)
        from kimi_gateway.dialects.chat import conversation  # few requests need it

        return conversation.read(chat, raw, self.keeps, ParsedChatRequest)

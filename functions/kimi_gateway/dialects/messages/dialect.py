"""Messages as a dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.messages import request, search
from kimi_gateway.dialects.messages.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.messages.request import MessagesRequest, Translation
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Ask
from kimi_gateway.pivot.request import ChatRequest


@dataclass(frozen=True, slots=True)
class ParsedMessagesRequest:
    translation: Translation
    size: int
    stores: bool = True
    continues: str = ""

    @property
    def chat(self) -> ChatRequest:
        return self.translation.chat

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        body = self.chat.body
        estimate = token_estimate.of_messages(body["messages"], body.get("tools"))
        return StreamWriter(identity, self.translation, estimate, narrowed)

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        return JsonAnswer(identity, self.translation, narrowed)

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        return {}


class Messages:
    def read(self, raw: bytes) -> Ask:
        translation = request.read(raw)

        def parsed(chat: MessagesRequest, size: int) -> ParsedMessagesRequest:
            return ParsedMessagesRequest(replace(translation, chat=chat), size)

        ask = Ask.whole(translation.chat, len(raw), parsed)
        return (
            ask if translation.search is None else replace(ask, unasked=partial(search.answer, translation))
        )

"""Messages as a dialect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from kimi_gateway.dialects.messages import request, search
from kimi_gateway.dialects.messages.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.messages.request import MessagesRequest, Read
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Ask
from kimi_gateway.pivot.request import ChatRequest


@dataclass(frozen=True, slots=True)
class MessagesQuestion:
    read: Read
    size: int

    @property
    def chat(self) -> ChatRequest:
        return self.read.chat

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        body = self.chat.body
        estimate = token_estimate.of_messages(body["messages"], body.get("tools"))
        return StreamWriter(identity, self.read, estimate, narrowed)

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        return JsonAnswer(identity, self.read, narrowed)

    def kept(self) -> dict[str, bytes]:
        return {}


class Messages:
    def read(self, raw: bytes) -> Ask:
        read = request.read(raw)

        def question(chat: MessagesRequest, size: int) -> MessagesQuestion:
            return MessagesQuestion(replace(read, chat=chat), size)

        ask = Ask.whole(read.chat, len(raw), question)
        return ask if read.search is None else replace(ask, unasked=partial(search.answer, read))

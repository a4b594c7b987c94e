"""Chat Completions as a dialect: the pivot as it is."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_gateway.dialects.dialect import Ask
from kimi_gateway.dialects.openai import request
from kimi_gateway.dialects.openai.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.openai.chunks import Identity
from kimi_gateway.dialects.openai.request import ChatRequest


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    chat: ChatRequest

    def writer(self, identity: Identity) -> StreamWriter:
        return StreamWriter(identity, self.chat.include_usage)

    def answer(self, identity: Identity) -> JsonAnswer:
        return JsonAnswer(identity)

    def kept(self) -> dict[str, bytes]:
        return {}


class ChatCompletions:
    def read(self, raw: bytes) -> Ask:
        return Ask.whole(ChatQuestion(request.read(raw)))

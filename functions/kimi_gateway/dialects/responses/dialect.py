"""OpenAI Responses as a dialect, with the earlier answers that a request may name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from kimi_gateway.dialects.openai.chunks import Identity
from kimi_gateway.dialects.openai.request import ChatRequest
from kimi_gateway.dialects.responses import references
from kimi_gateway.dialects.responses.answer import Answer, JsonAnswer, StreamWriter, name_of
from kimi_gateway.dialects.responses.output import Output
from kimi_gateway.dialects.responses.request import Asked, chat_of, checked

_ENCRYPTED = "reasoning.encrypted_content"
# What is kept under these names for an account; the names are ours alone.
Recall = Callable[[str, Sequence[str]], Awaitable[dict[str, bytes]]]


@dataclass(slots=True)
class ResponsesQuestion:
    """`size` is the request's with what it only named, in bytes."""

    asked: Asked
    size: int
    clock: Callable[[], float]
    _name: str = ""
    _output: Output | None = field(default=None, repr=False)

    @property
    def chat(self) -> ChatRequest:
        return self.asked.chat

    def writer(self, identity: Identity) -> StreamWriter:
        return StreamWriter(self._answer(identity))

    def answer(self, identity: Identity) -> JsonAnswer:
        return JsonAnswer(self._answer(identity))

    def _answer(self, identity: Identity) -> Answer:
        sealed = _ENCRYPTED in self.asked.body.get("include", ())
        self._name = name_of(identity)
        self._output = Output(self._name, self.asked.toolbox, sealed)
        return Answer(self.asked.body, identity, self._output, self.clock)

    def kept(self) -> dict[str, bytes]:
        """The conversation with this answer, unless the client said `store: false`."""
        if self._output is None or not self.asked.body.get("store", True) or self.size > references.LARGEST:
            return {}
        self._output.end()
        return references.Earlier(self.asked.messages, self._output.items()).entries(self._name)


@dataclass(frozen=True, slots=True)
class Responses:
    """`clock` gives unix seconds."""

    recall: Recall
    clock: Callable[[], float]

    async def read(self, raw: bytes, account: str) -> ResponsesQuestion:
        body = checked(raw)
        names = references.entries(body)
        found = await self.recall(account, names) if names else {}
        recalled = references.size(found)
        asked = chat_of(body, *references.resolve(body, found), recalled)
        return ResponsesQuestion(asked, len(raw) + recalled, self.clock)

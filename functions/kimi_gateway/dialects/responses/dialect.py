"""OpenAI Responses as a dialect, with the earlier answers that a request may refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kimi_gateway.dialects.responses import references
from kimi_gateway.dialects.responses.answer import Answer, JsonAnswer, StreamWriter, name_of
from kimi_gateway.dialects.responses.output import Output
from kimi_gateway.dialects.responses.request import Asked, chat_of, checked
from kimi_gateway.pivot.attachments import Results
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Ask
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.request import ChatRequest

_ENCRYPTED = "reasoning.encrypted_content"


@dataclass(slots=True)
class ResponsesQuestion:
    """`size`: bytes of the request and of the content that it refers to."""

    asked: Asked
    size: int
    clock: Callable[[], float]
    _name: str = ""
    _output: Output | None = field(default=None, repr=False)

    @property
    def chat(self) -> ChatRequest:
        return self.asked.chat

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        return StreamWriter(self._answer(identity))

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        return JsonAnswer(self._answer(identity))

    def _answer(self, identity: Identity) -> Answer:
        include = frozenset(self.asked.body.get("include", ()))
        self._name = name_of(identity)
        self._output = Output(self._name, self.asked.toolbox, _ENCRYPTED in include, include)
        searches = self.chat.search is not None
        return Answer(self.asked.body, identity, self._output, self.clock, searches)

    def kept(self) -> dict[str, bytes]:
        """The conversation with this answer, unless `store` is false."""
        if self._output is None or not self.asked.body.get("store", True) or self.size > references.LARGEST:
            return {}
        self._output.end()
        return references.Earlier(self.asked.messages, self._output.items()).entries(self._name)


@dataclass(frozen=True, slots=True)
class Responses:
    """`clock` returns unix seconds. `keeps`: whether this gateway keeps answers for later requests."""

    clock: Callable[[], float]
    keeps: bool = True

    def read(self, raw: bytes) -> Ask:
        body = checked(raw)
        names = references.entries(body)

        def complete(found: Mapping[str, bytes], resolved: Results) -> ResponsesQuestion:
            kept, recalled = references.unpack(found)
            asked = chat_of(body, *references.resolve(body, kept))
            return ResponsesQuestion(asked, len(raw) + recalled, self.clock)

        if not self.keeps and "previous_response_id" in body:
            fail(
                "previous_response_id", "this gateway keeps no answers; send the whole conversation as input"
            )
        if not names or not self.keeps:
            return Ask.whole(complete({}, ()))
        chat = chat_of(
            body, references.without(body), None
        ).chat  # to find its faults, which cost nothing yet
        return Ask(chat.model, chat.stream, chat.choices, names, complete)

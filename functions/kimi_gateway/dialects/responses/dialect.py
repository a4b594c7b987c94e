"""OpenAI Responses as a dialect, with the earlier answers that a request may refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, NamedTuple

from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.responses import references
from kimi_gateway.dialects.responses.answer import Answer, JsonAnswer, StreamWriter, name_of
from kimi_gateway.dialects.responses.output import Output
from kimi_gateway.dialects.responses.request import Translation, chat_of, checked
from kimi_gateway.pivot import placement
from kimi_gateway.pivot.attachments import Attachment, Results
from kimi_gateway.pivot.chunks import Identity
from kimi_gateway.pivot.dialect import Ask, attaching
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.request import ChatRequest

_ENCRYPTED = "reasoning.encrypted_content"


@dataclass(slots=True)
class ParsedResponsesRequest:
    """`size`: bytes of the request and of the content that it refers to."""

    translation: Translation
    size: int
    clock: Callable[[], float]
    _name: str = ""
    _answered: Answer | None = field(default=None, repr=False)

    @property
    def chat(self) -> ChatRequest:
        return self.translation.chat

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        return StreamWriter(self._answer(identity))

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        return JsonAnswer(self._answer(identity))

    def _answer(self, identity: Identity) -> Answer:
        include = frozenset(self.translation.body.get("include", ()))
        self._name = name_of(identity)
        output = Output(self._name, self.translation.toolbox, _ENCRYPTED in include, include)
        searches = self.chat.search is not None
        self._answered = Answer(self.translation.body, identity, output, self.clock, searches)
        return self._answered

    @property
    def stores(self) -> bool:
        stores: bool = self.translation.body.get("store", True)
        return stores

    @property
    def continues(self) -> str:
        return ""

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        """The conversation with this answer, unless `store` is false."""
        answered = self._answered
        if answered is None or not self.stores or self.size > references.LARGEST:
            return {}
        answered.output.end()
        response = {name: value for name, value in (answered.final or {}).items() if name != "output"}
        told = self.translation
        earlier = references.Earlier(told.messages, answered.output.items(), told.called)
        return earlier.entries(self._name, response or None, beside)


@dataclass(frozen=True, slots=True)
class Responses:
    """`clock` returns unix seconds. `keeps`: whether this gateway keeps answers for later requests."""

    clock: Callable[[], float]
    keeps: bool = True

    def read(self, raw: bytes) -> Ask:
        body = checked(raw)
        names = references.entries(body)

        if not self.keeps and "previous_response_id" in body:
            fail(
                "previous_response_id", "this gateway keeps no answers; send the whole conversation as input"
            )
        whole = _Whole(body, len(raw), self.clock)
        if not names or not self.keeps:
            chat = whole.known({}).translation.chat
            return whole.ask(chat, ())
        chat = chat_of(body, references.without(body), None).chat  # for its faults: they cost nothing yet
        placement.attachments(chat.body["messages"])
        return whole.ask(chat, names)


@dataclass(frozen=True, slots=True)
class Compactions:
    """Requests to compact a conversation."""

    responses: Responses

    def read(self, raw: bytes) -> Ask:
        from kimi_gateway.dialects.responses import compaction  # few clients ask for it

        return compaction.read(self.responses, raw)


class _Known(NamedTuple):
    translation: Translation
    attached: Sequence[Attachment]
    size: int


@dataclass(slots=True)
class _Whole:
    """A request with what was found of it, put together once for each finding. `size` is the body's."""

    body: dict[str, Any]
    size: int
    clock: Callable[[], float]
    _last: tuple[Mapping[str, bytes], _Known] | None = None

    def known(self, found: Mapping[str, bytes]) -> _Known:
        if self._last is None or self._last[0] != found:
            kept, recalled = references.unpack(found)
            translation = chat_of(self.body, *references.resolve(self.body, kept))
            attached = placement.attachments(translation.chat.body["messages"])
            self._last = found, _Known(translation, attached, self.size + recalled)
        return self._last[1]

    def ask(self, chat: ChatRequest, needs: Sequence[str]) -> Ask:
        searches, of_chat = chat.search is not None, (chat.model, chat.stream, chat.choices)
        return Ask(*of_chat, needs, self.attachments, self.complete, searches=searches)

    def attachments(self, found: Mapping[str, bytes]) -> Sequence[Attachment]:
        return self.known(found).attached

    def complete(self, found: Mapping[str, bytes], resolved: Results) -> ParsedResponsesRequest:
        translation, attached, size = self.known(found)
        if attached and resolved:
            became = dict(zip(attached, resolved, strict=True))
            messages = placement.placed(translation.messages, became, storing=True)
            translation = replace(
                translation, chat=attaching(translation.chat, attached, resolved), messages=messages
            )
            size += placement.bytes_of(resolved)
        return ParsedResponsesRequest(translation, size, self.clock)

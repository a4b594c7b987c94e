"""The interface of a dialect: it reads requests into the pivot, and writes the pivot's chunks as its
answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError
from kimi_gateway.pivot import placement
from kimi_gateway.pivot.attachments import Attachment, Results
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.request import ChatRequest

Chat = TypeVar("Chat", bound=ChatRequest)


class StreamWriter(Protocol):
    """Turns chunks into the events of one streamed answer; every method returns bytes for the wire, possibly
    none."""

    def add(self, chunks: list[Chunk]) -> bytes:
        """Everything that may be sent before the ledger is written: not the last finish reason."""
        ...

    def silence(self) -> bytes:
        """A sign of life. It may be the first event that the client gets."""
        ...

    def follow(self, signs: int) -> None:
        """Before anything else: go on behind another writer of the same answer, which has written `signs`
        signs of life and nothing more."""
        ...

    def end(self, usage: dict[str, Any]) -> bytes:
        """The rest of a complete answer; `usage` has the pivot's names."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The last event of a broken answer; nothing in it may look complete."""
        ...


class JsonAnswer(Protocol):
    """Collects chunks into one JSON body."""

    def add(self, chunks: list[Chunk]) -> None: ...

    def end(self, usage: dict[str, Any]) -> bytes: ...


class ParsedRequest(Protocol):
    """A parsed request: `chat` is the request in the pivot. `narrowed`: the output limit was lowered to what
    the model's window leaves."""

    @property
    def chat(self) -> ChatRequest: ...

    @property
    def size(self) -> int:
        """Bytes of the client's body and of the content that it refers to."""
        ...

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter: ...

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer: ...

    @property
    def stores(self) -> bool:
        """Whether anything may be kept for later requests."""
        ...

    @property
    def continues(self) -> str:
        """The name of an entry without which nothing is to be kept, because the client has deleted it
        meanwhile; mostly empty."""
        ...

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        """After the last chunk: cache entries for the account's next request (storage/cache.py). `beside` are
        the names of other entries that go when the answer is deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A request's body, read without any I/O.

    `needs` names what the request goes on from and the account has kept (storage/cache.py). With what was
    found of it, `attachments` gives what is to be resolved (files/), and `complete` the whole request, from
    what that became, one result for each. Without results the places of attachments stay open. Both raise
    InvalidRequest for what is missing. `unasked` gives the whole answer, where no upstream need be asked.
    `searches`: it asks for a web search.
    """

    model: str
    stream: bool
    choices: int
    needs: Sequence[str]
    attachments: Callable[[Mapping[str, bytes]], Sequence[Attachment]]
    complete: Callable[[Mapping[str, bytes], Results], ParsedRequest]
    unasked: Callable[[Identity], bytes] | None = None
    searches: bool = False

    @classmethod
    def whole(cls, chat: Chat, size: int, parsed: Callable[[Chat, int], ParsedRequest]) -> Ask:
        """One that needs nothing but its attachments; `parsed` takes a chat and its bytes."""
        attached = placement.attachments(chat.body["messages"])
        searches = chat.search is not None
        of_chat = (chat.model, chat.stream, chat.choices, (), lambda found: attached)
        if not attached:
            alone = parsed(chat, size)
            return cls(*of_chat, lambda found, resolved: alone, searches=searches)

        def complete(found: Mapping[str, bytes], resolved: Results) -> ParsedRequest:
            return parsed(attaching(chat, attached, resolved), size + placement.bytes_of(resolved))

        return cls(*of_chat, complete, searches=searches)


def attaching(chat: Chat, attached: Sequence[Attachment], resolved: Results) -> Chat:
    """The request with what its attachments became, if that is known already."""
    if not attached or not resolved:
        return chat
    became = dict(zip(attached, resolved, strict=True))
    return replace(chat, body={**chat.body, "messages": placement.placed(chat.body["messages"], became)})


class Dialect(Protocol):
    def read(self, raw: bytes) -> Ask:
        """Parse a request, without I/O. Raises InvalidRequest naming the field."""
        ...

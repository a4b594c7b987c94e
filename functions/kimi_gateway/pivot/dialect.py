"""The interface of a dialect: it reads requests into the pivot, and writes the pivot's chunks as its
answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kimi_gateway.errors import GatewayError
from kimi_gateway.pivot.attachments import Attachment, Results
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.request import ChatRequest


class StreamWriter(Protocol):
    """Turns chunks into the events of one streamed answer; every method returns bytes for the wire, possibly
    none."""

    def add(self, chunks: list[Chunk]) -> bytes:
        """Everything that may be sent before the ledger is written: not the last finish reason."""
        ...

    def silence(self) -> bytes:
        """A sign of life. It may be the first event that the client gets."""
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

    def kept(self) -> dict[str, bytes]:
        """After the last chunk: cache entries for the account's next request (storage/cache.py)."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A request's body, read without any I/O.

    `needs` names the cache entries that the request refers to (storage/cache.py). `attachments` are to be
    resolved (files/). `complete` takes the entries and one result for each attachment, and returns the
    complete request; it raises InvalidRequest if something is missing. `unasked` returns the whole answer, if
    no upstream call is needed.
    """

    model: str
    stream: bool
    choices: int
    needs: Sequence[str]
    complete: Callable[[Mapping[str, bytes], Results], ParsedRequest]
    attachments: Sequence[Attachment] = ()
    unasked: Callable[[Identity], bytes] | None = None

    @classmethod
    def whole(cls, question: ParsedRequest) -> Ask:
        """An ask that needs nothing else."""
        chat = question.chat
        return cls(chat.model, chat.stream, chat.choices, (), lambda found, resolved: question)


class Dialect(Protocol):
    def read(self, raw: bytes) -> Ask:
        """Parse a request, without I/O. Raises InvalidRequest naming the field."""
        ...

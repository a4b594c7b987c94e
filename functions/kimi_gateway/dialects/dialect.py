"""What a dialect brings: it reads requests into the pivot, and writes the pivot's chunks as its answers."""

from __future__ import annotations

from typing import Any, Protocol

from kimi_gateway.dialects.openai.chunks import Chunk, Identity
from kimi_gateway.dialects.openai.request import ChatRequest
from kimi_gateway.errors import GatewayError


class StreamWriter(Protocol):
    """Chunks to the events of one streamed answer; every method gives bytes for the wire, or none."""

    def add(self, chunks: list[Chunk]) -> bytes:
        """What may be shown before the ledger knows of the answer: not the last finish reason."""
        ...

    def silence(self) -> bytes:
        """A sign of life. It may be the first thing that the client sees."""
        ...

    def end(self, usage: dict[str, Any]) -> bytes:
        """All that is left of a complete answer; `usage` in the pivot's names."""
        ...

    def error(self, error: GatewayError) -> bytes:
        """The last event of an answer that broke; nothing in it may look complete."""
        ...


class JsonAnswer(Protocol):
    """Chunks to one JSON body."""

    def add(self, chunks: list[Chunk]) -> None: ...

    def end(self, usage: dict[str, Any]) -> bytes: ...


class Question(Protocol):
    """A request that was read: `chat` is what is asked, in the pivot."""

    @property
    def chat(self) -> ChatRequest: ...

    def writer(self, identity: Identity) -> StreamWriter: ...

    def answer(self, identity: Identity) -> JsonAnswer: ...

    def kept(self) -> dict[str, bytes]:
        """After the last chunk: what the account's next request may refer to (accounts/replay.py)."""
        ...


class Dialect(Protocol):
    async def read(self, raw: bytes, account: str) -> Question:
        """Raises InvalidRequest naming the field at fault. `account` is whose earlier answers it may name."""
        ...

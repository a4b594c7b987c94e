"""The writing of one streamed answer, which may begin before its request is completed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kimi_gateway.accounts.limit_headers import admission_headers
from kimi_gateway.flow.preparation import CompletedRequest
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Client
from kimi_gateway.pivot import ignored
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.dialect import JsonAnswer, StreamWriter
from kimi_gateway.providers.provider import Tap

JSON = [("content-type", "application/json")]
STREAM = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]


def headers_of(
    kind: Sequence[tuple[str, str]], names: Sequence[str] | None, turn: Turn
) -> list[tuple[str, str]]:
    """The headers of an answer: its kind, the ignored fields, the limits, and what the upstream sent."""
    named = [(ignored.HEADER, ", ".join(names))] if names else []
    return [*kind, *named, *admission_headers(turn.admission), *turn.answered()]


def collecting(collector: JsonAnswer, taps: Sequence[Tap]) -> Callable[[list[Chunk]], bool]:
    """Takes all chunks of an answer that is sent as a whole."""

    def take(chunks: list[Chunk]) -> bool:
        for tap in taps:
            tap.add(chunks)
        collector.add(chunks)
        return True

    return take


class StreamedAnswer:
    """`complete` gives it the completed request's own writer. If that takes long, `begin` gives it one that
    can only write signs of life and an error; the other one then goes on behind it. `taps` see all chunks.
    `send` is for chunks that need not wait for others."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.completed: CompletedRequest | None = None
        self.taps: Sequence[Tap] = ()
        self._writer: StreamWriter | None = None
        self._signs = 0  # of life, all of the first writer

    @property
    def writer(self) -> StreamWriter:
        assert self._writer is not None  # noqa: S101  one of the two methods was called
        return self._writer

    def begin(self, writer: StreamWriter) -> None:
        if self.completed is None:
            self._writer = writer

    def complete(self, completed: CompletedRequest, writer: StreamWriter) -> None:
        if self._signs:
            writer.follow(self._signs)
        self.completed, self._writer, self.taps = completed, writer, completed.prepared.taps()

    def add(self, chunks: list[Chunk]) -> bytes:
        """An empty list is a silence."""
        for tap in self.taps:
            tap.add(chunks)
        return self._writer.add(chunks) if chunks and self._writer is not None else self.silence()

    def to(self, client: Client) -> None:
        self.client = client

    def send(self, chunks: list[Chunk]) -> bool:
        """Write chunks to the client. False, and nothing happens, if it does not take them at once."""
        client = self.client
        if client is None or not client.ready:
            return False
        if framed := self.add(chunks):
            client.send(framed)
        return True

    def silence(self) -> bytes:
        if self.completed is None:
            self._signs += 1
        return self.writer.silence()

"""Puts deltas in any order into consecutive blocks, because Anthropic's grammar has one open block at a time.

Content that cannot be shown yet waits: a parallel call, or a text behind a call with incomplete arguments. A
call's arguments are complete when they form an object, or when the answer ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol

from kimi_gateway.net import jsonio
from kimi_gateway.pivot.chunks import Chunk, Run
from kimi_gateway.pivot.search import SearchCall, SearchChunk
from kimi_gateway.pivot.slips import Mender

MOST_WAITING = 1_024  # waiting blocks; beyond them a text joins the last waiting one of its kind
WINDOW = "model_context_window_exceeded"  # the stop reason of an answer that the model's window cut short
Kind = Literal["thinking", "text", "call"]


class Block:
    __slots__ = ("_end", "_seen", "_whole", "id", "index", "kind", "name", "pieces", "seal", "waits")

    def __init__(self, kind: Kind, index: int = 0) -> None:
        self.kind = kind
        self.index = index  # of a call
        self.id = ""  # of a call, in the pivot
        self.name = ""
        self.seal = ""  # an upstream's signature of a thinking block
        self.pieces: list[str] = []
        self.waits = True  # not opened yet
        self._seen = 0  # pieces that `_end` has read
        self._end = Mender()
        self._whole = False

    @property
    def whole(self) -> bool:
        """Whether the block is complete. Called for each piece while others wait, so each piece is read
        once."""
        if self.kind != "call":
            return True
        fresh, self._seen = self.pieces[self._seen :], len(self.pieces)
        if self._end.whole:
            self._whole &= not any(map(str.strip, fresh))
            return self._whole
        for piece in fresh:
            self._end.feed(piece)
        if self._end.whole:
            self._whole = arguments(self.pieces) is not None
        return self._whole


def arguments(pieces: list[str]) -> dict[str, Any] | None:
    """A call's input; None if it is not a complete object."""
    end = next((piece for piece in reversed(pieces) if piece and not piece.isspace()), "")
    if not end.rstrip().endswith("}"):  # a check without joining many pieces
        return None
    try:
        value = jsonio.loads("".join(pieces).encode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Sink(Protocol):
    """Receives blocks in order, one open at a time. A call's id and name are known when it opens."""

    def open(self, block: Block) -> None: ...

    def write(self, text: str) -> None:
        """More text of the open block, never empty."""
        ...

    def write_each(self, texts: list[str]) -> None:
        """As `write` with each of them."""
        ...

    def close(self) -> None: ...

    def insert(self, call: SearchCall) -> None:
        """A search of the gateway's, where no block is open."""
        ...


class BlockSequencer:
    """`stops` are the client's stop strings. `one_call`: calls after the first are dropped. `make_id` makes
    ids, by index, for calls without one. `narrowed`: the output limit was lowered to what the model's window
    left."""

    def __init__(
        self,
        sink: Sink,
        make_id: Callable[[int], str],
        stops: tuple[str, ...],
        one_call: bool,
        narrowed: bool = False,
    ) -> None:
        self._sink = sink
        self._make_id = make_id
        self._stops = stops
        self._one_call = one_call
        self._open: Block | None = None
        self._waiting: deque[Block] = deque()
        self._latest: dict[Kind, Block] = {}  # texts and thinking blocks that were made to wait
        self._calls: dict[int, Block] = {}
        self._finish: str | None = None
        self._stop: str | None = None
        self._narrowed = narrowed
        self._window = False

    def add(self, chunk: Chunk) -> None:
        if isinstance(chunk, SearchChunk):
            self.end()  # it comes between two rounds of the model: nothing waits for more
            self._sink.insert(chunk.call)
            return
        for choice in chunk.body["choices"]:
            delta = choice.get("delta") or {}
            if text := delta.get("reasoning_content"):
                self._text("thinking", text)
            if text := delta.get("reasoning_signature"):
                self._sign(text)
            if text := delta.get("content"):
                self._text("text", text)
            if text := delta.get("refusal"):
                self._text("text", text)
            for piece in delta.get("tool_calls") or ():
                self._call(piece)
            if reason := choice.get("finish_reason"):
                self._finish, stop = str(reason), choice.get("stop_reason")
                self._window = reason == "length" and (self._narrowed or stop == WINDOW)
                self._stop = stop if stop in self._stops else None

    def add_run(self, run: Run) -> None:
        """As `add` with each of its chunks."""
        kind: Kind = "thinking" if run.template.name == "reasoning_content" else "text"
        first, *others = run.texts
        self._text(kind, first)
        if not self._waiting and self._open is not None and self._open.kind == kind:
            self._sink.write_each(others)
        else:
            for text in others:
                self._text(kind, text)

    def end(self) -> None:
        self._advance(last=True)
        if self._open is not None:
            self._sink.close()
            self._open = None

    @property
    def outcome(self) -> tuple[str, str | None]:
        """Anthropic's stop reason, and the stop string that was found."""
        if self._stop is not None:
            return "stop_sequence", self._stop
        if self._window:
            return WINDOW, None
        if self._finish in _CUT:
            return _CUT[self._finish], None
        return "tool_use" if self._calls else "end_turn", None

    def _text(self, kind: Kind, text: str) -> None:
        if not self._waiting and self._open is not None and self._open.kind == kind:
            self._sink.write(text)
            return
        if not self._waiting or self._waiting[-1].kind != kind:
            latest = self._latest.get(kind)
            if latest is not None and latest.waits and len(self._waiting) >= MOST_WAITING:
                latest.pieces.append(text)
                return
            self._latest[kind] = block = Block(kind)
            self._waiting.append(block)
        self._waiting[-1].pieces.append(text)
        self._advance()

    def _sign(self, seal: str) -> None:
        """Add the signature to the latest thinking block."""
        block = self._waiting[-1] if self._waiting else self._open
        if block is not None and block.kind == "thinking":
            block.seal = seal

    def _call(self, piece: dict[str, Any]) -> None:
        index, function = piece["index"], piece.get("function") or {}
        call = self._calls.get(index)
        if call is None:
            if self._one_call and self._calls:
                return
            call = self._calls[index] = Block("call", index)
            self._waiting.append(call)
        call.id = call.id or str(piece.get("id") or "")
        call.name = call.name or str(function.get("name") or "")
        if text := function.get("arguments"):
            if call is not self._open and not call.waits:
                return  # its object was complete, so nothing more can belong to it
            call.pieces.append(text)
            if call is self._open:
                self._sink.write(text)
        if self._waiting:
            self._advance()

    def _advance(self, last: bool = False) -> None:
        """Open waiting blocks as far as the order allows; a call without a name only at the end."""
        while self._waiting and (last or self._open is None or self._open.whole):
            block = self._waiting[0]
            if block.kind == "call" and not block.name and not last:
                return
            self._waiting.popleft().waits = False
            if self._open is not None:
                self._sink.close()
            self._open = block
            if block.kind == "call" and not block.id:
                block.id = self._make_id(block.index)
            self._sink.open(block)
            if text := "".join(block.pieces):
                self._sink.write(text)


# Finish reasons other than a normal end.
_CUT = {"length": "max_tokens", "content_filter": "refusal"}

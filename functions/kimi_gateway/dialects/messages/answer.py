"""The answer in Anthropic's format: events, or one message. Both use the same sequence of blocks."""

from __future__ import annotations

from typing import Any

from kimi_gateway.dialects import errors
from kimi_gateway.dialects.messages import ids
from kimi_gateway.dialects.messages.block_sequencer import Block, BlockSequencer, arguments
from kimi_gateway.dialects.messages.content import SIGNATURE
from kimi_gateway.dialects.messages.hosted import HostedBlocks, citations
from kimi_gateway.dialects.messages.request import ThinkingDisplay, Translation
from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.errors import GatewayError
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot.chunks import Chunk, Identity, Run
from kimi_gateway.pivot.search import SearchCall

PING = sse.encode(b'{"type":"ping"}', b"ping")
HIDDEN = 16  # chunks without visible content, after which a ping shows that the answer is alive


def event(kind: str, **members: Any) -> bytes:
    return sse.encode(jsonio.dumps({"type": kind, **members}), kind.encode())


def message_of(identity: Identity) -> dict[str, Any]:
    """An empty message."""
    return {
        "id": "msg_" + _number(identity),
        "type": "message",
        "role": "assistant",
        "model": identity.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _number(identity: Identity) -> str:
    return identity.id.removeprefix("chatcmpl-").replace("-", "")


def _sequence(
    sink: _Events | _Blocks, identity: Identity, translation: Translation, narrowed: bool
) -> BlockSequencer:
    def make_id(index: int) -> str:
        return f"toolu_{_number(identity)}_{index}"

    return BlockSequencer(sink, make_id, translation.chat.stops, translation.one_call, narrowed)


def _hosted(identity: Identity, translation: Translation) -> HostedBlocks | None:
    """The blocks of searches, where the request may search."""
    return None if translation.chat.search is None else HostedBlocks(_number(identity), identity.created)


def _used(usage: dict[str, Any], hosted: HostedBlocks | None) -> dict[str, Any]:
    return usage_of(usage) | ({} if hosted is None else {"server_tool_use": hosted.usage})


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage in Anthropic's form: input in three shares, of which one was not cached."""
    details = _object(usage.get("prompt_tokens_details"))
    cached = _count(usage.get("cached_tokens")) or _count(details.get("cached_tokens"))
    written = _count(details.get("cache_write_tokens"))
    counts: dict[str, Any] = {
        "input_tokens": max(0, _count(usage.get("prompt_tokens")) - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": _count(usage.get("completion_tokens")),
    }
    thinking_tokens = _object(usage.get("completion_tokens_details")).get("reasoning_tokens")
    if thinking_tokens is not None:
        counts["output_tokens_details"] = {"thinking_tokens": _count(thinking_tokens)}
    return counts


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    """A count; 0 for null and invalid values."""
    return max(0, value) if isinstance(value, int) else 0


def _content(block: Block) -> dict[str, Any]:
    """An empty block of this kind."""
    if block.kind == "text":
        return {"type": "text", "text": ""}
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": ids.shown(block.id), "name": block.name, "input": {}}


_HEAD = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b'
_DELTA = {
    "text": b'{"type":"text_delta","text":',
    "thinking": b'{"type":"thinking_delta","thinking":',
    "call": b'{"type":"input_json_delta","partial_json":',
}

_END = b"}}\n\n"


def _signature(block: Block, pieces: list[str], thinking: ThinkingDisplay) -> str:
    """The upstream's signature; else the sealed thinking if the client does not get its text; else a
    constant."""
    return block.seal or (seal("".join(pieces)) if thinking == "sealed" else SIGNATURE)


class _Events:
    """A sink that turns blocks into events."""

    def __init__(self, thinking: ThinkingDisplay, hosted: HostedBlocks | None = None) -> None:
        self.out: list[bytes] = []
        self._thinking = thinking
        self._hosted = hosted
        self._cites: list[str] | None = None  # the open text, if it may cite sources
        self._index = -1
        self._block: Block | None = None
        self._head = b""  # of the open block's deltas; empty if they are not shown
        self._unshown: list[str] = []  # of thinking that will be sealed

    def open(self, block: Block) -> None:
        self._block = block
        if block.kind == "thinking" and self._thinking == "hidden":
            self._head = b""
            return
        self._index += 1
        start = event("content_block_start", index=self._index, content_block=_content(block))
        self.out.append(start)
        self._head = _HEAD % (self._index, _DELTA[block.kind])
        if block.kind == "thinking" and self._thinking == "sealed":
            self._head = b""
            self._unshown = []
        may_cite = block.kind == "text" and self._hosted is not None and self._hosted.sources
        self._cites = [] if may_cite else None

    def write(self, text: str) -> None:
        if self._cites is not None:
            self._cites.append(text)
        if self._head:
            self.out.append(self._head + jsonio.dumps(text) + _END)
        elif self._thinking == "sealed":
            self._unshown.append(text)

    def write_each(self, texts: list[str]) -> None:
        if self._cites is not None:
            self._cites += texts
        if self._head:
            self.out += self._head, jsonio.strings(texts, _END + self._head), _END
        elif self._thinking == "sealed":
            self._unshown += texts

    def close(self) -> None:
        block = self._block
        if block is not None and block.kind == "thinking":
            if self._thinking == "hidden":
                return
            delta = {"type": "signature_delta", "signature": _signature(block, self._unshown, self._thinking)}
            self.out.append(event("content_block_delta", index=self._index, delta=delta))
        if self._cites is not None and self._hosted is not None:
            for citation in citations("".join(self._cites), self._hosted.sources):
                cites = {"type": "citations_delta", "citation": citation}
                self.out.append(event("content_block_delta", index=self._index, delta=cites))
        self.out.append(event("content_block_stop", index=self._index))

    def insert(self, call: SearchCall) -> None:
        if self._hosted is None:
            return
        self._index += 1
        if call.done:
            result = self._hosted.result(call)
            self.out.append(event("content_block_start", index=self._index, content_block=result))
        else:
            use = self._hosted.use(call)
            text = jsonio.dumps(use["input"]).decode()
            start = {**use, "input": {}}
            self.out.append(event("content_block_start", index=self._index, content_block=start))
            delta = {"type": "input_json_delta", "partial_json": text}
            self.out.append(event("content_block_delta", index=self._index, delta=delta))
        self.out.append(event("content_block_stop", index=self._index))


class StreamWriter:
    """`input_tokens` is an estimate for the first event; `message_delta` has the true count."""

    def __init__(
        self, identity: Identity, translation: Translation, input_tokens: int, narrowed: bool = False
    ) -> None:
        self._hosted = _hosted(identity, translation)
        self._events = _Events(translation.thinking, self._hosted)
        self._sequence = _sequence(self._events, identity, translation, narrowed)
        usage = usage_of({"prompt_tokens": input_tokens})
        start = event("message_start", message={**message_of(identity), "usage": usage})
        self._events.out.append(start)
        self._unseen = 0

    def add(self, chunks: list[Chunk]) -> bytes:
        if not chunks:
            return b""
        for chunk in chunks:
            if isinstance(chunk, Run):
                self._sequence.add_run(chunk)
            else:
                self._sequence.add(chunk)
        if self._events.out:
            self._unseen = 0
            return self._taken()
        self._unseen += len(chunks)
        if self._unseen < HIDDEN:
            return b""
        self._unseen = 0
        return PING

    def silence(self) -> bytes:
        return self._taken() + PING

    def follow(self, signs: int) -> None:
        self._taken()  # the first event was sent with the first sign

    def end(self, usage: dict[str, Any]) -> bytes:
        self._sequence.end()
        reason, stop = self._sequence.outcome
        delta = {"stop_reason": reason, "stop_sequence": stop}
        last = event("message_delta", delta=delta, usage=_used(usage, self._hosted))
        return self._taken() + last + event("message_stop")

    def error(self, error: GatewayError) -> bytes:
        """An error event. Open blocks stay open and no stop reason follows, because a cut answer must not
        look complete."""
        return self._taken() + sse.encode(jsonio.dumps(errors.body(error, "anthropic")), b"error")

    def _taken(self) -> bytes:
        out, self._events.out = self._events.out, []
        return b"".join(out)


class _Blocks:
    """A sink that collects blocks."""

    def __init__(self, thinking: ThinkingDisplay, hosted: HostedBlocks | None = None) -> None:
        self.content: list[dict[str, Any]] = []
        self._thinking = thinking
        self._hosted = hosted
        self._pieces: list[str] = []

    def open(self, block: Block) -> None:
        self._block, self._pieces = block, []

    def write(self, text: str) -> None:
        self._pieces.append(text)

    def write_each(self, texts: list[str]) -> None:
        self._pieces += texts

    def close(self) -> None:
        content, text = _content(self._block), "".join(self._pieces)
        if self._block.kind == "call":
            content["input"] = input_of(self._pieces)
        elif self._block.kind == "text":
            content["text"] = text
            if self._hosted is not None and (found := citations(text, self._hosted.sources)):
                content["citations"] = found
        elif self._thinking == "hidden":
            return
        else:
            content["thinking"] = text if self._thinking == "shown" else ""
            content["signature"] = _signature(self._block, self._pieces, self._thinking)
        self.content.append(content)

    def insert(self, call: SearchCall) -> None:
        if self._hosted is not None:
            self.content.append(self._hosted.result(call) if call.done else self._hosted.use(call))


def input_of(pieces: list[str]) -> dict[str, Any]:
    """A call's input. Arguments that are not a complete object (a cut answer, an error of the model) are kept
    under a name that no tool has, so that the client's own check refuses them and the model learns of it."""
    text = "".join(pieces)
    if not text.strip():
        return {}
    whole = arguments(pieces)
    return {"_unreadable_arguments": text} if whole is None else whole


class JsonAnswer:
    """Collects chunks into one body."""

    def __init__(self, identity: Identity, translation: Translation, narrowed: bool = False) -> None:
        self._identity = identity
        self._hosted = _hosted(identity, translation)
        self._blocks = _Blocks(translation.thinking, self._hosted)
        self._sequence = _sequence(self._blocks, identity, translation, narrowed)

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._sequence.add(chunk)

    def end(self, usage: dict[str, Any]) -> bytes:
        self._sequence.end()
        reason, stop = self._sequence.outcome
        return jsonio.dumps(
            {
                **message_of(self._identity),
                "content": self._blocks.content,
                "stop_reason": reason,
                "stop_sequence": stop,
                "usage": _used(usage, self._hosted),
            }
        )

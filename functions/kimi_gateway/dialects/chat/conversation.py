"""`conversation_id`, as the first free API had it: the conversation is kept here, and continued.

`none` begins a conversation; its id is the `id` of the answer. A request with that id sends new messages
only, and those of earlier turns are put before them. Each complete answer replaces the entry. So of
several requests at one time the last one to end counts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, NamedTuple

from kimi_gateway.catalog.names import parted
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import placement, request
from kimi_gateway.pivot.attachments import Attachment, Results
from kimi_gateway.pivot.chunks import Chunk, Identity
from kimi_gateway.pivot.collect import Collector
from kimi_gateway.pivot.dialect import Ask, JsonAnswer, ParsedRequest, StreamWriter, attaching
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.search import SearchChunk

FIELD = "conversation_id"
NONE = "none"  # begins a conversation
MOST = 4 * 2**20  # bytes of a conversation
MOST_PACKED = 250_000  # bytes; an entry of the cache is a little larger at most (storage/cache.py)
MOST_BESIDE = 500  # names of entries that a conversation remembers for its deletion
_ID = re.compile(r"[0-9a-z]{20}")  # the form of the first free API's ids
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
Message = dict[str, Any]
Parsed = Callable[[ChatRequest, int], ParsedRequest]


def entry(conversation: str) -> str:
    """The name of a conversation's cache entry; empty if this cannot be the id of one."""
    return f"conversation:{conversation}" if _ID.fullmatch(conversation) else ""


def read(chat: ChatRequest, raw: bytes, keeps: bool, parsed: Parsed) -> Ask:
    """`chat` is the request as it stands, with a conversation_id. `keeps`: whether this gateway keeps
    conversations. `parsed` makes a request of a chat and its size. Raises InvalidRequest."""
    given = "" if chat.source is None else chat.source.values[FIELD]
    if not keeps and given != NONE:
        fail(FIELD, "this gateway keeps no conversations; send the whole conversation as messages")
    stores = chat.source is not None and chat.source.values.get("store") is not False
    name = entry(given)
    if not keeps or not (stores or name):
        return Ask.whole(chat, len(raw), parsed)
    whole = _Whole(chat, raw, name, given, stores, parsed)
    needs = (name,) if name else ()
    of = (whole.attachments, whole.complete)
    return Ask(chat.model, chat.stream, chat.choices, needs, *of, searches=chat.search is not None)


class Kept(NamedTuple):
    """A kept conversation. `beside` are the names of entries that belong to it."""

    messages: list[Message]
    beside: tuple[str, ...]
    size: int = 0


def unpacked(packed: bytes | None) -> Kept | None:
    """Raises InvalidRequest for a conversation that became too large."""
    if packed is None:
        return None
    text = zlib.decompress(packed)  # written here, so its size is bounded
    told = jsonio.loads(text)
    if told.get("full"):
        fail(
            FIELD,
            f"the conversation has become larger than the {MOST_PACKED // 1000} kB (packed) that are kept;"
            f' begin a new one with "{NONE}", or send the whole conversation as messages',
        )
    return Kept(told["messages"], tuple(told["beside"]), len(text))


def beside(packed: bytes) -> list[str]:
    """The names of the entries that belong to a conversation, also to one that became too large."""
    names: list[str] = jsonio.loads(zlib.decompress(packed))["beside"]
    return names


def _packed(messages: Sequence[Message], beside: Sequence[str]) -> bytes:
    text = jsonio.dumps({"messages": messages, "beside": beside})
    packed = zlib.compress(text, 1) if len(text) <= MOST else b""
    if packed and len(packed) <= MOST_PACKED:
        return packed
    return zlib.compress(jsonio.dumps({"full": True, "messages": [], "beside": beside}), 1)


class _Known(NamedTuple):
    chat: ChatRequest
    attached: Sequence[Attachment]
    kept: Kept | None


@dataclass(slots=True)
class _Whole:
    """A request with the kept part of its conversation, put together once for each finding."""

    chat: ChatRequest
    raw: bytes
    name: str
    given: str
    stores: bool
    parsed: Parsed
    _last: tuple[Mapping[str, bytes], _Known] | None = None

    def known(self, found: Mapping[str, bytes]) -> _Known:
        if self._last is None or self._last[0] != found:
            kept = unpacked(found.get(self.name))
            chat = self.chat
            if kept is not None:
                placement.recalled(kept.messages, FIELD)
                chat = request.read(self.raw, kept.messages)
            self._last = found, _Known(chat, placement.attachments(chat.body["messages"]), kept)
        return self._last[1]

    def attachments(self, found: Mapping[str, bytes]) -> Sequence[Attachment]:
        return self.known(found).attached

    def complete(self, found: Mapping[str, bytes], resolved: Results) -> ParsedRequest:
        chat, attached, kept = self.known(found)
        size = len(self.raw) + (kept.size if kept else 0) + placement.bytes_of(resolved)
        parsed = self.parsed(attaching(chat, attached, resolved), size)
        if not self.stores and kept is None:
            return parsed
        messages = chat.body["messages"][1 if parted(chat.model)[1].system else 0 :]
        if attached and resolved:
            messages = placement.placed(messages, dict(zip(attached, resolved, strict=True)), storing=True)
        return ParsedConversation(
            parsed, messages, kept.beside if kept else (), self.given if kept else "", self.stores
        )


@dataclass(slots=True)
class ParsedConversation:
    """`messages` are those to keep, without the answer. `known`: the id of the conversation that is
    continued, empty for a new one."""

    parsed: ParsedRequest
    messages: list[Message] = field(repr=False)
    beside: tuple[str, ...]
    known: str
    stores: bool
    _id: str = ""
    _said: Collector = field(default_factory=Collector, repr=False)

    @property
    def chat(self) -> ChatRequest:
        return self.parsed.chat

    @property
    def size(self) -> int:
        return self.parsed.size

    @property
    def continues(self) -> str:
        return entry(self.known)

    def writer(self, identity: Identity, narrowed: bool = False) -> StreamWriter:
        return _RecordingWriter(self.parsed.writer(self._named(identity), narrowed), self._said)

    def answer(self, identity: Identity, narrowed: bool = False) -> JsonAnswer:
        return _RecordingAnswer(self.parsed.answer(self._named(identity), narrowed), self._said)

    def _named(self, identity: Identity) -> Identity:
        self._id = self.known or _id_of(identity)
        return replace(identity, id=self._id)

    def kept(self, beside: Sequence[str] = ()) -> dict[str, bytes]:
        """The conversation with this answer; of several choices the first one."""
        answers = self._said.answer()["choices"]
        messages = [*self.messages, *(_said(answer["message"]) for answer in answers[:1])]
        return {entry(self._id): _packed(messages, [*self.beside, *beside][-MOST_BESIDE:])}


def _said(message: Message) -> Message:
    """The answer as a message of the history. Reasoning belongs to it where calls follow."""
    calls = message.get("tool_calls")
    kept = {"role": "assistant", "content": message.get("content") or ""}
    if calls:
        kept["tool_calls"] = calls
        if message.get("reasoning_content"):
            kept["reasoning_content"] = message["reasoning_content"]
    return kept


def _id_of(identity: Identity) -> str:
    """An id in the form of the first free API, from the answer's own random one."""
    number, digits = int(identity.id.partition("-")[2].replace("-", ""), 16), ""
    for _ in range(20):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _record(said: Collector, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        if not isinstance(chunk, SearchChunk):
            said.add(chunk)


class _RecordingWriter:
    def __init__(self, writer: StreamWriter, said: Collector) -> None:
        self._writer = writer
        self._said = said
        self.silence = writer.silence
        self.follow = writer.follow
        self.end = writer.end

    def add(self, chunks: list[Chunk]) -> bytes:
        _record(self._said, chunks)
        return self._writer.add(chunks)

    def error(self, error: GatewayError) -> bytes:
        return self._writer.error(error)


class _RecordingAnswer:
    def __init__(self, answer: JsonAnswer, said: Collector) -> None:
        self._answer = answer
        self._said = said
        self.end = answer.end

    def add(self, chunks: list[Chunk]) -> None:
        _record(self._said, chunks)
        self._answer.add(chunks)

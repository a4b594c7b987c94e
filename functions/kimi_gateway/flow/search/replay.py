"""Searches of an answer that ended with calls of the client's own tools, for the request with their results.

The vendor wants a result for each call of a message, and the client knows nothing of the gateway's calls. So
they are kept in the conversation cache under the client's first call, and put back beside it. Without the
entry the conversation goes on as the client has it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import call_ids
from kimi_gateway.pivot.call_ids import vendors
from kimi_gateway.pivot.request import ChatRequest

MOST = 100  # messages that get their searches back, the latest ones
LONGEST = 400_000  # characters of one entry before it is packed
_PREFIX = "search-"
Message = Mapping[str, Any]


class Searched(NamedTuple):
    """A call of the gateway's tools, and the text that the model got for it."""

    name: str
    arguments: str
    text: str


def kept(asked: Sequence[Message], call: Message, searched: Sequence[Searched]) -> dict[str, bytes]:
    """The cache entry. `asked` are the messages of the client's request, `call` is its first call in the
    answer."""
    told = [list(each) for each in searched]
    while told and sum(len(text) for each in told for text in each) > LONGEST:
        del told[0]  # the earliest
    if not told:
        return {}
    packed = zlib.compress(jsonio.dumps(told), 1)
    return {_name(call_ids.next_place(asked), call): packed}


async def restored(cache: ConversationCache, account: str, chat: ChatRequest) -> tuple[ChatRequest, int]:
    """The chat with the searches of its earlier answers, and the number of added bytes."""
    messages = chat.body["messages"]
    wanted = _names(messages)
    if not wanted or not cache.keeps:
        return chat, 0
    known = await cache.found(account, list(wanted.values()))
    found = {index: searched for index, name in wanted.items() if (searched := _unpacked(known.get(name)))}
    if not found:
        return chat, 0
    whole: list[Message] = []
    for index, message in enumerate(messages):
        whole += _with(message, found[index]) if index in found else (message,)
    added = sum(len(text) for searched in found.values() for each in searched for text in each)
    return replace(chat, body={**chat.body, "messages": whole}), added


def _names(messages: Sequence[Message]) -> dict[int, str]:
    """The names of possible entries, by the index of the message with the calls."""
    if not any(map(_calls, messages)):
        return {}
    places = enumerate(call_ids.places(messages))
    called = [(index, place, message) for index, (message, place) in places if message and _calls(message)]
    return {index: _name(place, message["tool_calls"][0]) for index, place, message in called[-MOST:]}


def _calls(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message.get("tool_calls"))


def _name(place: bytes, call: Message) -> str:
    function = call.get("function") or {}
    return call_ids.entry(_PREFIX, place, vendors(str(call.get("id") or "")), function.get("arguments"))


def _with(message: Message, searched: Sequence[Searched]) -> list[Message]:
    """The message with the gateway's calls behind the client's, and their results. The ids are of the first
    call, so they are the same in each request."""
    first = vendors(str(message["tool_calls"][0].get("id") or ""))
    ids = [f"{first}-s{number}" for number in range(len(searched))]
    calls = [
        {"id": id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
        for id, each in zip(ids, searched, strict=True)
    ]
    results = [
        {"role": "tool", "tool_call_id": id, "content": each.text}
        for id, each in zip(ids, searched, strict=True)
    ]
    return [{**message, "tool_calls": [*message["tool_calls"], *calls]}, *results]


def _unpacked(entry: bytes | None) -> list[Searched]:
    """Empty if it is missing, corrupt, or unpacks to too much."""
    if entry is None:
        return []
    reader = zlib.decompressobj()
    try:
        told = jsonio.loads(reader.decompress(entry, 8 * LONGEST))
        return [Searched(*map(str, each)) for each in told]
    except (zlib.error, ValueError, TypeError):
        return []

"""What tests of the Messages stream share: pivot streams of all kinds, a strict reader of the events, and the
message that they fold to.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from kimi_gateway.dialects.messages.answer import JsonAnswer, StreamWriter
from kimi_gateway.dialects.messages.dialect import ParsedMessagesRequest
from kimi_gateway.dialects.messages.request import Translation, read
from kimi_gateway.net import sse
from kimi_gateway.pivot.chunks import Chunk, Identity, Progress

Json = dict[str, Any]
IDENTITY = Identity("chatcmpl-0123-4567", "claude-like", 1, "fp")
USAGE = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "cached_tokens": 12}
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def asked(**more: Any) -> Translation:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more}
    return read(json.dumps(body).encode())


def events_of(stream: bytes) -> list[Json]:
    """Each frame is an `event:` line that repeats its data's type, one `data:` line, and a blank one."""
    frames = stream.decode("utf-8", "surrogatepass").split("\n\n")
    assert frames.pop() == ""
    events = []
    for frame in frames:
        name, data = frame.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        event: Json = json.loads(data[6:])
        assert event["type"] == name[7:]
        events.append(event)
    return events


@dataclass
class Folded:
    """A message as a client puts it together, checking the grammar with each event."""

    message: Json = field(default_factory=dict)
    ended: bool = False
    error: Json | None = None
    _open: int | None = None
    _texts: dict[int, str] = field(default_factory=dict)

    def take(self, event: Json) -> None:
        assert not self.ended, f"{event['type']} after the end"
        assert self.error is None, f"{event['type']} after an error"
        kind = event["type"]
        if kind in ("ping", "error"):
            assert event.keys() == ({"type"} if kind == "ping" else {"type", "error"})
            self.error = event.get("error")
        else:
            assert (kind == "message_start") == (not self.message)
        getattr(self, f"_{kind}")(event)

    def _ping(self, event: Json) -> None:
        assert self.message, "a ping before the message began"

    def _error(self, event: Json) -> None:
        assert event["error"].keys() == {"type", "message"}

    def _message_start(self, event: Json) -> None:
        self.message = event["message"]
        assert self.message["content"] == []
        assert self.message["stop_reason"] is None
        assert (self.message["type"], self.message["role"]) == ("message", "assistant")

    def _content_block_start(self, event: Json) -> None:
        assert self._open is None, "two blocks are open"
        assert self.message["stop_reason"] is None
        assert event["index"] == len(self.message["content"])
        block = event["content_block"]
        empty = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        assert block.items() >= empty[block["type"]].items()
        self.message["content"].append(block)
        self._open, self._texts[event["index"]] = event["index"], ""

    def _content_block_delta(self, event: Json) -> None:
        assert event["index"] == self._open
        block, delta = self.message["content"][event["index"]], event["delta"]
        if delta["type"] == "signature_delta":
            assert (block["type"], block["signature"]) == ("thinking", "")
            assert delta["signature"]
            block["signature"] = delta["signature"]
            return
        kind, name = _DELTAS[block["type"]]
        assert delta.keys() == {"type", name}
        assert delta["type"] == kind
        assert delta[name] != ""
        assert not block.get("signature"), "more thinking after its signature"
        self._texts[event["index"]] += delta[name]

    def _content_block_stop(self, event: Json) -> None:
        assert event["index"] == self._open
        self._open = None
        block, text = self.message["content"][event["index"]], self._texts[event["index"]]
        if block["type"] == "tool_use":
            block["input"] = json.loads(text) if text else {}
        else:
            block[_DELTAS[block["type"]][1]] = text
        if block["type"] == "thinking":
            assert block["signature"], "a thinking block without a signature"

    def _message_delta(self, event: Json) -> None:
        assert self._open is None, "the message ends inside a block"
        assert self.message["stop_reason"] is None, "two message_delta"
        assert event["delta"].keys() == {"stop_reason", "stop_sequence"}
        assert event["delta"]["stop_reason"]
        self.message |= event["delta"]
        self.message["usage"] |= event["usage"]

    def _message_stop(self, event: Json) -> None:
        assert self.message["stop_reason"] is not None
        assert event == {"type": "message_stop"}
        self.ended = True


def folded(stream: bytes) -> Folded:
    result = Folded()
    for event in events_of(stream):
        result.take(event)
    return result


@dataclass(frozen=True)
class Told:
    """What an upstream says: deltas of one choice in order, and how it ends."""

    deltas: list[Json]
    finish: str | None

    @property
    def body(self) -> bytes:
        """As the upstream's stream."""
        choices: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in self.deltas]
        if self.finish is not None:
            choices.append({"index": 0, "delta": {}, "finish_reason": self.finish})
        frames = [
            sse.encode(json.dumps({"id": "cmpl-1", "choices": [choice]}).encode()) for choice in choices
        ]
        return b"".join(frames) + sse.DONE

    def text(self, name: str) -> str:
        return "".join(delta.get(name) or "" for delta in self.deltas)

    @property
    def calls(self) -> list[tuple[str, str, Json]]:
        """Id, name and input of each, in the order of their first fragments."""
        found: dict[int, list[str]] = {}
        for delta in self.deltas:
            for piece in delta.get("tool_calls") or ():
                call = found.setdefault(piece["index"], ["", "", ""])
                function = piece.get("function") or {}
                call[0] = call[0] or piece.get("id") or ""
                call[1] = call[1] or function.get("name") or ""
                call[2] += function.get("arguments") or ""
        return [(id, name, json.loads(text) if text else {}) for id, name, text in found.values()]


def chunks_of(body: bytes, cuts: list[int]) -> list[list[Chunk]]:
    """Read as the gateway reads it, cut at these places: what each read brought."""
    numbers = itertools.count()
    decoder, progress = sse.Decoder(), Progress(lambda size: next(numbers).to_bytes(size, "big"))
    places = sorted({cut % (len(body) + 1) for cut in cuts})
    reads = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    batches = [[progress.read(event) for event in decoder.feed(data)] for data in reads]
    return [[chunk for chunk in batch if chunk is not None] for batch in batches]


def streamed(batches: list[list[Chunk]], read: Translation, usage: Json = USAGE) -> bytes:
    writer = ParsedMessagesRequest(read, 0).writer(IDENTITY)
    assert isinstance(writer, StreamWriter)
    return b"".join([*map(writer.add, batches), writer.end(usage)])


def answered(batches: list[list[Chunk]], read: Translation, usage: Json = USAGE) -> Json:
    answer = ParsedMessagesRequest(read, 0).answer(IDENTITY)
    assert isinstance(answer, JsonAnswer)
    for batch in batches:
        answer.add(batch)
    body: Json = json.loads(answer.end(usage))
    return body


LETTERS = st.text(st.sampled_from('ab{}"\\ é你👋\n'), max_size=8)
INPUTS = st.dictionaries(LETTERS, LETTERS | st.integers() | st.lists(LETTERS, max_size=2), max_size=2)


def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _fragments(draw: st.DrawFn, index: int) -> list[Json]:
    """One call's: its id may be missing, its name and arguments may come late or not at all."""
    arguments = json.dumps(draw(INPUTS), ensure_ascii=draw(st.booleans())) if draw(st.integers(0, 4)) else ""
    pieces = [{"index": index, "function": {"arguments": piece}} for piece in _pieces(draw, arguments)]
    named = draw(st.integers(0, len(pieces) - 1)) if draw(st.integers(0, 4)) == 0 else 0
    if draw(st.integers(0, 9)):
        pieces[named]["function"]["name"] = f"tool_{index}"
    if draw(st.integers(0, 4)):
        pieces[0]["id"] = draw(st.sampled_from(["call_", "tool:", "ü."])) + str(index)
    return [{"tool_calls": [piece]} for piece in pieces]


@st.composite
def tellings(draw: st.DrawFn) -> Told:
    """Thinking, text and up to three calls, each in order of its own and mixed with the others anyhow."""
    queues: list[list[Json]] = []
    for name in ("reasoning_content", "content", "content"):
        if draw(st.booleans()):
            queues.append([{name: piece} for piece in _pieces(draw, draw(LETTERS))])
    queues += [_fragments(draw, index) for index in range(draw(st.integers(0, 3)))]
    queues.append([{"role": "assistant", "content": ""}])
    queues.append([{}] * draw(st.integers(0, 2)))
    deltas: list[Json] = []
    orderly = draw(st.booleans())
    queues = [queue for queue in queues if queue]
    while queues:
        at = 0 if orderly else draw(st.integers(0, len(queues) - 1))
        deltas.append(queues[at].pop(0))
        queues = [queue for queue in queues if queue]
    return Told(
        deltas, draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", "odd", None]))
    )


CUTS = st.lists(st.integers(0, 5000), max_size=6)

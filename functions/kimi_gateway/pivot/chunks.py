"""Chunks of a streamed chat completion: parsed once, and written for the client.

Facts about the vendor's stream, including its three places for usage: docs/upstream.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import field
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.call_ids import Randomness
from kimi_gateway.pivot.calls import MOST_PARTS, Calls, complete
from kimi_gateway.pivot.template import LONGEST, TEXTS, ChunkTemplate, learn, texts_of
from kimi_gateway.pivot.usage import counts


class Unreadable(ValueError):
    """An event is not a chunk. The stream counts as broken; events are never skipped."""


class ErrorEvent(Exception):
    """The upstream reported an error inside the stream; `error` is its `error` member."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.error = error


@dataclass(slots=True)  # not frozen, because that would cost as much as parsing
class Chunk:
    """`substance`: it has content, reasoning, a refusal, a tool call or a finish reason. `finishes`: it ends
    at least one choice. `data` are the upstream's own bytes, if `body` is unchanged, and `matched` is the
    template that they match, if one is known."""

    body: dict[str, Any] = field(repr=False)
    substance: bool
    finishes: bool
    data: bytes = field(default=b"", repr=False)
    matched: ChunkTemplate | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class Run(Chunk):
    """Chunks of one stream that differ in one text only, as one chunk with the joined text. `strings` are the
    upstream's own bytes of the texts."""

    template: ChunkTemplate = field(kw_only=True)
    strings: list[bytes] = field(kw_only=True, repr=False)
    texts: list[str] = field(kw_only=True, repr=False)

    def apart(self) -> list[Chunk]:
        return [Chunk(self.template.body_with(text), True, False) for text in self.texts]


def apart(chunks: list[Chunk]) -> list[Chunk]:
    """The chunks as the upstream sent them, without runs."""
    if not any([isinstance(chunk, Run) for chunk in chunks]):
        return chunks
    return [one for chunk in chunks for one in (chunk.apart() if isinstance(chunk, Run) else (chunk,))]


@dataclass(slots=True)
class Progress:
    """The state of one upstream stream. `free` names functions with free text."""

    randomness: Randomness = secrets.token_bytes
    free: Collection[str] = ()
    usage: dict[str, Any] | None = None
    done: bool = False
    written: float = 0.0  # estimated tokens
    size: int = 0  # bytes of the events; of an event that matches the template only its text counts
    _open: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)
    _calls: dict[int, Calls] = field(default_factory=dict)  # by choice
    _spoken: bool = False  # text, reasoning or a call came
    _reasons: set[str] = field(default_factory=set)
    _edited: bool = False
    _template: ChunkTemplate | None = None
    _untemplated: int = 0  # chunks with text that were parsed since the last match

    @property
    def complete(self) -> bool:
        """`[DONE]` or a finish reason for every choice: the only proof that an answer is complete."""
        return self.done or bool(self._finished) and not self._open

    @property
    def silent(self) -> bool:
        """Whether a choice has ended without text, reasoning or a call."""
        return bool(self._finished) and not self._spoken

    def empty(self, most: int = 1) -> bool:
        """Whether the model ended by itself without saying anything, with at most `most` output tokens."""
        if not self.silent or self._reasons != {"stop"} or self.usage is None:
            return False
        written = self.usage.get("completion_tokens")
        return type(written) is int and written <= most

    def read_all(self, events: list[sse.Event], chunks: list[Chunk]) -> None:
        """Add the chunks of `events` to `chunks`, also those before a broken event; matching events that
        follow one another are one run. Raises Unreadable or ErrorEvent."""
        at, most = 0, len(events)
        if most == 1:
            if chunk := self.read(events[0]):
                chunks.append(chunk)
            return
        while at < most:
            strings = self._alike(events, at)
            if len(strings) > 1 and (texts := texts_of(strings)):
                chunks.append(self._run(strings, texts))
                at += len(strings)
                continue
            for event in events[at : at + max(len(strings), 1)]:
                if chunk := self.read(event):
                    chunks.append(chunk)
            at += max(len(strings), 1)

    def _alike(self, events: list[sse.Event], at: int) -> list[bytes]:
        """The strings in the place of the text, from event `at` to the first that does not match."""
        template = self._template
        if template is None or not template.encloses(*events[at]):
            return []
        last = len(events)
        while last > at and len(events) - last < ENDINGS and not template.encloses(*events[last - 1]):
            last -= 1
        return template.strings_of(events[at:last])

    def _run(self, strings: list[bytes], texts: list[str]) -> Run:
        assert self._template is not None  # noqa: S101  it has matched
        joined = "".join(texts)
        if joined.isascii():
            self.written += token_estimate.of_text(joined)
        else:
            self.written += sum(map(token_estimate.of_text, texts))
        self._untemplated = 0
        self.size += len(joined)
        body = self._template.body_with(joined)
        return Run(body, True, False, template=self._template, strings=strings, texts=texts)

    def read(self, event: sse.Event) -> Chunk | None:
        """The chunk of an event, without its usage, which is stored here (the last one that is not null).
        None if nothing is left for a client. Raises Unreadable or ErrorEvent."""
        data, name = event
        template = self._template
        if template is not None and not name and (found := template.read(data)):
            body, text = found
            length = len(text)
            self.written += length / 4 if text.isascii() else token_estimate.of_text(text)
            self._untemplated = 0
            self.size += length
            return Chunk(body, True, False, data, template)
        if data == b"[DONE]":
            return self._end()
        self.size += len(data)
        if jsonio.has_too_many_values(data):
            raise Unreadable(f"an event of more than {jsonio.MOST_VALUES} values")
        try:
            body = jsonio.loads(data)
        except (ValueError, RecursionError) as exc:
            raise Unreadable(f"an event is not JSON: {exc}") from exc
        if not isinstance(body, dict):
            raise Unreadable("an event is not an object")
        if body.get("error") or name == b"error":
            error = body.get("error") or body
            raise ErrorEvent(error if isinstance(error, dict) else {"message": str(error)})
        told = body.get("choices") or []
        if type(told) is not list or len(told) > MOST_PARTS:
            raise Unreadable(f"an event without a list of at most {MOST_PARTS} choices")
        self._edited = substance = finishes = False
        usage = self.usage
        if "usage" in body:
            usage = self._take_usage(body) or usage
        self._edited &= not data.endswith(_NO_USAGE)  # which is cut off when the bytes are forwarded
        try:
            for choice in told:
                if "usage" in choice:
                    usage = self._take_usage(choice) or usage
                substance |= self._read_choice(choice)
                finishes |= bool(choice.get("finish_reason"))
        except (AttributeError, TypeError) as exc:
            raise Unreadable("an event has choices of an unknown shape") from exc
        self.usage = counts(usage) if isinstance(usage, dict) else None
        if substance and not finishes and not self._edited and len(data) <= LONGEST:
            self._learn(data, body)
        return Chunk(body, substance, finishes, b"" if self._edited else data) if told else None

    def _end(self) -> Chunk | None:
        """Finish reasons for choices that ended without one, because no client would accept them as
        complete."""
        self.done = bool(self._open or self._finished)  # without any choice it proves nothing
        choices: list[dict[str, Any]] = [
            {"index": index, "delta": {}, "finish_reason": "tool_calls" if self._calls.get(index) else "stop"}
            for index in sorted(self._open)
        ]
        for choice in choices:
            self._end_calls(choice["delta"], choice["index"])
        self._finished |= self._open
        self._reasons.update(choice["finish_reason"] for choice in choices)
        self._open.clear()
        return Chunk({"choices": choices}, True, True) if choices else None

    def _learn(self, data: bytes, body: dict[str, Any]) -> None:
        """Learn a template for the next chunks; again after several mismatches."""
        if self._untemplated % PATIENCE == 0:
            self._template = learn(data, body)
        self._untemplated += 1

    def _take_usage(self, part: dict[str, Any]) -> Any:
        self._edited = True
        return part.pop("usage")

    def _read_choice(self, choice: dict[str, Any]) -> bool:
        """Whether the choice has substance. Missing members are added, and its tool calls are normalised.
        Raises TypeError or AttributeError if it is not a choice."""
        self._edited |= complete(choice)
        index, delta, reason = choice["index"], choice["delta"], choice.get("finish_reason")
        calls, finished = delta.get("tool_calls"), bool(reason)
        substance = finished or bool(calls)
        for name in TEXTS:
            if text := delta.get(name):
                self.written += token_estimate.of_text(text)
                self._spoken = substance = True
        if calls:
            self._spoken = True
            self._shape(delta, calls, index)
        if finished:
            self._end_calls(delta, index)
            self._finished.add(index)
            self._reasons.add(str(reason))
            self._open.discard(index)
        elif index not in self._finished:
            self._open.add(index)
        return substance

    def _end_calls(self, delta: dict[str, Any], choice: int) -> None:
        calls = self._calls.get(choice)
        if calls is not None and (lacking := calls.ending()):
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *lacking]
            self._edited = True

    def _shape(self, delta: dict[str, Any], fragments: list[Any], choice: int) -> None:
        calls = self._calls.get(choice)
        if calls is None:
            calls = self._calls[choice] = Calls(self.randomness, self.free)
        delta["tool_calls"], changed = calls.read(fragments)
        self._edited |= changed
        for fragment in delta["tool_calls"]:
            if text := (fragment.get("function") or {}).get("arguments"):
                self.written += token_estimate.of_text(text)


@dataclass(frozen=True, slots=True)
class Identity:
    """The members that are the same in every chunk of an answer: the requested model, whatever runs upstream,
    and one id, whichever attempt or upstream call the chunk came from."""

    id: str
    model: str
    created: int
    fingerprint: str
    _heads: dict[tuple[bytes, tuple[str, ...]], bytes] = field(default_factory=dict, repr=False)
    _around: dict[ChunkTemplate, tuple[bytes, bytes] | None] = field(default_factory=dict, repr=False)

    def put_on(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": self.fingerprint, **body, **head}

    def spliced(self, chunk: Chunk) -> bytes | None:
        """The upstream's bytes with this identity: everything before `choices` is replaced. Chunks of one
        stream begin alike, so the replacement is computed once. None if the bytes cannot be cut there."""
        if (template := chunk.matched) is not None and (around := self._surrounding(template)):
            return around[0] + chunk.data[len(template.before) : -len(template.after)] + around[1]
        head, choices, rest = chunk.data.partition(_CHOICES)
        new = self._renewed(head, tuple(chunk.body))
        return new and sse.encode(new + choices + _without_usage(rest))

    def spliced_run(self, run: Run) -> bytes | None:
        """As `spliced`, for all chunks of a run in one step."""
        around = self._surrounding(run.template)
        return around and around[0] + (around[1] + around[0]).join(run.strings) + around[1]

    def _surrounding(self, template: ChunkTemplate) -> tuple[bytes, bytes] | None:
        """The frame before and after the text of a matching chunk, kept for the template used last."""
        if template in self._around:
            return self._around[template]
        head, choices, rest = template.before.partition(_CHOICES)
        new = choices and self._renewed(head, template.names)
        found: tuple[bytes, bytes] | None = None
        if new and sse.LF not in template.before and sse.LF not in template.after:  # else `encode` splits it
            found = b"data: %b%b%b" % (new, choices, rest), _without_usage(template.after) + b"\n\n"
        self._around.clear()
        return self._around.setdefault(template, found)

    def _renewed(self, head: bytes, names: tuple[str, ...]) -> bytes | None:
        begins = (head, names)  # the names show whether one of ours comes after the cut
        new = self._heads.get(begins)
        if new is None:
            if len(self._heads) >= MOST_HEADS:
                return None
            new = self._heads[begins] = self._head(*begins)
        return new

    def _head(self, head: bytes, names: tuple[str, ...]) -> bytes:
        """The new bytes before `choices`; empty if the cut is not at the top level."""
        try:
            before = jsonio.loads(head + _CHOICES + b"0}")
        except ValueError:
            return b""
        if names[: len(before)] != tuple(before) or not _OWN.isdisjoint(names[len(before) :]):
            return b""
        del before["choices"]
        return jsonio.dumps(self.put_on(before, CHUNK))[:-1] + b","


CHUNK = "chat.completion.chunk"
PATIENCE = 4  # chunks with text; a few may contain escapes
ENDINGS = 3  # events at the end of an answer that are no text: finish reason, usage, [DONE]
MOST_HEADS = 64  # of one stream, if an upstream begins its chunks differently
_CHOICES = b'"choices":'
# The vendor's, at the top level of every chunk but the last, if usage was requested.
_NO_USAGE = b',"usage":null}'
_OWN = frozenset(("id", "object", "created", "model", "system_fingerprint"))


def _without_usage(rest: bytes) -> bytes:
    return rest.removesuffix(_NO_USAGE) + b"}" if rest.endswith(_NO_USAGE) else rest


def frame(chunk: Chunk, identity: Identity) -> bytes:
    if isinstance(chunk, Run):
        return identity.spliced_run(chunk) or b"".join([frame(one, identity) for one in chunk.apart()])
    if chunk.data and (spliced := identity.spliced(chunk)):
        return spliced
    return sse.encode(jsonio.dumps(identity.put_on(chunk.body, CHUNK)))


def usage_frame(usage: dict[str, Any], identity: Identity) -> bytes:
    """The chunk with usage, for clients that asked for it."""
    return frame(Chunk({"choices": [], "usage": usage}, False, False), identity)

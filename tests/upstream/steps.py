"""What an upstream may do with one request, as values that compose: `Cut(100, Sse(events))`.
A step turns a request into a `Reply`; a wrapper changes the reply of its inner step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from upstream import kimi, messages
from upstream.kimi import Json, Tools

if TYPE_CHECKING:
    from upstream.server import Request

DONE = b"data: [DONE]\n\n"


class End(Enum):
    """What happens to the connection in the middle of an answer."""

    HANG = "hang"
    RESET = "reset"
    CLOSE = "close"


HANG, RESET, CLOSE = End.HANG, End.RESET, End.CLOSE
Part = bytes | float | End  # bytes to send, seconds to wait, or the end


@dataclass(frozen=True)
class Reply:
    """`raw`: the parts are all there is, head and framing included, and the connection closes after them."""

    parts: Iterable[Part]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    raw: bool = False
    delay: float = 0.0


class Step(Protocol):
    def reply(self, request: Request) -> Reply: ...


def length(parts: Iterable[Part]) -> int:
    return sum(len(part) for part in parts if isinstance(part, bytes))


def frame(event: object) -> bytes:
    """One SSE event; bytes are a frame already."""
    return event if isinstance(event, bytes) else b"data: " + _json(event) + b"\n\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Status:
    code: int
    body: Json | bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def reply(self, request: Request) -> Reply:
        if isinstance(self.body, dict):
            body, kind = _json(self.body), "application/json; charset=utf-8"
        else:
            body = self.body.encode() if isinstance(self.body, str) else self.body
            kind = "text/plain; charset=utf-8"
        return Reply([body], self.code, {"content-type": kind, **self.headers})


@dataclass(frozen=True)
class Sse:
    """`gap` is the wait before each event but the first, in seconds."""

    events: Sequence[Json | bytes]
    gap: float = 0.0
    done: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    def reply(self, request: Request) -> Reply:
        frames = [frame(event) for event in self.events] + [DONE] * self.done
        parts: list[Part] = []
        for event in frames:
            parts += [self.gap, event] if parts and self.gap else [event]
        headers = {"content-type": "text/event-stream", "msh-request-id": "req-0", **self.headers}
        return Reply(parts, 200, headers, chunked=True)


@dataclass(frozen=True)
class Kimi:
    """The vendor's right answer to the request. `reasoning` None: as the model thinks."""

    text: str = kimi.TEXT
    reasoning: str | None = None
    tools: Tools = ()
    usage: Json | None = None
    finish: str | None = None
    first_call: int = 0
    pieces: int = 4
    gap: float = 0.0

    def reply(self, request: Request) -> Reply:
        body = request.body if isinstance(request.body, dict) else {}
        reasoning = self.reasoning
        if reasoning is None and kimi.thinks(body):
            reasoning = kimi.REASONING
        answer = kimi.tokens([self.text, reasoning])
        shape: dict[str, Any] = {
            "usage": self.usage or kimi.usage_of(kimi.tokens(body.get("messages")), answer),
            "model": body.get("model", "kimi-k3"),
            "finish": self.finish,
            "first_call": self.first_call,
        }
        if not body.get("stream"):
            return Status(200, kimi.completion(self.text, reasoning, self.tools, **shape)).reply(request)
        if request.path == messages.PATH:
            told = messages.events(self.text, reasoning, self.tools, **shape, pieces=self.pieces)
            return Sse(told, self.gap, done=False).reply(request)
        options = body.get("stream_options") or {}
        shape |= {"pieces": self.pieces, "include_usage": options.get("include_usage", False)}
        events = kimi.chat_events(self.text, reasoning, self.tools, **shape)
        return Sse(events, self.gap).reply(request)


@dataclass(frozen=True)
class Cut:
    """Only the first bytes of the body, then the end: RESET, CLOSE or HANG."""

    after_bytes: int
    inner: Step = Kimi()
    end: End = CLOSE

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        parts = list(inner.parts)
        # The head announces the whole length: that is what makes it a cut.
        announced = {} if inner.chunked else {"content-length": str(length(parts))}
        return replace(inner, headers={**inner.headers, **announced}, parts=self._parts(parts))

    def _parts(self, parts: Iterable[Part]) -> Iterator[Part]:
        left = self.after_bytes
        for part in parts:
            if isinstance(part, bytes):
                if len(part) >= left:
                    yield part[:left]
                    break
                left -= len(part)
            yield part
        yield self.end


@dataclass(frozen=True)
class Stall:
    """Goes silent after so many events, the connection open."""

    after_events: int
    inner: Step = Kimi()

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        return replace(inner, parts=[*_first(self.after_events, inner.parts), HANG])


def _first(count: int, parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        if isinstance(part, bytes):
            count -= 1
        if count < 0:
            return
        yield part


@dataclass(frozen=True)
class Insert:
    """A frame in the place of an event, the rest of the inner answer after it or not."""

    at_event: int
    frame: bytes
    inner: Step
    rest: bool

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        parts = list(inner.parts)
        before = list(_first(self.at_event, parts))
        after = parts[len(before) + 1 :] if self.rest else []
        return replace(inner, parts=[*before, self.frame, *after])


def Malformed(at_event: int = 1, inner: Step = Kimi()) -> Step:
    """An event that is not JSON, in the place of a good one."""
    return Insert(at_event, b'data: {"id":"cmpl-0","choices":[{"index":0,"del\n\n', inner, rest=True)


def ErrorEvent(at_event: int, error: Json | None = None, inner: Step = Kimi()) -> Step:
    """An error in the stream, and its orderly end without [DONE]."""
    error = error or kimi.error("server_error", "internal error of org-0123456789 <ak-0123456789>")
    return Insert(at_event, frame(error), inner, rest=False)


def BigEvent(size: int, at_event: int = 1, inner: Step = Kimi()) -> Step:
    """One content chunk of so many characters among the others."""
    return Insert(at_event, frame(kimi.chat_events("x" * size, pieces=1)[1]), inner, rest=True)


@dataclass(frozen=True)
class NoDone:
    inner: Step = Kimi()

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        return replace(inner, parts=[part for part in inner.parts if part != DONE])


@dataclass(frozen=True)
class Pieces:
    """The same body in writes of so many bytes, wherever that cuts it."""

    size: int
    inner: Step = Kimi()
    gap: float = 0.0

    def reply(self, request: Request) -> Reply:
        inner = self.inner.reply(request)
        body = b"".join(part for part in inner.parts if isinstance(part, bytes))
        parts: list[Part] = []
        for at in range(0, len(body), self.size):
            parts += [body[at : at + self.size], self.gap]
        return replace(inner, parts=parts)


@dataclass(frozen=True)
class Delay:
    """Silence before the head."""

    seconds: float
    inner: Step = Kimi()

    def reply(self, request: Request) -> Reply:
        return replace(self.inner.reply(request), delay=self.seconds)


@dataclass(frozen=True, init=False)
class Raw:
    """These bytes (and waits, and ends) as they are, with head and framing; then the connection closes."""

    parts: tuple[Part, ...]

    def __init__(self, *parts: Part) -> None:
        object.__setattr__(self, "parts", parts)

    def reply(self, request: Request) -> Reply:
        return Reply(self.parts, raw=True)


def ResetBeforeHeaders() -> Step:
    return Raw(RESET)


def Silence() -> Step:
    """Takes the request and never answers."""
    return Raw(HANG)


@dataclass(frozen=True)
class HeaderFlood:
    """A head without an end; it stops at `size` bytes so that a client without a bound fails, not hangs."""

    size: int = 4 * 2**20

    def reply(self, request: Request) -> Reply:
        line = b"x-flood: " + b"f" * 1000 + b"\r\n"
        return Reply([b"HTTP/1.1 200 OK\r\n", *[line] * (self.size // len(line))], raw=True)


def HtmlError(code: int = 504) -> Status:
    page = f"<html>\r\n<head><title>{code} Gateway Time-out</title></head>\r\n<body>nginx</body></html>\r\n"
    return Status(code, page, {"content-type": "text/html"})


def rate_limited(type: str, retry_after: int | None = None, message: str | None = None) -> Status:
    """One of the vendor's three 429: engine_overloaded, exceeded_current_quota, rate_limit_reached."""
    type = type.removesuffix("_error") + "_error"
    texts = {
        "engine_overloaded_error": "The engine is currently overloaded, please try again later",
        "exceeded_current_quota_error": "You exceeded your current token quota: <org-0123456789>, "
        "please check your account balance",
        "rate_limit_reached_error": "Your account org-0123456789<ak-0123456789> request reached organization "
        "max RPM: 3, please try again after 3 seconds",
    }
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Status(429, kimi.error(type, message or texts[type]), headers)


@dataclass(frozen=True)
class ByPrompt:
    """A script for each prompt, for tests that send many at a time; the last step of a script stays."""

    scripts: Mapping[str, Sequence[Step]]
    _asked: Counter[str] = field(default_factory=Counter)

    def reply(self, request: Request) -> Reply:
        prompt = prompt_of(request)
        script, turn = self.scripts[prompt], self._asked[prompt]
        self._asked[prompt] += 1
        return script[min(turn, len(script) - 1)].reply(request)


@dataclass(frozen=True)
class ByToken:
    """Each account its own answer."""

    steps: Mapping[str, Step]

    def reply(self, request: Request) -> Reply:
        return self.steps[str(request.token)].reply(request)


@dataclass(frozen=True)
class InTurn:
    """One step after the other, and again from the first."""

    steps: Sequence[Step]
    _asked: Counter[str] = field(default_factory=Counter)

    def reply(self, request: Request) -> Reply:
        turn = self._asked.total()
        self._asked[str(request.token)] += 1
        return self.steps[turn % len(self.steps)].reply(request)


def prompt_of(request: Request) -> str:
    """The text of the last message."""
    return str(request.body["messages"][-1]["content"])

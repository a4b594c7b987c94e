"""An upstream in Kimi's shape on a socket, cheap enough not to be what a benchmark measures.

A request says how it wants to be answered: `"metadata": {"bench": {"chunks": 100, "gap_ms": 10}}`, members in
`Wish`. Numbers and texts are made up; only sizes, pace and order are the vendor's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import httptools

ID = "cmpl-0123456789abcdef0123456789abcdef"
CREATED = 1795212000
MODEL = "kimi-k3"
PROMPT = 12  # tokens of every prompt
WORD = " word, another w"  # as long as a stamp, so that both chunks have the same size
MOST_CHUNKS = 100_000
LARGEST = 16 * 2**20  # bytes of a chunk's text
STALLED = 60.0  # seconds until a stall ends by itself
SEEN = 10_000  # ids of requests that failed once and wait for their second try
WISH = re.compile(rb'"bench":\s*(\{[^{}]*\})')
STREAM = re.compile(rb'"stream":\s*true')
LOOK = 1024  # bytes at either end of a body that are searched: it is never parsed


@dataclass(frozen=True, slots=True)
class Wish:
    """`gap_ms` 0 is unpaced. `size` is that of a chunk's text, 0 for a short one. `stamp` puts the moment of
    sending (time.monotonic) in place of the text. `fault`: 429 or 500 instead of an answer; cut, stall or
    malformed after half of the chunks. With `once` (an id of the caller's) it is met by the first of two
    requests only.
    """

    chunks: int = 100
    gap_ms: float = 0
    stamp: bool = False
    fault: str = ""
    once: str = ""
    size: int = 0


def _sse(choice: object, **more: object) -> bytes:
    body = {"id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    text = json.dumps({**body, "choices": [choice], **more}, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: dict[str, str]) -> bytes:
    return _sse({"index": 0, "delta": delta, "finish_reason": None})


@cache
def _large(size: int) -> bytes:
    return _piece(_chunk({"content": "x" * size}))


ROLE = _piece(_chunk({"role": "assistant", "content": ""}))
PLAIN = _piece(_chunk({"content": WORD}))
BEFORE_STAMP, AFTER_STAMP = PLAIN.split(WORD.encode())
MALFORMED = _piece(b'data: {"id":"cmpl-0","choices":[{"ind\n\n')
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\nmsh-request-id: 0123456789abcdef\r\n\r\n"
)
ERRORS = {
    "429": (b"429 Too Many Requests\r\nretry-after: 1", "rate_limit_reached_error"),
    "500": (b"500 Internal Server Error", "server_error"),
}


def _usage(completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT,
        "completion_tokens": completion,
        "total_tokens": PROMPT + completion,
        "cached_tokens": 0,
    }


def _last(chunks: int) -> bytes:
    usage = _usage(chunks)
    finish = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}
    return _piece(_sse(finish, usage=usage)) + _piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _json(status: bytes, value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _completion(chunks: int) -> bytes:
    message = {"role": "assistant", "content": WORD * chunks}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": ID, "object": "chat.completion", "created": CREATED, "model": MODEL}
    return _json(b"200 OK", {**body, "choices": [choice], "usage": _usage(chunks)})


def _lookup(path: bytes) -> bytes:
    if path.endswith(b"/models"):
        model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "moonshot"}
        return _json(b"200 OK", {"object": "list", "data": [model]})
    if path.endswith(b"/users/me/balance"):
        money = {"available_balance": 100.0, "voucher_balance": 0.0, "cash_balance": 100.0}
        return _json(b"200 OK", {"code": 0, "data": money, "scode": "0x0", "status": True})
    return _json(b"404 Not Found", {"error": {"type": "invalid_request_error", "message": "not here"}})


class Emulator(asyncio.Protocol):
    """One connection. `seen` is shared by all of them."""

    def __init__(self, seen: dict[str, None]) -> None:
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._parts, self._path = [], b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._transport.write(_lookup(self._path))
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        ends = body if len(body) <= 2 * LOOK else body[:LOOK] + body[-LOOK:]
        found = WISH.search(ends)
        wish = Wish(**json.loads(found[1])) if found else Wish()
        self._answer(wish, STREAM.search(ends) is not None)

    def _answer(self, wish: Wish, stream: bool) -> None:
        fault = wish.fault if self._holds(wish) else ""
        chunks = min(wish.chunks, MOST_CHUNKS)
        if fault in ERRORS:
            status, kind = ERRORS[fault]
            self._transport.write(_json(status, {"error": {"type": kind, "message": "a wished-for fault"}}))
        elif not stream:
            self._transport.write(_completion(chunks))
        else:
            # Each chunk is a write of its own, as a model's are; the head goes with the first.
            self._transport.write(STREAM_HEAD + ROLE)
            self._send(_Plan(chunks, chunks // 2 if fault else -1, fault, wish))

    def _holds(self, wish: Wish) -> bool:
        if not wish.once:
            return True
        if wish.once in self._seen:
            del self._seen[wish.once]
            return False
        self._seen[wish.once] = None
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    def _send(self, plan: _Plan) -> None:
        if not plan.gap:
            while plan.sent < plan.chunks and not self._fails(plan):
                self._transport.write(plan.next())
            if plan.sent >= plan.chunks:
                self._transport.write(_last(plan.chunks))
            return
        plan.due = self._loop.time() + plan.gap
        self._timer = self._loop.call_at(plan.due, self._tick, plan)

    def _tick(self, plan: _Plan) -> None:
        """On a fixed schedule: a late chunk does not delay those after it."""
        if self._fails(plan):
            return
        self._transport.write(plan.next())
        if plan.sent < plan.chunks:
            plan.due += plan.gap
            self._timer = self._loop.call_at(plan.due, self._tick, plan)
        else:
            self._transport.write(_last(plan.chunks))

    def _fails(self, plan: _Plan) -> bool:
        """Whether the stream ends here by its fault."""
        if plan.sent != plan.fails_at:
            return False
        if plan.fault == "malformed":
            plan.fails_at = -1
            self._transport.write(MALFORMED)
            return False
        if plan.fault == "cut":
            self._transport.close()
        else:
            self._timer = self._loop.call_later(STALLED, self._transport.close)
        return True


@dataclass(slots=True)
class _Plan:
    """What is left of a stream."""

    chunks: int
    fails_at: int
    fault: str
    wish: Wish
    sent: int = 0
    due: float = 0.0

    @property
    def gap(self) -> float:
        return self.wish.gap_ms / 1000

    def next(self) -> bytes:
        self.sent += 1
        if self.wish.size:
            return _large(min(self.wish.size, LARGEST))
        if not self.wish.stamp:
            return PLAIN
        return BEFORE_STAMP + b"%16.6f" % time.monotonic() + AFTER_STAMP


async def serve_until_told(connection: Callable[[], asyncio.Protocol], port: int) -> None:
    """Serves on the loopback address until SIGTERM or SIGINT."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.set)
    server = await loop.create_server(connection, "127.0.0.1", port, backlog=1024)
    await told.wait()
    server.close()


async def main(port: int) -> None:
    seen: dict[str, None] = {}
    await serve_until_told(lambda: Emulator(seen), port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(main(parser.parse_args().port))

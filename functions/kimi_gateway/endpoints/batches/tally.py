"""The use of a batch, from the lines of its output file. Reading may go on where another process stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, Self

from kimi_gateway.dataclass import dataclass
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.spending import cached, count
from kimi_gateway.net import jsonio

LONGEST_LINE = 16 * 2**20  # bytes
SILENCE = 120.0  # seconds without a byte after which a reading ends


@dataclass(slots=True)
class Tally:
    """Tokens of all answers. `model` is the upstream's name of it, empty if no answer names one. `unread`:
    lines without a use. `at`: the byte of the file up to which lines are counted. `skips`: it is within a
    line that is too long. `moved`: when a reading came further last, in unix seconds."""

    input: int = 0
    cached: int = 0
    output: int = 0
    answers: int = 0
    unread: int = 0
    model: str = ""
    at: int = 0
    skips: bool = False
    moved: int = 0

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(**json.loads(text)) if text else cls()

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def add(self, line: bytes) -> None:
        """Count one line: `{"custom_id", "response": {"status_code", "body"}, "error"}`."""
        try:
            parsed = jsonio.loads(line)
        except (ValueError, RecursionError):
            parsed = None
        response = parsed.get("response") if isinstance(parsed, dict) else None
        body = response.get("body") if isinstance(response, dict) else None
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(usage, dict):
            self.unread += 1
            return
        model = body.get("model")
        if not self.model and isinstance(model, str):
            self.model = model[:80]
        self.answers += 1
        self.input += count(usage, "prompt_tokens")
        self.cached += min(cached(usage), count(usage, "prompt_tokens"))
        self.output += count(usage, "completion_tokens")

    @property
    def counts(self) -> dict[str, Any]:
        return {"input_tokens": self.input, "output_tokens": self.output, "cached_tokens": self.cached}


async def of_lines(
    chunks: AsyncIterator[bytes], tally: Tally, saved: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Read an output file as it comes, from the byte `tally.at` on. At most one line is in memory; those
    longer than LONGEST_LINE are unread. `saved` is called after each chunk, for the lines that are whole."""
    held = bytearray()
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            held += chunk[start:end]
            start = end + 1
            await _ended(tally, bytes(held))
            tally.at += len(held) + 1
            held.clear()
        held += chunk[start:]
        if len(held) > LONGEST_LINE:
            tally.at += len(held)
            held.clear()
            tally.skips = True
        if saved is not None:
            await saved()
    await _ended(tally, bytes(held))
    tally.at += len(held)


async def steady(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks. Raises TimeoutError if none comes for SILENCE."""
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        yield chunk


async def _ended(tally: Tally, line: bytes) -> None:
    if tally.skips:
        tally.unread += 1
        tally.skips = False
    elif line.strip():
        await apart(len(line), lambda: tally.add(line))

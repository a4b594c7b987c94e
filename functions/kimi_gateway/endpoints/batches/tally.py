"""The use of a batch, from the lines of its output file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.spending import cached, count
from kimi_gateway.net import jsonio

LONGEST_LINE = 16 * 2**20  # bytes


@dataclass(slots=True)
class Tally:
    """Tokens of all answers. `model` is the upstream's name of it, empty if no answer names one. `unread`:
    lines without a use."""

    input: int = 0
    cached: int = 0
    output: int = 0
    answers: int = 0
    unread: int = 0
    model: str = ""

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


async def of_lines(chunks: AsyncIterator[bytes]) -> Tally:
    """Read an output file as it comes. At most one line is in memory; longer ones than LONGEST_LINE are
    unread."""
    tally, held, skipped = Tally(), bytearray(), False
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            held += chunk[start:end]
            start = end + 1
            await _ended(tally, bytes(held), skipped)
            held.clear()
            skipped = False
        held += chunk[start:]
        if len(held) > LONGEST_LINE:
            held.clear()
            skipped = True
    await _ended(tally, bytes(held), skipped)
    return tally


async def _ended(tally: Tally, line: bytes, skipped: bool) -> None:
    if skipped:
        tally.unread += 1
    elif line.strip():
        await apart(len(line), lambda: tally.add(line))

"""The answer in OpenAI's own format: frames of a stream, or one JSON body."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kimi_gateway.dialects import errors
from kimi_gateway.errors import GatewayError
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot.chunks import Chunk, Identity, frame, usage_frame
from kimi_gateway.pivot.collect import Collector

PING = sse.comment(b"ping")


def told(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage with cached tokens among the details, where OpenAI's clients look; the platform may put them at
    the top only."""
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    if type(cached := usage.get("cached_tokens")) is not int or details.get("cached_tokens") is not None:
        return usage
    return {**usage, "prompt_tokens_details": {**details, "cached_tokens": cached}}


def _with_role(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta") or {}
    return choice if delta.get("role") else {**choice, "delta": {**delta, "role": "assistant"}}


class StreamWriter:
    """Turns chunks into frames. The last finish reason is held until `end`, when the ledger knows of it."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        self._identity = identity
        self._include_usage = include_usage
        self._held = b""
        self._begun = set[int]()  # choices

    def add(self, chunks: list[Chunk]) -> bytes:
        if len(chunks) == 1 and not self._held and not chunks[0].finishes:
            return frame(self._with_roles(chunks[0]), self._identity)
        out = []
        for chunk in chunks:
            if self._held:
                out.append(self._held)
                self._held = b""
            framed = frame(self._with_roles(chunk), self._identity)
            if chunk.finishes:
                self._held = framed
            else:
                out.append(framed)
        return b"".join(out)

    def _with_roles(self, chunk: Chunk) -> Chunk:
        """A choice begins with a role, whatever the upstream says: Node's accumulator fails without one
        (openai 7.57, 2026-11)."""
        choices = chunk.body["choices"]
        if len(choices) == 1 and choices[0].get("index", 0) in self._begun:
            return chunk
        new = {choice.get("index", 0) for choice in choices} - self._begun
        if not new:
            return chunk
        self._begun |= new
        told = [_with_role(choice) if choice.get("index", 0) in new else choice for choice in choices]
        return chunk if told == choices else replace(chunk, body={**chunk.body, "choices": told}, data=b"")

    def silence(self) -> bytes:
        return PING

    def follow(self, signs: int) -> None:
        """Comments leave nothing behind."""

    def end(self, usage: dict[str, Any]) -> bytes:
        last = usage_frame(told(usage), self._identity) if self._include_usage else b""
        return self._held + last + sse.DONE

    def error(self, error: GatewayError) -> bytes:
        """An error event without a finish reason or [DONE], because a cut answer must not look complete."""
        return sse.encode(jsonio.dumps(errors.body(error, "openai")))


class JsonAnswer:
    """Collects chunks into one body."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._collector = Collector()

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._collector.add(chunk)

    def end(self, usage: dict[str, Any]) -> bytes:
        body = self._identity.put_on(self._collector.answer(), "chat.completion")
        return jsonio.dumps({**body, "usage": told(usage)})

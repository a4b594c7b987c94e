"""One request through a live gateway, and what its client, its ledger and its upstream saw of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from support.formats import CHAT, Format, Told
from support.live import HELLO, LiveGateway, events
from upstream import Request, ScriptedUpstream, prompt_of

# What must never reach a client: the vendor's ids and pages, upstream tokens and addresses.
FOREIGN = ("org-0123", "ak-0123", "sk-upstream", "<html", "nginx", "127.0.0.1", "Traceback")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Seen:
    """An answer as a client reads it, streamed or not. `bodies`, `choices` and `usage` are a chat's."""

    status: int
    headers: httpx.Headers
    text: str
    format: Format = CHAT

    @property
    def streamed(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    @property
    def bodies(self) -> list[dict[str, Any]]:
        if not self.streamed:
            return [json.loads(self.text)]
        return [json.loads(data) for data in events(self.text) if data != "[DONE]"]

    @cached_property
    def told(self) -> Told:
        return self.format.read(self.text, self.streamed)

    @property
    def done(self) -> bool:
        return self.told.whole

    @property
    def error(self) -> dict[str, Any] | None:
        return self.told.error

    @property
    def content(self) -> str:
        return self.told.content

    @property
    def finishes(self) -> list[str]:
        return self.told.finishes

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for body in self.bodies for choice in body.get("choices", ())]

    @property
    def usage(self) -> list[dict[str, Any]]:
        return [body["usage"] for body in self.bodies if body.get("usage")]


@dataclass(frozen=True)
class Exchange:
    gateway: LiveGateway
    seen: Seen
    key: str
    prompt: str

    @property
    def ledger(self) -> tuple[int, int, int]:
        return ledger(self.gateway, self.key)

    def requests(self, up: ScriptedUpstream) -> list[Request]:
        """The attempts that the upstream saw, in order."""
        return [request for request in up.chats if prompt_of(request) == self.prompt]


def ask(
    gateway: LiveGateway, stream: bool, prompt: str | None = None, format: Format = CHAT, **more: Any
) -> Exchange:
    """A new account of 100 credits asks once, in words of its own."""
    key, prompt = gateway.key(100), prompt or f"prompt {next(_numbers)}"
    with gateway.client(key) as client:
        answer = client.post(format.path, json=format.asked(prompt, stream=stream, **more))
    seen = Seen(answer.status_code, answer.headers, answer.text, format)
    assert not [word for word in FOREIGN if word in seen.text]
    return Exchange(gateway, seen, key, prompt)


def ledger(gateway: LiveGateway, key: str) -> tuple[int, int, int]:
    """Credits left, requests charged, errors counted."""
    rows = gateway.usage(key)
    return (
        gateway.account(key).credits,
        sum(row.requests for row in rows),
        sum(row.errors for row in rows),
    )


NOT_CHARGED, CHARGED, UNTOUCHED = (100, 0, 1), (99, 1, 0), (100, 0, 0)


def held_open(up: ScriptedUpstream, requests: list[Request]) -> set[int]:
    """Which of the connections that carried these requests still stand, their answers not at their end: one
    that was read whole may serve the next request."""
    unfinished = {request.connection for request in requests if not request.answered.is_set()}
    return unfinished & {connection.number for connection in up.connections}


@contextmanager
def streaming(gateway: LiveGateway, key: str, **body: Any) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """A stream read line by line as it comes, blank lines left out."""
    asked = {"model": "kimi-k3", "messages": HELLO, "stream": True} | body
    with gateway.client(key) as client, client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        yield answer, (line for line in answer.iter_lines() if line)

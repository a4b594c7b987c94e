"""A vendor with rules of its own behind the flow: nothing of Moonshot's is left in what it gets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kimi_gateway.catalog.models import Model
from kimi_gateway.http import Headers
from kimi_gateway.net import jsonio, sse
from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.provider import Call, Costly, Entries, Missing, Tap, Token, Upstream
from support.inprocess import InProcess

Json = dict[str, Any]


class Shouts:
    """A tap that changes what comes, and keeps something of it for the next request."""

    def __init__(self) -> None:
        self.seen = ""

    def add(self, chunks: list[Chunk]) -> None:
        for at, chunk in enumerate(chunks):
            for choice in chunk.body["choices"]:
                if text := choice["delta"].get("content"):
                    self.seen += text
                    choice["delta"]["content"] = text.upper()
            chunks[at] = Chunk(chunk.body, chunk.substance, chunk.finishes)

    def kept(self) -> dict[str, bytes]:
        return {"said": self.seen.encode()} if self.seen else {}


@dataclass
class Recalls:
    """Missing, until the account has it."""

    body: Json
    found: str = ""

    async def look_up(self, entries: Entries) -> None:
        self.found = (await entries.look(["said"])).get("said", b"").decode()

    def restore(self) -> int:
        self.body["earlier"] = self.found
        return len(self.found)


@dataclass
class Plain:
    """A chat as it is, with the headers that this vendor reads."""

    model: Model
    body: Json
    headers: dict[str, str]
    ignored: tuple[str, ...] = ("colour",)
    missing: Missing | None = None

    def call(self) -> Call:
        return Call(self.model, self.body, jsonio.dumps(self.body), self.headers)

    def taps(self) -> list[Tap]:
        return [Shouts()]


@dataclass
class Vendor:
    name: str = "other"
    cheap: bool = True
    prepared: list[bool] = field(default_factory=list)  # whether cheaply
    calls: list[Call] = field(default_factory=list)

    def prepare(self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False) -> Plain:
        self.prepared.append(cheaply)
        if cheaply and not self.cheap:
            raise Costly
        made = Plain(model, {**chat.body}, {"x-tenant": headers.get("x-tenant")})
        made.missing = Recalls(made.body)
        return made

    async def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        self.calls.append(call)
        delta = {"choices": [{"index": 0, "delta": {"content": "well"}, "finish_reason": "stop"}]}
        yield [(jsonio.dumps(delta), b""), (b"[DONE]", b"")]

    async def models(self, token: Token) -> list[Json]:
        return []

    async def live(self, token: Token) -> bool:
        return True


@pytest.fixture(scope="module")
def gateway() -> Iterator[InProcess]:
    with InProcess() as gateway:
        yield gateway


def of(gateway: InProcess, vendor: Vendor) -> Vendor:
    tokens = gateway.directory.upstream().tokens
    gateway.directory.upstream = lambda: Upstream(vendor, tokens)
    return vendor


# What Moonshot's provider would drop, map, rename or rewrite.
ODD: Json = {
    "temperature": 1.5,
    "max_tokens": 5,
    "thinking": {"type": "enabled"},
    "tools": [{"type": "function", "function": {"name": "a.b", "parameters": {"type": ["object", "null"]}}}],
    "tool_choice": {"type": "function", "function": {"name": "a.b"}},
}


@pytest.mark.parametrize("cheap", [True, False], ids=["cheap", "costly"])
def test_another_vendor_gets_what_its_own_provider_makes(gateway: InProcess, cheap: bool) -> None:
    vendor = of(gateway, Vendor(cheap=cheap))
    key = gateway.key()
    first = gateway.chat(key, ODD, ("x-tenant", "t1"), ("x-msh-request-nonce", "n1"))
    assert (first.status, first.json["choices"][0]["message"]["content"]) == (200, "WELL")
    assert first.headers["x-param-ignored"] == "colour"
    (call,) = vendor.calls
    told = {"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}], **ODD, "earlier": ""}
    assert (json.loads(call.payload), call.headers) == (told, {"x-tenant": "t1"})
    assert vendor.prepared == ([True] if cheap else [True, False])
    gateway.chat(key, {})
    assert vendor.calls[-1].body["earlier"] == "well"  # what its tap kept, restored
    gateway.chat(gateway.key(), {})
    assert vendor.calls[-1].body["earlier"] == ""  # and to no other account

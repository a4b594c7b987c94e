"""Clients of the OpenAI SDK for a test, blocking and not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients.sdk import Async, Blocking, Connect, Sdk
from support.live import LiveGateway
from upstream import ScriptedUpstream


@pytest.fixture(params=[Blocking, Async], ids=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, gateway: LiveGateway, upstream: ScriptedUpstream
) -> Iterator[Connect]:
    """An SDK client with a key of its own, or with the one given."""
    made: list[Sdk] = []

    def make(key: str | None = None, base: str = "/v1") -> Sdk:
        sdk: Sdk = request.param(gateway.url + base, key or gateway.key())
        made.append(sdk)
        return sdk

    yield make
    for sdk in made:
        sdk.__exit__(None, None, None)


@pytest.fixture
def sdk(connect: Connect) -> Sdk:
    return connect()

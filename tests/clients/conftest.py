"""Clients of the OpenAI SDK for a test, blocking and not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from clients.sdk import Async, Blocking, Connect, Sdk
from support.live import LiveGateway
from upstream import ScriptedUpstream


@pytest.fixture(params=[Blocking, Async], ids=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, gateway: LiveGateway, upstream: ScriptedUpstream
) -> Iterator[Connect]:
    """An SDK client with a key of its own, or with the one given."""
    with ExitStack() as stack:

        def make(key: str | None = None, base: str = "/v1") -> Sdk:
            sdk: Sdk = stack.enter_context(request.param(gateway.url + base, key or gateway.key()))
            return sdk

        yield make


@pytest.fixture
def sdk(connect: Connect) -> Sdk:
    return connect()

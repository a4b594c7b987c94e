"""One gateway for all tests of a file, with little room for an account's files."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.batching import Clock
from support.live import LiveGateway
from upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with LiveGateway(folder, module_upstream.url, account_files=5, account_file_bytes=3_000_000) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def batching(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    """A gateway on which all keys may run batches."""
    tokens, folder = ("sk-upstream-1", "sk-upstream-2"), tmp_path_factory.mktemp("batches")
    with LiveGateway(folder, module_upstream.url, tokens, lambda: Clock.now, batches=("*",)) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: LiveGateway, upstream: ScriptedUpstream) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key()) as client:
        yield client

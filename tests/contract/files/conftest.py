"""One gateway for all tests of a file, with little room for an account's files."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.live import LiveGateway
from upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with LiveGateway(folder, module_upstream.url, account_files=5, account_file_bytes=3_000_000) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: LiveGateway, upstream: ScriptedUpstream) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key()) as client:
        yield client

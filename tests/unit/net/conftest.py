"""Either HTTP client, for every test of the seam."""

from __future__ import annotations

import pytest

from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.net.httpx_client import HttpxClient
from support.asking import Run, runner


@pytest.fixture(params=[HttpxClient, Http1Client], ids=lambda kind: kind.__name__)
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)

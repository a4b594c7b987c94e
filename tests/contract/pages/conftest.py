"""One browser for the tests of the pages, and the playground before a real gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.browsing import Browser
from support.live import LiveGateway
from support.playground import NOTHING_SEEN, Playground
from support.web import Web
from upstream import ScriptedUpstream


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(report_pdf=b"%PDF-1.4 (The report) Tj", chart_png=b"\x89PNG\r\n\x1a\n") as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    module_upstream: ScriptedUpstream, web: Web, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with LiveGateway(folder, module_upstream.url, fetch_allowed=(web.target,)) as gateway:
        yield gateway


@pytest.fixture
def page(browser: Browser, gateway: LiveGateway, upstream: ScriptedUpstream) -> Iterator[Playground]:
    """After each test nothing is on the console, no policy was violated, and no other host was asked."""
    page = Playground(browser, gateway)
    yield page
    assert browser.run(NOTHING_SEEN) == []
    if page.key:
        gateway.nothing_left(page.key)

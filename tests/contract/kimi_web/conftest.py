from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.kimi_web import with_web
from support.live import LiveGateway
from upstream import ScriptedUpstream
from upstream.kimi_web import WebService


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def service(up: ScriptedUpstream) -> WebService:
    return WebService(up)


@pytest.fixture(scope="module")
def gateway(service: WebService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with with_web(service, tmp_path_factory.mktemp("web")) as gateway:
        yield gateway


@pytest.fixture
def fresh(gateway: LiveGateway, service: WebService) -> Iterator[WebService]:
    """The service without earlier requests. After the test no conversation is left there."""
    service.up.requests.clear()
    yield service
    gateway.until(lambda: not service.chats)


@pytest.fixture
def own() -> Iterator[WebService]:
    """A service of the test's own, with nothing left at its end."""
    with ScriptedUpstream() as upstream:
        service = WebService(upstream)
        yield service
        assert not service.chats

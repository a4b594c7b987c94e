"""The shared TLS context."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from kimi_gateway.net import tls
from kimi_gateway.net.connections import Pool
from kimi_gateway.net.fetch.opening import Opener
from support.tls import NO_TLS

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of certificates that no other test has asked for."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("owner", ["client", "fetcher"])
async def test_the_loop_goes_on_while_the_context_is_made(owner: str) -> None:
    """Made on the loop, the context would be there when the task's first turn ends."""
    given = Pool(1, 1.0, None, lambda: 0.0) if owner == "client" else Opener(1, None, True)
    making = asyncio.create_task(given._context())
    await asyncio.sleep(0)
    assert not making.done()
    assert isinstance(await making, ssl.SSLContext)


async def test_all_connections_share_one_context() -> None:
    pools = [Pool(1, 1.0, None, lambda: 0.0) for _ in range(3)]
    openers = [Opener(1, None, True) for _ in range(3)]
    made = await asyncio.gather(*(each._context() for each in (*pools, *openers)))
    assert len({id(each) for each in made}) == 1
    assert made[0].verify_mode == ssl.CERT_REQUIRED
    assert made[0].check_hostname


async def test_other_certificates_make_another_context(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await tls.context()
    monkeypatch.setenv("SSL_CERT_DIR", str(place / "other"))
    assert await tls.context() is not first


async def test_a_context_of_ones_own_is_used() -> None:
    assert await Opener(1, None, NO_TLS)._context() is NO_TLS

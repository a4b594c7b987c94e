"""Which addresses are public, and how the text of an address is read."""

from __future__ import annotations

import pytest

from kimi_gateway.net.fetch.addresses import is_public
from kimi_gateway.net.fetch.fetcher import NOT_FETCHED, Bounds, FetchFailed
from kimi_gateway.net.fetch.target import BadTarget, read, redirected
from support.fetching import fetching, plain
from support.hostile_urls import PRIVATE_4, PRIVATE_6, PUBLIC, SPELLINGS

pytestmark = pytest.mark.anyio

BOUNDS = Bounds(size=2**20, seconds=20)


@pytest.mark.parametrize("address", [*PRIVATE_4, *PRIVATE_6])
async def test_no_special_address_is_public(address: str) -> None:
    assert not is_public(address)


async def test_no_special_address_is_fetched() -> None:
    async with fetching(plain()) as fetcher:
        for address in (*PRIVATE_4, *PRIVATE_6):
            bracketed = f"[{address}]" if ":" in address else address
            with pytest.raises(FetchFailed) as refused:
                await fetcher.fetch(f"http://{bracketed}/", BOUNDS)
            assert (refused.value.cause, str(refused.value)) == ("refused", NOT_FETCHED), address


@pytest.mark.parametrize("address", PUBLIC)
async def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1/8", "fe80::1%eth0", "2606:4700::1%1", "1.2.3"])
async def test_what_is_not_an_address_is_not_public(text: str) -> None:
    assert not is_public(text)


async def test_a_redirect_never_leaves_https() -> None:
    target = read("https://a.example/x")
    assert redirected(target, "/y").url == "https://a.example/y"
    with pytest.raises(BadTarget):
        redirected(target, "http://a.example/y")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://A.Example/ä b?x=1#f".replace(" ", "%20"), "http://a.example/%C3%A4%20b?x=1"),
        ("https://例え.example", "https://xn--r8jz45g.example/"),
        ("https://a.example:443?x", "https://a.example/?x"),
        ("http://[2606:4700::1]:80/x", "http://[2606:4700::1]/x"),
        ("HTTP://8.8.8.8:443/%2e%2E/a", "http://8.8.8.8:443/%2e%2E/a"),
        ("https://a.example/文件.pdf?名=一", "https://a.example/%E6%96%87%E4%BB%B6.pdf?%E5%90%8D=%E4%B8%80"),
    ],
)
async def test_ordinary_addresses_are_read(text: str, url: str) -> None:
    assert read(text).url == url


async def test_more_than_120_hostile_addresses_are_tried() -> None:
    assert len({*PRIVATE_4, *PRIVATE_6, *SPELLINGS}) >= 120

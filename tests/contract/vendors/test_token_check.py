"""`POST /token/check` for tokens of other vendors: each goes to its own vendor, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.live import LiveGateway
from support.vendors import with_vendors
from upstream import ScriptedUpstream
from upstream import vendors as emulated
from upstream.vendors import WAYS, token_of

ASKED = [vendor for vendor, ways in WAYS.items() if ways.models is not None]


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(tokens={"sk-upstream-1"}) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(up: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with with_vendors(up, tmp_path_factory.mktemp("check")) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def right(up: ScriptedUpstream) -> None:
    emulated.serve(up)
    up.requests.clear()


def check(gateway: LiveGateway, **body: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/token/check", json=body)


@pytest.mark.parametrize("vendor", ASKED)
def test_a_stored_token_is_asked_of_its_vendor_alone(
    gateway: LiveGateway, up: ScriptedUpstream, vendor: str
) -> None:
    token = token_of(vendor, WAYS[vendor].bases[0])
    assert check(gateway, token=token).json() == {"live": True}
    assert check(gateway, token=token, vendor=vendor).json() == {"live": True}
    assert {each.path.split("/")[1] for each in up.requests} <= {vendor}


@pytest.mark.parametrize("vendor", ASKED)
def test_any_token_is_asked_of_the_named_vendor(
    gateway: LiveGateway, up: ScriptedUpstream, vendor: str
) -> None:
    dead = f"sk-dead-of-{vendor}"
    assert check(gateway, token=dead, vendor=vendor).json() == {"live": False}
    last = WAYS[vendor].bases[-1]
    named = f"{last}={token_of(vendor, last)}"
    assert check(gateway, token=named, vendor=vendor).json() == {"live": True}
    assert {each.path.split("/")[1] for each in up.requests} == {vendor}


@pytest.mark.parametrize("vendor", ["spark", "metaso", "nobody", 5])
def test_a_vendor_that_cannot_say_is_a_clear_refusal(gateway: LiveGateway, vendor: Any) -> None:
    refused = check(gateway, token="sk-some-token", vendor=vendor)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "vendor")


def test_a_vendor_that_is_down_is_not_an_answer(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    from upstream import Status

    up.at("/qwen/intl/models", Status(503, "<html>"))
    assert check(gateway, token="sk-another-qwen-token", vendor="qwen").status_code == 503


def test_other_tokens_are_the_platforms(gateway: LiveGateway, up: ScriptedUpstream) -> None:
    assert check(gateway, token="sk-upstream-1").json() == {"live": True}
    assert check(gateway, token="sk-upstream-1", vendor="moonshot").json() == {"live": True}
    assert check(gateway, token="sk-of-nobody").json() == {"live": False}
    assert {each.path for each in up.requests} == {"/v1/users/me/balance"}
    assert check(gateway, token="tok-unknown").json() == {"live": False}
    assert check(gateway, token="eyJhbGciOiJIUzUxMiJ9.e30.x").json() == {"live": False}

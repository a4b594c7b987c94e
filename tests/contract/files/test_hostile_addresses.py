"""Addresses that must not be reached, through the whole gateway in every format, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kimi_gateway.net.fetch.fetcher import NOT_FETCHED
from support.attaching import PATHS, body, result, user
from support.error_shape import anthropic_error, openai_error
from support.hostile_urls import PRIVATE_4, PRIVATE_6, SPELLINGS
from support.live import LiveGateway
from support.web import QuietHandler, ThreadedServer, Web
from upstream import ScriptedUpstream

FORMS = list(PATHS)
LITERALS = [*PRIVATE_4, *(f"[{each}]" for each in PRIVATE_6)][::4]  # all of them: tests/unit/net/fetch
URLS = [*(each for each in SPELLINGS if "\x00" not in each), *(f"http://{each}:PORT/" for each in LITERALS)]


class Redirecting(ThreadedServer):
    """`/<hops>/<index>` leads over so many hops of its own to the address at `index`."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        redirecting = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                hops, index = map(int, self.path.strip("/").split("/"))
                self.send_response(302)
                where = f"/{hops - 1}/{index}" if hops else redirecting.targets[index]
                self.send_header("location", where.encode("ascii", "ignore").decode())
                self.send_header("content-length", "0")
                self.end_headers()

        super().__init__(Handler, "redirecting")


@pytest.fixture(scope="module")
def canary() -> Iterator[Web]:
    with Web() as canary:
        yield canary


@pytest.fixture(scope="module")
def redirecting() -> Iterator[Redirecting]:
    with Redirecting() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    canary: Web,
    redirecting: Redirecting,
    module_upstream: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveGateway]:
    """The canary's port is allowed for another host, so that no address is refused for its port."""
    allowed = (redirecting.target, f"files.example:{canary.target.rpartition(':')[2]}")
    with LiveGateway(
        tmp_path_factory.mktemp("hostile"), module_upstream.url, fetch_allowed=allowed
    ) as gateway:
        yield gateway


def part(form: str, index: int, url: str) -> dict[str, Any]:
    """A document or a picture at the address."""
    if index % 2:
        if form == "messages":
            return {"type": "image", "source": {"type": "url", "url": url}}
        if form == "responses":
            return {"type": "input_image", "image_url": url}
        return {"type": "image_url", "image_url": {"url": url}}
    if form == "messages":
        return {"type": "document", "source": {"type": "url", "url": url}}
    return (
        {"type": "file", "file": {"file_url": url}}
        if form == "chat"
        else {"type": "input_file", "file_url": url}
    )


def refused(client: httpx.Client, form: str, index: int, url: str) -> str:
    """The message of the error."""
    given = body(form, user(form, part(form, index, url)), stream=index % 3 == 0)
    answer = client.post(PATHS[form], json=given)
    assert answer.status_code == 400, (url, answer.text)
    error = anthropic_error(answer.json()) if form == "messages" else openai_error(answer.json())
    return str(error["message"])


def test_no_hostile_address_is_connected_to(
    gateway: LiveGateway, upstream: ScriptedUpstream, canary: Web
) -> None:
    port = canary.target.rpartition(":")[2]
    with gateway.client(gateway.key(None)) as client:
        for index, url in enumerate(URLS):
            message = refused(client, FORMS[index % 3], index // 3, url.replace("PORT", port))
            assert "could not be fetched" in message or "must be" in message, (url, message)
    assert canary.asked == []
    assert upstream.chats == []
    assert upstream.files.files == {}


@pytest.mark.parametrize("form", FORMS)
def test_in_a_tools_result_the_model_is_told(
    gateway: LiveGateway, upstream: ScriptedUpstream, canary: Web, form: str
) -> None:
    parts = [part(form, index, url.replace("PORT", "80")) for index, url in enumerate(SPELLINGS[:40])]
    with gateway.client(gateway.key(None)) as client:
        given = body(form, user(form), *result(form, *parts))
        assert client.post(PATHS[form], json=given).status_code == 200
    assert json.dumps(upstream.chats[-1].body["messages"]).count("cannot be shown") == 40
    assert canary.asked == []


@pytest.mark.parametrize("hops", [0, 1, 4, 5])
def test_no_redirect_leads_to_one(
    gateway: LiveGateway, upstream: ScriptedUpstream, canary: Web, redirecting: Redirecting, hops: int
) -> None:
    port = canary.target.rpartition(":")[2]
    redirecting.targets = [
        f"http://127.0.0.1:{port}/",
        f"http://[::ffff:127.0.0.1]:{port}/",
        "file:///etc/passwd",
    ]
    with gateway.client(gateway.key(None)) as client:
        for index, form in enumerate(FORMS):
            url = f"http://{redirecting.target}/{hops}/{index}"
            assert NOT_FETCHED in refused(client, form, index, url)
    assert canary.asked == []

"""A picture or video that is uploaded leaves the beginning of its conversation as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.attaching import PATHS, body, user
from support.live import LiveGateway
from support.web import Web
from upstream import ScriptedUpstream

PNG = b"\x89PNG\r\n\x1a\n" + bytes(4 * 2**20)  # above the size that goes into a request
VIDEO = b"\0\0\0\x18ftypisom" + b"\0" * 100


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(a_png=PNG, a_mp4=VIDEO) as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    tokens, folder = ("sk-upstream-1", "sk-upstream-2"), tmp_path_factory.mktemp("prefix")
    with LiveGateway(folder, module_upstream.url, tokens, fetch_allowed=(web.target,)) as gateway:
        yield gateway


def attached(web: Web, form: str) -> dict[str, Any]:
    part: dict[str, Any] = {
        "chat": {"type": "video_url", "video_url": {"url": f"{web.url}/a.mp4"}},
        "messages": {"type": "image", "source": {"type": "url", "url": f"{web.url}/a.png"}},
        "responses": {"type": "input_image", "image_url": f"{web.url}/a.png"},
    }[form]
    return part


def beginning(raw: bytes) -> bytes:
    """Up to the end of the first message, whose last part is its text."""
    end = raw.index(b"What is it?")
    return raw[: raw.index(b"}]}", end)]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("form", PATHS)
def test_the_second_turn_sends_the_same_beginning_to_the_same_account(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str, stream: bool
) -> None:
    before = len(upstream.chats), upstream.files.uploads
    first = user(form, attached(web, form))
    later = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}]
    with gateway.client(gateway.key()) as client:
        for messages in ([first], [first, *later], [first, *later, *later]):
            answer = client.post(PATHS[form], json=body(form, *messages, stream=stream))
            assert answer.status_code == 200, answer.text
    chats = upstream.chats[before[0] :]
    assert len(chats) == 3
    assert b"ms://" in beginning(chats[0].raw)
    assert len({beginning(chat.raw) for chat in chats}) == 1
    assert len({chat.token for chat in chats}) == 1
    assert upstream.files.uploads == before[1] + 1


@pytest.mark.parametrize("form", PATHS)
def test_another_account_has_an_upload_of_its_own(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str
) -> None:
    before = len(upstream.chats)
    for _ in range(2):
        with gateway.client(gateway.key()) as client:
            client.post(PATHS[form], json=body(form, user(form, attached(web, form))))
    ids = [re.findall(rb"ms://(\w+)", chat.raw) for chat in upstream.chats[before:]]
    assert ids[0] != ids[1]


def test_a_turn_that_is_not_to_be_stored_leaves_nothing(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web
) -> None:
    before = set(upstream.files.files)
    with gateway.client(gateway.key()) as client:
        given = body("responses", user("responses", attached(web, "responses")), store=False)
        assert client.post(PATHS["responses"], json=given).status_code == 200
    gateway.until(lambda: set(upstream.files.files) <= before)

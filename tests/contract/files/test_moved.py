"""Files of a request whose upstream token fails before the first content are uploaded with another one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from support.attaching import PATHS, body, user
from support.formats import FORMATS
from support.live import LiveGateway
from support.uploading import upload
from support.web import Web
from upstream import Cut, Kimi, Request, ScriptedUpstream, Status
from upstream.steps import Reply, Step

TOKENS = ("sk-upstream-1", "sk-upstream-2")
LARGE = b"\x89PNG\r\n\x1a\n" + bytes(4 * 2**20)  # above the size that goes into a request
VIDEO = b"\0\0\0\x18ftypisom" + b"\0" * 100
OUT = {
    "quota": Status(429, {"error": {"type": "exceeded_current_quota_error", "message": "empty"}}),
    "authentication": Status(401, {"error": {"type": "invalid_authentication_error", "message": "no"}}),
    "rate": Status(429, {"error": {"type": "rate_limit_reached_error", "message": "slow down"}}),
}


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(a_png=LARGE, a_mp4=VIDEO, b_mp4=VIDEO + b"2") as web:
        yield web


@pytest.fixture(scope="module")
def gateway(
    web: Web, module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("moved")
    kept = {"keep_texts": 0}  # so that the uploads of a turn end with it
    with LiveGateway(folder, module_upstream.url, TOKENS, fetch_allowed=(web.target,), **kept) as gateway:
        yield gateway


@dataclass
class Out:
    """Chats with the token of the first upload fail."""

    upstream: ScriptedUpstream
    failure: Step

    def reply(self, request: Request) -> Reply:
        step: Step = self.failure if request.token == uploads(self.upstream)[0].token else Kimi()
        return step.reply(request)


def uploads(upstream: ScriptedUpstream) -> list[Request]:
    return [each for each in upstream.requests if (each.method, each.path) == ("POST", "/v1/files")]


def asked(web: Web, form: str, stream: bool, *more: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {
        "chat": {"type": "video_url", "video_url": {"url": f"{web.url}/a.mp4"}},
        "messages": {"type": "image", "source": {"type": "url", "url": f"{web.url}/a.png"}},
        "responses": {"type": "input_image", "image_url": f"{web.url}/a.png"},
    }[form]
    return body(form, user(form, part, *more), stream=stream)


def restored(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """The pool forgets, and no file is left."""
    gateway.until(lambda: not upstream.files.files)
    assert gateway.app.running is not None
    pool = gateway.app.running.pool

    async def learn() -> None:
        for token in pool.all():
            for model in ("", "kimi-k3"):
                pool.learn(token, model, None)

    gateway.do(learn())


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("form", PATHS)
def test_a_file_by_address_goes_to_another_account(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str, stream: bool
) -> None:
    upstream.always(Out(upstream, OUT["quota"]))
    key = gateway.key(10)
    with gateway.client(key) as client:
        answer = client.post(PATHS[form], json=asked(web, form, stream))
    assert answer.status_code == 200, answer.text
    assert "Hello" in answer.text
    sent = [str(each.token) for each in uploads(upstream)]
    assert sorted(sent) == [f"{token}" for token in TOKENS]
    assert [str(each.token) for each in upstream.chats] == sent
    named = [re.findall(r"ms://(\w+)", each.raw.decode()) for each in upstream.chats]
    assert named[0] != named[1]  # each call names the file of its own account
    account = gateway.account(key)
    assert (account.credits, account.reserved) == (9, 0)
    (row,) = gateway.usage(key)
    assert (row.requests, row.errors) == (1, 0)
    (line,) = [each for each in gateway.lines("request") if each.get("account") == account.id]
    assert (line["attempts"], len(line["upstream_tokens"])) == (2, 2)
    assert line["output_tokens"] == row.output
    restored(gateway, upstream)


@pytest.mark.parametrize("cause", OUT)
def test_whatever_of_the_token_fails(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, cause: str
) -> None:
    upstream.always(Out(upstream, OUT[cause]))
    with gateway.client(gateway.key()) as client:
        assert client.post(PATHS["chat"], json=asked(web, "chat", False)).status_code == 200
    restored(gateway, upstream)


def test_without_another_token_the_failure_is_shown(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web
) -> None:
    upstream.always(OUT["quota"])
    key = gateway.key(10)
    with gateway.client(key) as client:
        answer = client.post(PATHS["chat"], json=asked(web, "chat", False))
    assert answer.status_code == 503
    account = gateway.account(key)
    assert (account.credits, account.reserved) == (10, 0)
    restored(gateway, upstream)


def test_after_the_first_content_nothing_is_repeated(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web
) -> None:
    upstream.always(Cut(900))
    with gateway.client(gateway.key()) as client:
        client.post(PATHS["chat"], json=asked(web, "chat", True))
    assert len(upstream.chats) == 1
    restored(gateway, upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("form", PATHS)
def test_an_uploaded_file_gets_a_clear_409(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web, form: str, stream: bool
) -> None:
    key = gateway.key(10)
    with gateway.client(key) as client:
        file = upload(client, LARGE[:100], "a.png", purpose="image").json()["id"]
        upstream.always(Out(upstream, OUT["quota"]))
        part: dict[str, Any] = {
            "chat": {"type": "image_url", "image_url": {"url": f"ms://{file}"}},
            "messages": {"type": "image", "source": {"type": "file", "file_id": file}},
            "responses": {"type": "input_image", "file_id": file},
        }[form]
        answer = client.post(PATHS[form], json=body(form, user(form, part), stream=stream))
        assert answer.status_code == 409, answer.text
        assert "Upload them again" in FORMATS[form].error(answer.json())["message"]
        client.delete(f"/v1/files/{file}")
    account = gateway.account(key)
    assert (account.credits, account.reserved) == (10, 0)
    restored(gateway, upstream)


def test_a_second_upload_moves_the_first_one(
    gateway: LiveGateway, upstream: ScriptedUpstream, web: Web
) -> None:
    """The token fails between the uploads of two videos of one request."""
    more = {"type": "video_url", "video_url": {"url": f"{web.url}/b.mp4"}}
    answers: list[httpx.Response] = []
    upstream.files.refused = {"POST": [None, OUT["quota"]]}
    with gateway.client(gateway.key()) as client:
        answers.append(client.post(PATHS["chat"], json=asked(web, "chat", False, more)))
    assert answers[0].status_code == 200, answers[0].text
    assert len({each.token for each in upstream.chats}) == 1
    restored(gateway, upstream)

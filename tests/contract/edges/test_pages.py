"""The pages on every edge: what is served, under which policy, kept and packed how, and what programs get."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from handlers import pages as function
from kimi_gateway import __version__
from kimi_gateway.edge.home.protocol import Protocol
from kimi_gateway.endpoints.pages import pages
from support import api_gateway
from support.live import LiveGateway
from support.proxy_events import context

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FILES = sorted(pages.names())
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data: blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


@pytest.fixture(scope="module", params=[Protocol, H11Protocol], ids=["own protocol", "ASGI"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    class Gateway(LiveGateway):
        protocol = request.param

    with Gateway(tmp_path_factory.mktemp("pages")) as gateway, gateway.client() as client:
        yield client


def content(name: str) -> bytes:
    return (pages.FOLDER / name).read_bytes()


def check_policy(headers: Any) -> None:
    told = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert told == POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("path", list(pages.DOCUMENTS))
def test_a_page_is_served_whole_and_names_only_files_that_are_there(
    client: httpx.Client, path: str, prefix: str
) -> None:
    answer, head = (client.request(method, prefix + path, headers=HTML) for method in ("GET", "HEAD"))
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert answer.content == content(pages.DOCUMENTS[path])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    for name in ("content-type", "content-length", "content-encoding", "etag"):
        assert head.headers[name] == answer.headers[name]
    check_policy(answer.headers)
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(named) >= 4
    for each in named:
        assert re.match(r"pages/\w", each), f"{each} is not relative"
        assert client.get(answer.url.join(each)).status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_packed_or_plain_and_is_not_sent_again(client: httpx.Client, name: str) -> None:
    plain = client.get(f"/pages/{name}", headers={"accept-encoding": "gzip;q=0, identity"})
    packed = client.get(f"/pages/{name}", headers={"accept-encoding": "br, GZIP;q=0.8"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) + 100
    assert plain.content == packed.content == content(name)
    assert plain.headers["vary"] == "accept-encoding"
    assert plain.headers["cache-control"] == "no-cache"  # a new release is seen at once
    check_policy(plain.headers)
    for known in (plain.headers["etag"], f'"other", {plain.headers["etag"]}', "*"):
        again = client.get(f"/pages/{name}", headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == plain.headers["etag"]
        check_policy(again.headers)
    assert client.get(f"/pages/{name}", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/pages/",
        "/pages/nothing.js",
        "/pages/../pages.py",
        "/pages/%2e%2e/pages.py",
        "/pages/credits.html",
        "/pages",
    ]
    + [
        "/my-credits/",
        "/admin/",
        "/pages/libraries",
        "/pages//etc/passwd",
        "/pages/libraries/uPlot.LICENSE.txt",
    ],
)
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers=HTML)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("accept", ["*/*", "application/json", None])
def test_a_program_gets_json_at_the_root(client: httpx.Client, accept: str | None) -> None:
    request = client.build_request("GET", "/", headers={"accept": accept} if accept else {})
    if accept is None:
        del request.headers["accept"]
    answer = client.send(request)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.json()["name"], answer.json()["version"]) == ("Kimi Gateway", __version__)
    assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("path", [*pages.DOCUMENTS, "/pages/shell.js"])
def test_a_page_may_be_read_only(client: httpx.Client, path: str) -> None:
    answer = client.post(path, headers=HTML)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.anyio
async def test_the_function_serves_them_as_text_without_a_gateway(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """API Gateway passes bytes on only to clients that name a binary type, so nothing is compressed there."""
    monkeypatch.setenv("KIMI_GATEWAY_DATA", str(tmp_path / "none"))
    wanted = {path: pages.DOCUMENTS[path] for path in pages.DOCUMENTS} | {
        f"/pages/{name}": name for name in FILES
    }
    for path, name in wanted.items():
        parameters = {"file": name} if path == f"/pages/{name}" else {}
        resource = "/pages/{file+}" if parameters else path
        headers = [*HTML.items(), ("Host", "api.example.com"), ("Accept-Encoding", "gzip, br")]
        event = api_gateway.event("GET", path, headers, resource=resource, parameters=parameters)
        answer = await function.handler(json.loads(json.dumps(event)), context())
        assert isinstance(answer, dict)
        got = api_gateway.of_proxy(json.loads(json.dumps(answer)))
        assert (got.status, got.body, answer["isBase64Encoded"]) == (200, content(name), False), path
        assert got.header("content-encoding") is None
        check_policy(dict(got.headers))
    event = api_gateway.event("GET", "/v1/models", [("Host", "a")], resource="/v1/models", parameters={})
    assert (await function.handler(event, context()))["statusCode"] == 404  # type: ignore[index]
    assert not (tmp_path / "none").exists()

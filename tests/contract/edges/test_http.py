"""Paths, methods, CORS and request ids, the same for every endpoint."""

from __future__ import annotations

import pytest

from support.error_shape import anthropic_error, openai_error
from support.live import HELLO, LiveGateway
from upstream import ScriptedUpstream

ALL_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
EXPOSED = {
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-credits-remaining",
    "retry-after",
}


@pytest.mark.parametrize("base", ["", "/api"])
def test_every_path_is_served_at_the_root_and_below_api(
    gateway: LiveGateway, upstream: ScriptedUpstream, base: str
) -> None:
    chat = {"model": "kimi-k3", "messages": HELLO}
    with gateway.client(gateway.key(see_balance=True)) as client:
        for path in ("/v1/models", "/v1/models/kimi-k2", "/v1/users/me/balance", "/user/credits", "/ping"):
            assert client.get(base + path).status_code == 200
        assert client.get(f"{base}/health").json()["status"] == "ok"
        assert client.get(f"{base}/v1/models/?beta=true").status_code == 200
        for path in ("/v1/chat/completions?beta=true", "/v1/tokenizers/estimate-token-count"):
            assert client.post(base + path, json=chat).status_code == 200
        assert client.post(f"{base}/token/check", json={"token": "x y"}).json() == {"live": False}


def test_ping_answers_to_anyone(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        assert (client.get("/ping").status_code, client.get("/ping").text) == (200, "pong")


METHODS = [
    ("GET", "/v1/chat/completions", "OPTIONS, POST"),
    ("DELETE", "/api/v1/chat/completions", "OPTIONS, POST"),
    ("PUT", "/v1/models", "GET, HEAD, OPTIONS"),
    ("POST", "/v1/models/kimi-k3", "GET, HEAD, OPTIONS"),
    ("GET", "/token/check", "OPTIONS, POST"),
    ("POST", "/user/credits", "GET, HEAD, OPTIONS"),
    ("PATCH", "/ping", "GET, HEAD, OPTIONS"),
    ("TRACE", "/health", "GET, HEAD, OPTIONS"),
    ("POST", "/", "GET, HEAD, OPTIONS"),
    ("POST", "/docs", "GET, HEAD, OPTIONS"),
]


@pytest.mark.parametrize(("method", "path", "allow"), METHODS)
def test_a_wrong_method_is_405_with_the_right_ones(
    gateway: LiveGateway, method: str, path: str, allow: str
) -> None:
    with gateway.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert openai_error(answer.json())["code"] == "method_not_allowed"


PATHS = ["/nothing", "/apis", "/api/api/v1/models", "/v1", "/v1/model", "/v1/models/../nothing", "/%00"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(gateway: LiveGateway, path: str, method: str) -> None:
    with gateway.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, openai_error(answer.json())["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/anthropic", "/anthropic/x", "/api/anthropic/v1/none", "/v1/messages/x"])
def test_an_unknown_path_of_anthropics_is_404_in_its_shape(gateway: LiveGateway, path: str) -> None:
    with gateway.client() as client:
        answer = client.post(path, headers={"authorization": "Bearer x"})
    assert (answer.status_code, anthropic_error(answer.json())["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    "path", ["/ping", "/health", "/v1/models", "/user/credits", "/", "/docs", "/openapi.json"]
)
def test_head_is_get_without_a_body(gateway: LiveGateway, upstream: ScriptedUpstream, path: str) -> None:
    with gateway.client(gateway.key()) as client:
        head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.status_code in (200, 307)
    for name in ("content-type", "content-length", "location"):
        assert head.headers.get(name) == get.headers.get(name)


def test_head_on_chat_is_405_and_costs_nothing(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key(5)
    with gateway.client(key) as client:
        answer = client.head("/v1/chat/completions")
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["content-type"] == "application/json"
    assert gateway.account(key).credits == 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/models", "/v1/messages", "/nowhere"])
def test_a_preflight_is_open_and_allows_what_it_asked_for(gateway: LiveGateway, path: str) -> None:
    asked = "authorization, x-api-key, x-stainless-os, anthropic-dangerous-direct-browser-access"
    headers = {
        "origin": "https://app.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    with gateway.client() as client:
        answer = client.options(path, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == asked
    assert set(answer.headers["access-control-allow-methods"].split(", ")) == ALL_METHODS
    assert "access-control-allow-credentials" not in answer.headers


def test_every_answer_has_cors_and_a_request_id(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    key = gateway.key(5)
    with gateway.client(key) as client:
        answers = [
            client.get("/ping"),
            client.get("/nowhere"),
            client.put("/v1/models"),
            client.get("/v1/models", headers={"host": "a b"}),
            client.get("/v1/models", headers={"authorization": "Bearer x"}),
            client.post("/v1/chat/completions", content=b"{"),
            gateway.chat(key),
            gateway.chat(key, stream=True),
            gateway.chat(gateway.key(0)),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 405, 400, 401, 400, 200, 200, 403]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert set(answer.headers["access-control-expose-headers"].split(", ")) >= EXPOSED
        assert answer.headers["x-request-id"].startswith("req_")
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


KEPT = ["a", "req_0123", "0f8fad5b-d9cb-469f-a165-70867728950e", "a:b/c+d=e.f_g", "x" * 128]
REPLACED = ["", "x" * 129, "a b", "a\tb", 'a"b', "a;b", "<b>", "a,b"]


@pytest.mark.parametrize("given", KEPT)
def test_a_request_id_comes_back_and_is_logged(gateway: LiveGateway, given: str) -> None:
    with gateway.client() as client:
        assert client.get("/nowhere", headers={"x-request-id": given}).headers["x-request-id"] == given
    gateway.until(lambda: gateway.lines("request")[-1]["id"] == given)


@pytest.mark.parametrize("given", REPLACED)
def test_an_odd_request_id_is_replaced(gateway: LiveGateway, given: str) -> None:
    with gateway.client() as client:
        answer = client.get("/nowhere", headers={"x-request-id": given})
    assert answer.headers["x-request-id"].startswith("req_")
    gateway.until(lambda: gateway.lines("request")[-1]["id"] == answer.headers["x-request-id"])

"""The OpenAPI document describes each route, and real requests and answers fit it."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.files import FileRecord, file_id
from kimi_gateway.edge.home.openapi import statuses
from kimi_gateway.edge.home.schemas.table import ROUTES
from kimi_gateway.edge.router import Access, Paths, Route
from kimi_gateway.endpoints.files.uploads import begun
from support import described
from support.attaching import PATHS, body, user
from support.batching import ASKED, Clock, ended
from support.inprocess import NOW, InProcess
from support.live import LiveGateway
from support.uploading import ANTHROPIC, upload
from upstream import ScriptedUpstream

EACH = pytest.mark.parametrize("route", described.table(), ids=lambda each: f"{each.method} {each.path}")
SECRET = "s" * 32
NEW = {"name": "phone", "limits": {"rpm": 5}, "models": ["kimi-k3"], "budgets": {"usd/day": 1.5}}


def route_of(method: str, path: str) -> Route:
    return Paths(described.table()).find(path.partition("?")[0])[0][method]


@EACH
def test_each_route_has_a_body_an_answer_errors_and_headers(route: Route) -> None:
    operation = described.document()["paths"][route.shown][route.method.lower()]
    of = ROUTES[f"{route.method} {route.shown}"]
    success = () if of.refuses else ("200",)
    assert set(operation["responses"]) == {*success, *map(str, statuses(route))}
    for answer in operation["responses"].values():
        assert "x-request-id" in answer["headers"]
        for content in answer["content"].values():
            assert content["schema"]
    takes = route.method in ("POST", "PATCH") and not route.path.endswith("/cancel")
    assert ("requestBody" in operation) == takes
    assert ("security" in operation) == (route.access is not Access.OPEN)
    streams = [
        answer for answer in operation["responses"].values() if "text/event-stream" in answer["content"]
    ]
    assert bool(streams) == (route.access is Access.CREDIT and route.path != "/v1/responses/compact")


def test_the_document_is_valid_and_describes_no_other_route() -> None:
    for part in described.document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(part)
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described.document())))
    assert used == set(described.document()["components"]["schemas"])
    assert set(ROUTES) == {f"{each.method} {each.shown}" for each in described.table()}


class Calls:
    """Calls of a gateway in this process; each is compared with the document."""

    def __init__(self, desk: InProcess) -> None:
        self.desk = desk
        self.good: set[str] = set()

    def __call__(self, method: str, path: str, given: Any = b"", key: str | None = None, *more: Any) -> Any:
        answer = self.desk.call(method, path, given, key, *more)
        raw = given if isinstance(given, bytes) else json.dumps(given).encode()
        route = route_of(method, path)
        kind = "application/json"
        assert described.wrong(route, raw, kind, answer.status, answer.headers, answer.body) == []
        if answer.status == 200:
            self.good.add(f"{route.method} {route.shown}")
        return answer


@pytest.fixture(scope="module")
def calls() -> Iterator[Calls]:
    settings: dict[str, Any] = {"register": "open", "payment_secret": (SECRET,), "admin": True}
    with InProcess(**settings) as desk:
        yield Calls(desk)


def user_key(calls: Calls, **terms: Any) -> str:
    key = calls.desk.key(100)
    calls.desk.run(calls.desk.store.update_key(keys.digest(key), lambda old: replace(old, **terms), NOW))
    return key


def chats_and_their_errors(calls: Calls, form: str) -> None:
    key = calls.desk.key(100)
    path = PATHS[form]
    for stream in (False, True):
        answer = calls("POST", path, body(form, user(form), stream=stream), key)
        assert answer.status == 200
        assert ("event-stream" in answer.headers["content-type"]) == stream
        again = ("idempotency-key", f"{form} {stream}".replace(" ", "-"))
        for words in ("One?", "One?", "Two?"):
            calls("POST", path, body(form, user(form, words=words), stream=stream), key, again)
    assert calls("POST", path, {}, key).status == 400
    assert calls("POST", path, body(form, user(form))).status == 401
    assert calls("POST", path, body(form, user(form)), calls.desk.key(0)).status == 403
    assert calls("POST", path, body(form, user(form), model="none"), key).status == 404


def counts_models_and_what_is_open(calls: Calls) -> None:
    key = user_key(calls, see_balance=True)
    messages = [{"role": "user", "content": "Hello"}]
    for path, given in (
        ("/v1/messages/count_tokens", {"model": "kimi-k3", "messages": messages}),
        ("/v1/responses/input_tokens", {"model": "kimi-k3", "input": "Hello"}),
        ("/v1/responses/compact", {"model": "kimi-k3", "input": "Hello"}),
        ("/v1/tokenizers/estimate-token-count", {"model": "kimi-k3", "messages": messages}),
        ("/token/check", {"token": key}),
    ):
        assert calls("POST", path, given, key).status == 200
        assert calls("POST", path, {}, key).status == 400
    for path in ("/v1/models", "/v1/models/kimi-k3", "/v1/users/me/balance", "/ping", "/health"):
        assert calls("GET", path, b"", key).status == 200
    assert calls("GET", "/v1/models/none", b"", key).status == 404


def kept_answers_and_conversations(calls: Calls) -> None:
    key = calls.desk.key(100)
    id = calls("POST", "/v1/responses", {"model": "kimi-k3", "input": "Hello"}, key).json["id"]
    assert calls("GET", f"/v1/responses/{id}", b"", key).status == 200
    assert calls("GET", f"/v1/responses/{id}/input_items", b"", key).status == 200
    assert calls("POST", f"/v1/responses/{id}/cancel", b"", key).status == 400
    assert calls("DELETE", f"/v1/responses/{id}", b"", key).status == 200
    assert calls("GET", f"/v1/responses/{id}", b"", key).status == 404
    said = body("chat", user("chat"), conversation_id="none")
    name = calls("POST", "/v1/chat/completions", said, key).json["id"]
    assert calls("DELETE", f"/v1/conversations/{name}", b"", key).status == 200


def users_and_their_keys(calls: Calls) -> None:
    key = user_key(calls, manages=True)
    calls.desk.chat(key, {})
    for path in ("/user/credits", "/user/usage", "/user/status", "/user/keys"):
        assert calls("GET", path, b"", key).status == 200
    made = calls("POST", "/user/keys", NEW, key).json["id"]
    assert calls("PATCH", f"/user/keys/{made}", {"name": "tablet"}, key).status == 200
    assert calls("PATCH", f"/user/keys/{made}", {"color": 1}, key).status == 400
    assert calls("DELETE", f"/user/keys/{made}", b"", key).status == 200
    assert calls("DELETE", f"/user/keys/{made}", b"", key).status == 404
    assert calls("POST", "/user/register", {"name": "guest"}).status == 200
    assert calls("POST", "/webhooks/payment", {"id": "evt"}).status == 403
    for paid in (
        {"type": "payment", "id": "evt_1", "credits": 10},
        {"type": "refund", "id": "evt_2", "payment": "evt_1"},
    ):
        raw = json.dumps({**paid, "account": calls.desk.account(key).id}).encode()
        signed = hmac.digest(SECRET.encode(), f"{NOW}.".encode() + raw, "sha256").hex()
        assert (
            calls("POST", "/webhooks/payment", raw, None, ("x-signature", f"t={NOW},v1={signed}")).status
            == 200
        )


def the_operators_calls(calls: Calls) -> None:
    key, holder = user_key(calls, operator=True), calls.desk.account(calls.desk.key(10)).id
    calls.desk.chat(key, {})
    account = calls("POST", "/admin/accounts", {"name": "bob", "credits": 5}, key).json["id"]
    calls("POST", "/admin/accounts", {"name": "rich", "credits": "unlimited"}, key)
    one = f"/admin/accounts/{account}"
    calls("PATCH", one, {"budgets": {"usd/month": 20}}, key)
    calls("POST", f"{one}/grant", {"credits": 10}, key)
    calls("POST", f"{one}/deduct", {"credits": 1}, key)
    terms = {"account": account, "name": "laptop", "rpm": 60, "budgets": {"usd/day": 5}}
    made = calls("POST", "/admin/keys", terms, key).json["id"]
    its = f"/admin/keys/{made}"
    calls("PATCH", its, {"rpm": 30, "note": "laptop"}, key)
    for step in ("suspend", "resume", "rotate"):
        assert calls("POST", f"{its}/{step}", {}, key).status == 200
    for path in (
        "/admin/accounts", "/admin/keys", one, its, "/admin/usage?by=key", "/admin/pool", "/admin/problems",
        "/admin/packages", "/admin/requests",
    ):  # fmt: skip
        assert calls("GET", path, b"", key).status == 200
    assert calls("DELETE", its, b"", key).status == 200
    assert calls("DELETE", one, b"", key).status == 200
    assert calls("GET", one, b"", key).status == 404
    assert calls("GET", f"/admin/accounts/{holder}", b"", calls.desk.key(1)).status == 403
    assert calls("POST", "/admin/accounts", {"x": 1}, key).status == 400


def files_and_batches(batching: LiveGateway, upstream: ScriptedUpstream, calls: Calls) -> None:
    def checked(answer: httpx.Response) -> Any:
        asked = answer.request
        route, kind = route_of(asked.method, asked.url.path), asked.headers.get("content-type", "")
        raw = b"" if "multipart" in kind else asked.content
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "server")}
        assert described.wrong(route, raw, kind, answer.status_code, headers, answer.content) == []
        if answer.status_code == 200:
            calls.good.add(f"{route.method} {route.shown}")
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    with batching.client(batching.key(None)) as client:
        for more in ({}, {"headers": ANTHROPIC}):
            id = checked(upload(client, b"Hello", "a.txt", **more))["id"]
            checked(client.get("/v1/files", **more))
            checked(client.get(f"/v1/files/{id}", **more))
            text = client.get(f"/v1/files/{id}/content", **more)
            checked(text)
            if not more:
                part = described.document()["paths"]["/v1/files/{file}/content"]["get"]["responses"]["200"]
                assert described.faults(part["content"]["text/plain"]["schema"], json.loads(text.text)) == []
            checked(client.delete(f"/v1/files/{id}", **more))
            checked(client.get(f"/v1/files/{id}", **more))
        checked(client.post("/v1/files/uploads", json={"bytes": 10}))  # at home 404
        source = upload(client, batches_lines(), "in.jsonl", purpose="batch").json()["id"]
        batch = checked(client.post("/v1/batches", json={"input_file_id": source, **ASKED}))["id"]
        checked(client.get("/v1/batches"))
        upstream.batches.run()
        ended(client, batching, batch)
        assert checked(client.get(f"/v1/batches/{batch}"))["usage"]["total_tokens"]
        again = checked(client.post("/v1/batches", json={"input_file_id": source, **ASKED}))["id"]
        checked(client.post(f"/v1/batches/{again}/cancel"))
        checked(client.post("/v1/batches", json={}))


def batches_lines() -> bytes:
    from upstream.batches import lines

    return lines()


@pytest.fixture(scope="module")
def batching(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    folder = tmp_path_factory.mktemp("batches")
    of = (module_upstream.url, ("sk-upstream-1",), lambda: Clock.now)
    with LiveGateway(folder, *of, batches=("*",)) as gateway:
        yield gateway


def test_real_requests_and_answers_of_each_route_fit(
    calls: Calls, batching: LiveGateway, upstream: ScriptedUpstream
) -> None:
    for form in PATHS:
        chats_and_their_errors(calls, form)
    counts_models_and_what_is_open(calls)
    kept_answers_and_conversations(calls)
    users_and_their_keys(calls)
    the_operators_calls(calls)
    files_and_batches(batching, upstream, calls)
    without = {f"{each.method} {each.shown}" for each in described.table()} - calls.good
    assert without == {
        "POST /v1/responses/{response}/cancel",  # it refuses
        "POST /v1/files/uploads",  # of the cloud; see below
    }


def test_an_address_for_an_upload() -> None:
    class Bucket:
        async def address(self, *of: Any) -> str:
            return "https://bucket.example/key"

    record = FileRecord(file_id(NOW), "acc_a", "", "kept", NOW, NOW + 60, size=10)
    shown = asyncio.run(begun(Bucket(), record))  # type: ignore[arg-type]
    schema = described.document()["paths"]["/v1/files/uploads"]["post"]["responses"]["200"]["content"]
    assert described.faults(schema["application/json"]["schema"], shown) == []


def test_a_member_that_is_missing_or_not_described_is_found() -> None:
    schema = {"$ref": "#/components/schemas/MessagesCount"}
    assert described.faults(schema, {"input_tokens": 1}) == []
    assert described.faults(schema, {})
    assert described.faults(schema, {"input_tokens": 1, "new": 1})

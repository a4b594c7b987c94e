"""Batches that are refused, lost, or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.values import Budget, Limits, NewKey
from support.batching import ASKED, Clock, booked, ended, key_of, made, sweep
from support.live import LiveGateway
from support.uploading import upload
from upstream import Raw, ScriptedUpstream, Status
from upstream.batches import lines


@pytest.fixture
def gateway(batching: LiveGateway) -> LiveGateway:
    return batching


@pytest.fixture
def client(batching: LiveGateway, upstream: ScriptedUpstream) -> Iterator[httpx.Client]:
    with batching.client(batching.key(None)) as client:
        yield client


ROUTES = [("POST", ""), ("GET", ""), ("GET", "/batch_x"), ("POST", "/batch_x/cancel")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_unlimited_accounts_without_budgets_may(
    gateway: LiveGateway, upstream: ScriptedUpstream, method: str, path: str
) -> None:
    def refusal(key: str) -> str:
        with gateway.client(key) as client:
            answer = client.request(method, f"/v1/batches{path}", json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
        return str(answer.json()["error"]["message"])

    assert "unlimited accounts" in refusal(gateway.key(100))
    assert "unlimited accounts" in refusal(gateway.key(0))
    key = gateway.key(None)
    budget = Budget("usd", "day", 1_000_000)
    gateway.do(gateway.store.set_budgets(gateway.account(key).id, [budget], int(gateway.clock())))
    assert "without budgets" in refusal(key)
    limits: list[dict[str, Any]] = [
        {"models": ("kimi-k3",)}, {"in_flight": 2}, {"tokens": 9}, {"limits": Limits(day=5)}
    ]  # fmt: skip
    for limit in limits:
        named = keys.new_key()
        new = NewKey(keys.digest(named), gateway.account(gateway.key(None)).id, **limit)
        gateway.do(gateway.store.create_key(new, int(gateway.clock())))
        assert "limits of its own" in refusal(named)
    assert upstream.batches.created == 0


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"input_file_id": None}, 400, "input_file_id"),
    ({"input_file_id": "file-none"}, 404, "input_file_id"),
    ({"input_file_id": ["x"]}, 400, "input_file_id"),
    ({"endpoint": "/v1/responses"}, 400, "endpoint"),
    ({"endpoint": None}, 400, "endpoint"),
    ({"completion_window": "11h"}, 400, "completion_window"),
    ({"completion_window": "8d"}, 400, "completion_window"),
    ({"completion_window": 24}, 400, "completion_window"),
    ({"completion_window": "२४h"}, 400, "completion_window"),
    ({"metadata": []}, 400, "metadata"),
    ({"metadata": {str(n): "" for n in range(17)}}, 400, "metadata"),
    ({"metadata": {"n" * 65: ""}}, 400, "metadata"),
    ({"metadata": {"n": 1}}, 400, "metadata"),
    ({"metadata": {"n": "v" * 513}}, 400, "metadata"),
]


def test_bad_requests_name_the_field_and_leave_nothing(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    good = upload(client, lines(), "in.jsonl", purpose="batch").json()["id"]
    for change, status, param in BAD:
        answer = client.post("/v1/batches", json={"input_file_id": good, **ASKED, **change})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), change
    text = upload(client, b"Hello", purpose="file-extract").json()["id"]
    other = client.post("/v1/batches", json={"input_file_id": text, **ASKED})
    assert other.status_code == 400
    assert "purpose batch" in other.json()["error"]["message"]
    for body in (b"", b"[]", b"{", b"\xff"):
        assert client.post("/v1/batches", content=body).status_code == 400
    assert client.post("/v1/batches", content=b" " * 70_000).status_code == 413
    assert client.get("/v1/batches").json()["data"] == []
    assert upstream.batches.created == 0
    gateway.nothing_left(key_of(client))


def test_a_refused_creation_leaves_no_batch_and_no_lease(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    file = upload(client, lines(), "in.jsonl", purpose="batch").json()["id"]
    upstream.batches.refused = [
        Status(400, {"error": {"type": "invalid_request_error", "message": f"no place for {name}"}})
        for name in upstream.files.files
    ]
    answer = client.post("/v1/batches", json={"input_file_id": file, **ASKED})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == f"no place for {file}"
    assert client.get("/v1/batches").json()["data"] == []
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.errors) == (0, 1)


def test_a_batch_whose_answer_was_lost_is_found_and_not_begun_twice(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    for _ in range(3):  # newer ones, so that the search turns a page
        made(client)
    upstream.batches.lost = 1
    file = upload(client, lines(), "in.jsonl", purpose="batch").json()["id"]
    body = {"input_file_id": file, **ASKED}
    assert client.post("/v1/batches", json=body).status_code == 503
    again = client.post("/v1/batches", json=body)
    assert again.status_code == 200
    assert again.json()["status"] == "in_progress"
    assert upstream.batches.created == 4
    upstream.batches.lost = 1
    assert made(client).status_code == 503
    Clock.now += 61
    sweep(gateway)
    upstream.batches.run()
    Clock.now += 301
    sweep(gateway)
    assert sum(row.input for row in gateway.usage(key_of(client))) == 5 * 3000


def test_a_creation_that_never_arrived_is_given_up(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    upstream.batches.refused = [Status(502, "<html>")]
    assert made(client).status_code == 503
    (pending,) = client.get("/v1/batches").json()["data"]
    again = client.post("/v1/batches", json={"input_file_id": pending["input_file_id"], **ASKED})
    assert again.status_code == 409
    assert "being created" in again.json()["error"]["message"]
    for _ in range(4):
        Clock.now += 301
        sweep(gateway)
    failed = client.get(f"/v1/batches/{pending['id']}").json()
    assert failed["status"] == "failed"
    assert failed["errors"]["data"][0]["code"] == "unknown_batch"
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.errors) == (0, 1)


def test_a_token_that_is_out_gives_409_and_the_batch_goes_on(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    batch = made(client).json()
    out = Status(401, {"error": {"type": "invalid_authentication_error", "message": "no"}})
    upstream.batches.refused = [out, out]
    assert client.get(f"/v1/batches/{batch['id']}").status_code == 409
    assert client.get("/v1/batches").json()["data"][0]["status"] == "in_progress"  # as it was seen last
    upstream.batches.run()
    assert ended(client, gateway, batch["id"])["status"] == "completed"


@pytest.mark.parametrize("content", ["gone", "cut", "rubbish"])
def test_an_output_that_cannot_be_read_is_booked_by_its_counts_or_later(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream, content: str
) -> None:
    id = made(client).json()["id"]
    upstream.batches.run()
    (theirs,) = upstream.batches.batches.values()
    path = f"/v1/files/{theirs.output}/content"
    data = upstream.files.files[str(theirs.output)].data
    if content == "gone":
        upstream.at(path, Status(404, {"error": {"type": "resource_not_found_error", "message": "no"}}))
    elif content == "cut":
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        upstream.at(path, Raw(head, data[:100]))
    else:
        upstream.at(path, Status(200, "no JSON\n\n[1]\n" + data.decode().splitlines()[0]))
    client.get(f"/v1/batches/{id}")
    booked(gateway)
    if content == "cut":
        assert gateway.usage(key_of(client)) == []
        upstream.forget_at(path)
        ended(client, gateway, id)
    counted = {"gone": 0, "cut": 3000, "rubbish": 1000}[content]
    assert sum(row.input for row in gateway.usage(key_of(client))) == counted
    assert ended(client, gateway, id)["usage"]["input_tokens"] == counted


def test_one_account_runs_so_many_at_a_time(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    file = upload(client, lines(1), "in.jsonl", purpose="batch").json()["id"]
    body = {"input_file_id": file, **ASKED}
    answers = [client.post("/v1/batches", json=body).status_code for _ in range(51)]
    assert answers == [200] * 50 + [400]
    assert upstream.batches.created == 50


def test_without_the_setting_no_key_may(tmp_path: Any, upstream: ScriptedUpstream) -> None:
    with LiveGateway(tmp_path, upstream.url) as gateway, gateway.client(gateway.key(None)) as client:
        for method, path in ROUTES:
            answer = client.request(method, f"/v1/batches{path}")
            assert answer.status_code == 403
            assert "may not run batches" in answer.text

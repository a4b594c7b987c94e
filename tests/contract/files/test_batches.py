"""Batches on a socket: passed on for keys that may, and booked when they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kimi_gateway.endpoints.batches.saving import SAVED_EVERY
from kimi_gateway.endpoints.batches.tally import Tally
from kimi_gateway.providers.failures import UpstreamFailure
from support.batching import ASKED, Clock, booked, ended, key_of, made, sweep
from support.live import LiveGateway
from upstream import ScriptedUpstream
from upstream.batches import lines


@pytest.fixture
def gateway(batching: LiveGateway) -> LiveGateway:
    return batching


@pytest.fixture
def client(batching: LiveGateway, upstream: ScriptedUpstream) -> Iterator[httpx.Client]:
    with batching.client(batching.key(None)) as client:
        yield client


def test_a_batch_runs_and_its_results_are_files_of_the_account(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    answer = made(client, metadata={"job": "nightly"}, output_expires_after={"seconds": 1})
    batch = answer.json()
    assert answer.headers["x-param-ignored"] == "output_expires_after"
    assert batch["id"].startswith("batch_")
    assert batch["status"] == "in_progress"
    assert batch["metadata"] == {"job": "nightly"}
    assert batch["object"] == "batch"
    (theirs,) = upstream.batches.batches.values()
    assert "nightly" not in json.dumps(theirs.metadata)  # it stays here
    assert theirs.input == upstream.batches.files.files[theirs.input].id != batch["input_file_id"]

    upstream.batches.run(failures=1)
    done = ended(client, gateway, batch["id"])
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert done["model"] == "kimi-k2.6"
    for secret in (theirs.id, theirs.input, theirs.output, theirs.errors, "org-of-the-operator"):
        assert str(secret) not in json.dumps(done)
    output = client.get(f"/v1/files/{done['output_file_id']}")
    assert output.json()["filename"] == f"{batch['id']}_output.jsonl"
    assert output.json()["purpose"] == "batch_output"
    assert output.json()["status"] == "processed"
    text = client.get(f"/v1/files/{done['output_file_id']}/content").text
    assert [json.loads(line)["custom_id"] for line in text.splitlines()] == ["a1", "a2"]
    failed = client.get(f"/v1/files/{done['error_file_id']}/content").text
    assert json.loads(failed)["response"]["status_code"] == 400
    client.delete(f"/v1/files/{done['output_file_id']}")
    assert ended(client, gateway, batch["id"])["output_file_id"] == done["output_file_id"]
    assert client.get(f"/v1/files/{done['output_file_id']}").status_code == 404  # and does not come back


def test_its_cost_is_booked_once_whoever_sees_the_end(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    id = made(client).json()["id"]
    assert gateway.usage(key_of(client)) == []
    upstream.batches.run(prompt=1000, completion=100)
    for _ in range(3):
        client.get(f"/v1/batches/{id}")
        client.get("/v1/batches")
        sweep(gateway)
    (row,) = gateway.usage(key_of(client))
    assert (row.model, row.requests, row.errors) == ("kimi-k2.6", 1, 0)
    assert (row.input, row.output, row.credits) == (3000, 300, 0)
    (line,) = [line for line in gateway.lines("batch_ended") if line["batch"] == id]
    assert (line["input_tokens"], line["cached_tokens"], line["output_tokens"]) == (3000, 1500, 300)
    assert (row.cached, row.cost) == (1500, round(line["cost_usd"] * 1_000_000))
    full = 1500 * 0.95 + 1500 * 0.16 + 300 * 4.0  # kimi-k2.6 for a million tokens
    assert line["cost_usd"] == pytest.approx(full * 0.6 / 1_000_000)
    told = client.get(f"/v1/batches/{id}").json()["usage"]
    assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (3000, 300, 3300)
    assert told["input_tokens_details"] == {"cached_tokens": 1500}


def test_a_batch_that_nobody_asks_for_is_booked_by_the_heartbeat(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    made(client)
    upstream.batches.run()
    asked = len(upstream.requests)
    sweep(gateway)
    assert len(upstream.requests) == asked  # it is not due yet
    Clock.now += 301
    sweep(gateway)
    (row,) = gateway.usage(key_of(client))
    assert row.input == 3000
    Clock.now += 10_000
    asked = len(upstream.requests)
    sweep(gateway)
    assert len(upstream.requests) == asked  # it is over


def test_lists_page_and_show_what_happened_since(client: httpx.Client, upstream: ScriptedUpstream) -> None:
    ids = [made(client).json()["id"] for _ in range(3)]
    upstream.batches.run()
    first = client.get("/v1/batches", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == sorted(ids, reverse=True)[:2]
    assert [each["status"] for each in first["data"]] == ["completed", "completed"]
    assert first["has_more"]
    assert first["last_id"] == first["data"][-1]["id"]
    rest = client.get("/v1/batches", params={"after": first["last_id"]}).json()
    assert [each["id"] for each in rest["data"]] == sorted(ids)[:1]
    assert rest["has_more"] is False
    for limit in ("0", "101", "x", "1e1"):
        assert client.get("/v1/batches", params={"limit": limit}).status_code == 400


def test_a_cancelled_batch_is_charged_for_what_was_answered(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream
) -> None:
    id = made(client).json()["id"]
    assert client.post(f"/v1/batches/{id}/cancel").json()["status"] == "cancelling"
    twice = client.post(f"/v1/batches/{id}/cancel").json()["error"]["message"]
    assert id in twice
    assert not any(each in twice for each in upstream.batches.batches)
    upstream.batches.run()
    done = ended(client, gateway, id)
    assert (done["status"], done["usage"]["input_tokens"]) == ("cancelled", 1000)
    again = client.post(f"/v1/batches/{id}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["error"]["message"]
    (row,) = gateway.usage(key_of(client))
    assert (row.input, row.output) == (1000, 100)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (lines(model="kimi-k3"), "model"),
        (lines(1) + lines(1, "kimi-k2.7-code").replace(b"a0", b"b0"), "model"),
        (lines(1) * 2, "custom_id"),
        (lines(temperature=1), "temperature"),
    ],
    ids=["model", "models", "same-id", "sampling"],
)
def test_a_batch_that_fails_at_once_says_why_and_costs_nothing(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream, data: bytes, param: str
) -> None:
    batch = made(client, data).json()
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["param"] == param
    (theirs,) = upstream.batches.batches.values()
    assert theirs.input not in json.dumps(batch)
    assert "usage" in ended(client, gateway, batch["id"])
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.errors, row.input) == (0, 1, 0)


def test_another_account_sees_nothing_of_it(client: httpx.Client, gateway: LiveGateway) -> None:
    batch = made(client).json()
    with gateway.client(gateway.key(None)) as other:
        assert other.get("/v1/batches").json()["data"] == []
        assert other.get(f"/v1/batches/{batch['id']}").status_code == 404
        assert other.post(f"/v1/batches/{batch['id']}/cancel").status_code == 404
        stolen = other.post("/v1/batches", json={"input_file_id": batch["input_file_id"], **ASKED})
        assert stolen.status_code == 404
    assert client.get(f"/v1/batches/{batch['id']}").json()["status"] == "in_progress"


def test_an_output_that_no_process_reads_in_one_go_is_booked_exactly_and_once(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process reads two lines, and is gone. The platform sends the rest from the byte that is asked for,
    or everything."""
    assert gateway.app.running is not None
    files: Any = gateway.app.running.gateway.registry.directories["moonshot"].upstream().provider.files
    whole, starts = files.content, list[int]()

    @asynccontextmanager
    async def content(token: Any, id: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        starts.append(start)

        async def pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            data = b"".join([chunk async for chunk in chunks])
            for line in data.splitlines(keepends=True)[:2]:
                yield line[:-9]
                yield line[-9:]
                Clock.now += SAVED_EVERY
            if data.count(b"\n") > 2:
                raise UpstreamFailure("connect", "the process is gone")

        async with whole(token, id, start) as chunks:
            yield pieces(chunks)

    monkeypatch.setattr(files, "content", content)
    id = made(client, lines(5)).json()["id"]
    upstream.batches.run(prompt=100, completion=10)
    for _ in range(6):
        client.get(f"/v1/batches/{id}")
        booked(gateway)
    assert starts == sorted(set(starts))
    assert len(starts) == 4  # the second line of each reading was not noted any more
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.input, row.output) == (1, 500, 50)
    (line,) = [line for line in gateway.lines("batch_ended") if line["batch"] == id]
    assert line["answers"] == 5
    told = client.get(f"/v1/batches/{id}").json()
    assert told["usage"]["total_tokens"] == 550


def test_a_patient_sweep_takes_over_a_frozen_booking_and_reads_to_the_end(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the cloud: the function of a client's request was frozen while it read, another process has read
    further, and the platform knows no ranges."""
    assert gateway.app.running is not None
    running = gateway.app.running
    files: Any = running.gateway.registry.directories["moonshot"].upstream().provider.files
    following, whole, readings = running.endpoints.batches().following, files.content, 0

    @asynccontextmanager
    async def content(token: Any, id: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        nonlocal readings
        readings += 1
        frozen = readings == 1

        async def pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                for at, line in enumerate(chunk.splitlines(keepends=True)):
                    if at == 1:
                        await (asyncio.Event().wait() if frozen else another_reads_on())
                    Clock.now += SAVED_EVERY
                    yield line

        async with whole(token, id, start) as chunks:
            yield pieces(chunks)

    async def another_reads_on() -> None:
        store = following._store
        (record,) = [each for each in await store.due_batches(int(Clock.now), 100) if each.id == batch]
        await store.change_batch(record, replace(record, read=Tally(input=300, answers=3, at=2_000).text))

    monkeypatch.setattr(files, "content", content)
    batch = made(client, lines(5)).json()["id"]
    upstream.batches.run(prompt=100, completion=10)
    client.get(f"/v1/batches/{batch}")
    gateway.until(lambda: readings == 1)
    assert gateway.usage(key_of(client)) == []
    gateway.do(following.sweep(patient=True))
    booked(gateway)
    assert readings == 2
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.input, row.output) == (1, 500, 50)


@pytest.mark.parametrize("counted", [True, False], ids=["with counts", "without"])
def test_an_output_that_nobody_reads_to_its_end_is_booked_in_the_end(
    client: httpx.Client, gateway: LiveGateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch,
    counted: bool,
) -> None:  # fmt: skip
    """It takes longer than a process of the cloud has, and the platform knows no ranges: each try begins at
    the first byte and ends at the third line."""
    assert gateway.app.running is not None
    provider: Any = gateway.app.running.gateway.registry.directories["moonshot"].upstream().provider
    whole, tries = provider.files.content, 0

    @asynccontextmanager
    async def content(token: Any, id: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        nonlocal tries
        tries += 1

        async def pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            data, at = b"".join([chunk async for chunk in chunks]), 0
            for line in data.splitlines(keepends=True)[:3]:
                Clock.now += SAVED_EVERY
                yield line[max(0, start - at) :]
                at += len(line)
            raise UpstreamFailure("connect", "the process is gone")

        async with whole(token, id) as chunks:
            yield pieces(chunks)

    async def batch_of(token: Any, id: str) -> Any:
        told = await get(token, id)
        usage = {"input_tokens": 500, "output_tokens": 50, "cached_tokens": 0}
        return replace(told, told={**told.told, "usage": usage}) if counted and told.ended else told

    get = provider.batches.get
    monkeypatch.setattr(provider.files, "content", content)
    monkeypatch.setattr(provider.batches, "get", batch_of)
    id = made(client, lines(5)).json()["id"]
    upstream.batches.run(prompt=100, completion=10)
    for _ in range(3):
        ended(client, gateway, id)
        assert gateway.usage(key_of(client)) == []
        Clock.now += 86_000
    assert tries == 6
    Clock.now += 9_000
    ended(client, gateway, id)
    (row,) = gateway.usage(key_of(client))
    assert (row.requests, row.input, row.output) == ((1, 500, 50) if counted else (1, 300, 30))
    (line,) = [line for line in gateway.lines("batch_unread") if line["batch"] == id]
    assert line["answers"] == 3
    assert client.get(f"/v1/batches/{id}").json()["usage"]["total_tokens"] == (550 if counted else 330)

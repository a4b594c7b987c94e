"""The files and batches of a deleted account go at the platform too, soon and by themselves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.attaching import body, user
from support.batching import Clock, booked, key_of, made, sweep
from support.live import LiveGateway
from support.uploading import upload
from upstream import ScriptedUpstream, Status

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(4 * 2**20)  # above the size that goes into a request
BROKEN = Status(500, {"error": {"type": "server_error", "message": "no"}})


@pytest.fixture
def gateway(batching: LiveGateway) -> LiveGateway:
    return batching


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client(gateway.key(None)) as client:
        yield client


def filled(client: httpx.Client) -> str:
    """A kept file, a shared upload, and a batch with its input. Returns the id of the batch."""
    assert upload(client, b"Hello", purpose="file-extract").status_code == 200
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    assert client.post("/v1/chat/completions", json=body("chat", user("chat", part))).status_code == 200
    return str(made(client).json()["id"])


def deleted(gateway: LiveGateway, client: httpx.Client) -> None:
    assert gateway.app.running is not None
    store: Any = gateway.store
    gateway.do(store.delete_account(gateway.account(key_of(client)).id))


def swept(gateway: LiveGateway) -> Any:
    assert gateway.app.running is not None
    return gateway.do(gateway.app.running.attachments.cleaner.sweep())


def test_everything_of_the_account_is_deleted_at_the_platform_and_nothing_of_others(
    gateway: LiveGateway, client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    with gateway.client(gateway.key(None)) as other:
        filled(other)
        theirs = set(upstream.files.files)
        filled(client)
        assert len(upstream.files.files) == 2 * len(theirs) == 6
        deleted(gateway, client)
        sweep(gateway)
        (cancelled,) = [each for each in upstream.batches.batches.values() if each.status == "cancelling"]
        upstream.batches.run()  # what was answered before is in a file of its own
        upstream.files.refused["DELETE"] = [BROKEN] * 2
        assert (swept(gateway).deleted, swept(gateway).deleted) == (1, 0)  # the others are tried again
        Clock.now += 400
        assert swept(gateway).deleted == 2
        sweep(gateway)
        assert swept(gateway).deleted == 1
        assert cancelled.output not in upstream.files.files
        listed = other.get("/v1/batches").json()["data"]
        assert [each["status"] for each in listed] == ["completed"]
        booked(gateway)
        assert theirs <= set(upstream.files.files)
        assert len(upstream.files.files) == len(theirs) + 1  # with the output of theirs
        asked = len(upstream.requests)
        sweep(gateway)
        assert len(upstream.requests) == asked
    assert gateway.lines("batch_forgotten")


def test_a_batch_that_ended_before_its_account_is_forgotten(
    gateway: LiveGateway, client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    id = made(client).json()["id"]
    upstream.batches.run()
    client.get(f"/v1/batches/{id}")
    booked(gateway)
    deleted(gateway, client)
    swept(gateway)
    before = {batch.id for batch in upstream.batches.batches.values() if batch.input in upstream.files.files}
    assert not before
    asked = len(upstream.requests)
    sweep(gateway)
    assert len(upstream.requests) == asked


def test_a_batch_whose_creation_was_lost_is_found_and_cancelled(
    gateway: LiveGateway, client: httpx.Client, upstream: ScriptedUpstream
) -> None:
    upstream.batches.lost = 1
    assert made(client).status_code >= 500
    (theirs,) = [each for each in upstream.batches.batches.values() if each.status != "completed"][-1:]
    deleted(gateway, client)
    sweep(gateway)
    assert theirs.status == "cancelling"

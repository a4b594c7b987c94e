"""Batches of a gateway on a socket."""

from __future__ import annotations

from typing import Any

import httpx

from support.live import LiveGateway
from support.uploading import upload
from upstream.batches import lines

ASKED = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


class Clock:
    """The gateway's, which tests set forward."""

    now = 1_800_000_000.0


def made(client: httpx.Client, data: bytes | None = None, **more: Any) -> httpx.Response:
    file = upload(client, data or lines(), "in.jsonl", purpose="batch").json()["id"]
    return client.post("/v1/batches", json={"input_file_id": file, **ASKED, **more})


def key_of(client: httpx.Client) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


def booked(gateway: LiveGateway) -> None:
    """Wait until no booking runs."""
    assert gateway.app.running is not None
    background = gateway.app.running.gateway.background
    gateway.until(lambda: not background)


def sweep(gateway: LiveGateway) -> None:
    assert gateway.app.running is not None
    gateway.do(gateway.app.running.endpoints.batches().following.sweep())
    booked(gateway)


def ended(client: httpx.Client, gateway: LiveGateway, id: str) -> Any:
    """The batch when its cost was booked."""
    client.get(f"/v1/batches/{id}")
    booked(gateway)
    return client.get(f"/v1/batches/{id}").json()

"""Uploads of the Files API, good and bad, and what is left of them."""

from __future__ import annotations

from typing import Any

import httpx

from support.live import LiveGateway
from upstream import ScriptedUpstream

ANTHROPIC = {"anthropic-version": "2023-06-01"}
KIND = "multipart/form-data; boundary=xx"
PURPOSE = ("purpose", None, b"file-extract")


def upload(
    client: httpx.Client, data: bytes = b"Hello", name: str = "a.txt", path: str = "/v1/files", /, **more: Any
) -> httpx.Response:
    headers = more.pop("headers", {})
    if not headers:
        more = {"purpose": "file-extract", **more}
    return client.post(path, files={"file": (name, data)}, data=more, headers=headers)


def left(gateway: LiveGateway, upstream: ScriptedUpstream, client: httpx.Client) -> tuple[int, int]:
    """Files upstream, and records of the account."""
    assert gateway.app.running is not None
    key = client.headers["authorization"].removeprefix("Bearer ")
    store: Any = gateway.store
    account = gateway.account(key).id
    return len(upstream.files.files), len(gateway.do(store.files(account, int(gateway.clock()))))


def form(*parts: tuple[str, str | None, bytes], boundary: str = "xx", end: str = "--") -> bytes:
    body = b""
    for name, filename, data in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + f"--{boundary}{end}\r\n".encode()

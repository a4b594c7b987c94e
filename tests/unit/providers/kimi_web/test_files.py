"""Uploads to the web service: how long it may take to read a file, and where its bytes may go."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.kimi_web.files import AGAIN, READY_WITHIN, WebFiles, check_address
from kimi_gateway.providers.kimi_web.prompt import Medium
from kimi_gateway.providers.provider import Token
from upstream import ScriptedUpstream, Status

pytestmark = pytest.mark.anyio
DOCUMENT = Medium("data:application/pdf;base64,JVBERi0x", "a.pdf", False)


class Slow:
    """A service that takes uploads and never gets ready, and a clock that sleeping moves."""

    def __init__(self, url: str, file: dict[str, Any], progress: dict[str, Any]) -> None:
        self.now, self.asked = 0.0, list[str]()
        self.answers = {
            "/api/pre-sign-url": {"url": f"{url}/put", "object_name": "o", "file_id": "f"},
            "/api/file": file,
        }
        self.progress = progress

    async def ask(self, path: str, token: Token, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        return self.answers.get(path, self.progress)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


READ: dict[str, Any] = {"status": "initialized", "id": "x"}
CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"status": "pending"}, {}, "timeout"),
    ({}, {}, "timeout"),
    (READ, {"progresses": [{"status": "PROCESS_STATUS_RUNNING"}]}, "timeout"),
    (READ, {"progresses": "wrong"}, "timeout"),
    (READ, {"progresses": [{"status": "PROCESS_STATUS_FAILED"}]}, "invalid"),
    ({"status": "failed"}, {}, "invalid"),
]


@pytest.mark.parametrize(("file", "progress", "cause"), CASES)
async def test_a_file_that_is_never_ready_is_given_up_and_looked_at_with_pauses(
    file: dict[str, Any], progress: dict[str, Any], cause: str
) -> None:
    with ScriptedUpstream() as up:
        up.at("/put", Status(200, ""))
        address, client = f"http://127.0.0.1:{up.port}", Http1Client()
        slow = Slow(address, file, progress)
        files = WebFiles(slow.ask, client, address, slow.sleep, lambda: slow.now)
        with pytest.raises(UpstreamFailure) as failed:
            await files.upload(Token.of("t"), DOCUMENT)
        await client.close()
    assert failed.value.cause == cause
    assert len(slow.asked) <= READY_WITHIN / AGAIN + 3


PRIVATE = ["https://10.0.0.1/x", "https://[::1]/x", "https://0x7f.1/x", "https://localhost/x"]


@pytest.mark.parametrize("url", [*PRIVATE, "http://203.0.114.1/x", "", "x"])
async def test_bytes_go_to_the_public_internet_only(url: str) -> None:
    with pytest.raises(UpstreamFailure):
        await check_address(url, "https://www.kimi.com")


async def test_the_services_own_address_is_good() -> None:
    await check_address("http://127.0.0.1:8000/put?a=1", "http://127.0.0.1:8000")
    with pytest.raises(UpstreamFailure):
        await check_address("http://127.0.0.1:8001/put", "http://127.0.0.1:8000")

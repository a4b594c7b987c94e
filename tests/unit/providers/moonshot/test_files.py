"""Files on the platform: streamed there, read back, deleted, whatever the platform answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.moonshot import files
from kimi_gateway.providers.moonshot.files import MoonshotFiles, quoted
from kimi_gateway.providers.provider import Token
from upstream import Cut, Delay, ScriptedUpstream, Status
from upstream.files import File

T = TypeVar("T")
A, B = Token.of("sk-upstream-files-a"), Token.of("sk-upstream-files-b")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def run(up: ScriptedUpstream, ask: Callable[[MoonshotFiles], Awaitable[T]]) -> T:
    async def main() -> T:
        client = Http1Client()
        provider = MoonshotFiles(client, up.url, 5)
        try:
            return await ask(provider)
        finally:
            await client.close()

    return asyncio.run(main())


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def upload(
    *chunks: bytes, name: str = "a.txt", purpose: Any = "file-extract", size: int | None = None
) -> Callable[[MoonshotFiles], Awaitable[Any]]:
    return lambda provider: provider.upload(A, name, purpose, pieces(*chunks), size)


@pytest.mark.parametrize("size", [None, 8])
def test_a_file_is_uploaded_read_and_deleted(up: ScriptedUpstream, size: int | None) -> None:
    async def life(provider: MoonshotFiles) -> None:
        file = await provider.upload(A, "a.txt", "file-extract", pieces(b"One ", b"two."), size)
        assert (file.size, file.filename, file.purpose, file.failed) == (8, "a.txt", "file-extract", False)
        assert await provider.text(A, file.id) == "One two."
        assert await provider.info(A, file.id) == file
        assert await provider.all(A) == [file]
        assert await provider.all(B) == []
        assert await provider.info(B, file.id) is None
        assert not await provider.delete(B, file.id)
        assert await provider.delete(A, file.id)
        assert not await provider.delete(A, file.id)

    run(up, life)
    (sent,) = [each for each in up.requests if each.method == "POST"]
    assert ("content-length" in sent.headers) == (size is not None)
    assert ("transfer-encoding" in sent.headers) == (size is None)


def test_pieces_go_up_as_they_come(up: ScriptedUpstream) -> None:
    """The second piece is made only when the platform has the first."""
    seen: list[int] = []

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        arrived = lambda: any(len(connection.buffer) >= 100_000 for connection in up.connections)  # noqa: E731
        await asyncio.to_thread(up.until, arrived)
        seen.append(1)
        yield b"y"

    run(up, lambda provider: provider.upload(A, "a.txt", "file-extract", slow(), 100_001))
    assert seen == [1]
    (file,) = up.files.files.values()
    assert len(file.data) == 100_001


def test_the_beta_form_is_understood(up: ScriptedUpstream) -> None:
    up.files.beta = True
    file = run(up, upload(b"text"))
    assert (file.size, file.failed) == (4, False)


def test_a_file_that_the_platform_cannot_read_is_failed(up: ScriptedUpstream) -> None:
    up.at("/v1/files", Status(200, {"id": "file_1", "status": "error", "status_details": "broken"}))
    file = run(up, upload(b"text"))
    assert (file.failed, file.detail) == (True, "broken")


def test_a_name_of_two_files_is_renamed_by_the_platform(up: ScriptedUpstream) -> None:
    async def twice(provider: MoonshotFiles) -> list[str]:
        return [(await provider.upload(A, "a.txt", "file-extract", pieces(b"x"))).filename for _ in range(2)]

    first, second = run(up, twice)
    assert first == "a.txt" != second


@pytest.mark.parametrize(
    "name",
    ['a".txt', "a\r\nx: y.txt", "报告.pdf", "a\x00.txt", "", "x" * 5_000, "\ud800", 'a"; name="purpose'],
)
def test_no_name_breaks_out_of_its_part(up: ScriptedUpstream, name: str) -> None:
    run(up, upload(b"text", name=name))
    (file,) = up.files.files.values()
    assert (file.sent_as, file.data, file.purpose) == (quoted(name), b"text", "file-extract")


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (
            Status(400, {"error": {"type": "invalid_request_error", "message": "File size is zero"}}),
            "invalid",
        ),
        (Status(401, {"error": {"type": "invalid_authentication_error", "message": "x"}}), "authentication"),
        (Status(429, {"error": {"type": "rate_limit_reached_error", "message": "x"}}), "rate"),
        (Status(500, "<html>"), "server"),
        (Status(200, "<html>"), "broken"),
        (Status(200, "[]"), "broken"),
        (Status(200, {"id": 7}), "broken"),
        (Status(200, {"id": "x" * 300}), "broken"),
        (Status(201, {"id": "a\nb"}), "broken"),
    ],
)
def test_a_refused_upload_has_its_cause(up: ScriptedUpstream, step: Status, cause: str) -> None:
    up.at("/v1/files", step)
    with pytest.raises(UpstreamFailure) as failed:
        run(up, upload(b"text"))
    assert failed.value.cause == cause
    assert A.secret not in str(failed.value)


def test_what_the_source_raises_breaks_the_upload_off(up: ScriptedUpstream) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("the source")

    with pytest.raises(ValueError, match="the source"):
        run(up, lambda provider: provider.upload(A, "a.txt", "file-extract", broken()))
    assert up.files.files == {}


def test_an_upload_that_is_cancelled_closes_its_connection_and_source(up: ScriptedUpstream) -> None:
    closed: list[int] = []

    async def cancelled(provider: MoonshotFiles) -> None:
        waits = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            try:
                yield b"x"
                waits.set()
                await asyncio.sleep(3600)
            finally:
                closed.append(1)

        task = asyncio.create_task(provider.upload(A, "a.txt", "file-extract", endless()))
        await waits.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(up.until, lambda: not up.connections)

    run(up, cancelled)
    assert closed == [1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"content": "Words.", "type": "file"}', "Words."),
        ('{"content": ""}', ""),
        ('{"other": 1}', '{"other": 1}'),
        ("plain words", "plain words"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_the_text_of_a_document_is_found_in_either_form(
    up: ScriptedUpstream, content: bytes | str, text: str
) -> None:
    up.at("/v1/files/f1/content", Status(200, content))
    assert run(up, lambda provider: provider.text(A, "f1")) == text


def test_a_text_without_end_is_refused(up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_TEXT", 1_000)
    up.at("/v1/files/f1/content", Status(200, "x" * 5_000))
    with pytest.raises(UpstreamFailure, match="size limit"):
        run(up, lambda provider: provider.text(A, "f1"))


def test_content_comes_as_it_is_and_a_refusal_is_a_failure(up: ScriptedUpstream) -> None:
    async def read(provider: MoonshotFiles, id: str) -> bytes:
        async with provider.content(A, id) as chunks:
            return b"".join([chunk async for chunk in chunks])

    file = run(up, upload(b"text"))
    assert json.loads(run(up, lambda provider: read(provider, file.id)))["content"] == "text"
    with pytest.raises(UpstreamFailure):
        run(up, lambda provider: read(provider, "file_none"))
    up.at(f"/v1/files/{file.id}/content", Cut(3, Status(200, "text and more")))
    with pytest.raises(UpstreamFailure):
        run(up, lambda provider: read(provider, file.id))


def test_an_id_cannot_name_another_path(up: ScriptedUpstream) -> None:
    run(up, lambda provider: provider.delete(A, "../users/me?x#"))
    assert [each.path for each in up.requests] == ["/v1/files/..%2Fusers%2Fme%3Fx%23"]


def test_a_delete_that_the_platform_fails_is_a_failure(up: ScriptedUpstream) -> None:
    up.files.refused["DELETE"] = [Status(500, "")]
    with pytest.raises(UpstreamFailure):
        run(up, lambda provider: provider.delete(A, "file_1"))
    up.files.files["f"] = File("f", A.secret, "a", "a", "image", b"x")
    assert run(up, lambda provider: provider.delete(A, "f"))


def test_no_answer_in_time_is_a_time_out(up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    up.at("/v1/files", Delay(60, Status(200, {"id": "x"})))
    with pytest.raises(UpstreamFailure) as failed:
        run(up, upload(b"text"))
    assert failed.value.cause == "timeout"

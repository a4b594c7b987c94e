"""What a request attaches becomes texts and addresses, through the provider's files or without them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest

from kimi_gateway.errors import (
    BodyTooLarge,
    GatewayError,
    InvalidRequest,
    NotFound,
    UnreadableImage,
)
from kimi_gateway.files.parts import HELD
from kimi_gateway.net.fetch.fetcher import NOT_FETCHED
from kimi_gateway.pivot.attachments import DocumentText, FileId, Inline, MediaUrl, PlainText, Unreadable
from support.fetching import port_of
from support.hostile_urls import SPELLINGS
from support.raw_server import RawServer
from support.resolving import FIELD, LARGE, MP4, PNG, SMALL, A, B, at, attached, docx, inline, pdf, resolving
from upstream import ScriptedUpstream, Status

pytestmark = pytest.mark.anyio


def answer(data: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data), data]


@pytest.mark.parametrize(
    ("data", "text", "sent"),
    [
        (pdf("One."), "One.", ".pdf"),
        (docx("Two."), "Two.", ".docx"),
        (b"<!DOCTYPE html><p>Three.</p>", "<!DOCTYPE html><p>Three.</p>", ".html"),
    ],
)
async def test_a_document_is_uploaded_read_and_deleted_before_the_turn_runs(
    up: ScriptedUpstream, data: bytes, text: str, sent: str
) -> None:
    async with resolving(up) as made:
        async with made.resolver.resolve("acc_a", [inline(data, "document", filename="my.file")]) as found:
            assert found.results == [DocumentText("my.file", text)]
            assert found.token is None
            await made.cleaner.rest(10)
            assert await made.left() == (0, 0)
        assert (up.files.uploads, up.files.deletions) == (1, 1)
        assert (made.cleaner.uploads, made.cleaner.deletions) == (1, 1)
        body = next(request.raw for request in up.requests if request.method == "POST")
        assert b'filename="file-' in body
        assert sent.encode() + b'"' in body
        assert b"my.file" not in body


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"Plain text.", "Plain text."),
        ("Grüße, 你好".encode(), "Grüße, 你好"),
        ("Grüße".encode("utf-16"), "Grüße"),
        ("你好，世界".encode("gb18030"), "你好，世界"),
        (b"\xef\xbb\xbfWith a mark", "With a mark"),
        (b'{"a": 1}', '{"a": 1}'),
    ],
)
async def test_a_text_needs_no_upload(up: ScriptedUpstream, data: bytes, text: str) -> None:
    async with resolving(up) as made:
        assert await made.one(inline(data)) == DocumentText(None, text)
        assert await made.one(attached(PlainText(text), filename="t")) == DocumentText("t", text)
    assert up.requests == []


@pytest.mark.parametrize("size", [0, HELD + 5])
@pytest.mark.parametrize("way", ["bytes", "address"])
async def test_a_text_is_extracted_once_for_an_account_within_its_time(
    up: ScriptedUpstream, size: int, way: str
) -> None:
    data = pdf("Once.", size)
    async with RawServer([answer(data)]) as server, resolving(up, ports=[port_of(server)]) as made:
        document = inline(data) if way == "bytes" else at(f"http://a.example:{port_of(server)}/d/a%20b.pdf")
        name = None if way == "bytes" else "a b.pdf"
        for _ in range(3):
            assert await made.one(document) == DocumentText(name, "Once.")
        assert up.files.uploads == 1
        assert await made.one(document, "acc_b") == DocumentText(name, "Once.")
        assert up.files.uploads == 2
        made.time += made.bounds.keep
        assert await made.one(document) == DocumentText(name, "Once.")
        assert up.files.uploads == 3
        assert await made.left() == (0, 0)


async def test_a_small_picture_goes_into_the_request(up: ScriptedUpstream) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    async with RawServer([answer(PNG)]) as server, resolving(up, ports=[port_of(server)]) as made:
        assert await made.one(inline(PNG, "image", media_type="image/jpeg")) == MediaUrl(url)
        assert await made.one(at(f"http://a.example:{port_of(server)}/x")) == MediaUrl(url)
    assert up.requests == []


async def test_large_pictures_and_videos_live_as_long_as_the_turn_in_one_account(
    up: ScriptedUpstream,
) -> None:
    async with resolving(up, bounds=SMALL, tokens=(A, B)) as made:
        wanted = [inline(LARGE, "image"), inline(MP4, "video"), inline(LARGE, "image")]
        async with made.resolver.resolve("acc_a", wanted) as found:
            assert [each.kind for each in found.results] == ["image", "video", "image"]  # type: ignore[union-attr]
            assert found.results[0] == found.results[2]
            ids = {each.url.removeprefix("ms://") for each in found.results}  # type: ignore[union-attr]
            assert ids == set(up.files.files)
            assert {file.purpose for file in up.files.files.values()} == {"image", "video"}
            token = next(token for token in (A, B) if token.id == found.token)
            assert {file.token for file in up.files.files.values()} == {token.secret}
            made.time += 600
            await made.cleaner.renew()
            made.time += 600
            assert (await made.cleaner.sweep()).deleted == 0
        await made.cleaner.rest(10)
        assert await made.left() == (0, 0)
        assert made.cleaner.uploads == made.cleaner.deletions == 2


@pytest.mark.parametrize(
    ("attachment", "kind", "words"),
    [
        (attached(Inline("%%%%"), "image"), UnreadableImage, "valid base64"),
        (attached(Inline("YWJj$$$$"), "document"), InvalidRequest, "valid base64"),
        (inline(b""), InvalidRequest, "empty"),
        (inline(bytes(100)), InvalidRequest, "application/octet-stream"),
        (inline(b"PK\x05\x06" + bytes(18), "document"), InvalidRequest, "application/zip"),
        (inline(PNG, "document"), InvalidRequest, "send it as a picture"),
        (inline(PNG, "video"), InvalidRequest, "not a video"),
        (inline(pdf(), "image"), UnreadableImage, "application/pdf, not a picture"),
        (inline(b"II*\x00" + bytes(90), "image"), UnreadableImage, "image/tiff is not supported"),
        (inline(pdf("", 30), "document"), InvalidRequest, "pictures"),
        (inline(pdf(size=20_001)), BodyTooLarge, "20000 bytes"),
        (inline(b"a" * 5_001), BodyTooLarge, "5000 bytes"),
        (attached(FileId("file-nobody's")), NotFound, "no file"),
    ],
)
async def test_what_cannot_be_read_names_its_field_and_leaves_nothing(
    up: ScriptedUpstream, attachment: Any, kind: type[GatewayError], words: str
) -> None:
    async with resolving(up, bounds=SMALL) as made:
        with pytest.raises(kind) as refused:
            await made.one(attachment)
        assert refused.value.param == FIELD
        assert refused.value.message.startswith(f"{FIELD}: ")
        assert words in refused.value.message
        assert await made.left() == (0, 0)


async def test_more_attachments_than_are_allowed_are_refused_at_the_first_one_too_many(
    up: ScriptedUpstream,
) -> None:
    async with resolving(up, bounds=SMALL) as made:
        many = [inline(PNG, field=f"input.{number}") for number in range(200)]
        with pytest.raises(InvalidRequest, match=r"input\.3: .* at most 3 attachments.* 200"):
            async with made.resolver.resolve("acc_a", many):
                pass


async def test_a_sentence_stands_for_what_a_history_cannot_lose(up: ScriptedUpstream) -> None:
    async with resolving(up, bounds=SMALL) as made:
        for wrong in (inline(bytes(100), told=True), attached(FileId("file-x"), told=True)):
            assert isinstance(await made.one(wrong), Unreadable)


@pytest.mark.parametrize("status", [404, 500, 302])
async def test_an_address_that_gives_nothing_tells_its_status_at_most(
    up: ScriptedUpstream, status: int
) -> None:
    head = b"HTTP/1.1 %d No\r\ncontent-length: 6\r\nlocation: http://10.0.0.1/\r\n\r\nsecret" % status
    async with RawServer([[head]]) as server, resolving(up, ports=[port_of(server)]) as made:
        with pytest.raises(InvalidRequest) as refused:
            await made.one(at(f"http://a.example:{port_of(server)}/?key=value"))
        assert refused.value.message.startswith(f"{FIELD}: The address could not be fetched. ")
        assert "secret" not in refused.value.message
        assert "10.0.0.1" not in refused.value.message
    assert up.requests == []


async def test_an_address_that_breaks_off_in_the_middle_of_its_upload_leaves_nothing(
    up: ScriptedUpstream,
) -> None:
    head, data = answer(pdf(size=3 * HELD))
    async with (
        RawServer([[head + data[: 2 * HELD]]]) as server,
        resolving(up, ports=[port_of(server)]) as made,
    ):
        with pytest.raises(InvalidRequest) as refused:
            await made.one(at(f"http://a.example:{port_of(server)}/"))
        assert refused.value.message == f"{FIELD}: {NOT_FETCHED}"
        assert await made.left() == (0, 0)


@pytest.mark.parametrize("length", [True, False])
async def test_an_address_with_too_much_is_413(up: ScriptedUpstream, length: bool) -> None:
    head, data = answer(pdf(size=30_000))
    head = head if length else b"HTTP/1.1 200 OK\r\n\r\n"
    async with (
        RawServer([[head + data]]) as server,
        resolving(up, ports=[port_of(server)], bounds=SMALL) as made,
    ):
        with pytest.raises(BodyTooLarge, match="larger than 20000 bytes"):
            await made.one(at(f"http://a.example:{port_of(server)}/"))
        assert await made.left() == (0, 0)


async def test_no_hostile_address_is_connected_to(up: ScriptedUpstream) -> None:
    async with RawServer([answer(PNG)]) as canary, resolving(up) as made:
        for kind in ("image", "video", "document", "any"):
            for spelling in SPELLINGS:
                url = spelling.replace("PORT", str(port_of(canary)))
                with pytest.raises(InvalidRequest) as refused:
                    await made.one(at(url, kind))  # type: ignore[arg-type]
                assert refused.value.message.startswith(f"{FIELD}: The address could not be fetched. ")
        assert canary.accepted == 0
    assert up.requests == []


async def test_a_token_that_is_refused_gives_way_and_an_address_is_read_anew(up: ScriptedUpstream) -> None:
    data = pdf("Anew.", HELD)
    refusal = Status(401, {"error": {"type": "invalid_authentication_error", "message": "Invalid"}})
    async with (
        RawServer([answer(data)]) as server,
        resolving(up, ports=[port_of(server)], tokens=(A, B)) as made,
    ):
        up.files.refused["POST"] = [refusal]
        found = await made.one(at(f"http://a.example:{port_of(server)}/a.pdf"))
        assert found == DocumentText("a.pdf", "Anew.")
        assert server.accepted == 2
        used = {request.token for request in up.requests if request.method == "POST"}
        assert used == {A.secret, B.secret}
        assert await made.left() == (0, 0)


async def test_the_vendors_refusal_of_a_file_is_the_clients_with_its_words(up: ScriptedUpstream) -> None:
    words = {"error": {"message": "This file is encrypted", "type": "invalid_request_error"}}
    up.files.refused["POST"] = [Status(400, words)]
    async with resolving(up) as made:
        with pytest.raises(InvalidRequest, match=rf"{FIELD}: This file is encrypted"):
            await made.one(inline(pdf()))
        assert await made.left() == (0, 0)


async def test_one_error_ends_the_other_attachments_of_the_request(up: ScriptedUpstream) -> None:
    async with (
        RawServer([[b"HTTP/1.1 200 OK\r\n\r\n", RawServer.KEEP]]) as server,
        resolving(up, ports=[port_of(server)]) as made,
    ):
        slow = at(f"http://a.example:{port_of(server)}/")
        wrong = inline(b"", field="messages.0.content.2")
        with pytest.raises(InvalidRequest, match=r"content\.2"):
            async with made.resolver.resolve("acc_a", [slow, wrong]):
                pass
        assert [task for task in asyncio.all_tasks() if "placed" in str(task.get_coro())] == []


async def test_an_upload_begins_while_its_address_is_still_read(up: ScriptedUpstream) -> None:
    """The server sends the rest only once the provider has bytes of the upload."""

    async def gated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begin = MP4 + bytes(HELD)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(begin) + 4) + begin)
        await until(lambda: any(len(each.buffer) >= HELD // 2 for each in up.connections))
        writer.write(b"last")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(gated, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    video = at(f"http://a.example:{port}/v.mp4", "video")
    async with server, resolving(up, ports=[port]) as made, made.resolver.resolve("acc_a", [video]):
        (file,) = up.files.files.values()
        assert file.data.endswith(b"last")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)

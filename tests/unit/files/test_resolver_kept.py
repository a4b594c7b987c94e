"""Files that an account keeps, as attachments; and a provider that keeps none."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kimi_gateway.accounts.files import FileRecord, Room
from kimi_gateway.errors import (
    BodyTooLarge,
    Conflict,
    InvalidRequest,
    NotFound,
    UnreadableImage,
)
from kimi_gateway.files import texts
from kimi_gateway.pivot.attachments import DocumentText, FileId, MediaUrl
from kimi_gateway.providers.demo import Demo
from support.resolving import (
    FIELD,
    LARGE,
    MP4,
    NOW,
    PNG,
    SMALL,
    A,
    B,
    at,
    attached,
    docx,
    inline,
    pdf,
    resolving,
)
from support.web import Web
from upstream import ScriptedUpstream

pytestmark = pytest.mark.anyio


async def kept(made: Any, data: bytes, token: Any, media_type: str, number: int = 1) -> FileRecord:
    async def chunks() -> Any:
        yield data

    purpose = "image" if media_type.startswith("image/") else "file-extract"
    file = await made.moonshot.files.upload(token, "kept", purpose, chunks(), len(data))
    record = FileRecord(
        f"file-{number}", "acc_a", token.id, "kept", NOW, state="ready", upstream=file.id, filename="k.pdf",
        size=len(data), media_type=media_type,
    )  # fmt: skip
    await made.store.add_file(record, Room())
    return record


async def test_a_kept_document_is_read_where_it_is_and_stays(up: ScriptedUpstream) -> None:
    async with resolving(up, tokens=(A, B)) as made:
        record = await kept(made, pdf("Kept."), B, "application/pdf")
        for _ in range(2):
            assert await made.one(attached(FileId(record.id), "document")) == DocumentText("k.pdf", "Kept.")
        contents = [request for request in up.requests if request.path.endswith("/content")]
        assert [request.token for request in contents] == [B.secret]
        with pytest.raises(NotFound):
            await made.one(attached(FileId(record.id)), "acc_b")
        with pytest.raises(UnreadableImage, match="application/pdf, not a picture"):
            await made.one(attached(FileId(record.id), "image"))
        assert len(up.files.files) == 1


async def test_kept_pictures_bind_the_turn_to_their_token(up: ScriptedUpstream) -> None:
    async with resolving(up, tokens=(A, B), bounds=SMALL) as made:
        one, other = await kept(made, PNG, A, "image/png"), await kept(made, PNG, B, "image/png", 2)
        for record in (one, other):
            both = [attached(FileId(record.id), "image"), inline(LARGE, "image")]
            async with made.resolver.resolve("acc_a", both) as found:
                assert found.token == record.token
                assert found.results[0] == MediaUrl(f"ms://{record.upstream}")
                assert len({file.token for file in up.files.files.values()}) == 2
            await made.cleaner.rest(10)
        with pytest.raises(Conflict, match="different accounts"):
            async with made.resolver.resolve(
                "acc_a", [attached(FileId(each.id), "image") for each in (one, other)]
            ):
                pass
        made.tokens = (B,)
        with pytest.raises(Conflict, match=f"{FIELD}: .* upload it again"):
            await made.one(attached(FileId(one.id), "image"))
        assert len(up.files.files) == 2


async def test_a_provider_without_files_gets_small_pictures_texts_and_pdfs_read_here(
    up: ScriptedUpstream,
) -> None:
    with Web(large_png=LARGE, a_mp4=MP4) as web:
        port = int(web.target.rpartition(":")[2])
        async with resolving(up, provider=Demo(), bounds=SMALL, ports=[port]) as made:
            there = f"http://a.example:{port}"
            with pytest.raises(BodyTooLarge):
                await made.one(at(f"{there}/large.png", "image"))
            with pytest.raises(InvalidRequest, match="takes no files"):
                await made.one(at(f"{there}/a.mp4"))
    async with resolving(up, provider=Demo(), bounds=SMALL) as made:
        assert isinstance(await made.one(inline(PNG)), MediaUrl)
        assert await made.one(inline(b"text")) == DocumentText(None, "text")
        for data, kind, media_type in ((LARGE, "image", "image/png"), (MP4, "video", "video/mp4")):
            url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
            assert await made.one(inline(data)) == MediaUrl(url, "image" if kind == "image" else "video")
        with pytest.raises(InvalidRequest, match="reads no documents of type"):
            await made.one(inline(docx("a")))
        with pytest.raises(InvalidRequest, match="no text"):
            await made.one(inline(blank_pdf(), "document"))
        with pytest.raises(InvalidRequest, match="cannot be read"):
            await made.one(inline(pdf(), "document"))
    assert up.requests == []


def blank_pdf() -> bytes:
    import io

    from pypdf import PdfWriter

    writer, written = PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.write(written)
    return written.getvalue()


def worded_pdf(*pages: str) -> bytes:
    """A whole PDF whose pages show these words, as a program would write it."""
    import io

    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer, written = PdfWriter(), io.BytesIO()
    names = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(name): NameObject(value) for name, value in names.items()})
    for words in pages:
        page = writer.add_blank_page(300, 100)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        shown = DecodedStreamObject()
        shown.set_data(f"BT /F1 12 Tf 10 50 Td ({words}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(shown)
    writer.write(written)
    return written.getvalue()


async def test_the_words_of_a_real_pdf_are_read_here_and_no_page_is_lost(up: ScriptedUpstream) -> None:
    data = worded_pdf("The first page.", "The second page.")
    async with resolving(up, local=True) as made:
        found = await made.one(inline(data, "document", filename="two.pdf"))
        assert found == DocumentText("two.pdf", "The first page.\n\nThe second page.")
        assert await made.one(inline(data, "document", filename="two.pdf")) == found
        with pytest.raises(InvalidRequest, match=f"{FIELD}: the document cannot be read"):
            await made.one(inline(data[: len(data) // 8], "document"))
    assert up.requests == []


@pytest.mark.parametrize(
    ("name", "most"), [("MOST_CHARACTERS", 20), ("MOST_SECONDS", -1.0), ("MOST_PAGES", 1)]
)
async def test_the_reading_of_a_pdf_is_bounded(
    up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, name: str, most: float
) -> None:
    monkeypatch.setattr(texts, name, most)
    async with resolving(up, local=True) as made:
        with pytest.raises(InvalidRequest, match=f"{FIELD}: the document (has|takes) more than"):
            await made.one(inline(worded_pdf("The first page.", "The second page."), "document"))


@pytest.mark.parametrize(("purpose", "declared"), [("image", "text/plain"), ("file-extract", "image/png")])
async def test_what_a_file_was_uploaded_as_decides_and_not_the_clients_type(
    up: ScriptedUpstream, purpose: Any, declared: str
) -> None:
    async with resolving(up) as made:

        async def chunks() -> Any:
            yield PNG if purpose == "image" else pdf("Its words.")

        file = await made.moonshot.files.upload(A, "kept", purpose, chunks())
        record = FileRecord(
            "file-1", "acc_a", A.id, "kept", NOW, state="ready", upstream=file.id, media_type=declared,
            uploaded_as=purpose,
        )  # fmt: skip
        await made.store.add_file(record, Room())
        good, wrong = ("image", "document") if purpose == "image" else ("document", "image")
        used = MediaUrl(f"ms://{file.id}") if purpose == "image" else DocumentText(None, "Its words.")
        for kind in (good, "any"):
            assert await made.one(attached(FileId(record.id), kind)) == used
        needed = "file-extract" if wrong == "document" else "image"
        with pytest.raises(InvalidRequest, match=f"{FIELD}: .* upload it with the purpose {needed}"):
            await made.one(attached(FileId(record.id), wrong))

"""Multipart forms, however the network cuts them, against the standard library's reading of them."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.endpoints.files.form import HELD, Form, media_type, named
from kimi_gateway.errors import BodyTooLarge, InvalidRequest
from kimi_gateway.providers.files import MOST_BYTES
from support.examples import examples

KIND = "multipart/form-data; boundary=xx"


async def pieces(body: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in body:
        yield piece


async def read(body: Iterable[bytes], kind: str = KIND) -> tuple[Form, bytes]:
    async with aclosing(pieces(body)) as coming:
        form = Form(kind, coming)
        await form.start()
        async with aclosing(form.chunks()) as chunks:
            return form, b"".join([chunk async for chunk in chunks])


def part(name: str, data: bytes, filename: str | None = None, kind: str = "") -> bytes:
    given = f'; filename="{filename}"' if filename is not None else ""
    typed = f"\r\nContent-Type: {kind}" if kind else ""
    return (
        f'--xx\r\nContent-Disposition: form-data; name="{name}"{given}{typed}\r\n\r\n'.encode()
        + data
        + b"\r\n"
    )


@settings(max_examples=examples(100))
@given(data=st.binary(min_size=1, max_size=300) | st.just(b"\r\n--x\r\n--xy\r\n-"), cut=st.integers(1, 40))
def test_a_file_comes_out_as_it_went_in_however_it_is_cut(data: bytes, cut: int) -> None:
    body = part("purpose", b"user_data") + part("file", data, "a b.txt", "text/x-log") + b"--xx--\r\n"
    if b"\r\n--xx" in data:
        return
    form, found = asyncio.run(read([body[at : at + cut] for at in range(0, len(body), cut)]))
    theirs = email.message_from_bytes(
        b"content-type: " + KIND.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP
    )
    (file,) = [each for each in theirs.iter_parts() if each.get_filename()]
    assert (found, form.size, form.fields) == (data, len(data), {"purpose": "user_data"})
    assert (form.filename, form.type) == (file.get_filename(), file.get_content_type())


@settings(max_examples=examples(200))
@given(body=st.binary(max_size=200), rest=st.binary(max_size=200))
def test_no_body_breaks_the_parser(body: bytes, rest: bytes) -> None:
    for form in (body, part("file", body, "a") + rest, b"--xx\r\n" + body + b"--xx--"):
        with suppress(InvalidRequest):
            asyncio.run(read([form]))


def test_little_of_a_large_file_is_held_before_its_upload_begins() -> None:
    taken = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        yield part("file", b"", "a")[:-2]
        while True:
            taken += 4096
            yield b"x" * 4096

    async def start() -> Form:
        async with aclosing(endless()) as coming:
            form = Form(KIND, coming)
            await form.start()
            return form

    form = asyncio.run(start())
    assert taken <= HELD + 4096
    assert form.whole is None


def test_a_file_may_have_the_platforms_size_and_no_byte_more() -> None:
    def body(size: int) -> Iterable[bytes]:
        yield part("file", b"", "a")[:-2]
        for _ in range(size // 2**20):
            yield b"x" * 2**20
        yield b"x" * (size % 2**20) + b"\r\n--xx--\r\n"

    async def size(given: int) -> int:
        async with aclosing(pieces(body(given))) as coming:
            form = Form(KIND, coming)
            await form.start()
            return sum([len(chunk) async for chunk in form.chunks()])

    assert asyncio.run(size(MOST_BYTES)) == MOST_BYTES
    with pytest.raises(BodyTooLarge, match="max file size is 100MB"):
        asyncio.run(size(MOST_BYTES + 1))


@pytest.mark.parametrize(
    "kind",
    [
        "", "text/plain", "multipart/form-data", "multipart/mixed; boundary=xx",
        "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 999}",
    ],
)  # fmt: skip
def test_what_is_no_form_is_reported(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        asyncio.run(read([b""], kind))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"a.txt", "a.txt"), (b"", "unnamed"), (b"/etc/passwd", "passwd"), (b"..\\..\\a", "a"),
        (b"a\r\nb\x00.txt", "ab.txt"), ("Ünï.pdf".encode(), "Ünï.pdf"), (b"\xff.txt", "\ufffd.txt"),
        (b"say %22hi%22", 'say "hi"'), (b"x" * 999, "x" * 200),
    ],
)  # fmt: skip
def test_a_filename_is_its_last_component_without_controls(raw: bytes, name: str) -> None:
    assert named(raw) == name


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"text/plain; charset=utf-8", "text/plain"), (b"IMAGE/PNG", "image/png"), (b"image", ""), (b"/", ""),
        (b"application/vnd.ms-excel", "application/vnd.ms-excel"), (b"a/b\r\nx: y", ""),
        (b"a/" + b"b" * 100, ""),
    ],
)  # fmt: skip
def test_a_media_type_is_taken_where_it_is_well_formed(raw: bytes, kind: str) -> None:
    assert media_type(raw) == kind

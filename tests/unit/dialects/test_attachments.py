"""Attachments of the three formats: what is read of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.attachments import (
    Address,
    FileId,
    Inline,
)
from support.attaching import (
    ADDRESS,
    PDF,
    ask,
    attached,
    body,
    document,
    picture,
    place,
    result,
    source,
    user,
)


def chat_file(**members: Any) -> dict[str, Any]:
    return {"type": "file", "file": members}


# A part, and the end of the field, the kind and the source that it names.
NAMED: dict[str, tuple[str, dict[str, Any], str, str, Any]] = {
    "bytes": ("chat", document("chat", "bytes"), ".file.file_data", "any", Inline(PDF)),
    "an address": ("chat", document("chat", "address"), ".file.file_url", "any", Address(ADDRESS)),
    "an address as an object": (
        "chat", chat_file(file_url={"url": ADDRESS}), ".file.file_url.url", "any", Address(ADDRESS),
    ),
    "an address as data": ("chat", chat_file(file_data=ADDRESS), ".file.file_data", "any", Address(ADDRESS)),
    "an id": ("chat", document("chat", "file-1"), ".file.file_id", "any", FileId("file-1")),
    "the seed's address": (
        "chat", {"type": "file", "file_url": {"url": ADDRESS}}, ".file_url.url", "any", Address(ADDRESS),
    ),
    "the seed's address as a string": (
        "chat", {"type": "file", "file_url": ADDRESS}, ".file_url", "any", Address(ADDRESS),
    ),
    "the seed's bytes": (
        "chat", {"type": "file", "file_url": {"url": f"data:application/pdf;base64,{PDF}"}}, ".file_url.url",
        "any", Inline(PDF),
    ),
    "a picture's address": (
        "chat", picture("chat", "address"), ".image_url", "image", Address("https://files.example/a.png"),
    ),
    "a picture's address as a string": (
        "chat", {"type": "image_url", "image_url": ADDRESS}, ".image_url", "image", Address(ADDRESS),
    ),
    "a picture of the vendor's naming": (
        "chat", picture("chat", "file-1"), ".image_url", "image", FileId("file-1"),
    ),
    "a picture's bare id": (
        "chat", {"type": "image_url", "image_url": "file-1"}, ".image_url", "image", FileId("file-1"),
    ),
    "a picture's id": (
        "chat", {"type": "image_url", "image_url": {"file_id": "file-1"}}, ".image_url.file_id", "image",
        FileId("file-1"),
    ),
    "a video's address": (
        "chat", {"type": "video_url", "video_url": {"url": ADDRESS}}, ".video_url", "video", Address(ADDRESS),
    ),
    "input_file with bytes": ("responses", document("responses", "bytes"), ".file_data", "any", Inline(PDF)),
    "input_file with bare bytes": (
        "responses", {"type": "input_file", "file_data": PDF}, ".file_data", "any", Inline(PDF),
    ),
    "input_file by address": (
        "responses", document("responses", "address"), ".file_url", "any", Address(ADDRESS),
    ),
    "input_file by id": ("responses", document("responses", "file-1"), ".file_id", "any", FileId("file-1")),
    "input_image by address": (
        "responses", picture("responses", "address"), ".image_url", "image",
        Address("https://files.example/a.png"),
    ),
    "input_image by id": ("responses", picture("responses", "file-1"), ".file_id", "image", FileId("file-1")),
    "a document of bytes": (
        "messages", document("messages", "bytes"), ".source.data", "document", Inline(PDF),
    ),
    "a document by address": (
        "messages", document("messages", "address"), ".source.url", "document", Address(ADDRESS),
    ),
    "a document by id": (
        "messages", document("messages", "file-1"), ".source.file_id", "document", FileId("file-1"),
    ),
    "an image by address": (
        "messages", picture("messages", "address"), ".source", "image", Address("https://files.example/a.png"),
    ),
    "an image by id": (
        "messages", picture("messages", "file-1"), ".source.file_id", "image", FileId("file-1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_a_part_names_its_attachment(case: str) -> None:
    form, part, end, kind, named = NAMED[case]
    (found,) = attached(form, body(form, user(form, part)))
    assert (found.field, found.kind, found.source) == (place(form, 0, 0) + end, kind, named)
    assert not found.told


@pytest.mark.parametrize("case", NAMED)
def test_what_a_tool_gave_never_ends_the_session(case: str) -> None:
    form, part, _, kind, named = NAMED[case]
    (found,) = attached(form, body(form, user(form), *result(form, part)))
    assert (found.kind, found.source, found.told) == (kind, named, True)


# A part, and the end of the field that is named.
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no base64": ("chat", chat_file(file_data="data:application/pdf;base64,%%%"), ".file.file_data"),
    "an empty file": ("chat", chat_file(file_data="data:application/pdf;base64,"), ".file.file_data"),
    "data without base64": ("chat", chat_file(file_data="data:application/pdf,abc"), ".file.file_data"),
    "two sources": ("chat", chat_file(file_data=PDF, file_id="file-1"), ".file.file_id"),
    "two places": (
        "chat", {"type": "file", "file": {"file_id": "file-1"}, "file_url": {"url": ADDRESS}}, ".file_url",
    ),
    "no source": ("chat", chat_file(filename="a.pdf"), ".file"),
    "no file": ("chat", {"type": "file"}, ""),
    "a file of no object": ("chat", {"type": "file", "file": "a"}, ".file"),
    "an address of another kind": ("chat", chat_file(file_url="ftp://a.example/b"), ".file.file_url"),
    "an empty id": ("chat", chat_file(file_id=""), ".file.file_id"),
    "an id that is no text": ("chat", chat_file(file_id=7), ".file.file_id"),
    "a picture of two sources": (
        "chat", {"type": "image_url", "image_url": {"url": ADDRESS, "file_id": "file-1"}},
        ".image_url.file_id",
    ),
    "an empty vendor's id": ("chat", {"type": "image_url", "image_url": "ms://"}, ".image_url"),
    "input_file without base64": ("responses", {"type": "input_file", "file_data": "%"}, ".file_data"),
    "an empty input_file": ("responses", {"type": "input_file", "file_data": ""}, ".file_data"),
    "input_file of two sources": (
        "responses", {"type": "input_file", "file_data": PDF, "file_url": ADDRESS}, ".file_url",
    ),
    "input_file of none": ("responses", {"type": "input_file", "filename": "a"}, ""),
    "input_image of two sources": (
        "responses", {"type": "input_image", "image_url": ADDRESS, "file_id": "file-1"}, ".file_id",
    ),
    "a document without base64": (
        "messages", source(type="base64", media_type="application/pdf", data="%%%"), ".source.data",
    ),
    "an empty document": (
        "messages", source(type="base64", media_type="application/pdf", data=""), ".source.data",
    ),
    "a document of two sources": (
        "messages", source(type="base64", media_type="application/pdf", data=PDF, url=ADDRESS), ".source.url",
    ),
    "a document at another address": ("messages", source(type="url", url="ftp://a/b"), ".source.url"),
    "a document without its text": ("messages", source(type="text", media_type="text/plain"), ".source"),
    "an image of two sources": (
        "messages", {"type": "image", "source": {"type": "file", "file_id": "file-1", "url": ADDRESS}},
        ".source.file_id",
    ),
    "an empty image": (
        "messages", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}},
        ".source",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_part_that_cannot_be_right_is_refused_by_its_name(case: str) -> None:
    form, part, end = BAD[case]
    with pytest.raises(InvalidRequest) as refused:
        ask(form, body(form, user(form, part)))
    assert refused.value.param == place(form, 0, 0) + end

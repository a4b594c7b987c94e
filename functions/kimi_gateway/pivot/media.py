"""Pictures and videos in a message, and the types that the upstream accepts."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal

from kimi_gateway.catalog.models import IMAGE_TYPES, VIDEO_TYPES
from kimi_gateway.errors import InvalidRequest, UnreadableImage
from kimi_gateway.pivot.attachments import Address, Attachment, FileId, Inline, instead_of
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.placement import Slot

Part = dict[str, Any]
Kind = Literal["image", "video"]

INLINED = 4 * 2**20  # bytes of a picture or video that are sent in the request; larger ones are uploaded
TYPES: Mapping[Kind, frozenset[str]] = {"image": IMAGE_TYPES, "video": VIDEO_TYPES}
NOUNS = {"image": "picture", "video": "video"}
_SAME = {
    "image/jpg": "image/jpeg",
    "video/mov": "video/quicktime",
    "video/avi": "video/x-msvideo",
    "video/mpg": "video/mpeg",
    "video/wmv": "video/x-ms-wmv",
}  # other names of media types
_VENDORS = "ms://"  # how the vendor's chat names a file
_FILE_ID = re.compile(r"file[-_][A-Za-z0-9_-]{1,128}")
_WEB = re.compile(r"https?:", re.I)


def file_id(text: str) -> str | None:
    """A file's id where an address could stand."""
    if text.startswith(_VENDORS):
        return text.removeprefix(_VENDORS)
    return text if _FILE_ID.fullmatch(text) else None


def is_web(text: str) -> bool:
    return _WEB.match(text) is not None


def is_data(text: str) -> bool:
    return text[:5].lower() == "data:"


def part(kind: Kind, url: str, where: str) -> Part:
    """The part of a message, or its place holder until it is read. Raises InvalidRequest, for a picture
    UnreadableImage."""
    try:
        return _part(kind, url, where)
    except InvalidRequest as error:
        if kind != "image":
            raise
        raise UnreadableImage(error.message, param=error.param) from None


def _part(kind: Kind, url: str, where: str) -> Part:
    if is_web(url):
        return Slot(Attachment(where, kind, Address(url)))
    if (id := file_id(url)) is not None:
        if not id:
            fail(where, "names no file")
        return Slot(Attachment(where, kind, FileId(id)))
    if not is_data(url):
        fail(where, "must be an http or https address, a data URL with base64, or the id of a file")
    media_type, data = data_url(url, where)
    if media_type not in TYPES[kind]:
        told = media_type[:80] or "no media type"
        fail(where, f"{told} is not supported; use one of {', '.join(sorted(TYPES[kind]))}")
    content = decoded(data, where)
    if len(content) > INLINED:
        return Slot(Attachment(where, kind, Inline(data), media_type=media_type))
    media_type = _checked(kind, media_type, content, where)
    name, head = f"{kind}_url", f"data:{media_type};base64,"
    return {"type": name, name: {"url": url if url.startswith(head) else head + data}}


def _checked(kind: Kind, media_type: str, content: bytes, where: str) -> str:
    """The media type by the content, which may be another one than the client gave. What is not recognised
    keeps its name, and the vendor decides. Raises InvalidRequest."""
    from kimi_gateway.pivot import signatures  # only such requests need it

    found = signatures.of(content)
    if found in (signatures.UNKNOWN, signatures.TEXT):
        return media_type
    if found.kind != kind:
        fail(where, f"the content is {found.media_type}, not a {NOUNS[kind]}")
    if found.media_type not in TYPES[kind]:
        fail(where, f"{found.media_type} is not supported; use one of {', '.join(sorted(TYPES[kind]))}")
    return media_type if _SAME.get(media_type, media_type) == found.media_type else found.media_type


def data_url(url: str, where: str) -> tuple[str, str]:
    """Media type in lower case and base64 of a data URL. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    media_type, *parameters = head[len("data:") :].lower().split(";")
    if not comma or "base64" not in map(str.strip, parameters):
        fail(where, "must be a data URL with base64")
    return media_type.strip(), data


def decoded(data: str, where: str) -> bytes:
    """The bytes of base64. Raises InvalidRequest if it is invalid or empty."""
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        fail(where, "the data is not valid base64")
    if not content:
        fail(where, "the file is empty")
    return content


def told(noun: str, error: InvalidRequest) -> Part:
    """The sentence for the model instead of a part of a tool's result that cannot be sent. A 400 would end
    the session, because the result stays in its history."""
    return {"type": "text", "text": instead_of(noun, error).sentence}

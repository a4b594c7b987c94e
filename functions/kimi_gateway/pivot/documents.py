"""Files in a message: by their bytes, by address, or by the id of an uploaded one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_gateway.errors import InvalidRequest, UnreadableDocument
from kimi_gateway.pivot import fields, media
from kimi_gateway.pivot.attachments import Address, Attachment, FileId, Inline, Kind
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.placement import Slot

Part = dict[str, Any]

SOURCES = ("file_data", "file_id", "file_url")
_PDF = b"%PDF-"  # a small one may look like a text
_TEXTS = ("text/", "application/json", "application/xml", "application/yaml", "application/toml")


def only_source(members: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """Which of the names is given. Raises InvalidRequest for none and for more than one."""
    given = [name for name in names if members.get(name) is not None]
    if not given:
        fail(where, f"one of {', '.join(names)} is required")
    if len(given) > 1:
        fail(f"{where}.{given[1]}", f"goes not together with {given[0]}: one part has one source")
    return given[0]


def of_file(members: Mapping[str, Any], where: str) -> Part:
    """OpenAI's file object: one of `file_data`, `file_id` and `file_url`, and `filename`. Raises
    InvalidRequest."""
    name = only_source(members, SOURCES, where)
    here, value = f"{where}.{name}", members[name]
    if name == "file_url" and isinstance(value, dict):
        here, value = f"{here}.url", value.get("url")
    fields.string(value, here)
    filename = members.get("filename")
    filename = filename if isinstance(filename, str) and filename else None
    if name == "file_id":
        return by_id(value, here, filename, "any")
    return _by_text(value, here, filename, bare=name == "file_data")


def by_id(
    id: str,
    where: str,
    filename: str | None,
    kind: Kind,
    title: str | None = None,
    context: str | None = None,
) -> Slot:
    if not id:
        fail(where, "names no file")
    return Slot(Attachment(where, kind, FileId(id), filename), title, context)


def by_address(
    url: str,
    where: str,
    filename: str | None,
    kind: Kind,
    title: str | None = None,
    context: str | None = None,
) -> Slot:
    if not media.is_web(url):
        fail(where, "must be an http or https address")
    return Slot(Attachment(where, kind, Address(url), filename), title, context)


def _by_text(value: str, where: str, filename: str | None, bare: bool) -> Part:
    """`bare`: base64 without a prefix is also good."""
    if media.is_web(value):
        return by_address(value, where, filename, "any")
    if media.is_data(value):
        media_type, data = media.data_url(value, where)
        for kind, types in media.TYPES.items():
            if media_type in types:
                return media.part(kind, value, where)
        return _named(by_bytes(data, media_type, where, filename, "any"), filename)
    if (id := media.file_id(value)) is not None:
        return by_id(id, where, filename, "any")
    if not bare:
        fail(where, "must be an http or https address")
    return _named(by_bytes(value, None, where, filename, "any"), filename)


def _named(part: Part, filename: str | None) -> Part:
    """A text at the client's place, under its name."""
    if isinstance(part, Slot) or not filename:
        return part
    return {"type": "text", "text": f"{filename}:\n{part['text']}"}


def by_bytes(data: str, media_type: str | None, where: str, filename: str | None, kind: Kind) -> Part:
    """A text as it is; without a media type if it is one. Raises InvalidRequest for wrong base64."""
    try:
        content = media.decoded(data, where)
    except InvalidRequest as error:
        if kind != "document":
            raise
        raise UnreadableDocument(error.message, param=error.param) from None
    if (text := _text(content, media_type)) is not None:
        return {"type": "text", "text": text}
    return Slot(Attachment(where, kind, Inline(data), filename, media_type))


def _text(content: bytes, media_type: str | None) -> str | None:
    if (media_type and not media_type.startswith(_TEXTS)) or content.startswith(_PDF):
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text

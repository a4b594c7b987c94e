"""How a file may be used in a message, by what it was uploaded as."""

from __future__ import annotations

from typing import Literal

from kimi_gateway.accounts.files import FileRecord
from kimi_gateway.pivot.attachments import Attachment

Medium = Literal["image", "video"]

A = {"image": "a picture", "video": "a video"}


def other_use(record: FileRecord, attachment: Attachment) -> str:
    kind = "a document" if attachment.kind == "document" else A[attachment.kind]
    said = f"the file is {record.media_type}, not {kind}"
    if not record.uploaded_as:
        return said
    purpose = "file-extract" if attachment.kind == "document" else attachment.kind
    return f"{said}, or was not uploaded as one; upload it with the purpose {purpose}"


def medium_of(record: FileRecord) -> Medium | None:
    """The provider takes a file for what it was uploaded as, whatever type the client gave it."""
    kind = record.uploaded_as or record.media_type.partition("/")[0]
    return "image" if kind == "image" else "video" if kind == "video" else None

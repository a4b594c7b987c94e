"""The places of attachments in a conversation, and of their texts or addresses.

A document's text is a system message before the message that names it, as the vendor advises
(docs/upstream.md, Files); in a tool's result it stays inside the result. Both depend on the message alone, so
the beginning of a conversation stays the same from request to request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import repair
from kimi_gateway.pivot.attachments import (
    Address,
    Attachment,
    DocumentText,
    FileId,
    Inline,
    PlainText,
    Resolved,
    Results,
    Source,
    Unreadable,
    instead_of,
    unreadable,
)
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.token_estimate import PER_MEDIA

Message = dict[str, Any]
Part = dict[str, Any]

MOST = 64  # attachments of one request that have to be read
SLOT = repair.UNREAD
SEE_DOCUMENT = "(see the document)"  # a message of documents alone
BYTES_PER_TOKEN = (
    32  # of a document that nobody has read: a guess, about that of a PDF of text with few pictures
)
_TOO_MANY = f"{MOST} attachments are the most that one request may have"
_NAMES: dict[str, type[Address | FileId | Inline | PlainText]] = {
    "address": Address,
    "file_id": FileId,
    "base64": Inline,
    "text": PlainText,
}


class Slot(Part):
    """A part of a message that stands for an attachment. `title` and `context` are the client's, for a
    document. `instead` replaces it if it is not read at all."""

    def __init__(self, attachment: Attachment, title: str | None = None, context: str | None = None) -> None:
        super().__init__(type=SLOT)
        self.attachment = attachment
        self.title = title
        self.context = context
        self.instead: Unreadable | None = None

    def stored(self) -> Part:
        """As JSON, for a conversation that is kept."""
        source = self.attachment.source
        name = next(name for name, kind in _NAMES.items() if isinstance(source, kind))
        value = next(getattr(source, member) for member in source.__slots__)
        told = {"kind": self.attachment.kind, "filename": self.attachment.filename}
        about = {"media_type": self.attachment.media_type, "title": self.title, "context": self.context}
        return {"type": SLOT, name: value, **told, **about}


def recalled(messages: list[Message], field: str) -> None:
    """Slots where `stored` ones are, in a conversation that was kept. `field`: the client's name for it."""
    for message in messages:
        content = message.get("content")
        if type(content) is list and any(part.get("type") == SLOT for part in content):
            message["content"] = [
                _recalled(part, field) if part.get("type") == SLOT else part for part in content
            ]


def _recalled(part: Part, field: str) -> Slot:
    source: Source = next(kind(part[name]) for name, kind in _NAMES.items() if name in part)
    attachment = Attachment(field, part["kind"], source, part["filename"], part["media_type"], told=True)
    return Slot(attachment, part["title"], part["context"])


def slots(messages: Sequence[Message]) -> list[Slot]:
    return [
        part
        for message in messages
        if type(message.get("content")) is list
        for part in message["content"]
        if isinstance(part, Slot)
    ]


def attachments(messages: Sequence[Message]) -> tuple[Attachment, ...]:
    """The attachments of a conversation that must be read, each once, in order. Raises InvalidRequest for too
    many.

    A failure is an error for the client if the user has just attached the file. In a tool's result, in a
    tool's loop and before the last answer the model gets a sentence, because the client sends it again with
    each request.
    """
    found = slots(messages)
    if not found:
        return ()
    fresh = _fresh(messages)
    for index, slot in enumerate(found):
        told = slot.attachment.told or id(slot) not in fresh
        slot.attachment = replace(slot.attachment, told=told)
        if index >= MOST:
            if not told:
                fail(slot.attachment.field, _TOO_MANY)
            slot.instead = instead_of("file", InvalidRequest(_TOO_MANY))
    return tuple(dict.fromkeys(slot.attachment for slot in found if slot.instead is None))


def _fresh(messages: Sequence[Message]) -> set[int]:
    """The ids of the slots in the user's newest messages."""
    return set(map(id, slots(_newest(messages))))


def _newest(messages: Sequence[Message]) -> list[Message]:
    """The messages after the last answer; none while tools work."""
    newest: list[Message] = []
    for message in reversed(messages):
        if message["role"] == "assistant":
            return [] if message.get("tool_calls") else newest
        if message["role"] != "tool":
            newest.append(message)
    return newest


def refused(attachments: Sequence[Attachment], model: Model) -> dict[Attachment, Resolved]:
    """Pictures and videos for a model that accepts none; a sentence replaces them where possible. Raises
    InvalidRequest."""
    if model.media:
        return {}
    refusals: dict[Attachment, Resolved] = {}
    for each in attachments:
        if each.kind in ("image", "video"):
            noun = "pictures" if each.kind == "image" else "videos"
            error = InvalidRequest(f"{each.field}: {model.id} takes no {noun}", param=each.field)
            refusals[each] = unreadable(each, error)
    return refusals


def without_media(messages: list[Message], model: Model) -> list[Message]:
    """For a model that accepts no pictures and videos: those that are in the messages themselves. A sentence
    replaces them where the client sends them again with each request. Raises InvalidRequest."""
    if model.media:
        return messages
    newest = set(map(id, _newest(messages)))
    made: list[Message] = []
    for message in messages:
        content = message.get("content")
        if type(content) is list and any(_media(part) for part in content):
            parts: list[dict[str, Any]] = []
            for part in content:
                if noun := _media(part):
                    error = InvalidRequest(f"messages: {model.id} takes no {noun}s", param="messages")
                    if id(message) in newest:
                        raise error
                    part = {"type": "text", "text": instead_of(noun, error).sentence}
                parts.append(part)
            message = {**message, "content": parts}
        made.append(message)
    return made


def _media(part: Mapping[str, Any]) -> str | None:
    """The noun of a picture or video that needs no reading."""
    if isinstance(part, Slot):
        return None
    return {"image_url": "picture", "video_url": "video"}.get(part.get("type", ""))


def placed(
    messages: list[Message], results: Mapping[Attachment, Resolved], storing: bool = False
) -> list[Message]:
    """The messages with the results of their attachments; the same list if there are none. Attachments
    without a result stay. `storing`: for a kept conversation, pictures and videos stay as the client named
    them, because an uploaded one is soon gone."""
    if not slots(messages):
        return messages
    made: list[Message] = []
    for message in messages:
        content = message.get("content")
        if type(content) is list and any(isinstance(part, Slot) for part in content):
            made += _message(message, results, storing)
        else:
            made.append(message)
    return made


def _message(message: Message, results: Mapping[Attachment, Resolved], storing: bool) -> list[Message]:
    documents: list[Message] = []
    parts: list[Part] = []
    inside = message["role"] == "tool"
    for part in message["content"]:
        became = (part.instead or results.get(part.attachment)) if isinstance(part, Slot) else None
        if became is None:
            parts.append(part)
        elif isinstance(became, DocumentText):
            text = _document(part, became)
            if inside:
                parts.append({"type": "text", "text": text})
            else:
                documents.append({"role": "system", "content": text})
        elif isinstance(became, Unreadable):
            parts.append({"type": "text", "text": became.sentence})
        elif storing:
            parts.append(part.stored())
        else:
            kind = f"{became.kind}_url"
            named = {"name": became.name} if became.name else {}
            parts.append({"type": kind, kind: {"url": became.url, **named}})
    content: str | list[Part] = repair.with_words(parts) if inside else parts or SEE_DOCUMENT
    return [*documents, {**message, "content": content}]


def _document(slot: Slot, document: DocumentText) -> str:
    return (
        f"{head(slot.title or slot.attachment.filename or document.filename, slot.context)}:\n{document.text}"
    )


def head(title: str | None, context: str | None) -> str:
    """The line above a document."""
    name = f" {title!r}" if title else ""
    return f"Document{name}" + (f" ({context})" if context else "")


def without(messages: list[Message]) -> tuple[list[Message], int]:
    """For a count: the messages without their attachments, and a guess of the tokens of these."""
    found = slots(messages)
    nothing = {slot.attachment: Unreadable(SEE_DOCUMENT) for slot in found}
    return placed(messages, nothing), sum(_guess(slot.attachment) for slot in found)


def _guess(attachment: Attachment) -> int:
    source = attachment.source
    if isinstance(source, Inline) and attachment.kind in ("document", "any"):
        return max(PER_MEDIA, len(source.data) * 3 // 4 // BYTES_PER_TOKEN)
    return PER_MEDIA


def bytes_of(results: Results) -> int:
    """The bytes that the results add to a request."""
    texts = (each.text if isinstance(each, DocumentText) else "" for each in results)
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)

"""Attachments in all three formats, and files without an upstream, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.dialects.chat.dialect import ChatCompletions
from kimi_gateway.dialects.messages.dialect import Messages
from kimi_gateway.dialects.responses.dialect import Responses
from kimi_gateway.errors import NotFound
from kimi_gateway.flow.attachments import Known
from kimi_gateway.pivot.attachments import (
    NO_IDS,
    Address,
    Attachment,
    DocumentText,
    FileId,
    Ids,
    Inline,
    MediaUrl,
    PlainText,
    Resolution,
    Resolved,
    unreadable,
)
from kimi_gateway.pivot.dialect import Ask, Dialect

PDF = "JVBERi0xLjQKJcOkw7zDtsOf"  # base64 of the beginning of a PDF: no text in UTF-8
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ADDRESS = "https://files.example/a.pdf"
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


def document(form: str, source: str) -> dict[str, Any]:
    """One document as a part of the format. `source`: "bytes", "address", or the id of a file."""
    id = source if source not in ("bytes", "address") else None
    if form == "messages":
        given: dict[str, Any] = {"type": "base64", "media_type": "application/pdf", "data": PDF}
        if source == "address":
            given = {"type": "url", "url": ADDRESS}
        elif id:
            given = {"type": "file", "file_id": id}
        return {"type": "document", "source": given}
    given = {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}
    if source == "address":
        given = {"file_url": ADDRESS}
    elif id:
        given = {"file_id": id}
    return {"type": "file", "file": given} if form == "chat" else {"type": "input_file", **given}


def picture(form: str, source: str) -> dict[str, Any]:
    """As `document`, for a picture; "bytes" goes along in the request."""
    url = {"bytes": f"data:image/png;base64,{PNG}", "address": "https://files.example/a.png"}.get(source)
    if form == "messages":
        if source == "bytes":
            return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        given = {"type": "url", "url": url} if url else {"type": "file", "file_id": source}
        return {"type": "image", "source": given}
    if form == "responses":
        return {"type": "input_image", **({"image_url": url} if url else {"file_id": source})}
    return {"type": "image_url", "image_url": {"url": url or f"ms://{source}"}}


def text(form: str, words: str) -> dict[str, Any]:
    return {"type": "input_text" if form == "responses" else "text", "text": words}


def user(form: str, *parts: dict[str, Any], words: str = "What is it?") -> dict[str, Any]:
    return {"role": "user", "content": [*parts, text(form, words)]}


def body(form: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    name = "input" if form == "responses" else "messages"
    needed = {"max_tokens": 100} if form == "messages" else {}
    return {"model": "kimi-k3", name: list(messages), **needed, **more}


def place(form: str, message: int, part: int) -> str:
    return f"{'input' if form == 'responses' else 'messages'}.{message}.content.{part}"


@dataclass
class Files:
    """`kept` are texts by account and file id. What has bytes reads as "text of <n> bytes", an address as
    `texts` says. `open` counts turns that hold what was uploaded for them."""

    kept: dict[tuple[str, str], str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=lambda: {ADDRESS: "text of the address"})
    token: str | None = None
    failure: Exception | None = None
    asked: list[Attachment] = field(default_factory=list)
    open: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    wait: asyncio.Event | None = None

    def of_request(self, upstream: object, keeps: bool) -> Files:
        return self

    @asynccontextmanager
    async def resolve(
        self, account: str, attachments: Sequence[Attachment], without: Ids = NO_IDS
    ) -> AsyncIterator[Resolution]:
        self.asked += attachments
        self.open += 1
        try:
            self.entered.set()
            if self.wait is not None:
                await self.wait.wait()
            if self.failure is not None:
                raise self.failure
            yield Known([self._one(account, each) for each in attachments], self.token)
        finally:
            self.open -= 1

    def _one(self, account: str, each: Attachment) -> Resolved:
        match each.source:
            case PlainText(text):
                return DocumentText(each.filename, text)
            case Inline(data):
                found: str | None = f"text of {len(data) * 3 // 4} bytes"
            case Address(url):
                found = self.texts.get(url)
            case FileId(id):
                found = self.kept.get((account, id))
        if found is None:
            return unreadable(each, NotFound(f"{each.field}: there is no such file", param=each.field))
        if each.kind in ("image", "video"):
            return MediaUrl(found, "video" if each.kind == "video" else "image")
        return DocumentText(each.filename, found)


DIALECTS: dict[str, Dialect] = {
    "chat": ChatCompletions(),
    "messages": Messages(),
    "responses": Responses(lambda: 0.0),
}


def ask(form: str, given: dict[str, Any]) -> Ask:
    return DIALECTS[form].read(json.dumps(given).encode())


def attached(form: str, given: dict[str, Any]) -> list[Attachment]:
    return list(ask(form, given).attachments({}))


def result(form: str, *parts: dict[str, Any], id: str = "c1") -> list[dict[str, Any]]:
    """A call, and its result of these parts."""
    if form == "messages":
        call = {"type": "tool_use", "id": id, "name": "read", "input": {}}
        answer = {"type": "tool_result", "tool_use_id": id, "content": list(parts)}
        return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [answer]}]
    if form == "responses":
        call = {"type": "function_call", "call_id": id, "name": "read", "arguments": "{}"}
        return [call, {"type": "function_call_output", "call_id": id, "output": list(parts)}]
    function = {"id": id, "type": "function", "function": {"name": "read", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [function]},
        {"role": "tool", "tool_call_id": id, "content": list(parts)},
    ]


def source(**members: Any) -> dict[str, Any]:
    return {"type": "document", "source": members}

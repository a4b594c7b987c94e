"""The platform's files: uploads as they come, the text of documents, deletion. Facts: docs/upstream.md.

Uploads and contents are streamed, so a file is never in memory as a whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from kimi_gateway.net import http, jsonio
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import UpstreamFailure, lost
from kimi_gateway.providers.files import Purpose, UpstreamFile
from kimi_gateway.providers.provider import Token

LONGEST_ANSWER = 4 * 2**20  # bytes of a JSON answer
LONGEST_TEXT = 16 * 2**20  # bytes of a document's text
NEVER = 2**62  # bytes
MOST_LISTED = 2_000  # the platform keeps 1,000 files of an account (2026-09)
PATIENCE = 120.0  # seconds for an answer's head; extraction may run within an upload
# The refusals for 1,000 files and 10 GB (platform's page on files, 2026-09; the second wording is not known).
_FULL = re.compile(r"max file count|total (?:file )?size of .* exceed", re.I)
_FAILED = ("error", "failed")  # of `status` and `extract_status`; the other words are not an end


class MoonshotFiles:
    """`base_url` as for chat."""

    def __init__(self, client: http.Client, base_url: str, connect: float) -> None:
        self._client = client
        self._base = base_url
        self._patience = http.Timeouts(connect, PATIENCE)

    async def upload(
        self,
        token: Token,
        filename: str,
        purpose: Purpose,
        chunks: AsyncIterator[bytes],
        size: int | None = None,
    ) -> UpstreamFile:
        boundary = "kg" + secrets.token_hex(16)
        before, after = _around(boundary, filename, purpose)
        headers = {**_headers(token), "content-type": f"multipart/form-data; boundary={boundary}"}
        if size is not None:
            headers["content-length"] = str(len(before) + size + len(after))
        body = _body(before, chunks, after)
        try:
            sending = self._client.upload(f"{self._base}/files", headers, body, self._patience)
            async with sending as answer:
                text = await answer.read(LONGEST_ANSWER)
        except http.NetError as exc:
            raise lost(exc) from exc
        finally:
            await body.aclose()
        try:
            return _file(_object(answer.status, answer.headers, text))
        except UpstreamFailure as failure:
            if failure.cause == "invalid" and _FULL.search(failure.detail):
                failure.cause = "room"
            raise

    async def text(self, token: Token, id: str) -> str:
        parts = bytearray()
        async with self.content(token, id) as chunks:
            async for chunk in chunks:
                parts += chunk
                if len(parts) > LONGEST_TEXT:
                    raise UpstreamFailure("broken", "a document's text above the size limit")
        return _extracted(bytes(parts))

    @asynccontextmanager
    async def content(self, token: Token, id: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The platform's pages do not name ranges (2026-11); without them the bytes before are skipped."""
        headers = _headers(token) | ({"range": f"bytes={start}-"} if start else {})
        url = f"{self._base}/files/{quote(id, safe='')}/content"
        try:
            async with self._client.send("GET", url, headers, b"", self._patience) as answer:
                if start and answer.status == 416:  # it has no more bytes
                    yield _after(answer.chunks(), NEVER)
                    return
                if answer.status != 200 and not (start and answer.status == 206):
                    text = await answer.read(LONGEST_ANSWER)
                    raise failures.from_answer(answer.status, answer.headers, text)
                partial = answer.status == 206
                if partial and not _begins(answer.headers, start):
                    raise UpstreamFailure("broken", "a range that was not asked for")
                yield _after(answer.chunks(), 0 if partial else start)
        except http.NetError as exc:
            raise lost(exc) from exc

    async def info(self, token: Token, id: str) -> UpstreamFile | None:
        status, headers, text = await self._asked("GET", f"/files/{quote(id, safe='')}", token)
        return None if status == 404 else _file(_object(status, headers, text))

    async def all(self, token: Token) -> list[UpstreamFile]:
        listed = _object(*await self._asked("GET", "/files", token)).get("data")
        if not isinstance(listed, list):
            raise UpstreamFailure("broken", "the list of files has no data")
        return [_file(each) for each in listed[:MOST_LISTED] if isinstance(each, dict)]

    async def delete(self, token: Token, id: str) -> bool:
        status, headers, text = await self._asked("DELETE", f"/files/{quote(id, safe='')}", token)
        if status == 404:
            return False
        if not 200 <= status < 300:
            raise failures.from_answer(status, headers, text)
        return True

    async def _asked(self, method: str, path: str, token: Token) -> tuple[int, Mapping[str, str], bytes]:
        try:
            sending = self._client.send(method, self._base + path, _headers(token), b"", self._patience)
            async with sending as answer:
                return answer.status, answer.headers, await answer.read(LONGEST_ANSWER)
        except http.NetError as exc:
            raise lost(exc) from exc


def _begins(headers: Mapping[str, str], start: int) -> bool:
    """Whether a partial answer begins there (RFC 9110, 14.4)."""
    return headers.get("content-range", "").startswith(f"bytes {start}-")


async def _after(chunks: AsyncIterator[bytes], skipped: int) -> AsyncGenerator[bytes, None]:
    """The bytes after the skipped ones; until then empty chunks, which show that bytes arrive."""
    async for chunk in chunks:
        yield chunk[skipped:]
        skipped = max(0, skipped - len(chunk))


def _headers(token: Token) -> dict[str, str]:
    return {"authorization": f"Bearer {token.secret}"}


def _around(boundary: str, filename: str, purpose: Purpose) -> tuple[bytes, bytes]:
    """The parts of a multipart body before and after the file."""
    name = quoted(filename)
    before = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    )
    return before.encode(), f"\r\n--{boundary}--\r\n".encode()


def quoted(filename: str) -> str:
    """A name within quotes, as browsers write it (WHATWG HTML, "Multipart form data", read 2026-11)."""
    kept = "".join(ch for ch in filename if ch.isprintable()).encode("utf-8", "replace").decode()
    return kept.replace('"', "%22")[:200] or "file"


async def _body(before: bytes, chunks: AsyncIterator[bytes], after: bytes) -> AsyncGenerator[bytes, None]:
    yield before
    async for chunk in chunks:
        yield chunk
    yield after


def _object(status: int, headers: Mapping[str, str], text: bytes) -> dict[str, Any]:
    """The object of an answer with any status of success. Raises UpstreamFailure."""
    if not 200 <= status < 300:
        raise failures.from_answer(status, headers, text)
    try:
        parsed = jsonio.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UpstreamFailure("broken", "an answer that is not JSON") from exc
    if not isinstance(parsed, dict):
        raise UpstreamFailure("broken", "an answer that is not an object")
    return parsed


def _file(told: Mapping[str, Any]) -> UpstreamFile:
    """Two forms are known: that of the platform's pages, and the one of its beta (2026-09)."""
    id = told.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= 200 or not (id.isascii() and id.isprintable()):
        raise UpstreamFailure("broken", "a file without an id")
    status = _text(told.get("status")) or _text(told.get("extract_status"))
    return UpstreamFile(
        id,
        _count(told.get("bytes")) or _count(told.get("size_bytes")),
        _count(told.get("created_at")),
        _text(told.get("filename")),
        _text(told.get("purpose")),
        status in _FAILED,
        _text(told.get("status_details")),
    )


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return min(value, 2**53) if type(value) is int and value > 0 else 0


def _extracted(content: bytes) -> str:
    """The content of a document is a JSON object with `content`, or the text itself."""
    try:
        parsed = jsonio.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
    if isinstance(parsed, dict) and isinstance(parsed.get("content"), str):
        return str(parsed["content"])
    return content.decode("utf-8", "replace")

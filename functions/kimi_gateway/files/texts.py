"""Texts of documents: files that are text already, texts that were extracted before, and local extraction."""

from __future__ import annotations

import asyncio
import codecs
import time
import zlib
from collections.abc import Callable

from kimi_gateway.accounts.store import StoreDown
from kimi_gateway.observe import emit
from kimi_gateway.pivot.signatures import TEXT, FileType
from kimi_gateway.storage.cache import LARGEST, Cache

_ENCODINGS = ("utf-8-sig", "gb18030")
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_APART = 64 * 1024  # bytes from which on a thread does the work
MOST_PAGES = 2_000  # of a PDF that is read here
MOST_CHARACTERS = 16 * 2**20  # of its text
MOST_SECONDS = 30.0  # for its pages; it is looked at between two of them


class Known(Exception):
    """The document's text is known, so its upload is aborted."""

    def __init__(self, text: str) -> None:
        super().__init__("the text is known")
        self.text = text


class Texts:
    """The texts that were extracted for an account, by the digest of the file or the id of a kept one. `keep`
    is in seconds; 0 keeps none."""

    def __init__(self, cache: Cache, clock: Callable[[], float], keep: int) -> None:
        self._cache = cache
        self._clock = clock
        self._keep = keep

    async def look(self, account: str, name: str) -> str | None:
        """None as well if the store is down, because the text can be extracted again."""
        if not self._keep:
            return None
        try:
            found = await self._cache.recall(account, [_entry(name)], int(self._clock()))
        except StoreDown as exc:
            emit(exc.cause, step="texts")
            return None
        value = found.get(_entry(name))
        return None if value is None else (await _apart(value, zlib.decompress)).decode()

    async def keep(self, account: str, name: str, text: str) -> None:
        if not self._keep:
            return
        value = await _apart(text.encode("utf-8", "replace"), lambda data: zlib.compress(data, 1))
        if len(value) > LARGEST:
            return
        try:
            await self._cache.keep(account, {_entry(name): value}, int(self._clock()) + self._keep)
        except StoreDown as exc:
            emit(exc.cause, step="texts")


def _entry(name: str) -> str:
    return f"text-{name}"


async def _apart(data: bytes, work: Callable[[bytes], bytes]) -> bytes:
    return work(data) if len(data) < _APART else await asyncio.to_thread(work, data)


def plain(type: FileType, head: bytes) -> bool:
    """Whether the file is its own text. HTML is read by the provider, which leaves its marks out."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return type is TEXT and not start.startswith((b"<!doctype html", b"<html"))


def decoded(data: bytes) -> str:
    """Text in UTF-8, in UTF-16 with a mark, in GB 18030, or in Latin 1."""
    for encoding in ("utf-16",) if data.startswith(_MARKS) else _ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


class NotExtracted(ValueError):
    """A sentence for the client."""


def of_pdf(data: bytes) -> str:
    """The text of a PDF, read here with pypdf. Raises NotExtracted."""
    import io

    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError:
        raise NotExtracted("this gateway lacks the extra [extract] that reads PDFs") from None
    try:
        pages = PdfReader(io.BytesIO(data)).pages
        if len(pages) > MOST_PAGES:
            raise NotExtracted(f"the document has more than {MOST_PAGES} pages")
        ends, texts, size = time.monotonic() + MOST_SECONDS, list[str](), 0
        for page in pages:
            texts.append(page.extract_text())
            size += len(texts[-1])
            if size > MOST_CHARACTERS:
                raise NotExtracted(f"the document has more than {MOST_CHARACTERS} characters")
            if time.monotonic() > ends:
                raise NotExtracted(f"the document takes more than {MOST_SECONDS:g} seconds to read")
        return "\n\n".join(texts)
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as exc:
        if isinstance(exc, NotExtracted):
            raise
        raise NotExtracted("the document cannot be read") from exc

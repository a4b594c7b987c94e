"""A resolver of files beside the emulator, and attachments for it."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kimi_gateway.accounts.bucket import BoundedDict
from kimi_gateway.files.bounds import Bounds
from kimi_gateway.files.cleaning import Cleaner
from kimi_gateway.files.resolver import FileResolver
from kimi_gateway.files.shared import Sharing
from kimi_gateway.files.texts import Texts
from kimi_gateway.net.fetch.fetcher import Fetcher
from kimi_gateway.net.http import Timeouts
from kimi_gateway.net.http1 import Http1Client
from kimi_gateway.pivot.attachments import Address, Attachment, Inline, Kind, Source
from kimi_gateway.providers.moonshot.provider import Moonshot
from kimi_gateway.providers.provider import Provider, Token, Upstream
from kimi_gateway.providers.tokens.outages import LocalOutageLog
from kimi_gateway.providers.tokens.pool import Pool
from kimi_gateway.storage.memory import MemoryStore
from kimi_gateway.storage.memory_cache import MemoryCache
from support.fetching import Names
from upstream import ScriptedUpstream

NOW = 1_800_000_000
SPARE = 660  # seconds for which a turn may use a shared upload
A, B = Token.of("sk-upstream-files-a"), Token.of("sk-upstream-files-b")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(400)
FIELD = "messages.0.content.1"
LARGE = PNG + bytes(2_000)
SMALL = Bounds(count=3, size=20_000, inline=1_000, text=5_000)


def pdf(text: str = "Hello.", size: int = 0) -> bytes:
    """A PDF as the emulator reads it, of at least `size` bytes."""
    return b"%PDF-1.7\n(" + text.encode() + b") Tj\n%" + b"x" * size + b"\n%%EOF\n"


def docx(text: str) -> bytes:
    return _office({"word/document.xml": f"<w:t>{text}</w:t>"})


def xlsx(text: str) -> bytes:
    cell = '<worksheet><sheetData><row><c t="s"><v>0</v></c></row></sheetData></worksheet>'
    return _office(
        {
            "xl/workbook.xml": "<workbook/>",
            "xl/worksheets/sheet1.xml": cell,
            "xl/sharedStrings.xml": f"<sst><si><t>{text}</t></si></sst>",
        }
    )


def pptx(text: str) -> bytes:
    return _office({"ppt/presentation.xml": "<p/>", "ppt/slides/slide1.xml": f"<a:t>{text}</a:t>"})


def _office(members: dict[str, str]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in {"[Content_Types].xml": "<Types/>", **members}.items():
            archive.writestr(name, content)
    return written.getvalue()


def inline(data: bytes, kind: Kind = "any", **more: Any) -> Attachment:
    return attached(Inline(base64.b64encode(data).decode()), kind, **more)


def at(url: str, kind: Kind = "any", **more: Any) -> Attachment:
    return attached(Address(url), kind, **more)


def attached(source: Source, kind: Kind = "any", **more: Any) -> Attachment:
    return Attachment(more.pop("field", "messages.0.content.1"), kind, source, **more)


@dataclass
class Resolving:
    """`time` is the clock; waits of deletions take none. The fetcher knows `a.example` as loopback."""

    up: ScriptedUpstream
    tokens: tuple[Token, ...] = (A,)
    bounds: Bounds = field(default_factory=Bounds)
    local: bool = False
    shares: bool = False
    provider: Provider | None = None
    ports: Sequence[int] = ()
    store: Any = field(default_factory=MemoryStore)
    time: float = NOW
    waits: list[float] = field(default_factory=list)

    async def start(self) -> None:
        self.client = Http1Client()
        self.moonshot = Moonshot(self.client, self.up.url, Timeouts(5, 30), 2**20)
        self.pool = Pool(lambda: self.tokens, LocalOutageLog(), lambda: self.time)
        upstream = Upstream(self.provider or self.moonshot, self.pool)
        self.cleaner = Cleaner(self.store, lambda: upstream, lambda: self.time, sleep=self._sleep)
        self.names = Names(a_example=[["127.0.0.1"]])
        allowed = [f"a.example:{port}" for port in self.ports]
        self.fetcher = Fetcher(allowed, resolver=self.names)
        self.texts = Texts(MemoryCache(), lambda: self.time, self.bounds.keep)
        of = self.store, self.cleaner, lambda: self.time, self.bounds.keep, SPARE
        self.sharing = Sharing(*of, BoundedDict[float]())
        self.resolver = FileResolver(
            self.store, lambda: upstream, self.texts, self.cleaner, lambda: self.fetcher,
            lambda: self.time, self.bounds, self.local, sharing=self.sharing if self.shares else None,
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def stop(self) -> None:
        await self.cleaner.rest(10)
        await self.fetcher.close()
        await self.client.close()

    async def one(self, attachment: Attachment, account: str = "acc_a") -> Any:
        """What it becomes. Behind it, everything that runs on is waited for."""
        try:
            async with self.resolver.resolve(account, [attachment]) as resolution:
                return resolution.results[0]
        finally:
            await self.cleaner.rest(10)

    async def left(self) -> tuple[int, int]:
        """Files at the provider, and records of them."""
        return len(self.up.files.files), len(await self.store.due_files(2**33, 1_000))


@asynccontextmanager
async def resolving(up: ScriptedUpstream, **options: Any) -> AsyncIterator[Resolving]:
    made = Resolving(up, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()

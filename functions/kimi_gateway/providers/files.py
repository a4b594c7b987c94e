"""The interface of a provider that stores files and reads documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

from kimi_gateway.dataclass import dataclass
from kimi_gateway.providers.provider import Token

Purpose = Literal["file-extract", "image", "video", "batch"]
PURPOSES: tuple[Purpose, ...] = ("file-extract", "image", "video", "batch")
MOST_BYTES = 100 * 2**20  # of one file (platform's page on files, 2026-09)


@dataclass(frozen=True, slots=True)
class UpstreamFile:
    """A file as the provider knows it. `filename` may differ from the sent one, because the platform renames
    files with equal names. `failed`: the provider could not read it; `detail` says why."""

    id: str
    size: int
    created: int
    filename: str
    purpose: str
    failed: bool = False
    detail: str = ""


class Files(Protocol):
    """Every method raises UpstreamFailure. A file belongs to the account of the token that uploaded it."""

    async def upload(
        self,
        token: Token,
        filename: str,
        purpose: Purpose,
        chunks: AsyncIterator[bytes],
        size: int | None = None,
    ) -> UpstreamFile:
        """Send the chunks as they come. `size` is in bytes, if known; then the chunks must have it.
        Exceptions of `chunks` are raised, and the upload is aborted."""
        ...

    async def text(self, token: Token, id: str) -> str:
        """The text of a document; empty if the provider found none."""
        ...

    def content(
        self, token: Token, id: str, start: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content of a file as it comes, from the byte `start` on. Chunks may be empty."""
        ...

    async def info(self, token: Token, id: str) -> UpstreamFile | None:
        """The file; None if the provider does not know it."""
        ...

    async def all(self, token: Token) -> list[UpstreamFile]: ...

    async def delete(self, token: Token, id: str) -> bool:
        """Delete a file. Returns whether it existed."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A provider with files."""

    @property
    def files(self) -> Files: ...


@runtime_checkable
class TakesDocuments(Protocol):
    """A provider that takes documents within the request, as parts of the type `file_url` with a data URL.
    `largest_document` is in bytes."""

    largest_document: int

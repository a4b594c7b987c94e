"""What the gateway asks of a provider that keeps files and reads documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from kimi_gateway.providers.provider import Token

Purpose = Literal["file-extract", "image", "video", "batch"]
PURPOSES: tuple[Purpose, ...] = ("file-extract", "image", "video", "batch")
MOST_BYTES = 100 * 2**20  # of one file (platform's page on files, 2026-09)


@dataclass(frozen=True, slots=True)
class UpstreamFile:
    """A file as the provider knows it. `filename` may be another than the one that was sent, since the
    platform renames files of equal names. `failed`: the provider could not read it, `detail` says why."""

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
        """Sends the chunks as they come. `size` in bytes, where it is known; then the chunks must have it.
        What `chunks` raises is raised, and the upload is broken off."""
        ...

    async def text(self, token: Token, id: str) -> str:
        """The text of a document; empty where the provider found none in it."""
        ...

    def content(self, token: Token, id: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The provider's content of a file as it comes."""
        ...

    async def info(self, token: Token, id: str) -> UpstreamFile | None:
        """None where the provider does not know the file."""
        ...

    async def all(self, token: Token) -> list[UpstreamFile]: ...

    async def delete(self, token: Token, id: str) -> bool:
        """Whether there was such a file."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A provider with files."""

    @property
    def files(self) -> Files: ...

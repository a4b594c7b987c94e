"""The answer of an address, whichever client opened it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol


class Unreachable(Exception):
    """`cause` is the name of the failure, without address and body."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(type(cause).__name__)
        self.cause = type(cause).__name__


class Opened(Protocol):
    """An answer: `headers` by lower-case name, `parts` of the body as they were sent. They raise
    Unreachable."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def parts(self) -> AsyncGenerator[bytes, None]: ...

    async def close(self) -> None: ...

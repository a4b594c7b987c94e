"""Bytes of attachments that one request reads; bytes and fetches that all requests of a process share.

No account can take all of them: it may take more only while it has less than what is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from kimi_gateway.errors import BodyTooLarge, Unavailable
from kimi_gateway.pivot.attachments import Attachment

FETCHES = 64  # at one time in a process


class Divided:
    """An amount that accounts share. One alone may take half of it, a second one half of the rest, and so on
    (the dynamic thresholds of Choudhury and Hahne, 1998, for switches with a shared buffer)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._of: dict[str, int] = {}

    def fits(self, account: str, size: int) -> bool:
        """Whether the account may take this much more."""
        return self._of.get(account, 0) + size <= self.most - self.held

    def take(self, account: str, size: int) -> None:
        """Take an amount, whether it fits or not; a negative one is given back."""
        self.held += size
        left = self._of.pop(account, 0) + size
        if left:
            self._of[account] = left


class Places(Divided):
    """Fetches that run at one time, at most `most`. Others wait: for each account the first one first, and
    the accounts in turn."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, account: str, seconds: float) -> AsyncIterator[None]:
        """A place for the context. Raises Unavailable if none is free for this many seconds."""
        if account in self._waiting or not self.fits(account, 1):
            await self._turn(account, seconds)
        else:
            self.take(account, 1)
        try:
            yield
        finally:
            self.take(account, -1)
            self._admit()

    async def _turn(self, account: str, seconds: float) -> None:
        """Wait for a place, and take it. Raises Unavailable."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():  # it got the place too late
                self.take(account, -1)
            else:
                self._forget(account, turn)
            self._admit()
            if isinstance(exc, TimeoutError):
                raise _busy() from None
            raise

    def _forget(self, account: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(account)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[account]

    def _admit(self) -> None:
        """Give free places to those who wait."""
        for account in list(self._waiting):
            if self.held >= self.most:
                return
            line = self._waiting[account]
            while line and line[0].done():  # its task is cancelled and has not run yet
                line.popleft()
            if line and not self.fits(account, 1):
                continue
            del self._waiting[account]
            if line:
                line.popleft().set_result(None)
                self.take(account, 1)
            if line:
                self._waiting[account] = line  # behind the others


class Memory(Divided):
    """The bytes of attachments in the memory of this process, at most `most`, and the `fetches` for them."""

    def __init__(self, most: int, fetches: int = FETCHES) -> None:
        super().__init__(most)
        self.fetches = Places(fetches)


class Share:
    """One request's part, on behalf of its account. `read` and `hold` are the most bytes that it may read in
    all, and hold at one time."""

    def __init__(self, memory: Memory, account: str, read: int, hold: int) -> None:
        self.held = 0
        self._memory, self._account = memory, account
        self._most_read, self._most_held = read, hold
        self._read = 0

    def read(self, attachment: Attachment, size: int) -> None:
        """Count bytes that came. Raises BodyTooLarge."""
        self._read += size
        if self._read > self._most_read:
            raise _too_large(attachment, self._most_read, "")

    def hold(self, attachment: Attachment, size: int) -> None:
        """Count bytes in memory; a negative size gives some back. Raises BodyTooLarge and Unavailable."""
        fits = size <= 0 or self._memory.fits(self._account, size)
        self.held += size
        self._memory.take(self._account, size)
        if size > 0 and self.held > self._most_held:
            raise _too_large(attachment, self._most_held, " of pictures and texts")
        if not fits:
            raise _busy()

    def fetch(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """A place of a fetch. Raises Unavailable if none is free for this many seconds."""
        return self._memory.fetches.place(self._account, seconds)

    def end(self) -> None:
        """Give everything back."""
        self._memory.take(self._account, -self.held)
        self.held = 0


def _busy() -> Unavailable:
    return Unavailable(
        "The gateway reads too many attachments at present. Try again.", retry_after=1, cause="attachments"
    )


def _too_large(attachment: Attachment, most: int, what: str) -> BodyTooLarge:
    return BodyTooLarge(
        f"{attachment.field}: the attachments of this request have more than {most} bytes{what} in all."
        " Send fewer or smaller ones.",
        param=attachment.field,
    )

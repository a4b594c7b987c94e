"""Bytes of attachments: those that one request reads, and those that all requests of a process hold."""

from __future__ import annotations

from kimi_gateway.errors import BodyTooLarge, Unavailable
from kimi_gateway.pivot.attachments import Attachment


class Memory:
    """The bytes of attachments in the memory of this process, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Share:
    """One request's part. `read` and `hold` are the most bytes that it may read in all, and hold at one
    time."""

    def __init__(self, memory: Memory, read: int, hold: int) -> None:
        self.held = 0
        self._memory = memory
        self._most_read, self._most_held = read, hold
        self._read = 0

    def read(self, attachment: Attachment, size: int) -> None:
        """Count bytes that came. Raises BodyTooLarge."""
        self._read += size
        if self._read > self._most_read:
            raise _too_large(attachment, self._most_read, "")

    def hold(self, attachment: Attachment, size: int) -> None:
        """Count bytes in memory; a negative size gives some back. Raises BodyTooLarge and Unavailable."""
        self.held += size
        self._memory.held += size
        if size > 0 and self.held > self._most_held:
            raise _too_large(attachment, self._most_held, " of pictures and texts")
        if size > 0 and self._memory.held > self._memory.most:
            raise Unavailable(
                "The gateway reads too many attachments at present. Try again.",
                retry_after=1,
                cause="attachments",
            )

    def end(self) -> None:
        """Give everything back."""
        self._memory.held -= self.held
        self.held = 0


def _too_large(attachment: Attachment, most: int, what: str) -> BodyTooLarge:
    return BodyTooLarge(
        f"{attachment.field}: the attachments of this request have more than {most} bytes{what} in all."
        " Send fewer or smaller ones.",
        param=attachment.field,
    )

"""Connect's frames without I/O: one byte of flags, four bytes of length (big-endian), and JSON.

Source: the protocol's description (connectrpc.com, "Streaming RPCs", read 2026-11).
"""

from __future__ import annotations

COMPRESSED, LAST = 0x01, 0x02  # flags
HEAD = 5
Frame = tuple[int, bytes]  # flags and content


class BadFrame(Exception):
    """The stream cannot be read further; the text says why."""


def encode(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content


class Decoder:
    """Takes reads of any size and returns whole frames. `limit` bounds the content of one, and so the memory
    in use. Frames before a bad one are still returned; the next `feed` then raises BadFrame."""

    __slots__ = ("_broken", "_limit", "_rest")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._broken = ""

    @property
    def pending(self) -> bool:
        """Whether a frame has begun and is unfinished."""
        return bool(self._rest or self._broken)

    def feed(self, data: bytes) -> list[Frame]:
        if self._broken:
            raise BadFrame(self._broken)
        rest, found, at = self._rest, list[Frame](), 0
        rest += data
        while len(rest) - at >= HEAD:
            flags, size = rest[at], int.from_bytes(rest[at + 1 : at + HEAD], "big")
            if size > self._limit or flags & COMPRESSED:
                self._broken = "a compressed frame" if flags & COMPRESSED else "a frame above the size limit"
                rest.clear()
                if not found:
                    raise BadFrame(self._broken)
                return found
            if len(rest) - at < HEAD + size:
                break
            found.append((flags, bytes(rest[at + HEAD : at + HEAD + size])))
            at += HEAD + size
        del rest[:at]
        return found

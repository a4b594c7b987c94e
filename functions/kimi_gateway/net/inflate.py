"""Decodes gzip and deflate answers that were not asked for, in bounded pieces."""

from __future__ import annotations

import zlib

from kimi_gateway.net.http import ConnectionLost

PIECE = 256 * 1024  # bytes returned at a time, so a small input cannot become a large buffer
FREE = 2**20  # bytes that any input may inflate to
RATIO = 200  # bytes out for each byte in, above FREE; JSON from models stays far below
FORMATS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Inflater:
    """Call `feed`, then `read` until it returns nothing; call `end` at the end of the input. They raise
    ConnectionLost."""

    def __init__(self, coding: str) -> None:
        if coding not in FORMATS:
            raise ConnectionLost("the answer has a content-encoding that was not asked for")
        self._coder = zlib.decompressobj(FORMATS[coding])
        self._undecided = coding == "deflate"
        self._input = b""
        self._begun = False
        self._taken = self._given = 0  # bytes
        self._full = False

    def feed(self, data: bytes) -> None:
        self._input += data
        self._taken += len(data)
        self._begun = True
        if self._undecided and len(self._input) > 1:
            self._undecided = False
            # Deflate should come in zlib's frame, but some servers send it without.
            if self._input[0] & 15 != zlib.DEFLATED or int.from_bytes(self._input[:2]) % 31:
                self._coder = zlib.decompressobj(-zlib.MAX_WBITS)

    def read(self) -> bytes:
        if self._undecided:
            return b""
        while self._input or self._full:
            if self._coder.eof:
                raise ConnectionLost("the answer goes on after the end of its content-encoding")
            try:
                data = self._coder.decompress(self._input, PIECE)
            except zlib.error:
                raise ConnectionLost("the answer's content-encoding is broken") from None
            self._full = len(data) == PIECE and not self._coder.eof
            self._input = self._coder.unconsumed_tail or self._coder.unused_data
            if data:
                self._given += len(data)
                if self._given > max(FREE, RATIO * self._taken):
                    raise ConnectionLost("the answer grows too much by its content-encoding")
                return data
        return b""

    def end(self) -> None:
        if self._begun and not self._coder.eof:
            raise ConnectionLost("the answer ends in the middle of its content-encoding")

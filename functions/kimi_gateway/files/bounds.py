"""Bounds of a request's attachments. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from kimi_gateway.dataclass import dataclass
from kimi_gateway.pivot.media import INLINED


@dataclass(frozen=True, slots=True)
class Bounds:
    """`inline`: larger pictures are uploaded. `text`: largest text file that is read here. `seconds` of one
    fetch. `keep`: how long the text of a document is kept for its account; 0 keeps none. `read` and `held`
    are of all attachments together: their bytes, and those that are in memory at one time."""

    count: int = 20
    size: int = 100 * 2**20
    inline: int = INLINED
    text: int = 8 * 2**20
    seconds: float = 60.0
    keep: int = 86_400
    read: int = 200 * 2**20
    held: int = 32 * 2**20

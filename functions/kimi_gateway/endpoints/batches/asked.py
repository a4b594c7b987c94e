"""The body of a request for a batch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import fields
from kimi_gateway.providers.batches import ENDPOINT

HOUR = 3_600
SHORTEST, LONGEST = 12 * HOUR, 7 * 24 * HOUR  # of a window (platform's page on batches, 2026-09)
MOST_PAIRS, LONGEST_NAME, LONGEST_VALUE = 16, 64, 512  # of metadata
_WINDOW = re.compile(r"(\d{1,3})([hd])", re.ASCII)
_KNOWN = ("input_file_id", "endpoint", "completion_window", "metadata")


@dataclass(frozen=True, slots=True)
class Asked:
    """`input` is the gateway's id of a file. `seconds` are those of the window. `metadata` is JSON. `ignored`
    are the names of fields that have no counterpart."""

    input: str
    window: str
    seconds: int
    metadata: str
    ignored: tuple[str, ...] = ()


def read(body: bytes) -> Asked:
    """Raises InvalidRequest."""
    told = fields.json_object(body).values
    input = told.get("input_file_id")
    if not isinstance(input, str) or not 0 < len(input) <= 200:
        fields.fail("input_file_id", "the id of an uploaded file with the purpose batch is required")
    if told.get("endpoint") != ENDPOINT:
        fields.fail("endpoint", f"must be {ENDPOINT}; the upstream's batches know no other one")
    window = told.get("completion_window")
    seconds = _seconds(window) if isinstance(window, str) else 0
    if not SHORTEST <= seconds <= LONGEST:
        fields.fail("completion_window", "must be between 12h and 7d, such as 24h")
    ignored = tuple(sorted(name for name in told if name not in _KNOWN and told[name] is not None))
    return Asked(input, str(window), seconds, _metadata(told), ignored)


def _seconds(window: str) -> int:
    found = _WINDOW.fullmatch(window)
    return int(found[1]) * (HOUR if found[2] == "h" else 24 * HOUR) if found else 0


def _metadata(told: Mapping[str, Any]) -> str:
    metadata = told.get("metadata")
    if metadata is None:
        return "null"
    if not isinstance(metadata, dict) or len(metadata) > MOST_PAIRS:
        raise InvalidRequest(f"metadata: must be an object with at most {MOST_PAIRS} pairs", param="metadata")
    for name, value in metadata.items():
        if len(name) > LONGEST_NAME or not isinstance(value, str) or len(value) > LONGEST_VALUE:
            what = f"names have at most {LONGEST_NAME} characters, and values are strings of at most"
            raise InvalidRequest(f"metadata: {what} {LONGEST_VALUE}", param="metadata")
    return jsonio.dumps(metadata).decode()

"""The fields of an upload: its purpose in the platform's terms, and the time when the file expires."""

from __future__ import annotations

from collections.abc import Mapping

from kimi_gateway.accounts.values import NEVER
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import signatures
from kimi_gateway.providers.files import PURPOSES, Purpose

HOUR, DAY = 3_600, 86_400
BY_TYPE = ("user_data", "assistants")  # OpenAI's words for a file whose content decides


@dataclass(frozen=True, slots=True)
class Wanted:
    """`word` is the client's purpose, `purpose` the platform's. `lifetime` in seconds; None is for ever."""

    word: str
    purpose: Purpose
    lifetime: int | None = None

    def expires(self, now: int) -> int:
        return NEVER if self.lifetime is None else now + self.lifetime


def kind_of(head: bytes) -> Purpose:
    """The purpose that fits a file by its first bytes."""
    found = signatures.of(head).kind
    return found if found in ("image", "video") else "file-extract"


def wanted(fields: Mapping[str, str], kind: Purpose, anthropic: bool) -> Wanted:
    """From the fields of a form and the `kind` of its file. Raises InvalidRequest."""
    if anthropic:
        return Wanted("", kind, _seconds(fields, "expires_in_seconds", 90 * DAY))
    anchor = fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise InvalidRequest("expires_after.anchor: only created_at is known.", param="expires_after.anchor")
    lifetime = _seconds(fields, "expires_after[seconds]", 30 * DAY)
    word = fields.get("purpose")
    if word is None:
        raise InvalidRequest("purpose: it is required, and must come before the file.", param="purpose")
    return Wanted(word, platforms(word, kind), lifetime)


def platforms(word: str, kind: Purpose) -> Purpose:
    """The platform's purpose for a client's word. Raises InvalidRequest with the platform's own text
    (2026-09)."""
    for purpose in PURPOSES:
        if word == purpose:
            return purpose
    if word in BY_TYPE:
        return kind
    if word == "vision":
        return "video" if kind == "video" else "image"
    raise InvalidRequest(f"Invalid purpose: {word[:60]}, only {'|'.join(PURPOSES)} accepted", param="purpose")


def _seconds(fields: Mapping[str, str], name: str, most: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and HOUR <= int(text) <= most):
        shown = name.replace("[", ".").replace("]", "")
        raise InvalidRequest(f"{shown}: must be between {HOUR} and {most} seconds.", param=shown)
    return int(text)

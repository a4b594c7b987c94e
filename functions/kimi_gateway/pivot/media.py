"""Pictures and videos in a message, and the types that the upstream accepts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from kimi_gateway.catalog.models import IMAGE_TYPES, VIDEO_TYPES
from kimi_gateway.errors import InvalidRequest, UnreadableImage
from kimi_gateway.pivot import attachments
from kimi_gateway.pivot.fields import fail

Part = dict[str, Any]

TYPES: Mapping[str, frozenset[str]] = {"image_url": IMAGE_TYPES, "video_url": VIDEO_TYPES}
_NOUNS = {"image_url": "picture", "video_url": "video"}


def address(part: Part) -> Any:
    value = part.get(part["type"])
    return value.get("url") if isinstance(value, dict) else value


def check(part: Part, where: str) -> None:
    """Raises InvalidRequest if the upstream would refuse it."""
    _check(str(address(part)), where, TYPES[part["type"]])


def _check(url: str, where: str, types: frozenset[str]) -> None:
    """Raises InvalidRequest, for a picture UnreadableImage."""
    try:
        _read(url, where, types)
    except InvalidRequest as error:
        if types is not IMAGE_TYPES:
            raise
        raise UnreadableImage(error.message, param=error.param) from None


def _read(url: str, where: str, types: frozenset[str]) -> None:
    if url.startswith("ms://"):
        return
    scheme, _, rest = url.partition(":")
    if scheme in ("http", "https"):
        fail(where, "web addresses are not fetched yet; send the bytes as a data URL")
    head, comma, data = rest.partition(",")
    media_type, *parameters = head.split(";")
    if scheme != "data" or not comma or "base64" not in parameters:
        fail(where, "must be a data URL with base64, or ms://<file id>")
    if media_type.lower() not in types:
        fail(
            where, f"{media_type or 'no media type'} is not supported; use one of {', '.join(sorted(types))}"
        )
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        fail(where, "the data is not valid base64")


def image(url: str, where: str) -> dict[str, Any]:
    """The part of a message. Raises InvalidRequest."""
    _check(url, where, IMAGE_TYPES)
    return {"type": "image_url", "image_url": {"url": url}}


def sendable(part: Part) -> Part:
    """A part of a tool's result; a sentence if it cannot be sent."""
    kind = part["type"]
    if kind not in TYPES:
        return part
    try:
        check(part, kind)
    except InvalidRequest as error:
        return told(_NOUNS[kind], error)
    return part


def told(noun: str, error: InvalidRequest) -> Part:
    """A sentence for the model instead of a part of a tool's result that cannot be sent. A 400 would end the
    session, because the result stays in its history."""
    return {"type": "text", "text": attachments.instead_of(noun, error).sentence}

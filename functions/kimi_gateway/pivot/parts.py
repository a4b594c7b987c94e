"""The parts of a message in Chat Completions: their shape, and their form upstream."""

from __future__ import annotations

import operator
from typing import Any

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import documents, fields, media
from kimi_gateway.pivot.placement import Slot

Part = dict[str, Any]
_MEDIA: dict[str, media.Kind] = {"image_url": "image", "video_url": "video"}


def check(part: Any, where: str) -> None:
    """Raises InvalidRequest for a known kind of part that is not in its shape."""
    fields.mapping(part, where)
    kind = part.get("type")
    fields.string(kind, f"{where}.type")
    if kind == "text":
        fields.string(part.get("text"), f"{where}.text")
    elif kind in _MEDIA:
        fields.string(_address(part), f"{where}.{kind}")
    elif kind == "file":
        documents.only_source(part, ("file", "file_url"), where)
        if part.get("file") is not None:
            fields.mapping(part["file"], f"{where}.file")


def _address(part: Part) -> Any:
    """A string, or an object with `url` or `file_id`."""
    value = part.get(part["type"])
    if not isinstance(value, dict):
        return value
    return value["url"] if value.get("url") is not None else value.get("file_id")


def outgoing(index: int, message: dict[str, Any]) -> dict[str, Any]:
    """The message for the upstream. `developer` becomes `system`, and a sentence replaces parts of a tool's
    result that cannot be sent. Raises InvalidRequest for such a part elsewhere."""
    if type(content := message.get("content")) is list:
        where = f"messages.{index}.content"
        one = _told if message["role"] == "tool" else _sent
        parts = [one(part, f"{where}.{at}") for at, part in enumerate(content)]
        if not all(map(operator.is_, parts, content)):
            message = {**message, "content": parts}
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _sent(part: Part, where: str) -> Part:
    kind = part["type"]
    if kind in _MEDIA:
        return _media(part, _MEDIA[kind], f"{where}.{kind}")
    return _file(part, where) if kind == "file" else part


def _told(part: Part, where: str) -> Part:
    try:
        return _sent(part, where)
    except InvalidRequest as error:
        return media.told(media.NOUNS.get(_MEDIA.get(part["type"], ""), "file"), error)


def _media(part: Part, kind: media.Kind, where: str) -> Part:
    value = part[part["type"]]
    if isinstance(value, dict) and value.get("url") is None:
        return documents.by_id(value["file_id"], f"{where}.file_id", None, kind)
    if isinstance(value, dict) and value.get("file_id") is not None:
        documents.only_source(value, ("url", "file_id"), where)
    url = str(_address(part))
    made = media.part(kind, url, where)
    return part if not isinstance(made, Slot) and made[part["type"]]["url"] is url else made


def _file(part: Part, where: str) -> Part:
    """OpenAI's `file`, or `file_url` beside the type, as the free APIs of the web product had it."""
    if part.get("file") is not None:
        return documents.of_file(part["file"], f"{where}.file")
    return documents.of_file({"file_url": part["file_url"]}, where)

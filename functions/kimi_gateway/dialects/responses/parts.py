"""Translates content parts of input items into the pivot."""

from __future__ import annotations

from typing import Any

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import documents, fields, media
from kimi_gateway.pivot.fields import fail

# The member with the text, by kind. Messages between Codex's agents are called encrypted; only OpenAI's
# servers would really encrypt them.
_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "encrypted_content": "encrypted_content",
}
_KINDS = (*_TEXTS, "input_image", "input_file")


def are_parts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, dict) and part.get("type") in _KINDS for part in value
    )


def read(content: Any, where: str, result: bool = False) -> str | list[dict[str, Any]]:
    """A string for a string or a single text, else parts. In a tool's `result`, a sentence replaces content
    that cannot be sent. Raises InvalidRequest."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        fail(where, "must be a string or an array of parts")
    one = _told if result else _part
    read = [one(part, f"{where}.{index}") for index, part in enumerate(content)]
    return read[0]["text"] if len(read) == 1 and "text" in read[0] else read


def text_of(content: str | list[dict[str, Any]]) -> str:
    """The texts only; the assistant's content has nothing else."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _part(part: Any, where: str) -> dict[str, Any]:
    fields.mapping(part, where)
    kind = part.get("type")
    fields.one_of(*_KINDS)(kind, f"{where}.type")
    if kind in _TEXTS:
        fields.string(part.get(_TEXTS[kind]), f"{where}.{_TEXTS[kind]}")
        return {"type": "text", "text": part[_TEXTS[kind]]}
    if kind == "input_image":
        return _image(part, where)
    return documents.of_file(part, where)


def _told(part: Any, where: str) -> dict[str, Any]:
    try:
        return _part(part, where)
    except InvalidRequest as error:
        if part["type"] in _TEXTS:
            raise
        return media.told("picture" if part["type"] == "input_image" else "file", error)


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    """`detail` has no counterpart upstream."""
    name = documents.only_source(part, ("image_url", "file_id"), where)
    fields.string(part[name], f"{where}.{name}")
    if name == "file_id":
        return documents.by_id(part[name], f"{where}.{name}", None, "image")
    return media.part("image", part[name], f"{where}.{name}")

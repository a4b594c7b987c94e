"""Translates content parts of input items into the pivot."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import fields
from kimi_gateway.pivot.fields import fail
from kimi_gateway.pivot.media import image, told

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
_TEXT_FILES = ("text/", "application/json", "application/xml", "application/yaml", "application/toml")


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
    return {"type": "text", "text": _file(part, where)}


def _told(part: Any, where: str) -> dict[str, Any]:
    try:
        return _part(part, where)
    except InvalidRequest as error:
        if part["type"] in _TEXTS:
            raise
        return told("picture" if part["type"] == "input_image" else "file", error)


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    """An image. `detail` has no counterpart upstream. A file id belongs to the platform's files."""
    url, file_id = part.get("image_url"), part.get("file_id")
    if url is None and isinstance(file_id, str) and file_id:
        url = f"ms://{file_id}"
    fields.string(url, f"{where}.image_url")
    return image(str(url), f"{where}.image_url")


def _file(part: dict[str, Any], where: str) -> str:
    """The text of a text file, with its name."""
    data = part.get("file_data")
    if data is None:
        fail(where, "files are not fetched yet; send the bytes of a text file as file_data")
    fields.string(data, f"{where}.file_data")
    head, comma, encoded = str(data).partition(",")
    kind = head.removeprefix("data:").partition(";")[0] if comma else "text/"
    if not kind.startswith(_TEXT_FILES):
        fail(f"{where}.file_data", f"{kind[:80]} is not read yet; send its text")
    try:
        text = base64.b64decode(encoded if comma else head, validate=True).decode()
    except (binascii.Error, ValueError):
        fail(f"{where}.file_data", "must be base64 of text in UTF-8")
    name = part.get("filename")
    return f"{name}:\n{text}" if isinstance(name, str) and name else text

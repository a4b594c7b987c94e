"""Tools that Anthropic defines and the client runs: Kimi gets them as functions with these schemas.

Types as in the anthropic SDK 2.13 (2026-11). Tools that run on Anthropic's servers (search, fetch, code
execution, MCP) or need its training (computer, browser) are not listed and are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


_PATH = _text("Absolute path of a file or folder.")
_RANGE = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "For view: first and last line, counted from 1; -1 is the end.",
}
_LINE = {"type": "integer", "description": "For insert: the line after which to insert, 0 is the start."}
_EDITS = {
    "path": _PATH,
    "view_range": _RANGE,
    "file_text": _text("For create: the whole text."),
    "old_str": _text("For str_replace: the text to replace, which must occur exactly once."),
    "new_str": _text("For str_replace: the new text."),
    "insert_line": _LINE,
    "insert_text": _text("For insert: the text."),
}


def _commands(words: tuple[str, ...], members: dict[str, Any], *required: str) -> dict[str, Any]:
    command = {"type": "string", "enum": list(words)}
    return {
        "type": "object",
        "properties": {"command": command, **members},
        "required": ["command", *required],
    }


# By the type's name without its date: description and input schema.
SCHEMAS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "bash": (
        "Run a command in a bash session that stays open between calls.",
        {
            "type": "object",
            "properties": {
                "command": _text("The command; not needed with restart."),
                "restart": {"type": "boolean", "description": "Restart the session."},
            },
        },
    ),
    "text_editor": (
        "View, create and edit text files.",
        _commands(("view", "create", "str_replace", "insert"), _EDITS, "path"),
    ),
    "memory": (
        "Keep notes over conversations, as files below /memories. Look there before starting a task.",
        _commands(
            ("view", "create", "str_replace", "insert", "delete", "rename"),
            {
                **_EDITS,
                "old_path": _text("For rename: the present path."),
                "new_path": _text("For rename: the new path."),
            },
        ),
    ),
}

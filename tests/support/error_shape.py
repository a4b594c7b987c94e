"""The two shapes of an error, checked whole."""

from __future__ import annotations

from typing import Any

ANTHROPIC = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
}


def openai_error(body: Any) -> dict[str, Any]:
    """The error of an OpenAI body that holds nothing besides it."""
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    return error


def anthropic_error(body: Any) -> dict[str, Any]:
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"]
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"type", "message"}
    assert error["type"] in ANTHROPIC
    assert isinstance(error["message"], str)
    assert error["message"]
    return error

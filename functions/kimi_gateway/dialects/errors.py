"""Errors in the format of each dialect. The path decides the dialect, not the headers."""

from __future__ import annotations

from typing import Any

from kimi_gateway.errors import (
    ContextLengthExceeded,
    GatewayError,
    NotDownloadable,
    UnreadableDocument,
    UnreadableImage,
)
from kimi_gateway.http import Request, Response
from kimi_gateway.net import jsonio
from kimi_gateway.observe import log

# Anthropic's error types by status. Its SDKs choose their exception classes by status (docs/contract.md,
# Errors).
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "api_error",
}


# Statuses for which repeating the request is useless, unless the error says when. Anthropic's and OpenAI's
# SDKs read this header.
_FINAL = frozenset((401, 403, 404, 405, 409, 413, 422))
NO_RETRY = ("x-should-retry", "false")


# The files of both APIs are at one path; Anthropic's SDKs always send this header (2.14, 2026-11).
_SHARED = frozenset(("files", "batches"))
_VERSION = "anthropic-version"


def dialect_of(request: Request) -> str:
    """`anthropic` for the Messages paths, for all below /anthropic, and for what an Anthropic client asks at
    a path that OpenAI has too; else `openai`."""
    parts = request.path.removeprefix("/api").split("/")
    if "messages" in parts[1:4] or parts[1:2] == ["anthropic"]:
        return "anthropic"
    shared = parts[1:2] == ["v1"] and not _SHARED.isdisjoint(parts[2:3])
    return "anthropic" if shared and request.headers.get(_VERSION) else "openai"


def body(error: GatewayError, dialect: str, request_id: str | None = None) -> dict[str, Any]:
    """The error's body. `request_id` is included if the dialect has a place for it."""
    if dialect == "anthropic":
        kind = _ANTHROPIC.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        shown = {} if request_id is None else {"request_id": request_id}
        told: dict[str, Any] = {"type": kind, "message": _in_messages(error)}
        if isinstance(error, NotDownloadable):  # its SDK makes an exception of its own of this
            told["details"] = {"error_code": error.code}
        return {"type": "error", "error": told, **shown}
    detail = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return {"error": detail}


def _in_messages(error: GatewayError) -> str:
    """The text for Messages. Claude Code reacts to these words: it compacts the conversation or removes the
    picture (2026-11)."""
    if isinstance(error, ContextLengthExceeded):
        maximum = error.maximum
        if maximum is None:
            return f"prompt is too long. {error.message}"
        # Clients read the difference; if the upstream did not name the size, it is the least possible.
        tokens = maximum + 1 if error.tokens is None else error.tokens
        return f"prompt is too long: {tokens} tokens > {maximum} maximum. {error.message}"
    if isinstance(error, UnreadableImage):
        return f"Could not process image: {error.message}"
    if isinstance(error, UnreadableDocument):
        return f"The PDF specified was not valid: {error.message}"
    return error.message


def retry_headers(error: GatewayError) -> tuple[tuple[str, str], ...]:
    """Headers for clients that would otherwise decide by the status alone."""
    return (NO_RETRY,) if error.status in _FINAL and error.retry_after is None else ()


def crashed(request: Request) -> GatewayError:
    """Log the current exception and return the client's error for it."""
    log.exception("crash", extra={"fields": {"id": request.id, "path": request.path[:200]}})
    return GatewayError("The gateway had an internal error.")


def response(error: GatewayError, request: Request) -> Response:
    headers = [("content-type", "application/json"), *error.headers, *retry_headers(error)]
    if error.retry_after is not None:
        headers.append(("retry-after", str(error.retry_after)))
    told = body(error, dialect_of(request), request.id)
    return Response(error.status, headers, jsonio.dumps(told))

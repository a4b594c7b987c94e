"""Errors in the format of each dialect. The path decides the dialect, not the headers."""

from __future__ import annotations

from typing import Any

from kimi_gateway.errors import ContextLengthExceeded, GatewayError, UnreadableDocument, UnreadableImage
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


# Statuses for which repeating the request is useless. Anthropic's and OpenAI's SDKs read this header.
_FINAL = frozenset((401, 403, 404, 405, 409, 413))
NO_RETRY = ("x-should-retry", "false")


def dialect_of(path: str) -> str:
    """`anthropic` for Messages paths and everything below /anthropic, else `openai`."""
    parts = path.removeprefix("/api").split("/")
    return "anthropic" if "messages" in parts[1:4] or parts[1:2] == ["anthropic"] else "openai"


def body(error: GatewayError, dialect: str, request_id: str | None = None) -> dict[str, Any]:
    """The error's body. `request_id` is included if the dialect has a place for it."""
    if dialect == "anthropic":
        kind = _ANTHROPIC.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        shown = {} if request_id is None else {"request_id": request_id}
        return {"type": "error", "error": {"type": kind, "message": _in_messages(error)}, **shown}
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
    return (NO_RETRY,) if error.status in _FINAL else ()


def crashed(request: Request) -> GatewayError:
    """Log the current exception and return the client's error for it."""
    log.exception("crash", extra={"fields": {"id": request.id, "path": request.path[:200]}})
    return GatewayError("The gateway had an internal error.")


def response(error: GatewayError, request: Request) -> Response:
    headers = [("content-type", "application/json"), *error.headers, *retry_headers(error)]
    if error.retry_after is not None:
        headers.append(("retry-after", str(error.retry_after)))
    told = body(error, dialect_of(request.path), request.id)
    return Response(error.status, headers, jsonio.dumps(told))

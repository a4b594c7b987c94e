"""Meaning of an upstream's failure: its cause, the possible next attempt, and the client's error.

The vendor's `error.type` decides before the status, because one status has several meanings
(docs/upstream.md; the vendor's error table, 2026-07). The client's view: docs/reliability.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import (
    Conflict,
    ContentFiltered,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    Unavailable,
    UnreadableImage,
)
from kimi_gateway.net import http, jsonio
from kimi_gateway.observe import excerpt

Cause = Literal[
    "authentication", "quota", "permission", "model", "rate", "overload",  # of this token: try another one
    "server", "connect", "broken",  # temporary: try again
    "timeout", "invalid", "content_filter", "context", "bound",  # never tried again
    "room",  # only of uploads, which have a rule of their own: the token's account takes no more files
]  # fmt: skip
OTHER_TOKEN = frozenset(("authentication", "quota", "permission", "model", "rate", "overload"))
AGAIN = frozenset(("server", "connect", "broken"))
CLIENTS_FAULT = frozenset(("invalid", "content_filter", "context"))

_BY_TYPE: Mapping[str, Cause] = {
    "invalid_authentication_error": "authentication",
    "incorrect_api_key_error": "authentication",
    "exceeded_current_quota_error": "quota",
    "insufficient_quota": "quota",
    "permission_denied_error": "permission",
    "resource_not_found_error": "model",
    "engine_overloaded_error": "overload",
    "rate_limit_reached_error": "rate",
    "content_filter": "content_filter",
    "invalid_request_error": "invalid",
    "server_error": "server",
    "server_unavailable": "server",
    "unexpected_output": "server",
}
# 504 means that the vendor's edge gave up on a request that may still run and be billed, like a time-out.
_BY_STATUS: Mapping[int, Cause] = {
    400: "invalid", 401: "authentication", 402: "quota", 403: "permission", 404: "model",
    413: "invalid", 422: "invalid", 429: "rate", 504: "timeout",
}  # fmt: skip
# Patterns are compiled by the first failure: a start would pay a millisecond for them.
_TOO_LONG = r"token limit|token length|too long|context length|maximum context"
# The numbers in such a text: the limit, and the requested size.
_LIMIT = r"(?:limit|maximum|context length|>)[^\d(]{0,20}(\d[\d,]{2,11})"
_REQUESTED = r"(?:requested|resulted in)[^\d]{0,20}(\d[\d,]{2,11})|(\d[\d,]{2,11}) tokens? >"
_IMAGE = r"\b(?:images?|image_url|pictures?)\b"
_AFTER = r"after (\d+(?:\.\d+)?) ?s"
LONGEST_MESSAGE = 2_000


@dataclass(frozen=True, slots=True)
class _View:
    error: type[GatewayError]
    message: str


_SHOWN: Mapping[str, _View] = {
    "invalid": _View(InvalidRequest, "The upstream refused the request."),
    "content_filter": _View(ContentFiltered, "The request was rejected by the upstream's content filter."),
    "rate": _View(RateLimited, "The upstream is rate limited. Please try again later."),
    "overload": _View(RateLimited, "The upstream is overloaded. Please try again later."),
    "timeout": _View(Unavailable, "Kimi did not answer in time."),
    "broken": _View(Unavailable, "The connection to Kimi was lost before the answer was complete."),
    "connect": _View(Unavailable, "Kimi cannot be reached from this gateway."),
    "server": _View(Unavailable, "Kimi did not answer."),
    # The operator's account or configuration is wrong. The client's key is fine, so never 401 to 404.
    "authentication": _View(Unavailable, "The operator's Kimi token is refused; tell them."),
    "quota": _View(Unavailable, "The operator's Kimi account has no credit left; tell them."),
    "permission": _View(Unavailable, "The operator's Kimi account may not use this; tell them."),
    "bound": _View(
        Conflict,
        "The files of this request belong to a Kimi account that is not available. Upload them again, and"
        " send the request with their new ids.",
    ),
    "room": _View(
        Conflict,
        "The Kimi account has no room for more files. Delete files that you do not need any more (DELETE"
        " /v1/files/ID), and send the request again; if that does not help, tell the operator.",
    ),
    "model": _View(Unavailable, "The operator's Kimi account does not have this model; tell them."),
}


class UpstreamFailure(Exception):
    """One attempt failed. `detail` is for the log and redacted; `quoted` says that it is the vendor's own
    text. `retry_after` is in seconds, None if not given."""

    def __init__(
        self, cause: Cause, detail: str = "", retry_after: float | None = None, quoted: bool = False
    ) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.retry_after = retry_after
        self.quoted = quoted
        self.stale = False  # a reused connection was dead: the upstream saw no attempt
        self.attempts = 0  # attempts of an admitted request, set when the last one failed

    def shown(
        self,
        model_is_ours: bool = True,
        request: str = "",
        window: int | None = None,
        vendor: str = "Kimi",
    ) -> GatewayError:
        """The client's error. A model of the catalog is never reported as missing. The text names the
        `vendor`, the attempts, and the request id for the operator. `window` is the model's in tokens, if
        known."""
        if self.cause == "context":
            return self._too_long(window)
        if self.cause == "model" and not model_is_ours:
            return ModelNotFound("The upstream does not know this model.", param="model", cause="model")
        view = _SHOWN[self.cause]
        if self.cause == "invalid" and self.quoted and re.search(_IMAGE, self.detail, re.I):
            return UnreadableImage(self.detail, cause="upstream_invalid")
        own_words = self.quoted and view.error.status in (400, 429)
        after = math.ceil(max(self.retry_after or 1, 1)) if view.error.status in (429, 503) else None
        message = self.detail if own_words else view.message
        if view.error is Unavailable:
            message = _traceable(message, self.attempts, request).replace("Kimi", vendor)
        return view.error(message, retry_after=after, cause=f"upstream_{self.cause}")

    def _too_long(self, window: int | None) -> ContextLengthExceeded:
        """The error with the numbers of the vendor's text, else the window's."""
        maximum = _number(re.search(_LIMIT, self.detail, re.I)) or window
        tokens = _number(re.search(_REQUESTED, self.detail, re.I))
        if maximum is not None and tokens is not None and tokens <= maximum:
            tokens = None  # the numbers were misread, or include the output
        words = self.detail if self.quoted else "The input is too long for the model."
        error = ContextLengthExceeded(words, cause="upstream_context")
        error.tokens, error.maximum = tokens, maximum
        return error


def _number(found: re.Match[str] | None) -> int | None:
    """The group that matched, without thousands separators."""
    return int((found[found.lastindex or 0]).replace(",", "")) if found else None


def _traceable(message: str, attempts: int, request: str) -> str:
    """The text with the number of attempts, that it is not charged, and the request id."""
    if attempts > 1 and message.startswith("Kimi"):
        message = f"{message.removesuffix('.')} ({attempts} attempts)."
    charged = " Not charged." if attempts else ""
    return f"{message}{charged}" + (f" Request {request}." if request else "")


def usual_cause(status: int, known: Mapping[str, Any]) -> Cause:
    """The cause by an error's type and its status, as the platform means them."""
    if status in _BY_STATUS and (status >= 500 or not known):
        return _BY_STATUS[status]
    if status >= 500 or status < 400:
        return "server"
    cause = _BY_TYPE.get(str(known.get("type")), _BY_STATUS.get(status, "server"))
    # A type that contradicts its status is ignored if it would blame the client.
    if cause in ("invalid", "content_filter") and status not in (400, 413, 422):
        cause = _BY_STATUS.get(status, "server")
    return cause


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailure:
    """The failure for an answer that is not a stream. The body may be the vendor's JSON, or HTML from its
    edge."""
    try:
        error = jsonio.loads(body)["error"]
        known = error if isinstance(error, dict) else {"message": str(error)}
    except (ValueError, TypeError, KeyError, RecursionError):
        known = {}
    if status == 200 and known:
        return from_event(known)
    return failure(usual_cause(status, known), known, seconds(headers.get("retry-after")), f"status {status}")


def from_event(error: Mapping[str, Any]) -> UpstreamFailure:
    """The failure for an `error` member inside a stream. There is no status, so the type alone decides."""
    return failure(_BY_TYPE.get(str(error.get("type")), "server"), error, None, "error event")


def lost(error: http.NetError) -> UpstreamFailure:
    """An exchange that brought no whole answer."""
    if isinstance(error, http.TimedOut):
        return UpstreamFailure("timeout", "no answer in time")
    if isinstance(error, http.ConnectFailed):
        return UpstreamFailure("connect", str(error))
    failure = UpstreamFailure("broken", str(error))
    failure.stale = isinstance(error, http.Stale)
    return failure


def failure(
    cause: Cause, error: Mapping[str, Any], retry_after: float | None, otherwise: str
) -> UpstreamFailure:
    message = error.get("message")
    quoted = isinstance(message, str) and bool(message.strip())
    detail = excerpt(str(message), LONGEST_MESSAGE) if quoted else otherwise
    if cause == "invalid" and re.search(_TOO_LONG, detail, re.I):
        cause = "context"
    if cause in ("rate", "overload") and retry_after is None:
        named = re.search(_AFTER, detail, re.I)
        retry_after = float(named.group(1)) if named else None
    return UpstreamFailure(cause, detail, retry_after, quoted)


def seconds(header: str | None) -> float | None:
    """Retry-After in seconds. Dates are ignored, because the vendor does not send them."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None

"""The error tree. Each failure becomes one of these errors where it occurs, and `dialects.errors` renders it
in the client's format.

GatewayError                     500  api_error              internal_error
├── InvalidRequest               400  invalid_request_error  invalid_request
│   ├── ContextLengthExceeded    400  invalid_request_error  context_length_exceeded
│   ├── NotDownloadable          400  invalid_request_error  file_not_downloadable
│   ├── UnreadableImage          400  invalid_request_error  invalid_request
│   ├── UnreadableDocument       400  invalid_request_error  invalid_request
│   └── ContentFiltered          400  invalid_request_error  content_filter
├── InvalidKey                   401  invalid_request_error  invalid_api_key
├── InsufficientCredits          403  insufficient_quota     insufficient_credits
├── BudgetExceeded               403  insufficient_quota     budget_exceeded
├── PermissionDenied             403  invalid_request_error  permission_denied
├── NotFound                     404  invalid_request_error  not_found
│   └── ModelNotFound            404  invalid_request_error  model_not_found
├── MethodNotAllowed             405  invalid_request_error  method_not_allowed
├── BodyTooSlow                  408  invalid_request_error  request_timeout
├── Conflict                     409  invalid_request_error  conflict
├── BodyTooLarge                 413  invalid_request_error  request_too_large
├── UnsupportedMedia             415  invalid_request_error  unsupported_media_type
├── IdempotencyKeyReused         422  invalid_request_error  idempotency_key_reused
├── UpgradeRequired              426  invalid_request_error  upgrade_required
├── RateLimited                  429  rate_limit_error       rate_limit_exceeded
└── Unavailable                  503  api_error              service_unavailable
    └── ShuttingDown             503  api_error              service_unavailable

Statuses, types and codes: docs/contract.md. 502 and 504 do not exist here.
"""

from __future__ import annotations

import math
from typing import Self

MOST_CAUSES = 16  # of an error whose tracebacks are dropped


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of a handled error and of the errors that led to it. A frame that has its error in
    a variable is a cycle with it, and keeps all of its other variables, a request's body among them, until
    the garbage collector runs."""
    for _ in range(MOST_CAUSES):
        if error is None:
            return
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class GatewayError(Exception):
    """A failure that a client may see.

    `message` is shown to the client, so it contains no secret and no upstream text before redaction. `param`
    names the wrong field. `retry_after` is in whole seconds. `headers` are added to the answer. `cause` is
    for logs and metrics only.
    """

    status = 500
    type = "api_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        cause: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers = headers
        self.cause = cause or self.code


class InvalidRequest(GatewayError):
    status, type, code = 400, "invalid_request_error", "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """The input, with room for its answer, has `tokens` tokens and the model accepts `maximum`; None if a
    number is not known. Messages has texts of its own for it (dialects.errors)."""

    code = "context_length_exceeded"
    tokens: int | None = None
    maximum: int | None = None

    @classmethod
    def beyond(cls, tokens: int, maximum: int, param: str) -> Self:
        """An error with the texts that clients look for: OpenAI's "maximum context length" and the vendor's
        "exceeded model token limit"."""
        error = cls(
            f"Your request exceeded model token limit: {maximum} (requested: {tokens})."
            f" This model's maximum context length is {maximum} tokens. Shorten the input or compact it.",
            param=param,
        )
        error.tokens, error.maximum = tokens, maximum
        return error


class UnreadableImage(InvalidRequest):
    """A picture that cannot be sent or that the upstream cannot read."""


class NotDownloadable(InvalidRequest):
    """A file that its owner uploaded; Anthropic's clients may download what tools made, and nothing else."""

    code = "file_not_downloadable"


class UnreadableDocument(InvalidRequest):
    """A document that cannot be read."""


class ContentFiltered(InvalidRequest):
    code = "content_filter"


class InvalidKey(GatewayError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class InsufficientCredits(GatewayError):
    status, type, code = 403, "insufficient_quota", "insufficient_credits"


class BudgetExceeded(GatewayError):
    status, type, code = 403, "insufficient_quota", "budget_exceeded"


class PermissionDenied(GatewayError):
    status, type, code = 403, "invalid_request_error", "permission_denied"


class NotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class BodyTooSlow(GatewayError):
    status, type, code = 408, "invalid_request_error", "request_timeout"


class Conflict(GatewayError):
    """Something that the request builds on is not there any more, or not now."""

    status, type, code = 409, "invalid_request_error", "conflict"


class UnsupportedMedia(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class IdempotencyKeyReused(GatewayError):
    status, type, code = 422, "invalid_request_error", "idempotency_key_reused"


class UpgradeRequired(GatewayError):
    status, type, code = 426, "invalid_request_error", "upgrade_required"


class BodyTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class RateLimited(GatewayError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    @classmethod
    def passing(cls, text: str, wait: float, cause: str | None = None) -> Self:
        """An error that ends by itself after `wait` seconds, which the text then says."""
        seconds = math.ceil(wait)
        return cls(f"{text} Try again in {seconds} s.", retry_after=seconds, cause=cause)


class Unavailable(GatewayError):
    status, type, code = 503, "api_error", "service_unavailable"


class ShuttingDown(Unavailable):
    """The gateway is shutting down; the request was not charged and may be repeated."""

    def __init__(self) -> None:
        super().__init__(
            "The gateway is restarting. Please send the request again.", retry_after=1, cause="shutdown"
        )

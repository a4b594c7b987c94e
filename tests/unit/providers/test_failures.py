"""What an upstream's failure means, and what of it the client is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_gateway.providers.failures import LONGEST_MESSAGE, Cause, UpstreamFailure, from_answer, from_event

PAGE = b"<html><body>nginx</body></html>"


def body(type: str | None = None, message: str | None = "words", **more: Any) -> bytes:
    return json.dumps({"error": {"type": type, "message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "type", "cause"),
    [
        (400, "invalid_request_error", "invalid"),
        (400, "content_filter", "content_filter"),
        (400, "unheard_of", "invalid"),
        (400, "rate_limit_reached_error", "rate"),
        (401, "invalid_authentication_error", "authentication"),
        (401, "incorrect_api_key_error", "authentication"),
        (401, "unheard_of", "authentication"),
        (402, None, "quota"),
        (403, "permission_denied_error", "permission"),
        (403, "exceeded_current_quota_error", "quota"),
        (404, "resource_not_found_error", "model"),
        (408, None, "server"),
        (413, None, "invalid"),
        (422, None, "invalid"),
        (429, "engine_overloaded_error", "overload"),
        (429, "exceeded_current_quota_error", "quota"),
        (429, "insufficient_quota", "quota"),
        (429, "rate_limit_reached_error", "rate"),
        (429, None, "rate"),
        (500, "server_error", "server"),
        (500, "unexpected_output", "server"),
        (503, "server_unavailable", "server"),
        (504, None, "timeout"),
        (529, "engine_overloaded_error", "server"),
        (200, "rate_limit_reached_error", "rate"),
        (200, "invalid_request_error", "invalid"),
        (200, None, "server"),
        (301, None, "server"),
    ],
)
def test_the_type_decides_before_the_status(status: int, type: str | None, cause: Cause) -> None:
    assert from_answer(status, {}, body(type)).cause == cause


@pytest.mark.parametrize("status", [401, 403, 404, 429])
@pytest.mark.parametrize("type", ["invalid_request_error", "content_filter"])
def test_a_type_that_blames_the_client_needs_a_status_that_does(status: int, type: str) -> None:
    assert from_answer(status, {}, body(type)).cause == from_answer(status, {}, b"").cause


UNREADABLE = [b"", PAGE, b"null", b"[]", b'{"error":null}', b'{"err', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, "invalid"),
        (401, "authentication"),
        (404, "model"),
        (429, "rate"),
        (502, "server"),
        (504, "timeout"),
    ],
)
def test_without_a_readable_body_the_status_decides(text: bytes, status: int, cause: Cause) -> None:
    failure = from_answer(status, {}, text)
    assert failure.cause == cause
    assert str(status) not in failure.shown().message
    assert "nginx" not in failure.shown().message


@pytest.mark.parametrize(
    "message",
    [
        "Invalid request: Your request exceeded model token limit : 262144",
        "Input token length too long",
        "This model's maximum context length is 8192 tokens",
    ],
)
def test_too_long_an_input_has_a_code_of_its_own(message: str) -> None:
    shown = from_answer(400, {}, body("invalid_request_error", message)).shown()
    assert (shown.status, shown.code, shown.message) == (400, "context_length_exceeded", message)


@pytest.mark.parametrize(
    ("type", "cause"),
    [
        ("server_error", "server"),
        ("engine_overloaded_error", "overload"),
        ("exceeded_current_quota_error", "quota"),
        ("content_filter", "content_filter"),
        ("unheard_of", "server"),
        (None, "server"),
        (["no", "word"], "server"),
    ],
)
def test_of_an_error_event_the_type_alone_decides(type: Any, cause: Cause) -> None:
    assert from_event({"type": type, "message": "words"}).cause == cause


@pytest.mark.parametrize(
    ("header", "message", "seconds", "shown"),
    [
        ("7", "after 3 seconds", 7, 7),
        ("0", "", 0, 1),
        ("1.2", "", 1.2, 2),
        (None, "please try again after 3 seconds", 3, 3),
        (None, "try again after 2.5s", 2.5, 3),
        (None, "After 12 S", 12, 12),
        (None, "TPD rate limit, current:5, limit:4", None, 1),
        (None, "after a while", None, 1),
        ("Sun, 06 Nov 2026 08:49:37 GMT", "", None, 1),
        ("-1", "", None, 1),
        ("nan", "", None, 1),
        ("inf", "", None, 1),
        ("86400", "", None, 1),
    ],
)
def test_the_wait_is_the_headers_else_the_one_in_the_text_else_a_second(
    header: str | None, message: str, seconds: float | None, shown: int
) -> None:
    headers = {} if header is None else {"retry-after": header}
    failure = from_answer(429, headers, body("rate_limit_reached_error", message))
    assert (failure.retry_after, failure.shown().retry_after) == (seconds, shown)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("account org-0123456789 is", "account [redacted] is"),
        ("org-0123456789<ak-0123456789> reached", "[redacted][redacted] reached"),
        ("key sk-0123456789abcdef wrong", "key [redacted] wrong"),
        ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_the_vendors_words_are_redacted_for_client_and_log(said: str, told: str) -> None:
    failure = from_answer(400, {}, body("invalid_request_error", said))
    assert failure.detail == failure.shown().message == told
    assert said == told or said not in str(failure)


def test_the_vendors_words_have_a_limit() -> None:
    assert (
        len(from_event({"type": "invalid_request_error", "message": "x" * 10_000}).detail) == LONGEST_MESSAGE
    )


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        ("authentication", 503, "service_unavailable"),
        ("quota", 503, "service_unavailable"),
        ("permission", 503, "service_unavailable"),
        ("model", 503, "service_unavailable"),
        ("rate", 429, "rate_limit_exceeded"),
        ("overload", 429, "rate_limit_exceeded"),
        ("server", 503, "service_unavailable"),
        ("connect", 503, "service_unavailable"),
        ("broken", 503, "service_unavailable"),
        ("timeout", 503, "service_unavailable"),
        ("invalid", 400, "invalid_request"),
        ("content_filter", 400, "content_filter"),
        ("context", 400, "context_length_exceeded"),
        ("bound", 409, "conflict"),
    ],
)
def test_each_cause_has_its_face(cause: Cause, status: int, code: str) -> None:
    shown = UpstreamFailure(cause, "what the vendor said", quoted=True).shown()
    assert (shown.status, shown.code, shown.cause) == (status, code, f"upstream_{cause}")
    assert (shown.message == "what the vendor said") == (status in (400, 429))
    assert (shown.retry_after is None) == (status in (400, 409))


def test_a_model_that_only_the_upstream_knows_may_be_missing() -> None:
    shown = UpstreamFailure("model").shown(model_is_ours=False)
    assert (shown.status, shown.code, shown.param) == (404, "model_not_found", "model")


def test_no_status_of_an_upstream_becomes_a_502_or_504() -> None:
    for status in (*range(201, 600), 999):
        for text in (b"", PAGE, body("unheard_of")):
            assert from_answer(status, {}, text).shown().status in (400, 429, 503), status

"""When another attempt is made, and after how long."""

from __future__ import annotations

from typing import get_args

import pytest

from kimi_gateway.flow.attempts import ATTEMPTS, START_WITHIN, next_attempt
from kimi_gateway.providers.failures import Cause, UpstreamFailure

OF_A_TOKEN = ("authentication", "quota", "permission", "model", "rate", "overload")
OF_THE_MOMENT = ("server", "connect", "broken")
NEVER = ("timeout", "invalid", "content_filter", "context", "bound", "room")


def delay(
    cause: str,
    after: float | None = None,
    *,
    attempts: int = 1,
    elapsed: float = 0.0,
    other: bool = False,
    waited: bool = False,
    jitter: float = 0.5,
) -> float | None:
    failure = UpstreamFailure(cause, retry_after=after)  # type: ignore[arg-type]
    return next_attempt(failure, attempts, elapsed, other, waited, jitter)


def test_every_cause_has_its_rule() -> None:
    assert set(get_args(Cause)) == {*OF_A_TOKEN, *OF_THE_MOMENT, *NEVER}


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("cause", NEVER)
def test_what_may_be_billed_or_is_refused_is_never_tried_again(cause: str, other: bool) -> None:
    assert delay(cause, other=other) is None


@pytest.mark.parametrize("cause", OF_A_TOKEN)
def test_another_token_is_asked_at_once_whatever_the_wait(cause: str) -> None:
    assert delay(cause, 60, other=True) == 0


@pytest.mark.parametrize("cause", ["authentication", "quota", "permission", "model"])
def test_a_token_that_cannot_is_not_asked_twice(cause: str) -> None:
    assert delay(cause) is None


@pytest.mark.parametrize("cause", ["rate", "overload"])
@pytest.mark.parametrize(
    ("after", "waited", "expected"),
    [
        (None, False, 1.0),
        (0, False, 0.01),
        (1, False, 1.0),
        (2, False, 2.0),
        (2.1, False, None),
        (60, False, None),
        (None, True, None),
        (0, True, None),
    ],
)
def test_a_short_wait_is_waited_once_and_a_long_one_is_the_clients(
    cause: str, after: float | None, waited: bool, expected: float | None
) -> None:
    assert delay(cause, after, waited=waited) == expected


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("cause", OF_THE_MOMENT)
@pytest.mark.parametrize(
    ("attempts", "jitter", "expected"), [(1, 0.0, 0.1), (1, 1.0, 0.3), (2, 0.0, 0.2), (2, 1.0, 0.6)]
)
def test_a_passing_fault_is_tried_again_after_a_growing_wait(
    cause: str, attempts: int, jitter: float, expected: float, other: bool
) -> None:
    assert delay(cause, attempts=attempts, jitter=jitter, other=other) == pytest.approx(expected)


@pytest.mark.parametrize("cause", [*OF_A_TOKEN, *OF_THE_MOMENT])
def test_three_attempts_are_all(cause: str) -> None:
    assert ATTEMPTS == 3
    assert delay(cause, 0, attempts=2, other=True) is not None
    assert delay(cause, 0, attempts=3, other=True) is None


@pytest.mark.parametrize(
    ("cause", "after", "last"), [("quota", None, 0.0), ("rate", 2, 2.0), ("server", None, 0.2)]
)
def test_none_begins_later_than_a_minute_in(cause: str, after: float | None, last: float) -> None:
    """The wait before it counts."""
    other = cause == "quota"
    assert delay(cause, after, elapsed=START_WITHIN - last, other=other) is not None
    assert delay(cause, after, elapsed=START_WITHIN - last + 0.01, other=other) is None

"""How long an answer that costs nothing waits, without sockets."""

from __future__ import annotations

import pytest

from kimi_gateway.edge.home.pacing import AT_ONCE, LONGEST, OPEN_AT_ONCE, OPEN_RATE, RATE, Pacing
from kimi_gateway.http import Headers, Request


def asked(account: str | None = None, client: str = "192.0.2.1") -> Request:
    request = Request("POST", "/v1/chat/completions", Headers(()), "req_1", client=client)
    request.record.account = account
    return request


def test_the_first_wait_for_nothing_and_the_others_keep_the_pace() -> None:
    pace = Pacing()
    assert {pace.wait(asked("a"), 429, 0.0) for _ in range(AT_ONCE)} == {0.0}
    waits = [pace.wait(asked("a"), 429, 0.0) for _ in range(RATE)]
    assert waits == pytest.approx([(at + 1) / RATE for at in range(RATE)])
    assert pace.wait(asked("a"), 401, 1.0) == pytest.approx(1 / RATE)


def test_none_waits_longer_than_the_longest_and_the_debt_ends() -> None:
    pace = Pacing()
    waits = [pace.wait(asked("a"), 400, 0.0) for _ in range(10 * AT_ONCE)]
    assert waits[-1] == LONGEST
    assert pace.wait(asked("a"), 400, 3 * LONGEST) == 0.0


def test_each_account_and_each_address_without_a_key_counts_for_itself() -> None:
    pace = Pacing()
    for _ in range(2 * AT_ONCE):
        pace.wait(asked("a"), 403, 0.0)
        pace.wait(asked(), 401, 0.0)
    assert pace.wait(asked("a"), 403, 0.0) > 0 < pace.wait(asked(), 401, 0.0)
    assert pace.wait(asked("b"), 403, 0.0) == pace.wait(asked(client="192.0.2.2"), 401, 0.0) == 0.0


@pytest.mark.parametrize("status", [200, 204, 499 + 1, 503])
def test_answers_to_a_key_and_failures_that_are_not_its_own_wait_for_nothing(status: int) -> None:
    pace = Pacing()
    assert {pace.wait(asked("a"), status, 0.0) for _ in range(2 * OPEN_AT_ONCE)} == {0.0}


@pytest.mark.parametrize("status", [200, 204, 503])
def test_other_answers_to_an_address_have_a_quicker_pace_of_their_own(status: int) -> None:
    pace = Pacing()
    assert {pace.wait(asked(), status, 0.0) for _ in range(OPEN_AT_ONCE)} == {0.0}
    assert pace.wait(asked(), status, 0.0) == pytest.approx(1 / OPEN_RATE)
    assert pace.wait(asked(), 404, 0.0) == pace.wait(asked("a"), 200, 0.0) == 0.0
    assert pace.wait(asked(client="192.0.2.2"), status, 0.0) == 0.0


def test_callers_without_an_address_do_not_wait_for_each_other() -> None:
    pace = Pacing()
    assert {pace.wait(asked(client=""), 401, 0.0) for _ in range(2 * AT_ONCE)} == {0.0}

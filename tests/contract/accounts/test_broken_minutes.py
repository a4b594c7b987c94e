"""A limit of tokens a minute where answers break: no call counts far more than came of it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kimi_gateway.accounts.values import Budget, Limits
from support.live import LiveGateway
from upstream import Cut, Kimi, ScriptedUpstream
from upstream.steps import RESET

LIMIT = 50_000
ASKED = 30_000  # tokens of output at most
WIDE = Limits(10**6, 10**6, 10**6)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
def test_calls_that_break_at_once_do_not_overshoot_the_limit(
    up: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    """Each was booked at its bound, so five of them counted three times the limit."""
    up.always(Cut(900, end=RESET))
    with LiveGateway(tmp_path, up.url) as gateway, ThreadPoolExecutor(20) as pool:
        key = gateway.limit(gateway.key(limits=WIDE), Budget("tokens", "minute", LIMIT))
        total = gateway.limit(gateway.key(limits=WIDE), Budget("tokens", "total", 10**9))

        def ask(key: str) -> int:
            return gateway.chat(key, max_tokens=ASKED, stream=stream).status_code

        statuses = Counter(pool.map(lambda _: ask(key), range(20)))
        assert set(statuses) <= {200, 503, 429}
        account = gateway.account(key)
        (minute,) = [each.amount for each in account.spent]
        assert 20 * 1_024 <= minute <= LIMIT
        assert (account.consumed, account.credits, account.reserved) == (0, 100, 0)
        assert ask(key) in (200, 503)  # the minute has room for more
        # A budget still counts what the vendor may bill.
        ask(total)
        (whole,) = [each.amount for each in gateway.account(total).spent]
        assert whole > ASKED


def test_a_stream_that_its_client_leaves_counts_what_came(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Else the limit would not hold for clients that always leave before the end."""
    answer = "word " * 16_000
    up.always(Cut(50_000, Kimi(answer), end=RESET))
    with LiveGateway(tmp_path, up.url) as gateway:
        key = gateway.limit(gateway.key(), Budget("tokens", "minute", LIMIT))
        assert gateway.chat(key, max_tokens=ASKED, stream=True).status_code == 200
        (minute,) = [each.amount for each in gateway.account(key).spent]
        assert 1_024 + 10_000 < minute < ASKED

"""Tiers, windows, grants and packages, without a store."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.accounts import packages, rules
from kimi_gateway.accounts.rules import Count
from kimi_gateway.accounts.values import NEVER, Balance, Grant, Limits, Window

TIMES = st.integers(0, 4_000_000_000)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("limits", "balances"),
    [
        (Limits(20, 600, 5_000), (0, 1, 100)),
        (Limits(60, 2_000, 20_000), (101, 1_000)),
        (Limits(200, 6_000, 50_000), (1_001, 10_000)),
        (Limits(500, 15_000, 100_000), (10_001, 10**9)),
    ],
)
def test_tiers_include_both_their_edges(limits: Limits, balances: tuple[int, ...]) -> None:
    assert [rules.tier(rules.rank(balance)) for balance in balances] == [limits] * len(balances)


def test_each_own_limit_replaces_its_column_even_when_it_is_zero() -> None:
    lowest = rules.rolled_over(rules.UNCOUNTED, 0)
    assert rules.limits_in_force(Limits(minute=0), lowest) == Limits(0, 600, 5_000)
    assert rules.limits_in_force(Limits(hour=9_999), lowest) == Limits(20, 9_999, 5_000)
    assert rules.limits_in_force(Limits(day=1), lowest) == Limits(20, 600, 1)


def test_an_unlimited_account_has_no_tier() -> None:
    assert rules.limits_in_force(Limits(hour=5), None) == Limits(hour=5)


def test_each_window_has_the_tier_that_it_began_with() -> None:
    counts = (Count(0, 5, rank=0), Count(0, 5, rank=1), Count(0, 5, rank=3))
    assert rules.limits_in_force(Limits(), counts) == Limits(20, 2_000, 100_000)
    kept = rules.rolled_over(counts, 60, rank=2)
    assert [count.rank for count in kept] == [2, 1, 3]
    assert [count.rank for count in rules.counted(rules.lifted(kept, 2))] == [2, 2, 3]


@pytest.mark.parametrize("rank", range(4))
def test_the_balances_of_a_tier_are_those_that_have_its_rank(rank: int) -> None:
    lowest, highest = rules.balances(rank, 10**15)
    assert rules.rank(lowest) == rules.rank(highest) == rank
    assert lowest == 0 or rules.rank(lowest - 1) == rank - 1


def test_of_full_windows_the_last_to_reset_is_named() -> None:
    counts = (Count(10, 5), Count(0, 9), Count(0, 9))
    assert rules.full_window(Limits(5, 10, 10), counts) == Window(5, 0, 660)
    assert rules.full_window(Limits(5, 9, 10), counts) == Window(9, 0, 3_600)
    assert rules.full_window(Limits(5, 9, 9), counts) == Window(9, 0, 86_400)
    assert rules.full_window(Limits(6, 10, 10), counts) is None
    assert rules.full_window(Limits(), counts) is None


def test_a_window_over_a_lowered_limit_has_none_remaining() -> None:
    counts = (Count(0, 30), Count(0, 30), Count(0, 30))
    assert rules.minute_window(Limits(minute=20), counts) == Window(20, 0, 60)


def test_a_late_request_is_counted_in_the_window_that_is_open() -> None:
    counts = rules.counted(rules.rolled_over(rules.UNCOUNTED, 86_400))
    assert rules.rolled_over(counts, 86_399) == counts


def test_counts_of_a_clock_that_was_far_ahead_are_dropped() -> None:
    counts = rules.counted(rules.rolled_over(rules.UNCOUNTED, 86_400 * 9))
    assert rules.rolled_over(counts, 60) == (Count(1, 0), Count(0, 0), Count(0, 0))


@given(now=TIMES)
def test_a_window_holds_now_and_ends_within_its_length(now: int) -> None:
    counts = rules.rolled_over(rules.UNCOUNTED, now)
    for count, size in zip(counts, rules.SIZES, strict=True):
        assert count.bucket * size <= now < (count.bucket + 1) * size
    window = rules.minute_window(Limits(minute=7), counts)
    assert window is not None
    assert 0 < window.reset - now <= 60
    assert window.reset % 60 == 0


@given(now=TIMES, later=st.integers(0, 200_000), requests=st.integers(1, 9))
def test_a_count_lasts_exactly_as_long_as_its_window(now: int, later: int, requests: int) -> None:
    counts = rules.rolled_over(rules.UNCOUNTED, now)
    for _ in range(requests):
        counts = rules.counted(counts)
    kept = [count.requests for count in rules.rolled_over(counts, now + later)]
    same = [(now + later) // size == now // size for size in rules.SIZES]
    assert kept == [requests if stays else 0 for stays in same]


GRANTS = st.lists(st.builds(Grant, st.integers(0, 50), st.integers(1, 30)), max_size=6).map(rules.merged)


@given(grants=GRANTS, data=st.data(), now=st.integers(0, 40))
def test_folding_keeps_every_credit_and_leaves_no_expired_grant(
    grants: tuple[Grant, ...], data: st.DataObject, now: int
) -> None:
    spendable = data.draw(st.integers(0, sum(grant.amount for grant in grants)))
    balance = Balance(grants, spendable)
    after = rules.folded(balance, now)
    assert after.spendable + after.expired == spendable
    assert sum(grant.amount for grant in rules.unspent(after)) == after.spendable
    assert all(grant.expires > now for grant in after.grants)
    assert rules.folded(after, now) == after


@given(grants=GRANTS, data=st.data())
def test_spending_takes_the_earliest_grants_first(grants: tuple[Grant, ...], data: st.DataObject) -> None:
    credits = [grant.expires for grant in grants for _ in range(grant.amount)]
    spendable = data.draw(st.integers(0, len(credits)))
    left = rules.unspent(Balance(grants, spendable))
    kept = [grant.expires for grant in left for _ in range(grant.amount)]
    assert kept == credits[len(credits) - spendable :]


def test_more_to_spend_than_was_granted_has_no_expiry() -> None:
    assert rules.unspent(Balance((Grant(2, 9),), spendable=5)) == (Grant(2, 9), Grant(3, NEVER))


def test_grants_of_one_expiry_are_one() -> None:
    grants = rules.merged((Grant(1), Grant(2, 9), Grant(0, 5), Grant(3), Grant(4, 9)))
    assert grants == (Grant(6, 9), Grant(4))


@given(grants=GRANTS)
def test_grants_survive_being_stored(grants: tuple[Grant, ...]) -> None:
    assert rules.unpacked(rules.packed(grants)) == grants


@pytest.mark.parametrize(
    ("bought", "expires"),
    [
        ("2026-11-21T13:45:07", "2026-12-21T13:45:07"),
        ("2026-12-31T23:59:59", "2027-01-31T23:59:59"),
        ("2027-01-31T10:00:00", "2027-02-28T10:00:00"),
        ("2028-01-30T10:00:00", "2028-02-29T10:00:00"),
        ("2026-08-31T00:00:00", "2026-09-30T00:00:00"),
    ],
)
def test_one_month_is_the_same_day_and_time_or_the_months_last_day(bought: str, expires: str) -> None:
    assert packages.months_later(at(bought), 1) == at(expires)


def test_packages_and_gifts_are_those_of_the_price_list() -> None:
    now = at("2026-11-21T00:00:00")
    month = at("2026-12-21T00:00:00")
    assert {name: package.bought(now) for name, package in packages.PACKAGES.items()} == {
        "starter": Grant(500),
        "standard": Grant(5_000, month),
        "premium": Grant(20_000, month),
    }
    gifts = [packages.INVITE_REGISTERED, packages.INVITE_FIRST_PAYMENT]
    assert gifts == [Grant(50), Grant(500)]

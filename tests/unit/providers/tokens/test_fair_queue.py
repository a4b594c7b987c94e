"""Owners take turns, however much one of them has put in."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.providers.tokens.wait_queue import FairQueue


def filled(put: str) -> FairQueue[int]:
    """One item for each letter, of the owner with that name."""
    queue = FairQueue[int]()
    for number, owner in enumerate(put):
        queue.add(owner, number)
    return queue


@given(st.text("abc", min_size=1, max_size=30))
def test_nobody_is_served_twice_while_another_waits_since_before(put: str) -> None:
    queue = filled(put)
    seen = [queue.take() for _ in put]
    assert len(queue) == 0
    assert sorted(seen) == list(range(len(put)))
    served, left = Counter[str](), Counter(put)
    for number in seen:
        owner = put[number]
        assert all(served[owner] <= served[other] for other in left if left[other])
        served[owner] += 1
        left[owner] -= 1
    for owner in set(put):
        mine = [number for number in seen if put[number] == owner]
        assert mine == sorted(mine)  # first come, first served


@given(st.text("abc", max_size=30))
def test_it_shows_the_order_in_which_it_would_serve(put: str) -> None:
    queue = filled(put)
    shown = [item for _, item in queue]
    assert shown == [queue.take() for _ in put]


def test_who_was_served_goes_behind_those_who_came_later() -> None:
    queue = filled("aaa")
    assert queue.take() == 0
    queue.add("b", 9)
    queue.served("a")
    assert [queue.take() for _ in range(3)] == [9, 1, 2]
    with pytest.raises(StopIteration):
        queue.take()


def test_the_newest_item_of_the_owner_with_most_can_be_taken_out() -> None:
    queue = filled("abbcb")
    assert queue.greedy() == ("b", 3)
    assert queue.newest("b") == 4
    queue.remove("b", 4)
    assert [owner for owner, _ in queue] == ["a", "b", "c", "b"]
    assert len(queue) == 4

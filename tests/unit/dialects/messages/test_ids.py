"""Tool-call ids, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.messages import ids

IDS = st.text(max_size=12) | st.from_regex(r"\Akimi_[a-f0-9_-]*\Z") | st.from_regex(r"\A[\w.:-]{1,9}\Z")


@pytest.mark.fuzz
@given(id=IDS)
def test_an_id_comes_back_as_it_was_and_clients_take_it(id: str) -> None:
    shown = ids.shown(id)
    assert ids.upstream(shown) == id
    assert shown
    assert set(shown) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@pytest.mark.fuzz
@given(first=IDS, second=IDS)
def test_two_ids_of_the_vendor_stay_two(first: str, second: str) -> None:
    assert (ids.shown(first) == ids.shown(second)) == (first == second)


LEGAL = st.from_regex(r"\A(kimi_)*[a-f0-9_-]{1,8}\Z")


@pytest.mark.fuzz
@given(first=LEGAL, second=LEGAL)
def test_two_ids_of_a_client_stay_two(first: str, second: str) -> None:
    assert (ids.upstream(first) == ids.upstream(second)) == (first == second)

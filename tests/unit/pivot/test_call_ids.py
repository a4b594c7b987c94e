"""Marks of call ids: unique, cut off whole, and others' ids left alone."""

from __future__ import annotations

import secrets

from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.messages import ids
from kimi_gateway.pivot.call_ids import MARK, marked, vendors

IDS = st.text(min_size=1, max_size=40)


@given(IDS, st.binary(min_size=8, max_size=8))
def test_a_mark_is_cut_off_in_every_format(id: str, random: bytes) -> None:
    shown = marked(id, lambda size: random[:size])
    assert len(shown) == len(id) + MARK
    assert MARK <= 10
    assert vendors(shown) == id
    assert vendors(ids.upstream(ids.shown(shown))) == id


@given(IDS, st.binary(min_size=8, max_size=8), st.integers(0, 60), st.characters(codec="ascii"))
def test_an_id_whose_mark_is_not_whole_is_nobodys(id: str, random: bytes, at: int, other: str) -> None:
    shown = marked(id, lambda size: random[:size])
    assert vendors(shown[:-1]) in (shown[:-1], vendors(shown[:-1]))
    at %= MARK - 1
    place = len(shown) - 1 - at
    changed = shown[:place] + other + shown[place + 1 :]
    assert vendors(changed) == changed or changed == shown or vendors(changed) == changed[:-MARK]


@given(st.from_regex(r"[a-zA-Z0-9_:.-]{1,40}", fullmatch=True).filter(lambda id: "_kg" not in id))
def test_other_ids_pass(id: str) -> None:
    assert vendors(id) == id


def test_a_check_character_tells_most_look_alikes_apart() -> None:
    alike = [f"run:0_kg{number:06d}x" for number in range(1000)]
    assert sum(vendors(id) != id for id in alike) < 60


def test_no_two_are_the_same() -> None:
    assert len({marked("run:0", secrets.token_bytes) for _ in range(2000)}) == 2000

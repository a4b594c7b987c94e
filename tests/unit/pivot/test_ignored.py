"""The header that names what goes no further: short, and in characters that a header can carry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot.ignored import MOST_BYTES, MOST_NAMES, named


def test_each_is_named_once_and_escaped() -> None:
    assert named(("a", "b"), ("a", "tools.größe.parameters")) == (
        "a",
        "b",
        "tools.gr%C3%B6%C3%9Fe.parameters",
    )
    assert named(["a\r\nset-cookie: b"], ["x,y", "\ud800"]) == (
        "a%0D%0Aset-cookie:%20b",
        "x%2Cy",
        "%ED%A0%80",
    )


def test_where_there_are_too_many_the_last_says_so() -> None:
    names = [f"n{at}" for at in range(MOST_NAMES)]
    assert named(names) == tuple(names)
    assert named([*names, "more"]) == (*names[:-1], "...")


@given(st.lists(st.text(max_size=300), max_size=60))
def test_it_is_short_and_visible_whatever_a_client_writes(names: list[str]) -> None:
    header = ", ".join(named(names))
    assert len(header) <= MOST_BYTES
    assert all(" " <= character <= "~" for character in header)
    assert len(named(names)) <= MOST_NAMES

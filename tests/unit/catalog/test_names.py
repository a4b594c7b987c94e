"""Names of the family: every part counts wherever it stands, and nothing else is taken for a part."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.catalog.models import ROWS
from kimi_gateway.catalog.names import FAMILY, PARTS, PLAIN, NameOptions, parted

parts = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=6)


@given(parts, st.randoms(use_true_random=False))
def test_the_order_of_parts_and_their_repetition_change_nothing(chosen: list[str], chance: object) -> None:
    name, options = parted("-".join([FAMILY, *chosen]))
    assert name == FAMILY
    for field in ("thinking", "search", "research", "silent"):
        assert getattr(options, field) == any(getattr(PARTS[part], field) for part in chosen)
    assert parted("-".join([FAMILY, *sorted(set(chosen))])) == (name, options)
    assert bool(options.system) == ("math" in chosen)


@pytest.mark.parametrize("count", range(1, len(PARTS) + 1))
def test_all_combinations_are_names(count: int) -> None:
    for chosen in itertools.combinations(PARTS, count):
        assert parted("-".join([FAMILY, *chosen]))[0] == FAMILY


@pytest.mark.parametrize(
    "name",
    ["kimi", "kimi-", "kimi-searching", "kimi-k1x", "kimi-search-", "kimi--search", "kimi-search-k9",
     "my-kimi-search", "kimi-Search", "coo6l3pkqq4ri39k1abc", "gpt-4", "", *(row.id for row in ROWS)],
)  # fmt: skip
def test_other_names_stay_as_they_are(name: str) -> None:
    assert parted(name) == (name, PLAIN)


def test_online_after_any_name_searches() -> None:
    assert parted("kimi-k3:online") == ("kimi-k3", NameOptions(search=True))
    assert parted("kimi-k1:online") == (FAMILY, NameOptions(thinking=True, search=True))

"""Counts of an upstream as money uses them, whatever an upstream said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.flow.spending import Told, cached, count

NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens")
DETAILS = {
    "prompt_tokens_details": ("cached_tokens", "cache_write_tokens"),
    "completion_tokens_details": ("reasoning_tokens",),
}
values = st.one_of(st.integers(-5, 50), st.none(), st.text(max_size=2), st.floats(allow_nan=False))
usages = st.fixed_dictionaries(
    {},
    optional={name: values for name in NAMES}
    | {
        name: st.one_of(values, st.dictionaries(st.sampled_from(members), values))
        for name, members in DETAILS.items()
    },
)


@given(usages)
def test_parts_are_within_their_whole(usage: dict[str, Any]) -> None:
    told = Told.by(usage)
    assert min(told) >= 0
    assert told.hit + told.written <= told.prompt
    assert told.reasoning <= told.completion
    assert (told.prompt, told.completion) == tuple(count(usage, name) for name in NAMES[:2])
    assert told.hit == min(cached(usage), told.prompt)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": 12, "completion_tokens": 4}, (12, 4, 0, 0, 0)),
        ({"prompt_tokens": 12, "completion_tokens": 4, "cached_tokens": 7}, (12, 4, 7, 0, 0)),
        ({"prompt_tokens": 12, "cached_tokens": 90}, (12, 0, 12, 0, 0)),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            (12, 9, 5, 6, 8),
        ),
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 60},
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            (12, 3, 5, 7, 3),
        ),
        ({"prompt_tokens": "12", "completion_tokens": None, "prompt_tokens_details": 7}, (0, 0, 0, 0, 0)),
    ],
)
def test_counts_are_read_from_each_of_their_places(usage: dict[str, Any], told: tuple[int, ...]) -> None:
    assert Told.by(usage) == told

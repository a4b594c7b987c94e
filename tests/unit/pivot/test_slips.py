"""Arguments with a model's slips: what any cut of them is mended to, and that right ones stay as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot.slips import Mender

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CUTS = st.lists(st.integers(0, 200), max_size=6)


def mended(text: str, cuts: list[int], foreign: bool = False) -> str:
    places = sorted({min(cut, len(text)) for cut in cuts})
    mender = Mender(foreign)
    bounds = zip([0, *places], [*places, len(text)], strict=True)
    return "".join(mender.feed(text[start:end]) for start, end in bounds)


@given(st.dictionaries(st.text(), VALUES), st.booleans(), CUTS)
def test_right_arguments_stay_byte_for_byte(value: Any, ascii: bool, cuts: list[int]) -> None:
    text = " " + json.dumps(value, ensure_ascii=ascii)
    assert mended(text, cuts) == text


@given(st.text(), CUTS, st.sampled_from(["", "}", ' {"b":2}', "\n```", "]"]))
def test_raw_control_characters_and_what_follows_the_object(said: str, cuts: list[int], rest: str) -> None:
    inside = said.replace("\\", "\\\\").replace('"', '\\"')  # all else as it stands
    text = '{"a":["' + inside + '"]}' + rest
    made = mended(text, cuts)
    assert json.loads(made) == {"a": [said]}
    assert made == mended(text, list(range(len(text))))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r'{"a":"\d+"}', r"\d+"),
        (r'{"a":"C:\work"}', r"C:\work"),
        (r'{"a":"\u12"}', r"\u12"),
        (r'{"a":"\uzz"}', r"\uzz"),
        (r'{"a":"\ud83d\udc4b"}', "👋"),
        ('{"a":"x\\\ny"}', "x\\\ny"),
        ('{"a":"\x01\x1f"}', "\x01\x1f"),
        (r'{"a":"\\\\d"}', r"\\d"),
    ],
)
def test_backslashes_before_no_escape_are_meant(text: str, meant: str) -> None:
    for cut in range(len(text)):
        assert json.loads(mended(text, [cut])) == {"a": meant}, cut
    assert json.loads(mended(text, list(range(len(text))))) == {"a": meant}


@pytest.mark.parametrize("text", ["oops\n", "[1]\n]", '"a\nb"', "  ", ""])
def test_what_begins_as_no_object_passes(text: str) -> None:
    assert mended(text, [1]) == text


def test_a_free_text_is_not_mended() -> None:
    assert mended('{"a": "\n"} more', [5], foreign=True) == '{"a": "\n"} more'

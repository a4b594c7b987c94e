"""Keys and ids: their form, their checksum, and what of them may be seen."""

from __future__ import annotations

import hashlib
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.accounts import keys

KEY = keys.new_key(random.Random(1).randrange)


def test_a_key_has_its_prefix_32_random_characters_and_6_of_checksum() -> None:
    assert re.fullmatch(r"sk-kg-[0-9A-Za-z]{38}", KEY)
    assert keys.well_formed(KEY)


def test_keys_differ_and_follow_the_random_source() -> None:
    assert len({keys.new_key() for _ in range(100)}) == 100
    assert keys.new_key(random.Random(1).randrange) == KEY


def test_ids_are_ten_lower_case_characters_behind_what_they_name() -> None:
    assert re.fullmatch(r"acc_[0-9a-z]{10}", keys.account_id())
    assert re.fullmatch(r"key_[0-9a-z]{10}", keys.key_id())


@given(place=st.integers(0, len(KEY) - 1), character=st.characters())
def test_a_key_with_one_other_character_is_not_well_formed(place: int, character: str) -> None:
    typo = KEY[:place] + character + KEY[place + 1 :]
    assert keys.well_formed(typo) == (typo == KEY)


@given(text=st.text())
def test_noise_is_not_well_formed(text: str) -> None:
    assert not keys.well_formed(text)
    assert not keys.well_formed(keys.PREFIX + text)


@pytest.mark.parametrize("key", ["", "sk-kg-", KEY[:-1], KEY + "0", " " + KEY, KEY.upper(), "sk-" + KEY[6:]])
def test_a_key_cut_or_wrapped_is_not_well_formed(key: str) -> None:
    assert not keys.well_formed(key)


def test_two_characters_swapped_are_noticed() -> None:
    swapped = KEY[:10] + KEY[11] + KEY[10] + KEY[12:]
    assert swapped != KEY
    assert not keys.well_formed(swapped)


def test_the_checksum_keeps_its_length_when_it_is_small() -> None:
    assert all(len(keys.new_key(random.Random(seed).randrange)) == 44 for seed in range(500))


def test_the_digest_is_the_sha256_of_the_whole_key() -> None:
    assert keys.digest(KEY) == hashlib.sha256(KEY.encode()).hexdigest()
    assert len(keys.digest("\ud800")) == 64  # a header may hold anything


def test_a_masked_key_shows_four_characters_of_its_checksum() -> None:
    assert keys.masked(KEY) == "sk-kg-…" + KEY[-4:]


def test_of_what_is_not_a_key_nothing_is_shown() -> None:
    assert keys.masked("sk-somebody-elses-secret") == "…"

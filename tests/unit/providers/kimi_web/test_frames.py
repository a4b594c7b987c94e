"""Connect's frames, read from pieces of any size; and what people paste as a token."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.providers.kimi_web.frames import LAST, BadFrame, Decoder, encode
from kimi_gateway.providers.kimi_web.prompt import with_addresses
from kimi_gateway.providers.kimi_web.sessions import claims_of, plain


@given(st.lists(st.tuples(st.sampled_from((0, LAST)), st.binary(max_size=40)), max_size=6), st.data())
def test_frames_are_the_same_however_they_are_cut(
    frames: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(bytes((flags,)) + encode(content)[1:] for flags, content in frames)
    decoder, found = Decoder(100), []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        found += decoder.feed(whole[at : at + size])
        at += size
    assert (found, decoder.pending) == (frames, False)


def test_a_frame_above_the_limit_is_refused_by_its_length_alone() -> None:
    decoder = Decoder(100)
    assert decoder.feed(encode(b"good") + (101).to_bytes(5, "big")) == [(0, b"good")]
    for _ in range(2):
        with pytest.raises(BadFrame, match="size limit"):
            decoder.feed(b"more")
    assert Decoder(100).feed(encode(b"x" * 100)) == [(0, b"x" * 100)]


def test_an_unfinished_frame_is_pending() -> None:
    decoder = Decoder(100)
    assert decoder.feed(encode(b"hello")[:-1]) == []
    assert decoder.pending


TOKEN = "eyJh.eyJi.c"


@pytest.mark.parametrize(
    "pasted",
    [
        TOKEN,
        f" {TOKEN}\n",
        f"kimi-auth={TOKEN}",
        f"Cookie: a=b; kimi-auth={TOKEN}; c=d",
        json.dumps(TOKEN.split(".")),
    ],
)
def test_a_token_is_found_in_what_people_paste(pasted: str) -> None:
    assert plain(pasted) == TOKEN


@pytest.mark.parametrize("text", ["", "a.b.c", "eyJ.%%%.x", "a.b", "x" * 10_000, "a.W10.c"])
def test_what_is_no_token_has_no_claims(text: str) -> None:
    assert claims_of(text) == {}


ADDRESSES = [
    ("see https://a.example/x.", "https://a.example/x"),
    ("(https://a.example/x)", "https://a.example/x"),
    ("https://a.example/x?a=1&b=2, and", "https://a.example/x?a=1&b=2"),
    ("看https://a.example/x。好", "https://a.example/x"),
    ("http://localhost/x and http://a", ""),
]


@pytest.mark.parametrize(("text", "url"), ADDRESSES)
def test_addresses_are_marked_without_the_punctuation_behind_them(text: str, url: str) -> None:
    marked = with_addresses(text)
    assert marked.count("<url ") == bool(url)
    if url:
        assert f">{url}</url>" in marked
    assert marked.replace('<url id="" type="url" status="" title="" wc="">', "").replace("</url>", "") == text

"""A conversation's token depends on its beginning alone, and moves only when that token goes out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.providers.provider import Token
from kimi_gateway.providers.tokens.affinity import HASHED, beginning, ranked
from support.pooling import A, B, C, tokens

some_tokens = st.sets(st.integers(0, 10_000), min_size=2, max_size=12).map(
    lambda numbers: [Token.of(f"sk-{number}") for number in numbers]
)
texts = st.text(max_size=30)
parts = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, texts),
        st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, texts),
        st.builds(lambda url: {"type": "image_url", "image_url": url}, texts),
    ),
    max_size=3,
)
messages = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.one_of(texts, parts, st.none()),
)


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **more}


@given(st.lists(messages, max_size=4), messages, st.lists(messages, max_size=4))
def test_later_turns_change_nothing(
    before: list[dict[str, Any]], first: dict[str, Any], later: list[dict[str, Any]]
) -> None:
    opening = [*before, first | {"role": "user"}]
    assert beginning({"messages": opening}) == beginning({"messages": [*opening, *later]})


@given(some_tokens, st.binary(min_size=1, max_size=16), st.data())
def test_a_token_that_goes_out_moves_only_its_own_conversations(
    held: list[Token], start: bytes, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(held))
    before = ranked(start, held)
    assert ranked(start, [token for token in held if token != gone]) == [t for t in before if t != gone]


@given(some_tokens, st.binary(min_size=1, max_size=16), st.randoms())
def test_the_order_of_the_tokens_in_the_file_does_not_matter(
    held: list[Token], start: bytes, random: Any
) -> None:
    mixed = list(held)
    random.shuffle(mixed)
    assert ranked(start, mixed) == ranked(start, held)


def test_conversations_are_spread_evenly() -> None:
    counts = Counter(ranked(beginning(user(f"q {number}")), tokens)[0] for number in range(3000))
    assert all(800 < counts[token] < 1200 for token in (A, B, C))


def test_a_cache_key_of_the_clients_decides_whatever_the_messages() -> None:
    one, other = user("one", prompt_cache_key="k"), user("other", prompt_cache_key="k")
    assert beginning(one) == beginning(other)
    assert beginning(one) != beginning(user("one", prompt_cache_key="l"))
    assert beginning(user("one", prompt_cache_key="")) == beginning(user("one"))


def test_the_system_text_and_the_first_question_tell_conversations_apart() -> None:
    def with_system(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "system", "content": text}, *user("hi")["messages"]]}

    assert len({beginning(with_system("a")), beginning(with_system("b")), beginning(user("hi"))}) == 3


def test_pictures_tell_conversations_apart_though_their_heads_are_alike() -> None:
    def picture(tail: str) -> dict[str, Any]:
        url = "data:image/jpeg;base64," + "/9j/4AAQ" * HASHED + tail
        return user([{"type": "text", "text": "describe"}, {"type": "image_url", "image_url": {"url": url}}])

    assert beginning(picture("x")) != beginning(picture("y"))
    assert beginning(picture("x")) == beginning(picture("x"))


def test_half_a_surrogate_pair_and_no_content_at_all_are_hashed_too() -> None:
    assert beginning(user("\ud83d")) != beginning(user(None))

"""The estimate: it grows with the text, takes any JSON, and does not weigh images by their bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot import token_estimate

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "tool_calls", "url"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


@given(text=st.text(), more=st.text(min_size=1))
def test_more_text_is_more_tokens(text: str, more: str) -> None:
    assert token_estimate.of_text(text) < token_estimate.of_text(text + more)
    assert token_estimate.of_messages([said(text)]) <= token_estimate.of_messages([said(text + more)])


@given(messages=st.lists(st.text().map(said), max_size=4), text=st.text())
def test_more_messages_are_more_tokens(messages: list[Any], text: str) -> None:
    assert token_estimate.of_messages(messages) < token_estimate.of_messages([*messages, said(text)])


@given(text=st.text())
def test_a_token_is_at_least_a_byte(text: str) -> None:
    assert token_estimate.of_text(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(size=st.integers(0, 100_000))
def test_an_image_is_an_image_whatever_its_bytes(size: int) -> None:
    url = "data:image/png;base64," + "A" * size
    for media in (url, {"url": url}, {"url": url, "detail": "high"}):
        part = {"type": "image_url", "image_url": media}
        assert (
            token_estimate.of_messages([said([part])])
            == token_estimate.PER_MESSAGE + token_estimate.PER_MEDIA
        )


@given(messages=st.lists(JSON | st.fixed_dictionaries({"content": JSON}), max_size=3), tools=JSON)
def test_any_json_has_an_estimate(messages: list[Any], tools: Any) -> None:
    assert token_estimate.of_messages(messages, tools) >= 0


@pytest.mark.parametrize(
    ("text", "least", "most"), [("word " * 100, 100, 150), ("你好" * 100, 120, 150), ("👋" * 100, 60, 110)]
)
def test_it_is_near_what_tokenisers_say(text: str, least: int, most: int) -> None:
    assert least <= token_estimate.of_text(text) <= most


def test_reasoning_calls_and_tools_count_too() -> None:
    plain = token_estimate.of_messages([said("x")])
    call = {"id": "a:0", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    for more in (
        token_estimate.of_messages([said("x", reasoning_content="a thought")]),
        token_estimate.of_messages([said("x", tool_calls=[call])]),
        token_estimate.of_messages([said("x")], [call]),
    ):
        assert more > plain

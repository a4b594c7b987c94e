"""A Messages request that is wrong is refused, and the error names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.dialects.messages.request import Translation
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot import request as pivot
from support.messages_blocks import HI, IMAGE, PNG, TOOL, Json, assistant, result, text, use, user
from support.messages_stream import asked


def said(*blocks: Any) -> Json:
    return {"messages": [user(*blocks)]}


def after(*blocks: Any, then: Any = ()) -> Json:
    return {"messages": [HI, assistant(*blocks), *then]}


CALLED = user(result("a"))
BAD: dict[str, tuple[Json, str]] = {
    "no model": ({"model": None}, "model"),
    "a blank model": ({"model": " "}, "model"),
    "no max_tokens": ({"max_tokens": None}, "max_tokens"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens as text": ({"max_tokens": "9"}, "max_tokens"),
    "no messages": ({"messages": None}, "messages"),
    "messages that are text": ({"messages": "Hi"}, "messages"),
    "an empty list of messages": ({"messages": []}, "messages"),
    "nothing but empty messages": ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    "temperature 1.5": ({"temperature": 1.5}, "temperature"),
    "top_p 2": ({"top_p": 2}, "top_p"),
    "top_k as text": ({"top_k": "5"}, "top_k"),
    "stream as text": ({"stream": "yes"}, "stream"),
    "five stop sequences": ({"stop_sequences": list("abcde")}, "stop_sequences"),
    "an empty stop sequence": ({"stop_sequences": ["a", ""]}, "stop_sequences.1"),
    "a stop sequence that is a number": ({"stop_sequences": [1]}, "stop_sequences.0"),
    "stop sequences as text": ({"stop_sequences": "END"}, "stop_sequences"),
    "metadata as text": ({"metadata": "me"}, "metadata"),
    "a user that is a number": ({"metadata": {"user_id": 1}}, "metadata.user_id"),
    "thinking as text": ({"thinking": "yes"}, "thinking"),
    "thinking of no type": ({"thinking": {}}, "thinking.type"),
    "a budget of 0": ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
    "a display that is no text": ({"thinking": {"type": "adaptive", "display": 1}}, "thinking.display"),
    "an effort that is no text": ({"output_config": {"effort": 3}}, "output_config.effort"),
    "an odd format": ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    "a format without a schema": (
        {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema",
    ),
    "a format for a begun answer": (
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}, **after(text("x"))},
        "output_config.format",
    ),
    "a time to live that is no text": (
        {"cache_control": {"type": "ephemeral", "ttl": 3600}}, "cache_control.ttl",
    ),
    "a system prompt that is a number": ({"system": 1}, "system"),
    "an image in the system prompt": ({"system": [IMAGE]}, "system.0.type"),
    "a system text that is a number": ({"system": [{"type": "text", "text": 1}]}, "system.0.text"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    "no role": ({"messages": [{"content": "x"}]}, "messages.0.role"),
    "a message that is text": ({"messages": ["Hi"]}, "messages.0"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content"),
    "content that is an object": ({"messages": [{"role": "user", "content": {}}]}, "messages.0.content"),
    "an empty user": ({"messages": [HI, {"role": "user", "content": ""}]}, "messages.1.content"),
    "a block that is text": (said("Hi"), "messages.0.content.0"),
    "a block without a type": (said({}), "messages.0.content.0.type"),
    "a block that nobody knows": (said(text("a"), {"type": "audio"}), "messages.0.content.1.type"),
    "a text that is a number": (said(text("a"), {"type": "text", "text": 1}), "messages.0.content.1.text"),
    "a block of the user's in the assistant's": (after(IMAGE, then=[HI]), "messages.1.content.0.type"),
    "a call in the user's": (said(use("a")), "messages.0.content.0.type"),
    "thinking that is a number": (
        after({"type": "thinking", "thinking": 1}), "messages.1.content.0.thinking",
    ),
    "an image without a source": (said({"type": "image"}), "messages.0.content.0.source"),
    "an image in SVG": (
        said({"type": "image", "source": {"type": "base64", "media_type": "image/svg+xml", "data": PNG}}),
        "messages.0.content.0.source",
    ),
    "an image that is no base64": (
        said({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}),
        "messages.0.content.0.source",
    ),
    "an image of an odd source": (
        said({"type": "image", "source": {"type": "ftp"}}), "messages.0.content.0.source.type",
    ),
    "a document of an odd source": (
        said({"type": "document", "source": {"type": "ftp"}}), "messages.0.content.0.source.type",
    ),
    "a search result without content": (
        said({"type": "search_result", "title": "T", "source": "S"}), "messages.0.content.0.content",
    ),
    "a call without an id": (
        after({"type": "tool_use", "name": "a", "input": {}}), "messages.1.content.0.id",
    ),
    "a call without a name": (
        after({"type": "tool_use", "id": "a", "input": {}}), "messages.1.content.0.name",
    ),
    "a call whose input is text": (
        after({"type": "tool_use", "id": "a", "name": "a", "input": "{}"}), "messages.1.content.0.input",
    ),
    "a result without an id": (
        after(use("a"), then=[user({"type": "tool_result"})]), "messages.2.content.0.tool_use_id",
    ),
    "a result's content that is a number": (
        after(use("a"), then=[user(result("a", 42))]), "messages.2.content.0.content",
    ),
    "an odd block in a result": (
        after(use("a"), then=[user(result("a", [text("x"), {"type": "audio"}]))]),
        "messages.2.content.0.content.1.type",
    ),
    "is_error as text": (
        after(use("a"), then=[user(result("a", is_error="yes"))]), "messages.2.content.0.is_error",
    ),
    "tools as text": ({"tools": "get"}, "tools"),
    "a tool that is text": ({"tools": ["get"]}, "tools.0"),
    "a tool without a name": ({"tools": [TOOL, {"input_schema": {}}]}, "tools.1.name"),
    "a tool without a schema": ({"tools": [{"name": "get"}]}, "tools.0.input_schema"),
    "a tool's description that is a number": ({"tools": [TOOL | {"description": 1}]}, "tools.0.description"),
    "two tools of one name": ({"tools": [TOOL, TOOL]}, "tools.1.name"),
    "a choice that is text": ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
    "an odd choice": ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    "the choice of no tool": ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    "the choice of a tool that is not there": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "put"}}, "tool_choice.name",
    ),
    "an odd wish for parallel calls": (
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
        "tool_choice.disable_parallel_tool_use",
    ),
    "an odd value for a field of the pivot": ({"reasoning_effort": {}}, "reasoning_effort"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_and_named(name: str) -> None:
    more, where = BAD[name]
    with pytest.raises(InvalidRequest) as refused:
        asked(**more)
    assert refused.value.param == where
    assert refused.value.message.startswith(where)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "source", "content", "id", "name", "input", "tool_use_id", "title"]
            ),
            inner
            | st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "base64", "content"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)
ROLES = st.sampled_from(["user", "assistant", "system"])
KNOWN = ["system", "tools", "tool_choice", "thinking", "metadata", "output_config", "stop_sequences",
         "cache_control", "top_k", "stop", "reasoning_effort", "x"]  # fmt: skip


@pytest.mark.fuzz
@given(
    messages=st.lists(st.fixed_dictionaries({"role": ROLES, "content": ANYTHING}) | ANYTHING, max_size=4),
    more=st.dictionaries(st.sampled_from(KNOWN), ANYTHING, max_size=3),
)
def test_whatever_is_asked_is_read_or_refused_by_name(messages: list[Any], more: Json) -> None:
    """No third thing, and what is read the pivot takes."""
    made: Translation | None = None
    try:
        made = asked(messages=messages, **more)
    except InvalidRequest as exc:
        refused = exc
    if made is None:
        assert refused.param
        return
    pivot.read(json.dumps({"model": "m", "messages": made.chat.body["messages"]}).encode())

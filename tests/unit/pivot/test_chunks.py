"""A chunk's bytes pass through under a new identity, and say what a chunk written anew would say. What is
no chunk breaks the stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.net import jsonio
from kimi_gateway.pivot.chunks import ErrorEvent, Identity, Progress, Unreadable, frame

OURS = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "kimi-k2"}
NAMES = st.sampled_from(
    ["id", "object", "created", "model", "system_fingerprint", "choices", "usage", "x", '"choices":', "msh"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(['{"choices":[', ',"usage":null}'])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=6)
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": st.text(), "reasoning_content": st.text(), "x": VALUES}
)
CHOICES = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "delta": DELTAS, "finish_reason": st.sampled_from([None, "stop"])},
        optional={"usage": st.none(), "logprobs": VALUES},
    ),
    min_size=1,
    max_size=2,
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Members in any order, the head's names before and behind the choices, nested twins of them too."""
    members = draw(st.dictionaries(NAMES, VALUES, max_size=6))
    members.pop("error", None)
    members["choices"] = draw(CHOICES)
    if "usage" in members:
        members["usage"] = draw(st.none() | st.just({"total_tokens": 3}))
    return {name: members[name] for name in draw(st.permutations(list(members)))}


def identity() -> Identity:
    return Identity(OURS["id"], OURS["model"], OURS["created"], "fp_x")  # type: ignore[arg-type]


@given(st.lists(bodies(), min_size=1, max_size=4), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_a_spliced_chunk_says_what_a_chunk_written_anew_says(
    sent: list[dict[str, Any]], separators: tuple[str, str]
) -> None:
    ours, progress = identity(), Progress()
    for body in sent:
        raw = json.dumps(body, separators=separators, ensure_ascii=False).encode("utf-8", "replace")
        chunk = progress.read((raw, b""))
        assert chunk is not None
        framed = frame(chunk, ours)
        assert framed.startswith(b"data: ")
        assert framed.endswith(b"\n\n")
        said = json.loads(framed[6:])
        assert said == ours.put_on(json.loads(jsonio.dumps(chunk.body)), OURS["object"])  # type: ignore[arg-type]
        assert said | OURS == said
        assert said.get("usage") is None


@pytest.mark.parametrize("end", [b"}", b',"usage":null}'], ids=["plain", "usage null"])
def test_the_bytes_behind_the_head_are_the_upstreams_own(end: bytes) -> None:
    choices = rb'"choices":[{"index":0,"delta":{"content":"\u4f60 \/ 1.0e2"},"finish_reason":null}]'
    raw = b'{"id":"cmpl-1","object":"chat.completion.chunk","created":1,"model":"kimi-k2.6",' + choices + end
    chunk = Progress().read((raw, b""))
    assert chunk is not None
    assert frame(chunk, identity()).endswith(choices + b"}\n\n")


def test_a_member_of_ours_behind_the_choices_does_not_get_through() -> None:
    raw = b'{"choices":[{"index":0,"delta":{"content":"x"}}],"model":"secret-model","id":"cmpl-9"}'
    chunk = Progress().read((raw, b""))
    assert chunk is not None
    framed = frame(chunk, identity())
    assert b"secret-model" not in framed
    assert b"cmpl-9" not in framed


def test_an_upstream_that_begins_every_chunk_differently_fills_no_memory() -> None:
    ours, progress = identity(), Progress()
    for number in range(500):
        raw = b'{"id":"cmpl-%d","choices":[{"index":0,"delta":{"content":"x"}}]}' % number
        chunk = progress.read((raw, b""))
        assert chunk is not None
        assert json.loads(frame(chunk, ours)[6:])["id"] == "chatcmpl-1"
    assert len(ours._heads) <= 64


def read(*choices: Any) -> tuple[dict[str, Any], bytes]:
    """The choice of a chunk as clients get it, and the upstream's bytes if they may be forwarded."""
    data = json.dumps({"choices": list(choices)}).encode()
    chunk = Progress().read((data, b""))
    assert chunk is not None
    (choice,) = chunk.body["choices"]
    return choice, chunk.data


@pytest.mark.parametrize(
    "choice",
    [{"delta": {"content": "a"}}, {"index": 0, "delta": {"content": "a"}, "finish_reason": ""}],
    ids=["no index", "an empty finish reason"],
)
def test_a_choice_gets_what_clients_read_without_asking(choice: dict[str, Any]) -> None:
    assert read(choice) == ({"index": 0, "delta": {"content": "a"}, "finish_reason": None}, b"")


@pytest.mark.parametrize("choice", [{"index": 1, "finish_reason": "stop"}, {"index": 1, "delta": None}])
def test_a_choice_without_a_delta_gets_an_empty_one(choice: dict[str, Any]) -> None:
    read_choice, data = read(choice)
    assert (read_choice["index"], read_choice["delta"], data) == (1, {}, b"")
    assert read_choice["finish_reason"] == choice.get("finish_reason")


UNREADABLE: dict[str, Any] = {
    "choices that are a number": 5,
    "choices that are an object": {"index": 0},
    "choices that are a text": "x",
    "a finish reason that is an object": [{"index": 0, "delta": {}, "finish_reason": {"a": 1}}],
    "a finish reason that is true": [{"index": 0, "delta": {}, "finish_reason": True}],
    "a delta that is a list": [{"index": 0, "delta": []}],
    "a role that is a number": [{"index": 0, "delta": {"role": 1}}],
    "content that is an empty list": [{"index": 0, "delta": {"content": []}}],
    "content that is a list": [{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}]}}],
    "reasoning that is false": [{"index": 0, "delta": {"reasoning_content": False}}],
    "calls that are 0": [{"index": 0, "delta": {"tool_calls": 0}}],
    "calls that are an object": [{"index": 0, "delta": {"tool_calls": {"index": 0}}}],
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_no_client_can_read_breaks_the_stream(case: str) -> None:
    with pytest.raises(Unreadable):
        Progress().read((json.dumps({"choices": UNREADABLE[case]}).encode(), b""))


def test_a_call_gets_a_type_and_no_name_that_is_no_text() -> None:
    fragment = {"index": 0, "id": "a:0", "type": None, "function": {"name": 5, "arguments": None}}
    choice, _ = read({"index": 0, "delta": {"tool_calls": [fragment]}})
    (call,) = choice["delta"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"arguments": ""})


ANY_CHOICE = st.dictionaries(
    st.sampled_from(["index", "delta", "finish_reason", "usage", "logprobs"]),
    VALUES
    | st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "refusal"]), VALUES, max_size=3),
)


@given(choices=VALUES | st.lists(ANY_CHOICE | VALUES, max_size=3))
def test_whatever_an_upstream_sends_is_readable_or_breaks_the_stream(choices: Any) -> None:
    try:
        chunk = Progress().read((json.dumps({"choices": choices}).encode(), b""))
    except (Unreadable, ErrorEvent):
        return
    for choice in () if chunk is None else chunk.body["choices"]:
        assert (type(choice["index"]), type(choice["delta"])) == (int, dict)
        assert isinstance(choice.get("finish_reason"), str | None)
        assert isinstance(choice["delta"].get("content"), str | None)
        assert isinstance(choice["delta"].get("tool_calls"), list | None)

"""Histories as clients keep them, made such that the vendor takes them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_gateway.pivot import request
from kimi_gateway.pivot.call_ids import marked
from kimi_gateway.pivot.repair import MOST_NOTES, NO_RESULT, NOTHING, PICTURES, distinct, repaired
from upstream.rules import refusal

Json = dict[str, Any]
HI: Json = {"role": "user", "content": "Hi"}
PICTURE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def calling(*ids: str, **more: Any) -> Json:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": "", "tool_calls": calls, **more}


def result(id: str, content: Any = "x") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def mended(*messages: Json) -> tuple[list[Json], tuple[str, ...]]:
    ask = request.read(json.dumps({"model": "kimi-k3", "messages": messages}).encode())
    return distinct(ask.body["messages"]), ask.ignored


def told(id: str, words: str = "x") -> Json:
    head = f"[Result of a tool call that is not in this conversation ({id})]"
    return {"role": "user", "content": f"{head}\n{words}"}


ROWS: dict[str, tuple[list[Json], list[Json], tuple[str, ...]]] = {
    "empty text parts are taken out": (
        [{"role": "user", "content": [{"type": "text", "text": ""}, PICTURE]}],
        [{"role": "user", "content": [PICTURE]}], (),
    ),
    "a user of nothing": ([{"role": "user", "content": [{"type": "text", "text": ""}]}],
                          [{"role": "user", "content": NOTHING}], ()),
    "an assistant of nothing that calls": (
        [calling("a", content=[{"type": "text", "text": ""}]), result("a")], [calling("a"), result("a")], (),
    ),
    "a result of pictures gets a text": (
        [calling("a"), result("a", [PICTURE])],
        [calling("a"), result("a", [{"type": "text", "text": PICTURES}, PICTURE])], (),
    ),
    "a result of nothing": ([calling("a"), result("a", [])], [calling("a"), result("a", NOTHING)], ()),
    "an orphan result": ([HI, result("z")], [HI, told("z")], ("messages.1.tool_call_id",)),
    "a second result": (
        [calling("a"), result("a"), result("a", "y")], [calling("a"), result("a"), told("a", "y")],
        ("messages.2.tool_call_id",),
    ),
    "a call without a result": (
        [HI, calling("a", "b"), result("b"), HI],
        [HI, calling("a", "b"), result("b"), result("a", NO_RESULT), HI],
        ("messages.1.tool_calls.0.id",),
    ),
    "a call as the last word": (
        [HI, calling("a", partial=True)], [HI, calling("a"), result("a", NO_RESULT)],
        ("messages.1.tool_calls.0.id",),
    ),
    "words between a call and its result move behind it": (
        [calling("a"), HI, result("z"), result("a")], [calling("a"), result("a"), HI, told("z")],
        ("messages.2.tool_call_id",),
    ),
    "an id in two turns": (
        [calling("a"), result("a"), HI, calling("a"), result("a", "y")],
        [calling("a"), result("a"), HI, calling("a_2"), result("a_2", "y")],
        ("messages.3.tool_calls.0.id",),
    ),
    "an id twice in one turn": (
        [calling("a", "a"), result("a"), result("a", "y")],
        [calling("a", "a_2"), result("a"), result("a_2", "y")],
        ("messages.0.tool_calls.1.id",),
    ),
    "a new name that is taken": (
        [calling("a_2", "a"), result("a_2"), result("a"), calling("a"), result("a")],
        [calling("a_2", "a"), result("a_2"), result("a"), calling("a_3"), result("a_3")],
        ("messages.3.tool_calls.0.id",),
    ),
    "marks are cut off": (
        [calling(marked("a:0", bytes)), result(marked("a:0", bytes))], [calling("a:0"), result("a:0")], (),
    ),
    "no calls are none": ([HI, {"role": "assistant", "content": "x", "tool_calls": []}, HI],
                          [HI, {"role": "assistant", "content": "x"}, HI], ()),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_the_vendor_refuses_is_repaired_and_named(name: str) -> None:
    before, after, names = ROWS[name]
    assert mended(*before) == (after, names)


IDS = st.sampled_from(["a", "b", "a_2"])
MESSAGES = st.lists(
    st.one_of(
        st.just(HI),
        st.builds(lambda ids: calling(*ids), st.lists(IDS, min_size=1, max_size=3)),
        st.builds(result, IDS, st.sampled_from(["x", "", [], [PICTURE], [{"type": "text", "text": ""}]])),
        st.just({"role": "assistant", "content": "w"}),
        st.just({"role": "system", "content": [{"type": "text", "text": ""}]}),
        st.just({"role": "user", "content": [{"type": "text", "text": ""}]}),
    ),
    min_size=1,
    max_size=12,
)


@given(MESSAGES)
def test_the_strict_upstream_takes_every_history_which_is_mended_once(
    messages: list[Json],
) -> None:
    if all(message["role"] == "system" for message in messages):
        messages = [HI, *messages]
    sent, _ = mended(*messages)
    assert refusal({"model": "kimi-k3", "messages": sent}, {"kimi-k3"}) is None
    again, names = repaired(sent, lambda message, call: "?")
    assert (again, names) == (sent, [])
    assert again is sent


@given(MESSAGES, MESSAGES)
def test_what_comes_later_renames_nothing_before_it(messages: list[Json], later: list[Json]) -> None:
    """Of turns that are answered: a prefix cache must hold."""
    whole = [message for message in distinct(repaired([HI, *messages], lambda *_: "?")[0])]
    longer = distinct(repaired([HI, *whole, HI, *later], lambda *_: "?")[0])
    assert longer[: len(whole) + 1] == [HI, *whole]


def steps(count: int) -> int:
    """Lines of the repair that run for so many messages of the worst kinds."""
    history = [message for _ in range(count) for message in (calling("a", "a"), result("a"), result("z"))]
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if "repair" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        made, names = repaired(history, lambda message, call: f"{message}.{call}")
        distinct(made)
    finally:
        sys.settrace(None)
    assert len(names) <= MOST_NOTES
    return lines


def test_the_work_grows_with_the_history_and_no_faster() -> None:
    assert steps(400) < 4.2 * steps(100)

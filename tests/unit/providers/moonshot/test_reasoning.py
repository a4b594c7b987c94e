"""What is gathered of an answer, however its calls are cut into chunks, and which message it belongs to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_gateway.pivot.chunks import Chunk
from kimi_gateway.providers.moonshot import reasoning
from kimi_gateway.providers.moonshot.reasoning import PLACEHOLDER, ReasoningCollector
from support.examples import examples

Json = dict[str, Any]
QUESTION = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]


def chunk(delta: Json, index: int = 0) -> Chunk:
    return Chunk({"choices": [{"index": index, "delta": delta, "finish_reason": None}]}, True, False)


def call(index: int, id: str | None, arguments: str) -> Json:
    named = {} if id is None else {"id": id, "type": "function"}
    return {"tool_calls": [{"index": index, **named, "function": {"arguments": arguments}}]}


def gathered(*chunks: Chunk, question: list[Json] | None = None) -> dict[str, bytes]:
    gatherer = ReasoningCollector(QUESTION if question is None else question)
    for each in chunks:
        gatherer.add([each])
    return gatherer.kept()


def answer(*calls: tuple[str, str], **more: Any) -> Json:
    made = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": text}} for id, text in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def restore(kept: dict[str, bytes], *messages: Json, replay: Any = "wanted") -> list[str | None]:
    body = {"messages": [*QUESTION, *messages]}
    missing = reasoning.lacking(body["messages"])
    known = {name: kept[name] for name in reasoning.names(missing) if name in kept}
    reasoning.restore(body, missing, reasoning.known_reasoning(missing, known), replay)
    return [each.get("reasoning_content") for each in body["messages"] if each["role"] == "assistant"]


def test_one_entry_serves_all_calls_of_a_message_in_any_order() -> None:
    kept = gathered(
        chunk({"reasoning_content": "I "}),
        chunk({"reasoning_content": "think."}),
        chunk(call(0, "f:0", "")),
        chunk(call(1, "f:1", '{"a"')),
        chunk(call(0, None, "{}")),
        chunk(call(1, None, ":1}")),
    )
    assert len(kept) == 1
    assert restore(kept, answer(("f:0", "{}"), ("f:1", '{"a":1}'))) == ["I think."]
    assert restore(kept, answer(("f:1", '{"a":1}'), ("f:0", "{}"))) == ["I think."]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"reasoning_content": "I think."}), chunk({"content": "Done."})],
        [chunk(call(0, "f:0", "{}"))],
        [chunk({"reasoning_content": None}), chunk({}), chunk(call(0, "f:0", "{}"))],
        [],
    ],
    ids=["no call", "no thought", "a thought that is null", "nothing"],
)
def test_without_reasoning_and_a_call_nothing_is_kept(chunks: list[Chunk]) -> None:
    assert gathered(*chunks) == {}


def test_choices_are_told_apart_by_their_arguments() -> None:
    kept = gathered(
        *(chunk({"reasoning_content": f"Thought {at}"}, at) for at in range(3)),
        *(chunk(call(0, "f:0", json.dumps({"n": at, "m": 0})), at) for at in range(3)),
    )
    for at in range(3):
        assert restore(kept, answer(("f:0", f'{{"m":0.0, "n":{at}}}'))) == [f"Thought {at}"]
    assert restore(kept, answer(("f:0", "not even JSON"))) == [None]


def test_two_conversations_that_begin_alike_keep_their_reasoning_apart() -> None:
    """An account may have many users: what was thought for one of them is nothing for another."""
    first, second = (
        gathered(
            chunk({"reasoning_content": f"Of {user}."}), chunk(call(0, "f:0", json.dumps({"user": user})))
        )
        for user in ("Ann", "Bob")
    )
    assert restore(first | second, answer(("f:0", '{"user": "Ann"}'))) == ["Of Ann."]
    assert restore(second, answer(("f:0", '{"user": "Ann"}')), replay="required") == [PLACEHOLDER]


def test_the_same_id_at_another_place_is_another_call() -> None:
    kept = gathered(chunk({"reasoning_content": "First."}), chunk(call(0, "f:0", "{}")))
    result = {"role": "tool", "tool_call_id": "f:0", "content": "1"}
    first = answer(("f:0", "{}"))
    second = gathered(
        chunk({"reasoning_content": "Second."}),
        chunk(call(0, "f:0", "{}")),
        question=[*QUESTION, first, result],
    )
    assert restore(kept | second, first, result, first) == ["First.", "Second."]
    assert restore(second, first) == [None]
    other = {"role": "user", "content": "Another question"}
    assert restore(kept, other, first) == [None]


def test_what_stands_there_stays_but_for_blanks() -> None:
    kept = gathered(chunk({"reasoning_content": "Kept."}), chunk(call(0, "f:0", "{}")))
    call_0 = ("f:0", "{}")
    assert restore(kept, answer(call_0, reasoning_content="Own.")) == ["Own."]
    assert restore(kept, answer(call_0, reasoning_content="\n ")) == ["Kept."]
    assert restore({}, answer(call_0, reasoning_content="\n "), replay="required") == ["\n "]
    assert restore({}, answer(call_0), replay="required") == [PLACEHOLDER]
    assert restore({}, answer(call_0), replay="wanted") == [None]


def test_an_entry_that_is_none_is_as_good_as_missing() -> None:
    (name,) = reasoning.names(reasoning.lacking([*QUESTION, answer(("f:0", "{}"))]))
    for junk in (b"", b"junk", b"\x78\x01\x00", b"x" * 100):
        assert restore({name: junk}, answer(("f:0", "{}")), replay="required") == [PLACEHOLDER]


@settings(max_examples=examples(100), deadline=None)
@given(st.text(min_size=1).filter(lambda text: not text.isspace()), st.integers(1, 5))
def test_any_text_comes_back_as_it_was(text: str, pieces: int) -> None:
    size = -(-len(text) // pieces)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    kept = gathered(*(chunk({"reasoning_content": part}) for part in parts), chunk(call(0, "f:0", "{}")))
    assert restore(kept, answer(("f:0", "{}"))) == [text]


def test_messages_that_lack_nothing_stay_the_very_list() -> None:
    body: Json = {"messages": [*QUESTION, answer(("f:0", "{}"))]}
    before = body["messages"]
    assert reasoning.restore(body, reasoning.lacking(before), {}, "wanted") == 0
    assert body["messages"] is before

"""An answer that goes on from one of before, and items that are sent by their id."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_gateway.dialects.responses import references
from kimi_gateway.errors import InvalidRequest
from support.responding import USAGE, Kept, called, chunk, chunks, identity, read

TOOLS = [{"type": "custom", "name": "patch"}, {"type": "function", "name": "look"}]


def ask(kept: Kept, name: str, said: str, account: str = "acc_1", **body: Any) -> Any:
    """One request, its answer, and what is kept of it; the answer's id ends in `name`."""
    parsed = read(body, kept, account)
    stream = parsed.writer(identity(name))
    stream.add(chunks(chunk(reasoning_content=f"{said}?"), chunk(content=said), chunk("stop")))
    kept.keep(account, parsed.kept())
    stream.end(USAGE)
    return parsed


def test_an_answer_goes_on_from_the_one_before_without_its_instructions() -> None:
    kept = Kept()
    ask(kept, "a1", "one", input="first", instructions="Be brief.")
    ask(kept, "a2", "two", input="second", previous_response_id="resp_a1")
    third = ask(kept, "a3", "three", input="third", previous_response_id="resp_a2", instructions="Be loud.")
    assert third.chat.body["messages"] == [
        {"role": "system", "content": "Be loud."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one", "reasoning_content": "one?"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "two", "reasoning_content": "two?"},
        {"role": "user", "content": "third"},
    ]


def test_an_output_goes_to_the_call_of_the_answer_before() -> None:
    kept = Kept()
    parsed = read({"tools": TOOLS}, kept)
    parsed.writer(identity("b1")).add(
        chunks(chunk(tool_calls=[called(0, "{}", id="c", name="look")]), chunk("tool_calls"))
    )
    kept.keep("acc_1", parsed.kept())
    output = {"type": "function_call_output", "call_id": "c", "output": "42"}
    *_, call, told = read({"previous_response_id": "resp_b1", "input": [output]}, kept).chat.body["messages"]
    assert call["tool_calls"][0]["id"] == told["tool_call_id"] == "c"


def test_items_of_kept_answers_may_be_sent_by_their_ids() -> None:
    kept = Kept()
    ask(kept, "a1", "one", input="first")
    given = [
        {"role": "user", "content": "first"},
        {"type": "item_reference", "id": "rs_a1_0"},
        {"id": "msg_a1_1"},
        {"role": "user", "content": "second"},
    ]
    assert read({"input": given}, kept).chat.body["messages"][1] == {
        "role": "assistant", "content": "one", "reasoning_content": "one?",
    }  # fmt: skip
    assert kept.asked[-1] == ["items:a1"], "asked once, and for nothing else"


def test_reasoning_that_is_not_kept_any_more_is_no_reason_to_refuse() -> None:
    given = [{"type": "item_reference", "id": "rs_a1_0"}, {"role": "assistant", "content": "one"}]
    assert read({"input": given}).chat.body["messages"] == [{"role": "assistant", "content": "one"}]


def test_what_the_client_does_not_want_stored_is_not_kept() -> None:
    kept = Kept()
    ask(kept, "a1", "one", store=False)
    assert kept.entries == {}


def test_what_is_too_large_is_not_kept() -> None:
    kept = Kept()
    ask(kept, "a1", "one", input="word " * 2**18)
    assert kept.entries == {}


def test_another_account_does_not_find_it() -> None:
    kept = Kept()
    ask(kept, "a1", "one")
    for body in (
        {"previous_response_id": "resp_a1"},
        {"input": [{"type": "item_reference", "id": "msg_a1_1"}]},
    ):
        with pytest.raises(InvalidRequest):
            read(body, kept, "acc_2")


def test_what_is_no_id_of_ours_is_not_looked_for() -> None:
    kept = Kept()
    for name in ("resp_", "resp_" + "a" * 5_000, "thought-a1", "resp_a1\x00", "msg_" + "b" * 65 + "_0"):
        for body in ({"previous_response_id": name}, {"input": [{"id": name}]}):
            with pytest.raises(InvalidRequest):
                read(body, kept)
    assert kept.asked == []


def test_an_item_is_referred_to_once() -> None:
    kept = Kept()
    ask(kept, "a1", "one")
    with pytest.raises(InvalidRequest) as refused:
        read({"input": [{"id": "msg_a1_1"}, {"role": "user", "content": "x"}, {"id": "msg_a1_1"}]}, kept)
    assert refused.value.param == "input.2.id"


def test_a_request_names_so_many_answers_at_most() -> None:
    kept = Kept()
    with pytest.raises(InvalidRequest) as refused:
        read({"input": [{"id": f"msg_{at:x}_0"} for at in range(references.MOST + 1)]}, kept)
    assert (refused.value.param, kept.asked) == ("input", [])


def test_a_loop_of_1200_turns_may_name_each_of_its_answers() -> None:
    kept = Kept()
    for at in range(1_200):
        ask(kept, f"{at:x}", f"said {at}")
    given = [
        item for at in range(1_200) for item in ({"id": f"msg_{at:x}_1"}, {"role": "user", "content": "On"})
    ]
    told = read({"input": given}, kept).chat.body["messages"][::2]
    assert [each["content"] for each in told] == [f"said {at}" for at in range(1_200)]


def test_what_is_only_named_counts_for_the_size_of_a_request() -> None:
    kept = Kept()
    ask(kept, "a1", "one", input="word " * 2**17)
    second = ask(kept, "a2", "two", previous_response_id="resp_a1", input="word " * 2**17)
    assert second.size > 5 * 2**17
    assert ("acc_1", "response:a2") not in kept.entries, "each of them is small enough, the whole is not"


def test_a_request_that_names_nothing_asks_the_store_nothing() -> None:
    kept = Kept()
    ask(kept, "a1", "one")
    assert kept.asked == []

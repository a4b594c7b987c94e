"""The response object, its items and its events, where the properties do not say which they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    RateLimited,
    Unavailable,
)
from kimi_gateway.pivot.call_ids import marked
from support.responding import NAME, NOW, USAGE, called, chunk, chunks, identity, read, streamed, whole
from support.response_events import checked, events_of

TOOLS = [{"type": "custom", "name": "patch"}, {"type": "function", "name": "look"}]


def test_a_whole_answer_has_every_member_that_clients_read() -> None:
    asked = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "store": False,
        "parallel_tool_calls": False,
    }
    answer = whole(read(asked), chunk(reasoning_content="t"), chunk(content="Hi"), chunk("stop"))
    assert answer == {
        "id": f"resp_{NAME}",
        "object": "response",
        "created_at": int(NOW),
        "completed_at": int(NOW),
        "status": "completed",
        "background": False,
        "conversation": None,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "model": "kimi-k3",
        "output": [
            {"id": f"rs_{NAME}_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
            {
                "id": f"msg_{NAME}_1",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
            },
        ],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 0.5,
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
        "user": None,
    }


USAGES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "the platform's": ({"cached_tokens": 4, "prompt_tokens_details": {"cached_tokens": 4}}, (4, 0, 0)),
    "among the details": (
        {
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
        (3, 1, 6),
    ),
    "nothing and nonsense": (
        {"cached_tokens": None, "prompt_tokens_details": {"cached_tokens": -1}},
        (0, 0, 0),
    ),
    "null details": ({"prompt_tokens_details": None, "completion_tokens_details": []}, (0, 0, 0)),
}


@pytest.mark.parametrize("case", USAGES)
def test_usage_is_reported_in_the_names_of_responses(case: str) -> None:
    more, expected = USAGES[case]
    answer = read({}).answer(identity())
    usage = json.loads(answer.end({**USAGE, **more}))["usage"]
    cached = usage["input_tokens_details"]
    assert (
        cached["cached_tokens"],
        cached["cache_write_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
    ) == expected


def test_reasoning_is_sealed_for_clients_that_ask() -> None:
    bodies = [
        chunk(reasoning_content="think "),
        chunk(reasoning_content="é"),
        chunk(content="x"),
        chunk("stop"),
    ]
    item = whole(read({"include": ["reasoning.encrypted_content"], "store": False}), *bodies)["output"][0]
    assert item["encrypted_content"] == seal("think é")
    assert "encrypted_content" not in whole(read({}), *bodies)["output"][0]


def test_interleaved_calls_are_items_side_by_side_in_the_order_of_their_beginning() -> None:
    parsed = read({"tools": TOOLS})
    stream = streamed(
        parsed,
        chunk(tool_calls=[called(0, id="patch:0", name="patch")]),
        chunk(tool_calls=[called(1, id="look:1", name="look"), called(0, '{"inp')]),
        chunk(tool_calls=[called(1, '{"a"'), called(0, 'ut": "one\\ntw')]),
        chunk(tool_calls=[called(0, 'o"}'), called(1, ":1}")]),
        chunk("tool_calls"),
    )
    patch, look = checked(stream)["output"]
    assert patch == {
        "id": f"ctc_{NAME}_0",
        "type": "custom_tool_call",
        "call_id": marked("patch:0", bytes),
        "name": "patch",
        "input": "one\ntwo",
    }
    assert look == {
        "id": f"fc_{NAME}_1",
        "type": "function_call",
        "status": "completed",
        "call_id": marked("look:1", bytes),
        "name": "look",
        "arguments": '{"a":1}',
    }
    deltas = [event["delta"] for event in events_of(stream) if event["type"].startswith("response.custom")
              and event["type"].endswith("delta")]  # fmt: skip
    assert deltas == ["one\ntw", "o"], "free text is told while it comes"


def test_a_call_whose_name_comes_late_is_told_when_it_has_one() -> None:
    stream = streamed(
        read({"tools": TOOLS}),
        chunk(tool_calls=[called(0, '{"input":', id="c")]),
        chunk(content="Look: "),
        chunk(tool_calls=[called(0, '"x"}', name="patch")]),
        chunk("tool_calls"),
    )
    message, call = checked(stream)["output"]
    assert message["content"][0]["text"] == "Look: "
    assert (call["type"], call["call_id"], call["input"]) == ("custom_tool_call", marked("c", bytes), "x")


def test_a_call_without_arguments_has_an_empty_object_and_one_without_an_id_gets_one() -> None:
    (call,) = whole(read({}), chunk(tool_calls=[called(0, name="look")]), chunk("tool_calls"))["output"]
    assert (call["arguments"], call["call_id"]) == ("{}", marked("call_0", bytes))


def test_a_call_in_a_namespace_is_reported_with_it() -> None:
    tools = [
        {
            "type": "namespace",
            "name": "files",
            "description": "",
            "tools": [{"type": "function", "name": "read"}],
        }
    ]
    stream = streamed(
        read({"tools": tools}),
        chunk(tool_calls=[called(0, "{}", id="c", name="files__read")]),
        chunk("tool_calls"),
    )
    (call,) = checked(stream)["output"]
    assert (call["name"], call["namespace"]) == ("read", "files")


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    parsed = read({"tools": TOOLS})
    stream = streamed(
        parsed,
        chunk(content="Hi"),
        chunk(tool_calls=[called(0, '{"a', id="c", name="look")]),
        chunk(finish),
    )
    response = checked(stream)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": reason}
    assert response["completed_at"] is None
    message, call = response["output"]
    assert (message["status"], call["status"], call["arguments"]) == ("completed", "incomplete", '{"a')


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    (message,) = checked(streamed(read({}), chunk(role="assistant", content=""), chunk("stop")))["output"]
    assert message["content"] == [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]


def test_a_refusal_is_a_part_of_its_own() -> None:
    stream = streamed(read({}), chunk(content="Well. "), chunk(refusal="No."), chunk("stop"))
    (message,) = checked(stream)["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][1]["refusal"] == "No."


def test_logprobs_come_with_the_text_that_they_score() -> None:
    scores = [
        {"content": [{"token": token, "logprob": -0.1, "bytes": [], "top_logprobs": []}]}
        for token in ("a", "b")
    ]
    stream = streamed(
        read({"top_logprobs": 0}), *(chunk(content="x", logprobs=score) for score in scores), chunk("stop")
    )
    (message,) = checked(stream)["output"]
    assert [entry["token"] for entry in message["content"][0]["logprobs"]] == ["a", "b"]


def test_silence_is_an_event_and_the_first_one_begins_the_response() -> None:
    writer = read({}).writer(identity())
    first, second = events_of(writer.silence()), events_of(writer.silence())
    assert [event["type"] for event in first] == ["response.created", "response.in_progress"]
    assert [(event["type"], event["sequence_number"]) for event in second] == [("response.in_progress", 2)]


CODES: list[tuple[GatewayError, str]] = [
    (Unavailable("Gone."), "server_error"),
    (RateLimited("Slow down."), "rate_limit_exceeded"),
    (ContextLengthExceeded("Too long."), "context_length_exceeded"),
    (ContentFiltered("No."), "invalid_prompt"),
    (InvalidRequest("No."), "invalid_prompt"),
    (GatewayError("Ours."), "server_error"),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: str(value)[:20])
def test_a_failed_response_has_a_code_that_clients_know(error: GatewayError, code: str) -> None:
    writer = read({}).writer(identity())
    started = writer.add(chunks(chunk(content="Hi")))
    failed, last = events_of(writer.error(error))
    assert len(events_of(started)) == failed["sequence_number"] == last["sequence_number"] - 1
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": code, "message": error.message}
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert last["error"] == {
        "type": error.type, "code": error.code, "message": error.message, "param": error.param,
    }  # fmt: skip

"""Input items as messages, row by row."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kimi_gateway.dialects.responses.seal import seal
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.pivot.repair import NO_RESULT
from support.responding import messages, read

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
ENCODED = base64.b64encode("Zeile ä".encode()).decode()


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def function_call(id: str, name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": "{}", **more}


def output(id: str, told: Any = "42") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": told}


def told(id: str, content: Any = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def said(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def reasoning_item(summary: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}], **more}


ASK = {"role": "user", "content": "?"}
CALLING = said("", tool_calls=[call("c", "f", "{}")])
ROWS: dict[str, tuple[list[Any], list[Any]]] = {
    "an item without a type is a message": (
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "a"}],
    ),
    "developer is system": (
        [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]}, ASK],
        [{"role": "system", "content": "a"}, ASK],
    ),
    "several texts stay apart": (
        [user({"type": "input_text", "text": "a"}, {"type": "text", "text": "b"})],
        [user(text("a"), text("b"))],
    ),
    "an image": (
        [
            user(
                {"type": "input_text", "text": "?"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
            )
        ],
        [user(text("?"), IMAGE)],
    ),
    "a text file": (
        [
            user(
                {
                    "type": "input_file",
                    "filename": "a.md",
                    "file_data": f"data:text/markdown;base64,{ENCODED}",
                }
            )
        ],
        [{"role": "user", "content": "a.md:\nZeile ä"}],
    ),
    "a text file without a type": (
        [user({"type": "input_file", "file_data": ENCODED})],
        [{"role": "user", "content": "Zeile ä"}],
    ),
    "the assistant's texts are one": (
        [
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            }
        ],
        [said("ab")],
    ),
    "its messages after one another are one": (
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        [said("a\n\nb")],
    ),
    "an empty one is left out": ([ASK, {"role": "assistant", "content": ""}], [ASK]),
    "reasoning, text and calls are one message": (
        [
            reasoning_item("t"),
            {"role": "assistant", "content": "a"},
            function_call("c1"),
            function_call("c2", "g"),
            output("c1"),
            output("c2"),
        ],
        [
            said("a", reasoning_content="t", tool_calls=[call("c1", "f", "{}"), call("c2", "g", "{}")]),
            told("c1"),
            told("c2"),
        ],
    ),
    "text behind the calls too": (
        [function_call("c1"), {"role": "assistant", "content": "a"}, output("c1")],
        [said("a", tool_calls=[call("c1", "f", "{}")]), told("c1")],
    ),
    "an output begins a new turn": (
        [function_call("c1"), output("c1"), reasoning_item("t"), function_call("c2"), output("c2")],
        [
            said("", tool_calls=[call("c1", "f", "{}")]),
            told("c1"),
            said("", reasoning_content="t", tool_calls=[call("c2", "f", "{}")]),
            told("c2"),
        ],
    ),
    "reasoning that led to nothing is left out": ([ASK, reasoning_item("t")], [ASK]),
    "sealed reasoning before all": (
        [reasoning_item("summary", encrypted_content=seal("whole é")), function_call("c")],
        [said("", reasoning_content="whole é", tool_calls=[call("c", "f", "{}")])],
    ),
    "another's seal is none": (
        [reasoning_item("summary", encrypted_content="gAAAAAB..."), function_call("c")],
        [said("", reasoning_content="summary", tool_calls=[call("c", "f", "{}")])],
    ),
    "content before the summary": (
        [
            reasoning_item("summary", content=[{"type": "reasoning_text", "text": "whole"}]),
            function_call("c"),
        ],
        [said("", reasoning_content="whole", tool_calls=[call("c", "f", "{}")])],
    ),
    "no arguments are an empty object": (
        [function_call("c", arguments="")],
        [said("", tool_calls=[call("c", "f", "{}")])],
    ),
    "a call in a namespace": (
        [function_call("c", "read", namespace="files")],
        [said("", tool_calls=[call("c", "files__read", "{}")])],
    ),
    "a custom call and its output": (
        [
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'a "b"'},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        ],
        [said("", tool_calls=[call("c", "patch", '{"input":"a \\"b\\""}')]), told("c", "done")],
    ),
    "an output of parts": (
        [
            function_call("c"),
            output("c", [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG}]),
        ],
        [CALLING, told("c", [text("a"), IMAGE])],
    ),
    "what is said between a call and its output comes behind both": (
        [function_call("c"), function_call("d"), output("d", "2"), ASK, output("c", "1")],
        [
            said("", tool_calls=[call("c", "f", "{}"), call("d", "f", "{}")]),
            told("d", "2"),
            told("c", "1"),
            ASK,
        ],
    ),
    "an output of one text": (
        [function_call("c"), output("c", [{"type": "input_text", "text": "a"}])],
        [CALLING, told("c", "a")],
    ),
    "an output of another kind": (
        [function_call("c"), output("c", {"ok": True})],
        [CALLING, told("c", '{"ok":true}')],
    ),
    "a message of nothing is left out": (
        [{"role": "developer", "content": ""}, ASK, {"role": "user", "content": []}],
        [ASK],
    ),
    "an empty output": ([function_call("c"), output("c", "")], [CALLING, told("c", "(empty)")]),
    "the local shell": (
        [
            {
                "type": "local_shell_call",
                "id": "l",
                "call_id": "c",
                "action": {"type": "exec", "command": ["ls"]},
            },
            {"type": "local_shell_call_output", "id": "c", "output": "a b"},
        ],
        [
            said("", tool_calls=[call("c", "local_shell", '{"type":"exec","command":["ls"]}')]),
            told("c", "a b"),
        ],
    ),
    "a patch that says no more than its status": (
        [
            {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "a"}},
            {"type": "apply_patch_call_output", "call_id": "c", "status": "completed"},
        ],
        [
            said("", tool_calls=[call("c", "apply_patch", '{"type":"delete_file","path":"a"}')]),
            told("c", "completed"),
        ],
    ),
    "what OpenAI's servers did is left out": (
        [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}, ASK],
        [ASK],
    ),
    "what one agent told another": (
        [
            {
                "type": "agent_message",
                "author": "/root",
                "recipient": "/team/a",
                "content": [{"type": "encrypted_content", "encrypted_content": "Look."}],
            }
        ],
        [{"role": "user", "content": "/root: Look."}],
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_items_become_messages(case: str) -> None:
    items, expected = ROWS[case]
    unanswered = [said for said in messages(*items) if said.get("content") == NO_RESULT]
    assert [said for said in messages(*items) if said not in unanswered] == expected


REFUSED: dict[str, tuple[Any, str]] = {
    "no object": (["a"], "input.0"),
    "a kind that is not known": ({"type": "hologram"}, "input.0.type"),
    "what only OpenAI can read": (
        {"type": "compaction", "encrypted_content": "x"},
        "input.0.encrypted_content",
    ),
    "a role that is not known": ({"role": "tool", "content": "a"}, "input.0.role"),
    "no content": ({"role": "user"}, "input.0.content"),
    "a part that is not known": (user({"type": "input_audio"}), "input.0.content.0.type"),
    "a part without its text": (user({"type": "input_text"}), "input.0.content.0.text"),
    "an image of a kind that is not taken": (
        user({"type": "input_image", "image_url": "data:image/svg+xml;base64,eA=="}),
        "input.0.content.0.image_url",
    ),
    "a file that is not base64": (
        user({"type": "input_file", "file_data": "%"}),
        "input.0.content.0.file_data",
    ),
    "a call without its id": ({"type": "function_call", "name": "f", "arguments": "{}"}, "input.0.call_id"),
    "a call with its arguments read": (function_call("c", arguments={"a": 1}), "input.0.arguments"),
    "an output of no call": ({"type": "function_call_output", "output": "a"}, "input.0.call_id"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_item_that_cannot_be_read_is_refused_naming_its_field(case: str) -> None:
    item, field = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        messages(item)
    assert caught.value.param == field


def test_left_out_items_are_logged_by_their_kind_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="kimi_gateway")
    messages({"type": "mcp_call", "arguments": "secret"}, ASK)
    assert [(record.message, record.fields) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("item_left_out", {"kind": "mcp_call"})
    ]


def test_a_request_shows_nothing_of_its_content_in_its_repr() -> None:
    parsed = read({"input": "secret words", "instructions": "more secrets"})
    assert "secret" not in repr(parsed)
    assert "secret" in json.dumps(parsed.chat.body)

"""What the tests' upstream refuses in histories, as the vendor is reported to."""

from __future__ import annotations

from typing import Any

import pytest

from upstream import rules

Json = dict[str, Any]
USER = {"role": "user", "content": "Hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def call(*ids: str) -> Json:
    calls = [{"id": id, "type": "function", "function": {"name": "abc", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": "", "reasoning_content": "So.", "tool_calls": calls}


def result(id: str, content: Any = "1") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


REFUSED: dict[str, tuple[list[Json], str]] = {
    "an empty text part": ([{"role": "user", "content": [{"type": "text", "text": ""}]}], "empty"),
    "an empty assistant message": ([USER, {"role": "assistant", "content": ""}], "must not be empty"),
    "a result of a picture only": ([USER, call("a"), result("a", [IMAGE])], "has no text"),
    "one id in two turns": ([USER, call("a"), result("a"), call("a"), result("a")], "duplicated"),
    "a result without a call": ([USER, result("a")], "not found"),
    "a call without a result": ([USER, call("a", "b"), result("a"), USER], "not found"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_broken_history_is_refused(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "STRICT_HISTORIES", True)
    messages, word = REFUSED[row]
    refused = rules.refusal({"model": "kimi-k3", "messages": messages}, ["kimi-k3"])
    assert refused is not None
    assert word in refused[1]["error"]["message"]


def test_a_whole_history_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "STRICT_HISTORIES", True)
    pictured = result("b", [{"type": "text", "text": "see"}, IMAGE])
    messages = [USER, call("a", "b"), result("a"), pictured, call("c"), result("c")]
    assert rules.refusal({"model": "kimi-k3", "messages": messages}, ["kimi-k3"]) is None

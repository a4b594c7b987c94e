"""Claude Code, headless."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from kimi_gateway.flow.search.tools import SEARCH
from programs.stage import WRONG, Stage, written
from upstream import Kimi, Reply, Request, ToolLoop
from upstream.search import result


def claude(
    stage: Stage,
    key: str,
    model: str = "kimi-k3",
    prompt: str = "Write hello.txt",
    *more: str,
    **environ: str,
) -> tuple[dict[str, Any], str]:
    """One task; its JSON answer, and all that it printed."""
    done = stage.run(
        next((stage.installed / "@anthropic-ai").glob("claude-code-linux-*/claude")),
        "--print", prompt, "--output-format", "json", "--permission-mode", "acceptEdits", *more,
        ANTHROPIC_BASE_URL=stage.url, ANTHROPIC_AUTH_TOKEN=key, ANTHROPIC_MODEL=model,
        ANTHROPIC_DEFAULT_OPUS_MODEL=model, ANTHROPIC_DEFAULT_SONNET_MODEL=model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=model, CLAUDE_CODE_SUBAGENT_MODEL=model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", **environ,
    )  # fmt: skip
    output = done.stdout + done.stderr
    try:
        return json.loads(done.stdout), output
    except ValueError:
        raise AssertionError(output) from None


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k2.6"])
def test_a_streamed_tool_call_writes_a_file_and_its_result_is_sent_back(stage: Stage, model: str) -> None:
    arguments = {"file_path": str(stage.work / "hello.txt"), "content": "Hi 👋\n"}
    stage.upstream.always(ToolLoop([("Write", arguments)]))
    answer, output = claude(stage, stage.key, model)
    assert (answer["subtype"], answer["is_error"], answer["result"]) == ("success", False, "Done."), output
    assert answer["usage"]["output_tokens"] > 0
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


@dataclass(frozen=True)
class SameIds:
    """A call with the same id in each turn, as the vendor's counter makes them, then a word."""

    folder: str

    def reply(self, request: Request) -> Reply:
        messages = request.body["messages"]
        if not request.body.get("tools"):
            return Kimi(text="A summary").reply(request)
        if messages[-1]["role"] == "tool":
            return Kimi(text="Done.").reply(request)
        told = [each["content"] for each in messages if each["role"] == "user"][-1]
        number = next(
            (word for word in ("one", "two", "three") if f"prompt {word}" in json.dumps(told)), None
        )
        if number is None:
            return Kimi(text="A summary").reply(request)
        path = {"file_path": f"{self.folder}/{number}.txt", "content": number}
        return Kimi(text="", tools=[("Write", path)]).reply(request)


def test_a_call_id_that_comes_again_asks_nothing_twice(stage: Stage) -> None:
    """Three prompts of one call each in one session, then a compaction: two requests for each prompt."""
    stage.upstream.always(SameIds(str(stage.work)))
    asked = []
    for number in ("one", "two", "three"):
        more = ("--continue",) if number != "one" else ()
        answer, output = claude(stage, stage.key, "kimi-k3", f"This is prompt {number}", *more)
        assert (answer["is_error"], answer["result"]) == (False, "Done."), output
        assert (stage.work / f"{number}.txt").read_text() == number
        asked.append(len([each for each in stage.asked if each.body.get("tools")]))
    assert asked == [2, 4, 6]
    ids = [
        call["id"] for message in stage.asked[-1].body["messages"] for call in message.get("tool_calls") or ()
    ]
    assert len(ids) == len(set(ids)) == 3
    answer, output = claude(stage, stage.key, "kimi-k3", "/compact", "--continue")
    assert not answer["is_error"], output
    assert len(stage.asked) <= 12
    assert stage.paid == len(stage.asked)


@dataclass(frozen=True)
class Researcher:
    """The main loop calls the program's WebSearch; the request of that tool searches with the gateway's."""

    def reply(self, request: Request) -> Reply:
        messages, tools = request.body["messages"], request.body.get("tools") or ()
        names = {tool["function"]["name"] for tool in tools}
        answered = messages[-1]["role"] == "tool"
        if SEARCH in names:
            if answered:
                return Kimi(text="The news is on page 1 [1].").reply(request)
            return Kimi(text="", tools=[(SEARCH, {"query": "kimi news"})]).reply(request)
        if "WebSearch" in names and not answered:
            return Kimi(text="", tools=[("WebSearch", {"query": "kimi news"})]).reply(request)
        return Kimi(text=str(messages[-1]["content"]) if answered else "Done.").reply(request)


def test_its_own_web_search_is_run_by_the_gateway_and_shown(stage: Stage) -> None:
    stage.upstream.web.results = [result(1), result(2)]
    stage.upstream.always(Researcher())
    more = ("--allowedTools", "WebSearch")
    answer, output = claude(stage, stage.key, "kimi-k3", "What is new?", *more, ENABLE_TOOL_SEARCH="false")
    assert not answer["is_error"], output
    assert [request.body["text_query"] for request in stage.upstream.searches] == ["kimi news"]
    for shown in ("https://example.com/1", "Page 2", "The news is on page 1"):
        assert shown in answer["result"], output  # the sources that its tool returns to the model
    kinds = [tool.get("type") for sent in stage.sent for tool in (sent.body or {}).get("tools", ())]
    assert any(str(kind).startswith("web_search_") for kind in kinds)


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    answer, output = claude(stage, WRONG, CLAUDE_CODE_MAX_RETRIES="0")
    assert answer["is_error"]
    assert "Invalid API key" in output
    assert not stage.asked

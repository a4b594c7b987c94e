"""Claude Code, headless."""

from __future__ import annotations

import json
from typing import Any

import pytest

from programs.stage import WRONG, Stage, written
from upstream import ToolLoop


def claude(stage: Stage, key: str, model: str = "kimi-k3", **environ: str) -> tuple[dict[str, Any], str]:
    """One task; its JSON answer, and all that it printed."""
    done = stage.run(
        next((stage.installed / "@anthropic-ai").glob("claude-code-linux-*/claude")),
        "--print", "Write hello.txt", "--output-format", "json", "--permission-mode", "acceptEdits",
        ANTHROPIC_BASE_URL=stage.url, ANTHROPIC_AUTH_TOKEN=key, ANTHROPIC_MODEL=model,
        ANTHROPIC_DEFAULT_OPUS_MODEL=model, ANTHROPIC_DEFAULT_SONNET_MODEL=model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=model, CLAUDE_CODE_SUBAGENT_MODEL=model,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", ENABLE_TOOL_SEARCH="false", **environ,
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


def test_a_wrong_key_is_shown(stage: Stage) -> None:
    answer, output = claude(stage, WRONG, CLAUDE_CODE_MAX_RETRIES="0")
    assert answer["is_error"]
    assert "Invalid API key" in output
    assert not stage.asked

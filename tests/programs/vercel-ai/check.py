"""The Vercel AI SDK with its providers for this vendor and for any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from programs.stage import WRONG, Stage, written
from upstream import ToolLoop
from upstream.kimi import REASONING

PROGRAM = Path(__file__).with_name("program.mjs")


def run(stage: Stage, provider: str, key: str) -> tuple[int, str, str]:
    node = next(stage.installed.glob("node-linux-*/bin/node"))
    done = stage.run(node, PROGRAM, provider, "kimi-k3", BASE=f"{stage.url}/v1", KEY=key)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("provider", ["openai-compatible", "moonshotai", "openai", "anthropic"])
def test_a_streamed_tool_call_is_done_and_its_result_sent_back(stage: Stage, provider: str) -> None:
    stage.upstream.always(ToolLoop([("write_file", {"path": "hello.txt", "text": "Hi 👋\n"})]))
    code, output, errors = run(stage, provider, stage.key)
    assert code == 0, errors
    answer = json.loads(output)
    assert answer["text"] == "Done."
    assert answer["reasoning"] == REASONING
    assert answer["usage"]["outputTokens"] > 0
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


@pytest.mark.parametrize("provider", ["openai-compatible", "moonshotai", "openai", "anthropic"])
def test_a_wrong_key_is_its_api_call_error(stage: Stage, provider: str) -> None:
    code, _, errors = run(stage, provider, WRONG)
    assert code == 1
    assert "AI_APICallError 401: Invalid API key" in errors
    assert not stage.asked

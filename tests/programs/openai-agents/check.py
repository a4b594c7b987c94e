"""The OpenAI Agents SDK on Chat Completions and Responses: the conversation sent whole, sealed, and by id."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from programs.stage import WRONG, Stage, conversed
from upstream import CallPerPrompt

PROGRAM = Path(__file__).with_name("program.py")


def run(
    stage: Stage, kind: str, key: str, model: str = "kimi-k3", prompts: int = 3
) -> subprocess.CompletedProcess[str]:
    python = stage.installed / "python"
    return stage.run(python, PROGRAM, kind, stage.url, key, model, str(prompts))


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k2.6"])
@pytest.mark.parametrize("kind", ["chat", "responses", "sealed", "previous"])
def test_a_conversation_of_streamed_tool_calls_keeps_its_reasoning(
    stage: Stage, kind: str, model: str
) -> None:
    stage.upstream.always(CallPerPrompt("write_file"))
    done = run(stage, kind, stage.key, model)
    assert done.returncode == 0, done.stderr
    conversed(stage, [json.loads(row) for row in done.stdout.splitlines()], prompts=3)


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_wrong_key_is_its_authentication_error(stage: Stage, kind: str) -> None:
    done = run(stage, kind, WRONG)
    assert done.returncode == 1
    assert "AuthenticationError" in done.stderr
    assert "Invalid API key" in done.stderr
    assert not stage.asked

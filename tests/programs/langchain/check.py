"""LangChain's chat models for OpenAI and Anthropic."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs.stage import WRONG, Stage, written
from upstream import ToolLoop

PROGRAM = Path(__file__).with_name("program.py")


def run(stage: Stage, maker: str, key: str, model: str = "kimi-k3") -> tuple[int, str, str]:
    named = {
        "OPENAI_API_BASE": f"{stage.url}/v1", "OPENAI_API_KEY": key,
        "ANTHROPIC_API_URL": stage.url, "ANTHROPIC_API_KEY": key,
    }  # fmt: skip
    done = stage.run(stage.installed / "python", PROGRAM, maker, model, **named)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("model", ["kimi-k3", "kimi-k2.6"])
@pytest.mark.parametrize("maker", ["openai", "anthropic"])
def test_a_streamed_tool_call_is_done_and_its_result_sent_back(stage: Stage, maker: str, model: str) -> None:
    stage.upstream.always(ToolLoop([("write_file", {"path": "hello.txt", "text": "Hi 👋\n"})]))
    code, output, errors = run(stage, maker, stage.key, model)
    assert (code, output.strip()) == (0, "Done."), errors
    written(stage, "hello.txt", "Hi 👋\n", turns=2)


@pytest.mark.parametrize("maker", ["openai", "anthropic"])
def test_a_wrong_key_is_its_authentication_error(stage: Stage, maker: str) -> None:
    code, _, errors = run(stage, maker, WRONG)
    assert code == 1
    assert "AuthenticationError" in errors
    assert "Invalid API key" in errors
    assert not stage.asked
